"""What refine learns from: the chosen images with all that belongs to each, and the same encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.steps.latents import CHUNK, encode, latent_size
from chosen_one_nb.steps.prompts import time_ids

__all__ = ["Samples", "TrainingSet", "endless", "place_weights", "square"]


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
class Samples:
    """n training images, each with what belongs to it, kept by its number (pitfall 9).

    Attributes
    ----------
    mean, spread : Tensor of shape (n, C, h, w), float32
        Of the latents, scaled as the UNet sees them; a latent is drawn anew each time.
    time_ids : Tensor of shape (n, 6)
        SDXL's micro-conditioning of each image.
    """

    mean: torch.Tensor
    spread: torch.Tensor
    time_ids: torch.Tensor

    @classmethod
    def of(
        cls,
        pipeline: Any,
        data: TrainingSet,
        image_size: int | None,
        *,
        device: torch.device | None = None,
        chunk: int = CHUNK,
    ) -> Samples:
        """Encode images once, or take over the latents that they were decoded from.

        Parameters
        ----------
        pipeline : DiffusionPipeline
        data : TrainingSet
            Images of any sizes: each is reduced to a square of the training size, remembering where it was cut from.
        image_size : int, optional
            Training size in pixels; None is the model's own. Not used with latents.
        device : torch.device, optional
            Where to encode, and to keep them; None is where the pipeline is.
        chunk : int
            Images encoded at once.
        """
        latents = data.latents
        size = (
            latent_size(pipeline, image_size)[0] if latents is None else (latents.shape[-1] * pipeline.vae_scale_factor)
        )
        device = device or pipeline.device
        cut = [square(image, size) for image in data.images]
        ids = torch.tensor([time_ids(original, corner, (size, size)) for _, original, corner in cut])
        if latents is None:
            mean, spread = encode(pipeline, [image for image, _, _ in cut], size, device=device, chunk=chunk)
        else:
            mean = torch.as_tensor(np.asarray(latents), dtype=torch.float32, device=device)
            spread = torch.zeros_like(mean)
        return cls(mean, spread, ids.to(device))

    def draw(self, ids: Sequence[int], generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw the latents (B, C, h, w) and time ids (B, 6) of images by their numbers."""
        chosen = torch.as_tensor(ids, device=self.mean.device)
        mean = self.mean[chosen]
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        return mean + self.spread[chosen] * noise, self.time_ids[chosen]


def place_weights(masks: np.ndarray, outside: float, size: tuple[int, int]) -> torch.Tensor:
    """Say how much each place of a latent counts in the loss, for a masked one.

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
    maps = torch.from_numpy(np.where(masks, 1.0, outside)).float()[:, None]
    fitted = torch.nn.functional.interpolate(maps, size=size, mode="area")
    return fitted / fitted.mean(dim=(2, 3), keepdim=True).clamp(min=1e-6)


def square(image: Image.Image, size: int) -> tuple[Image.Image, tuple[int, int], tuple[int, int]]:
    """Cut a centred square: (image, original (height, width), corner (top, left) of the cut)."""
    original = (image.height, image.width)
    scale = size / min(original)
    height, width = (max(size, round(side * scale)) for side in original)
    top, left = (height - size) // 2, (width - size) // 2
    if (height, width) != original:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return image.convert("RGB").crop((left, top, left + size, top + size)), original, (top, left)


def endless(n: int, generator: torch.Generator) -> Iterator[int]:
    """Yield image numbers for ever, all n in random order before any comes again."""
    while True:
        yield from torch.randperm(n, generator=generator).tolist()
