"""Local editing by Blended Latent Diffusion (arXiv 2206.02779): only what lies under a mask is drawn anew.

It is a step callback on the ordinary pipeline: any number of latent channels, any sampler of the kit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt
from torch.nn import functional as F

from chosen_one_nb.analysis.segmentation import segment
from chosen_one_nb.applications import EditError, request, with_settings
from chosen_one_nb.character import Character
from chosen_one_nb.models.images import read_image
from chosen_one_nb.models.load import Models
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import Steering, generate, noise
from chosen_one_nb.steps.latents import encode, latent_size

__all__ = ["Blend", "Edited", "EditError", "cells", "edit", "subject_mask"]

THIN = 2  # cells that a mask without any inside begins with around it


@dataclass(frozen=True)
class Blend:
    """How an edit is joined to its source.

    Attributes
    ----------
    feather : int, optional
        Pixels around the mask over which the edit fades into the source; None is a 32nd of the image's side.
    keep : float in [0, 1)
        Share of the steps after which the edit begins: what lies under the mask until then is the noised source, so
        that its rough shape and colours stay. 0 draws it from noise alone.
    shrink : int, optional
        Latent cells by which the mask is wider at first; it shrinks to its own size over the steps, for there is
        hardly room to draw in a thin one. None is 0, or `THIN` for a mask that is thin.
    """

    feather: int | None = None
    keep: float = 0.0
    shrink: int | None = None

    def __post_init__(self) -> None:
        for name, kind, most in (("feather", int, 256), ("keep", float | int, 0.95), ("shrink", int, 16)):
            value = getattr(self, name)
            if value is not None and (type(value) is bool or not (isinstance(value, kind) and 0 <= value <= most)):
                raise EditError(f"{name}: expected a number from 0 to {most}, got {value!r}.")


@dataclass(frozen=True)
class Edited:
    """Edited images, one for each seed.

    Attributes
    ----------
    images : list of PIL.Image
        The source with the edit pasted in; outside of `region` bit by bit the source.
    decoded : list of PIL.Image
        As the VAE decoded them; its normalisations see the whole image, so pixels far from the mask move a little.
    region : PIL.Image.Image
        How much of the edit shows at each pixel ("L"): 255 under the mask, 0 beyond its feathered edge.
    """

    images: list[Image.Image]
    decoded: list[Image.Image]
    region: Image.Image


def edit(
    models: Models,
    image: Image.Image | str | Path,
    mask: Image.Image | np.ndarray | str | Path,
    prompt: str,
    *,
    character: Character | None = None,
    blend: Blend | None = None,
    **sampling: Any,
) -> Edited:
    """Draw anew what lies under a mask, and keep the rest.

    Parameters
    ----------
    models : Models
    image : PIL.Image, str or Path
        The source: generated, or one's own; of the size that the models draw.
    mask : PIL.Image, ndarray (H, W) of bool, str or Path
        White, or True, where it is drawn anew; of the image's size.
    prompt : str
        Of the whole image, such as ``character.prompt("wearing a hat")``.
    character : Character, optional
        None draws with the base model.
    blend : Blend, optional
    **sampling
        More of `SamplingRequest`: seeds (default: 0), settings, strength, context, negative.

    Returns
    -------
    Edited

    Raises
    ------
    EditError, ImageError, PromptError, SettingsError, CharacterError
        For what cannot be used, in a sentence.
    """
    asked, blend = request(models, prompt, character, sampling), blend or Blend()
    size, side = latent_size(models.pipeline, asked.settings.image_size)
    source = _sized("image", read_image(image), size)
    under = _mask_of(mask, size)
    known, _ = encode(models, [source], size)  # (1, C, h, w), the mean: encoding adds no noise of its own
    blending = _Blending(known, cells(under, side), blend, asked)
    decoded = generate(models, asked, steering=Steering(after_step=blending)).images
    region = _feathered(under, size // 32 if blend.feather is None else blend.feather)
    pasted = [Image.composite(each, source, region) for each in decoded]
    for each, before in zip(pasted, decoded, strict=True):
        each.info = dict(before.info)
    return Edited(with_settings(pasted, asked), with_settings(decoded, asked), region)


def cells(mask: np.ndarray, side: int) -> np.ndarray:
    """Return the latent cells that a mask (H, W) touches, bool (side, side).

    By their maximum: the nearest pixel of each would miss half of a line two pixels wide.
    """
    return F.adaptive_max_pool2d(torch.from_numpy(mask)[None].float(), side)[0].bool().numpy()


def subject_mask(models: Models, image: Image.Image | str | Path) -> Image.Image:
    """Return the mask of an image's foreground, found in the extractor's patches ("L", 255 on the foreground).

    Raises
    ------
    EditError
        If the extractor gives no patches.
    """
    source = read_image(image)
    seen = models.extractor([source], patches=True)
    found = segment(seen.patches, seen.grid)
    if not found:
        raise EditError(found.reason)
    return Image.fromarray(np.uint8(255) * found.at((source.height, source.width))[0])


class _Blending:
    """What is done after each step: outside of the mask the latents are the source's, noised to the next level."""

    def __init__(self, source: torch.Tensor, touched: np.ndarray, blend: Blend, asked: SamplingRequest) -> None:
        thin = THIN if not binary_erosion(touched, np.ones((3, 3)), border_value=1).any() else 0
        self.source, self.keep, self.seeds = source, blend.keep, asked.seeds
        wider = thin if blend.shrink is None else blend.shrink
        self.masks = [touched] + [binary_dilation(touched, np.ones((3, 3)), n + 1) for n in range(wider)]

    def __call__(self, pipeline: Any, step: int, indices: range, latents: torch.Tensor) -> torch.Tensor:
        times = pipeline.scheduler.timesteps
        known = self.source.to(latents).expand_as(latents)  # (B, C, h, w)
        if step + 1 < len(times):  # the last one ends on the source itself
            seeds = self.seeds[indices.start : indices.stop]
            fresh = [np.random.SeedSequence([seed, step]).generate_state(1)[0] for seed in seeds]
            drawn = noise(fresh, latents.shape[1:]).to(latents)
            # The level that the latents have now: schedulers that count steps have counted this one already.
            known = pipeline.scheduler.add_noise(known, drawn, times[step + 1].expand(len(latents)))
        if step + 1 < self.keep * len(times):
            return known
        left = len(self.masks) - 1 - step * len(self.masks) // len(times)
        mask = torch.from_numpy(self.masks[left]).to(latents.device)  # (h, w)
        return torch.where(mask, latents, known)


def _sized(what: str, image: Image.Image, size: int) -> Image.Image:
    if image.size != (size, size):
        raise EditError(
            f"{what}: expected {size} x {size} pixels, got {image.width} x {image.height}. Crop and resize it, or set "
            "image_size to its side."
        )
    return image


def _mask_of(mask: Image.Image | np.ndarray | str | Path, size: int) -> np.ndarray:
    """Read a mask: bool (size, size), at least one pixel of it True."""
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype != bool:
            raise EditError(f"mask: expected truth values (H, W), got {mask.dtype} of shape {mask.shape}.")
        mask = Image.fromarray(mask)
    under = np.asarray(_sized("mask", read_image(mask), size).convert("L")) > 127
    if not under.any():
        raise EditError("mask: expected white where the image is to be drawn anew, got none. Paint something.")
    return under


def _feathered(under: np.ndarray, feather: int) -> Image.Image:
    """A mask (H, W) that falls to 0 over so many pixels around it, as an image "L"."""
    away = distance_transform_edt(~under)
    return Image.fromarray(np.round(255 * np.clip(1 - away / (feather + 1), 0, 1)).astype(np.uint8))
