"""Heat maps and parts laid over images, so that one sees where."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from chosen_one_nb.analysis.segmentation import resize
from chosen_one_nb.plots import PALETTE

__all__ = ["heat_over", "parts_over"]

GLOW = np.array([[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], float)
"""Five stops of the map "magma": brighter is more, for every eye and in print."""


def heat_over(image: Any, heat: np.ndarray, *, side: int = 128, strength: float = 0.65) -> Image.Image:
    """Lay a heat map over an image.

    Parameters
    ----------
    image : PIL.Image
    heat : ndarray of shape (h, w)
        In [0, 1]: `heat.scaled` brings it there.
    side : int
        Of the result, in pixels.
    strength : float
        How much of the image the heat may hide.

    Returns
    -------
    PIL.Image
    """
    pixels = _grey(image, side)
    level = resize(np.asarray(heat, float)[None], (side, side))[0]
    stops = np.linspace(0, 1, len(GLOW))
    colour = np.stack([np.interp(level, stops, GLOW[:, channel]) for channel in range(3)], axis=-1)
    return Image.fromarray((pixels * (1 - strength) + colour * strength).astype(np.uint8))


def parts_over(image: Any, labels: np.ndarray, *, side: int = 128, strength: float = 0.6) -> Image.Image:
    """Paint the parts of a foreground over an image: the same part has the same colour in all images.

    Parameters
    ----------
    image : PIL.Image
    labels : ndarray of int, shape (h, w)
        Of `heat.cosegment`; -1 is scene and stays grey.
    side, strength
        As of `heat_over`.

    Returns
    -------
    PIL.Image
    """
    pixels = _grey(image, side)
    rows, columns = (np.arange(side) * n // side for n in labels.shape)
    fine = np.asarray(labels)[np.ix_(rows, columns)]
    colours = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in PALETTE], float)
    painted = pixels * (1 - strength) + colours[fine % len(colours)] * strength
    return Image.fromarray(np.where(fine[..., None] >= 0, painted, pixels).astype(np.uint8))


def _grey(image: Any, side: int) -> np.ndarray:
    """Half the colour of an image, so that what is laid over it stands out, (side, side, 3) float."""
    pixels = np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), float)
    return (pixels + pixels.mean(axis=-1, keepdims=True)) / 2
