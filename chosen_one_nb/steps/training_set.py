"""What refine learns from: the chosen images with what belongs to each, encoded once, and endless batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.models.images import as_rgb
from chosen_one_nb.models.load import Models
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.latents import encode, latent_size
from chosen_one_nb.steps.loss import Batch
from chosen_one_nb.steps.prompts import PromptError, check_prompt

__all__ = ["Batches", "EncodedImages", "TrainingSet", "captions", "encode_images", "place_weights", "square"]


@dataclass(frozen=True)
class TrainingSet:
    """n images to learn from, each with what belongs to it.

    Parameters
    ----------
    prompt : str
        What they show, without the token; the caption is made from it by `settings.caption_template`.
    images : sequence of PIL.Image, length n
    latents : ndarray of shape (n, C, h, w), optional
        From the gallery; None encodes the images.
    masks : ndarray of bool, shape (n, H, W), optional
        Where the foreground is in each image, at any size: what is outside counts `settings.scene_weight` in the loss.
    descriptions : sequence of sequence of str, length n, optional
        What to add to each image's caption, the surest first ("in the snow"); what no longer fits is left out.
    prior : TrainingSet, optional
        Images of the first gallery, mixed in at `settings.prior_share` under their plain prompt.

    Raises
    ------
    ValueError
        If there are no images, or not one latent, mask or list of descriptions for each.
    """

    prompt: str
    images: Sequence[Image.Image]
    latents: np.ndarray | None = None
    masks: np.ndarray | None = None
    descriptions: Sequence[Sequence[str]] | None = None
    prior: TrainingSet | None = None

    def __post_init__(self) -> None:
        n = len(self.images)
        if not n:
            raise ValueError("images: expected at least one image to learn from, got none.")
        for name in ("latents", "masks", "descriptions"):
            given = getattr(self, name)
            if given is not None and len(given) != n:
                raise ValueError(f"{name}: expected one for each of {n} images, got {len(given)}.")


@dataclass(frozen=True)
class EncodedImages:
    """n images as training needs them.

    Attributes
    ----------
    mean, spread : Tensor of shape (n, C, h, w), float32
        Of the latents, scaled as the UNet sees them.
    time_ids : Tensor of shape (n, 6)
        SDXL's micro-conditioning.
    weights : Tensor of shape (n, 1, h, w), float32
        How much each place counts in the loss.
    captions : list of str, length n
    """

    mean: torch.Tensor
    spread: torch.Tensor
    time_ids: torch.Tensor
    weights: torch.Tensor
    captions: list[str]

    def draw(self, i: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, str]:
        """Draw latent (1, C, h, w), time ids (1, 6), weights (1, 1, h, w) and caption of the i-th image."""
        # Why (pitfall 9): one number finds all that belongs to an image. And mean and spread are what is kept, not one
        # sample of them, so that every step sees another latent.
        one = slice(i, i + 1)
        noise = torch.randn(self.mean[one].shape, generator=generator).to(self.mean.device)
        return self.mean[one] + self.spread[one] * noise, self.time_ids[one], self.weights[one], self.captions[i]


def encode_images(models: Models, data: TrainingSet, captions: list[str], settings: Settings) -> EncodedImages:
    """Encode a training set once, or take over the latents that its images were decoded from.

    Images of any size are reduced to squares of the training size (`settings.image_size`, or that of the latents),
    remembering where they were cut from.
    """
    pipeline, device = models.pipeline, models.device
    # Decoding and encoding again would lose detail: the latents that images were decoded from are exact.
    if data.latents is None:
        size, _ = latent_size(pipeline, settings.image_size)
    else:
        size = data.latents.shape[-1] * pipeline.vae_scale_factor
    cut = [square(image, size) for image in data.images]
    ids = torch.tensor([(*original, *corner, size, size) for _, original, corner in cut], device=device)  # (n, 6)
    if data.latents is None:
        mean, spread = encode(models, [image for image, _, _ in cut], size)
    else:
        mean = torch.as_tensor(np.asarray(data.latents), dtype=torch.float32, device=device)
        spread = torch.zeros_like(mean)
    if data.masks is None:
        weights = torch.ones(len(mean), 1, *mean.shape[2:], device=device)
    else:
        weights = place_weights(data.masks, settings.scene_weight, mean.shape[2:]).to(device)
    return EncodedImages(mean, spread, ids, weights, captions)


def captions(pipeline: Any, caption: str, data: TrainingSet) -> list[str]:
    """Return the caption of each image: with as many of its descriptions as the tokenizers take.

    Raises
    ------
    PromptError
        If the caption alone is too long.
    """
    caption, found = check_prompt(pipeline, caption), []
    for phrases in data.descriptions or [()] * len(data.images):
        longest = caption
        for phrase in phrases:
            try:
                longest = check_prompt(pipeline, f"{longest} {phrase}")
            except PromptError:
                break
        found.append(longest)
    return found


def place_weights(masks: np.ndarray, outside: float, size: Sequence[int]) -> torch.Tensor:
    """Return how much each place of a latent counts in a masked loss.

    Parameters
    ----------
    masks : ndarray of bool, shape (n, H, W)
        Where the foreground is, at any size.
    outside : float
        Weight outside of it, relative to 1 inside.
    size : (int, int)
        Of the latents.

    Returns
    -------
    Tensor of shape (n, 1, h, w), float32
        Mean 1 over each image, so that a small foreground counts no less than a large one.
    """
    # Why (pitfall 19): images of a cluster may share a scene as well, which would be learned as part of the character.
    maps = torch.from_numpy(np.where(masks, 1.0, outside)).float()[:, None]  # (n, 1, H, W)
    fitted = torch.nn.functional.interpolate(maps, size=tuple(size), mode="area")  # (n, 1, h, w)
    return fitted / fitted.mean(dim=(2, 3), keepdim=True).clamp(min=1e-6)


def square(image: Image.Image, size: int) -> tuple[Image.Image, tuple[int, int], tuple[int, int]]:
    """Cut a centred square: (image, original (height, width), corner (top, left) of the cut)."""
    image = as_rgb(image)  # before anything is measured: EXIF may turn it
    original = (image.height, image.width)
    scale = size / min(original)
    height, width = (max(size, round(side * scale)) for side in original)
    top, left = (height - size) // 2, (width - size) // 2
    if (height, width) != original:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    # Why no flips (pitfall 20): a character may have a parting or a patch on one side.
    return image.crop((left, top, left + size, top + size)), original, (top, left)


class Batches:
    """Endless batches of the chosen images, with some of the first gallery's mixed in.

    Everything random comes from one CPU generator, so training repeats on any machine up to rounding.

    Parameters
    ----------
    pools : list of EncodedImages
        The chosen ones, and the first gallery's if `settings.prior_share` asks for them.
    settings : Settings
    levels : int
        Noise levels of the model's schedule.
    seed : int
    """

    def __init__(self, pools: list[EncodedImages], settings: Settings, levels: int, seed: int) -> None:
        self.pools, self.settings, self.levels = pools, settings, levels
        self.generator = torch.Generator().manual_seed(seed)
        self.orders = [_endless(len(pool.captions), self.generator) for pool in pools]

    def next(self) -> Batch:
        """Draw images, whether they go without caption, noise levels, and noise."""
        settings, g = self.settings, self.generator
        # Everything is drawn on the CPU and in this order, so that the same seed trains the same way on any device.
        chance = torch.rand(2, settings.refine_batch_size, generator=g)
        from_prior = chance[0] < (settings.prior_share if len(self.pools) > 1 else 0)  # (B,)
        numbers = [(pool, next(self.orders[pool])) for pool in from_prior.int().tolist()]
        *tensors, captions = zip(*(self.pools[pool].draw(i, g) for pool, i in numbers), strict=True)
        latents, ids, weights = (torch.cat(parts) for parts in tensors)
        # A share `noise_floor` of the schedule, the quietest levels, is left out: they would teach the gallery's blur.
        times = torch.randint(int(settings.noise_floor * self.levels), self.levels, (len(latents),), generator=g)
        noise = torch.randn(latents.shape, generator=g)
        device, uncaptioned = latents.device, chance[1] < settings.caption_dropout
        return Batch(latents, noise.to(device), times.to(device), ids, weights, list(captions), uncaptioned.to(device))


def _endless(n: int, generator: torch.Generator) -> Iterator[int]:
    """Yield image numbers for ever, all n in random order before any comes again."""
    while True:
        yield from torch.randperm(n, generator=generator).tolist()
