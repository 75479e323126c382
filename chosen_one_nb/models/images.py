"""Images from outside as a viewer shows them: upright, in sRGB, on white, eight bits a channel."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from chosen_one_nb.settings import user_path

__all__ = ["ENDINGS", "ImageError", "as_rgb", "data_uri", "encode_png", "find_images", "read_image"]

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Of the files in a folder that are taken for images."""


class ImageError(ValueError):
    """An image that cannot be read: the message says which, and what to do."""


def as_rgb(image: Image.Image) -> Image.Image:
    """Return an RGB copy of an image of any mode, as a viewer shows it.

    Parameters
    ----------
    image : PIL.Image.Image
        Turned as EXIF says; what is transparent is put on white; 16 bits a channel are scaled to 8, and floating point
        from [0, 1]; colours are brought to sRGB by the profile that the image carries.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, dtype=np.float64) * (255.0 if image.mode == "F" else 255.0 / 65535.0)
        return Image.fromarray(np.clip(np.nan_to_num(values) + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return _in_srgb(image).convert("RGB")
    alpha = image.convert("RGBA").getchannel("A")
    seen = _in_srgb(image.convert("LA" if image.mode == "LA" else "RGBA").convert("RGB"))
    return Image.composite(seen, Image.new("RGB", image.size, "white"), alpha)


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return an image in sRGB if it carries the profile of another space; a damaged profile is passed over."""
    profile = image.info.get("icc_profile")
    if not profile or image.mode not in ("RGB", "CMYK", "L", "LAB"):
        return image
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(image, own, ImageCms.createProfile("sRGB"), outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):  # also where the profile is for another mode than the image's
        return image


def read_image(source: Image.Image | str | Path) -> Image.Image:
    """Read an image file, or take a PIL image, as `as_rgb` shows it; `.info` keeps its text.

    Raises
    ------
    ImageError
        If it is missing, damaged, no image, or larger than Pillow reads.
    """
    try:
        if isinstance(source, Image.Image):
            return as_rgb(source)
        with Image.open(user_path("image", source, ImageError)) as image:
            return as_rgb(image)
    except (OSError, SyntaxError, ValueError, TypeError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{source}: expected an image, could not read one ({error}). Pass PIL images, or paths of whole image "
            "files such as PNG, JPEG or WebP."
        ) from error


def find_images(given: str | Path | Sequence[Image.Image | str | Path]) -> list[Image.Image | str | Path]:
    """Return the images of a folder by name, or those of a list as they are; an `ImageError` where there are none."""
    if isinstance(given, Iterable) and not isinstance(given, str | bytes):
        return list(given)
    place = user_path("images", given, ImageError)
    if not place.is_dir():
        raise ImageError(f"images: expected a folder of images, or a list of images or paths, got {given}.")
    found = sorted(path for path in place.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    if not found:
        raise ImageError(f"{place}: expected images ({', '.join(ENDINGS)}), found none. Name another folder.")
    return list(found)


def encode_png(image: Image.Image, about: Mapping[str, str]) -> bytes:
    """Return a lossless PNG file whose text chunks (tEXt, or iTXt beyond Latin-1) hold ``about``."""
    text, buffer = PngInfo(), io.BytesIO()
    for key, value in about.items():
        text.add_text(key, value)
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def data_uri(image: Image.Image, side: int, kind: str, quality: int) -> str:
    """Return an image as a data URI, no larger than ``side`` pixels; ``kind`` is "webp" or "jpeg"."""
    small, buffer = as_rgb(image), io.BytesIO()
    small.thumbnail((side, side))
    small.save(buffer, format=kind, quality=quality)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
