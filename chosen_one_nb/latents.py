"""Pictures to latents and back as the pipelines do it, never overflowing in half precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

__all__ = ["decode", "encode", "in_float32", "latent_size"]


def latent_size(pipeline: Any, image_size: int | None) -> tuple[int, int]:
    """Return (pixels, latent pixels) of a picture's side; None is the size the model was trained for.

    Raises
    ------
    ValueError
        If the side is no multiple of 8 and of the VAE's factor, which the pipelines ask for.
    """
    factor = pipeline.vae_scale_factor
    pixels = image_size or pipeline.unet.config.sample_size * factor
    if pixels % 8 or pixels % factor:
        raise ValueError(
            f"image_size: expected a multiple of 8 and of {factor} pixels for this model, got {pixels}."
        )
    return pixels, pixels // factor


@contextmanager
def in_float32(vae: Any) -> Iterator[Any]:
    """Lend a float16 VAE in float32, where it cannot overflow (pitfall 8); exact both ways."""
    half = vae.dtype == torch.float16
    try:
        yield vae.float() if half else vae
    finally:
        if half:
            vae.half()


def _shift_and_scale(vae: Any) -> tuple[torch.Tensor | float, torch.Tensor | float]:
    """The (mean, factor) with which latent = (code - mean) * factor, as the SDXL pipeline reads them."""
    mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
    if mean is None or std is None:
        return 0.0, vae.config.scaling_factor
    mean, std = (torch.tensor(values, device=vae.device).view(1, -1, 1, 1) for values in (mean, std))
    return mean, vae.config.scaling_factor / std


@torch.no_grad()
def decode(pipeline: Any, latents: torch.Tensor, *, chunk: int = 4) -> list[Image.Image]:
    """Turn latents (N, C, h, w) into N pictures, `chunk` at a time because this needs most memory."""
    images: list[Image.Image] = []
    with in_float32(pipeline.vae) as vae:
        mean, factor = _shift_and_scale(vae)
        for part in latents.to(vae.device).float().split(chunk):
            pixels = vae.decode((part / factor + mean).to(vae.dtype), return_dict=False)[0]
            images += pipeline.image_processor.postprocess(pixels.float(), output_type="pil")
    return images


@torch.no_grad()
def encode(
    pipeline: Any, images: Sequence[Image.Image], size: int, *, chunk: int = 4
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn pictures into mean and spread of their latents, each (N, C, h, w), scaled for the UNet.

    The pair, not one sample of it, is what may be kept: each training step draws anew (pitfall 9). A VAE
    without a distribution (AutoencoderTiny) has a spread of zero. Encoded in float32 (pitfall 8).
    """
    means, spreads = [], []
    with in_float32(pipeline.vae) as vae:
        shift, factor = _shift_and_scale(vae)
        for start in range(0, len(images), chunk):
            pixels = pipeline.image_processor.preprocess(
                list(images[start : start + chunk]), height=size, width=size
            )
            code = vae.encode(pixels.to(vae.device, vae.dtype))
            mean, std = (
                (code.latent_dist.mean, code.latent_dist.std)
                if hasattr(code, "latent_dist")
                else (code.latents, torch.zeros_like(code.latents))
            )
            means.append((mean.float() - shift) * factor)
            spreads.append(std.float() * factor)
    return torch.cat(means), torch.cat(spreads)
