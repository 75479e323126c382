"""Images to latents and back as the pipelines do it, never overflowing in half precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from chosen_one_nb.models.images import as_rgb
from chosen_one_nb.models.load import Models
from chosen_one_nb.models.memory import OutOfMemory, batches, on_device
from chosen_one_nb.settings import SettingsError
from chosen_one_nb.steps import NumericalError

__all__ = ["chunk_size", "decode", "encode", "in_float32", "latent_size"]

SMALLER = "Not even one image can be decoded or encoded: lower image_size, or load_models(..., low_memory=True)."


def latent_size(pipeline: Any, image_size: int | None) -> tuple[int, int]:
    """Return (pixels, latent pixels) of an image's side; None is the size the model was trained for.

    Raises
    ------
    SettingsError
        If the side is no multiple of 8 and of the VAE's factor, which the pipelines ask for.
    """
    factor = pipeline.vae_scale_factor
    pixels = image_size or pipeline.unet.config.sample_size * factor
    if pixels % 8 or pixels % factor:
        raise SettingsError(
            f"image_size: expected a multiple of 8 and of {factor} pixels for this model, got {pixels}."
        )
    return pixels, pixels // factor


def chunk_size(models: Models) -> int:
    """Return how many images are decoded or encoded at once."""
    # Why (pitfall 17): few, because decoding needs most memory of all.
    return 1 if models.low_memory else 4


@contextmanager
def in_float32(vae: Any) -> Iterator[Any]:
    """Temporarily upcast a float16 VAE, which is exact both ways."""
    # Why (pitfall 8): SDXL's VAE overflows in float16, which gives black images. bfloat16 has float32's range.
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
def decode(models: Models, latents: torch.Tensor) -> list[Image.Image]:
    """Turn latents (N, C, h, w) into N images, a few at a time.

    Where memory runs out fewer are decoded at a time, and at last one in tiles, whose tones may differ a little.
    An image that holds NaN or infinity says so in `image.info["broken"]`: "latents" or "pixels", where it arose.
    """
    vae = models.pipeline.vae
    with on_device(models.device, vae), in_float32(vae):
        try:
            return _decode(models.pipeline, latents, chunk_size(models))
        except OutOfMemory:
            if getattr(vae, "use_tiling", True):
                raise
        try:
            vae.enable_tiling()
            return _decode(models.pipeline, latents, 1)
        finally:
            vae.disable_tiling()


def _decode(pipeline: Any, latents: torch.Tensor, chunk: int) -> list[Image.Image]:
    vae = pipeline.vae
    mean, factor = _shift_and_scale(vae)

    def decode_part(part: torch.Tensor) -> list[Image.Image]:
        code = part.to(vae.device).float() / factor + mean  # (B, C, h, w)
        pixels = vae.decode(code.to(vae.dtype), return_dict=False)[0]  # (B, 3, H, W)
        # Told here, for an 8-bit image cannot say it: NaN would become an image like any other, of black.
        shown = pixels.float().nan_to_num(nan=-1, posinf=-1, neginf=-1)
        images = pipeline.image_processor.postprocess(shown, output_type="pil")
        for image, *finite in zip(images, _finite(part), _finite(pixels), strict=True):
            if not all(finite):
                image.info["broken"] = "pixels" if finite[0] else "latents"
        return images

    return [image for _, images in batches(latents, chunk, decode_part, SMALLER) for image in images]


def _finite(batch: torch.Tensor) -> list[bool]:
    """Whether all numbers of each of B things (B, ...) are finite."""
    return batch.isfinite().flatten(1).all(1).tolist()


@torch.no_grad()
def encode(models: Models, images: Sequence[Image.Image], size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn N images into mean and spread of their latents, each (N, C, h, w) in float32, scaled for the UNet.

    Parameters
    ----------
    models : Models
    images : sequence of PIL.Image, length N
    size : int
        Side that they are resized to, in pixels.

    Notes
    -----
    A VAE without a distribution (AutoencoderTiny) has a spread of zero.
    """
    processor, vae = models.pipeline.image_processor, models.pipeline.vae
    with on_device(models.device, vae), in_float32(vae):
        shift, factor = _shift_and_scale(vae)

        def encode_part(part: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
            pixels = processor.preprocess([as_rgb(image) for image in part], height=size, width=size)  # (B, 3, H, W)
            code = vae.encode(pixels.to(vae.device, vae.dtype))
            if not hasattr(code, "latent_dist"):
                return (code.latents.float() - shift) * factor, torch.zeros_like(code.latents).float()
            return (code.latent_dist.mean.float() - shift) * factor, code.latent_dist.std.float() * factor

        pairs = [pair for _, pair in batches(images, chunk_size(models), encode_part, SMALLER)]
    means, spreads = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if broken := [i for i, finite in enumerate(_finite(means)) if not finite]:
        raise NumericalError(
            f"The VAE made NaN or infinite latents of images {broken}. Load the models in float32: "
            'load_models(..., dtype="float32"), in a shell --dtype float32.'
        )
    return means, spreads
