"""The denoising loss on a few images: which one, how noisy, what to predict, what it weighs.

Everything random comes from one CPU generator, so training repeats on any machine up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.steps.latents import CHUNK, encode, latent_size
from chosen_one_nb.steps.prompts import Condition, time_ids

__all__ = ["Samples", "denoising_loss", "endless", "place_weights", "snr_weights", "square", "target"]


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
        images: Sequence[Image.Image],
        latents: np.ndarray | None,
        image_size: int | None,
        *,
        device: torch.device | None = None,
        chunk: int = CHUNK,
    ) -> Samples:
        """Encode images once, or take over the latents that they were decoded from.

        Parameters
        ----------
        pipeline : DiffusionPipeline
        images : sequence of PIL.Image, length n
            Any sizes: each is reduced to a square of the training size, remembering where it was cut from.
        latents : ndarray of shape (n, C, h, w), optional
            From `generate`, in the images' order.
        image_size : int, optional
            Training size in pixels; None is the model's own. Not used with latents.
        device : torch.device, optional
            Where to encode, and to keep them; None is where the pipeline is.
        chunk : int
            Images encoded at once.

        Raises
        ------
        ValueError
            If there are no images, or not one latent for each.
        """
        if not len(images):
            raise ValueError("images: expected at least one image to learn from, got none.")
        if latents is not None and len(latents) != len(images):
            raise ValueError(f"latents: expected one for each of {len(images)} images, got {len(latents)}.")
        size = (
            latent_size(pipeline, image_size)[0] if latents is None else (latents.shape[-1] * pipeline.vae_scale_factor)
        )
        device = device or pipeline.device
        cut = [square(image, size) for image in images]
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
        return self.mean[chosen] + self.spread[chosen] * _normal(self.mean[chosen], generator), self.time_ids[chosen]


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


def target(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Return what the UNet was trained to predict, by the scheduler's `prediction_type`; all (B, C, h, w)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, times)
    if kind == "sample":
        return latents
    raise ValueError(f"prediction_type: expected epsilon, v_prediction or sample, got {kind!r}.")


def snr_weights(scheduler: Any, times: torch.Tensor, gamma: float | None) -> torch.Tensor | float:
    """Return min-SNR weights (B,) of noise levels (arXiv 2303.09556), or 1 without gamma.

    min(snr, gamma) weighs an error of the clean latent; divided by snr it weighs one of the noise, by snr +
    1 one of v.
    """
    if gamma is None:
        return 1.0
    alphas = scheduler.alphas_cumprod.to(times.device)[times]
    snr = alphas / (1 - alphas)
    by = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[scheduler.config.prediction_type]
    return snr.clamp(max=gamma) / by.clamp(min=1e-8)


def denoising_loss(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    text: Condition,
    ids: torch.Tensor,
    *,
    generator: torch.Generator,
    gamma: float | None = None,
    floor: float = 0.0,
    weights: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Return the loss of one batch: E || target - unet(z_t, t, text) ||^2 (L_rec of section 3.2).

    Parameters
    ----------
    unet : UNet2DConditionModel
    scheduler : DDPMScheduler
        The noise schedule the model was trained with.
    latents : Tensor of shape (B, C, h, w)
    text : Condition of B texts
    ids : Tensor of shape (B, 6)
        Micro-conditioning; used by SDXL only.
    generator : torch.Generator
        On the CPU.
    gamma : float, optional
        Of min-SNR.
    floor : float in [0, 1)
        Noise levels are drawn from all but this share of the schedule, the quietest ones.
    weights : Tensor of shape (B, 1, h, w), or 1
        How much each place counts; see `place_weights`.

    Returns
    -------
    Tensor, a float32 scalar
    """
    steps = scheduler.config.num_train_timesteps
    times = torch.randint(int(floor * steps), steps, (len(latents),), generator=generator).to(latents.device)
    noise = _normal(latents, generator)
    noisy = scheduler.add_noise(latents, noise, times).to(unet.dtype)
    added = (
        {}
        if text.pooled is None
        else {"added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": ids.to(text.embeds.dtype)}}
    )
    guess = unet(noisy, times, encoder_hidden_states=text.embeds, return_dict=False, **added)[0]
    squared = (guess.float() - target(scheduler, latents, noise, times)).square()
    error = (squared * weights).mean(dim=(1, 2, 3))  # (B,)
    return (error * snr_weights(scheduler, times, gamma)).mean()


def _normal(like: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(like.shape, generator=generator).to(like.device)
