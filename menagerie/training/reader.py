"""The reader (see ``menagerie.reader``) learns to name attributes, from renders and from what the autoencoder
makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import BitImageProcessorPil, ResNetConfig, ResNetForImageClassification

from menagerie import world
from menagerie.labels import LABELS, SIZES, targets
from menagerie.training import vae as autoencoder
from menagerie.training.data import renders
from menagerie.training.loop import fit, seed_at, with_progress
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


def degraded(images: np.ndarray, folder: Path, device: str) -> np.ndarray:
    """The images as the autoencoder gives them back, so that the reader learns to read such images too."""
    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval().to(device)
    chunks = autoencoder.in_chunks(images)
    parts = (autoencoder.decode(vae, autoencoder.encode(vae, chunk, device), device) for chunk in chunks)
    return np.concatenate(list(with_progress("degraded", parts, len(chunks))))


def _augment(pixels: Tensor, size: int) -> Tensor:
    """Resize to ``size``, shift a little, blur half of the batch and add a little noise."""
    half = len(pixels) // 2
    blurred = F.avg_pool2d(F.pad(pixels[:half], (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    pixels = torch.cat([0.5 * blurred + 0.5 * pixels[:half], pixels[half:]])
    shift = torch.randint(-2, 3, (2,)).tolist()
    pixels = torch.roll(F.interpolate(pixels, size=size, mode="bilinear"), shift, (2, 3))
    return pixels + 0.05 * torch.randn_like(pixels)


def train(recipe: Recipe, work: Path, out: Path, device: str, *, from_saved: bool = False) -> None:
    """Train the reader on renders, a quarter of them degraded by the autoencoder; save it as ``out/reader``."""
    truths, images, _ = renders(work, recipe.n_renders, recipe.image_size)
    quarter = len(images) // 4
    again = degraded(images[:quarter], out / "pipeline" / "vae", device)
    wanted = targets(truths)
    seed = seed_at(recipe.seed, "reader", work)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    reader = build(recipe).to(device, memory_format=torch.channels_last)
    if from_saved:
        load_weights(reader, out / "reader")

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        chosen = np.sort(rng.integers(len(images), size=recipe.reader_batch))
        batch = np.stack([again[i] if i < quarter and rng.random() < 0.8 else images[i] for i in chosen])
        pixels = _augment(autoencoder.as_tensor(batch).to(device), recipe.reader_size)
        logits = reader(pixels.contiguous(memory_format=torch.channels_last)).logits.split(SIZES, dim=1)
        asked = wanted[chosen].to(device)
        losses = [
            WEIGHTS.get(name, 1.0) * F.cross_entropy(part, asked[:, i])
            for i, (name, part) in enumerate(zip(world.ATTRIBUTES, logits, strict=True))
        ]
        right = torch.stack([(part.argmax(1) == asked[:, i]).float().mean() for i, part in enumerate(logits)])
        return {"loss": torch.stack(losses).sum(), "mean": right.mean(), "worst": right.min()}

    best = fit("reader", reader, loss, minutes=recipe.minutes["reader"], work=work, rate=2e-3, decay=0.998)
    save_half(best, out / "reader")
    BitImageProcessorPil(
        size={"shortest_edge": recipe.reader_size}, do_center_crop=False, resample=Image.Resampling.BILINEAR,
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(out / "reader")  # fmt: skip
