"""Plain numbers of images, which need no model: what blows up, fades or repeats as a model over-fits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

__all__ = ["image_statistics", "thumbnails"]

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear red, green and blue (ITU-R BT.709)
THUMBNAIL = 16


def image_statistics(images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
    """Return plain statistics of images, each (N,): what blows up or fades as a model over-fits.

    - brightness: mean luminance, in [0, 1];
    - contrast: standard deviation of luminance;
    - saturation: mean of the largest minus the smallest colour channel;
    - colourfulness: Hasler and Suesstrunk's measure (Human Vision and Electronic Imaging, 2003), on [0, 1]
      channels;
    - detail: mean absolute difference of neighbouring luminances;
    - clipped: share of pixels with a channel fully on or off.
    """
    rows = [_statistics(np.asarray(image.convert("RGB"), dtype=np.float64) / 255) for image in images]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def thumbnails(images: Sequence[Image.Image]) -> np.ndarray:
    """Return images reduced to 16 x 16 RGB in [0, 1] and flattened: (N, 768)."""
    small = [image.convert("RGB").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(tile, dtype=np.float32).ravel() / 255 for tile in small])


def _statistics(pixels: np.ndarray) -> dict[str, float]:
    """Statistics of one image (H, W, 3) in [0, 1]."""
    luminance = pixels @ LUMINANCE  # (H, W)
    red_green = pixels[..., 0] - pixels[..., 1]
    yellow_blue = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    across, down = np.abs(np.diff(luminance, axis=1)), np.abs(np.diff(luminance, axis=0))
    return {
        "brightness": luminance.mean(),
        "contrast": luminance.std(),
        "saturation": (pixels.max(-1) - pixels.min(-1)).mean(),
        "colourfulness": np.hypot(red_green.std(), yellow_blue.std())
        + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()),
        "detail": (across.mean() + down.mean()) / 2,
        "clipped": ((pixels <= 1 / 255) | (pixels >= 254 / 255)).any(-1).mean(),
    }
