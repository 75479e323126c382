"""The reader (see ``menagerie.reader``) learns to name attributes, from renders and from what the autoencoder
makes of them."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BitImageProcessorPil, ResNetConfig, ResNetForImageClassification

from menagerie import world
from menagerie.labels import LABELS, SIZES, targets
from menagerie.training import vae as autoencoder
from menagerie.training.context import TrainingContext
from menagerie.training.data import ImageStore, renders_of
from menagerie.training.loop import Losses, Schedule, fit, with_progress
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights, save_half
from menagerie.training.text import MEAN, STD

WEIGHTS = {"pattern": 4.0}  # in the loss: stripes and spots are few pixels wide, everything else is read early


def build(recipe: Recipe) -> ResNetForImageClassification:
    """Build the classifier untrained: one logit per value of every attribute, in the world's order."""
    config = ResNetConfig(
        embedding_size=recipe.reader_channels[0], hidden_sizes=list(recipe.reader_channels),
        depths=[1, 2, 2, 1], layer_type="basic", num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)},
    )  # fmt: skip
    return ResNetForImageClassification(config)


def degraded(images: np.ndarray, context: TrainingContext) -> np.ndarray:
    """The images as the autoencoder gives them back, so that the reader learns to read such images too."""
    vae = AutoencoderKL.from_pretrained(context.out / "pipeline" / "vae").eval().to(context.device)
    chunks = autoencoder.in_chunks(images)
    parts = (
        autoencoder.decode(vae, autoencoder.encode(vae, chunk, context.device), context.device) for chunk in chunks
    )
    return np.concatenate(list(with_progress("degraded", parts, len(chunks))))


def _augment(pixels: Tensor, size: int) -> Tensor:
    """Resize to ``size``, shift a little, blur half of the batch and add a little noise."""
    half = len(pixels) // 2
    blurred = F.avg_pool2d(F.pad(pixels[:half], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.cat([0.5 * blurred + 0.5 * pixels[:half], pixels[half:]])
    shift = torch.randint(-2, 3, (2,)).tolist()
    pixels = torch.roll(F.interpolate(pixels, size=size, mode="bilinear"), shift, (2, 3))
    return pixels + 0.05 * torch.randn_like(pixels)


class NamingLoss(nn.Module):
    """A reader and the loss that it minimises."""

    def __init__(self, reader: ResNetForImageClassification, size: int) -> None:
        super().__init__()
        self.reader, self.size = reader, size

    def forward(self, pixels: Tensor, wanted: Tensor) -> Losses:
        """Cross-entropy of every attribute of images (B, 3, H, W) against truth (B, attributes); shares read right."""
        pixels = _augment(pixels, self.size).contiguous(memory_format=torch.channels_last)
        parts = self.reader(pixels).logits.float().split(SIZES, dim=1)
        losses = [
            WEIGHTS.get(name, 1.0) * F.cross_entropy(part, wanted[:, i])
            for i, (name, part) in enumerate(zip(world.ATTRIBUTES, parts, strict=True))
        ]
        right = torch.stack([(part.argmax(1) == wanted[:, i]).float().mean() for i, part in enumerate(parts)])
        return {"loss": torch.stack(losses).sum(), "mean": right.mean(), "worst": right.min()}


def train(context: TrainingContext) -> None:
    """Train the reader on renders, a quarter of them degraded by the autoencoder; save it as ``out/reader``."""
    recipe, folder = context.recipe, context.out / "reader"
    data = renders_of(context)
    quarter = max(1, len(data.images) // 4)
    again = ImageStore(degraded(data.images[:quarter], context), context.device)
    context.start("reader")
    images, wanted = ImageStore(data.images, context.device), targets(data.truths).to(context.device)
    reader = build(recipe).to(memory_format=torch.channels_last)
    if context.from_saved:
        load_weights(reader, folder)
    draw = context.indices(len(images), recipe.reader_batch - recipe.reader_batch // 4)
    draw_again = context.indices(quarter, recipe.reader_batch // 4)

    def batch(progress: float) -> tuple[Tensor, Tensor]:
        drawn, decoded = draw(), draw_again()
        pixels = torch.cat([images[drawn], again[decoded]])
        mixed = torch.randperm(len(pixels), device=pixels.device)
        return pixels[mixed], wanted[torch.cat([drawn, decoded])][mixed]

    schedule = Schedule(minutes=recipe.minutes["reader"], rate=2e-3, average=0.998)
    fit("reader", NamingLoss(reader, recipe.reader_size), batch, schedule, context)
    save_half(reader, folder)
    BitImageProcessorPil(
        size={"shortest_edge": recipe.reader_size}, do_center_crop=False, resample=Image.Resampling.BILINEAR,
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(folder)  # fmt: skip
