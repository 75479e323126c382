"""Whether the foreground is found: its mask against the true one on renders, and against outlines drawn by hand.

What a generator draws has no true mask. ``data/silhouettes`` holds sixteen of its images with an outline of each
figure, drawn by hand and looked at again over the image. The images are stored, so the sample stays the same
whichever models look at it. A figure that always stands in the middle is half found by anyone who never looks;
`best_constant` says how well that goes, and stands beside each score.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["OutlinedImages", "best_constant", "inside", "overlap", "read_outlined"]

FINER = 16  # an outline is filled on a grid so many times finer, and a pixel counts from half on


@dataclass(frozen=True)
class OutlinedImages:
    """Images with outlines drawn by hand.

    Attributes
    ----------
    images : list of PIL.Image
        N images of one size.
    masks : ndarray of bool, shape (N, H, W)
        True on the foreground.
    """

    images: list[Image.Image]
    masks: np.ndarray


def read_outlined(folder: Path) -> OutlinedImages:
    """Read images and their outlines.

    Parameters
    ----------
    folder : Path
        Holds ``outlines.json``, ``{"images": [{"file": ..., "outline": [[x, y], ...]}, ...]}`` in pixels, and the
        files named there.

    Returns
    -------
    OutlinedImages
    """
    entries = json.loads((folder / "outlines.json").read_text())["images"]
    images = [Image.open(folder / entry["file"]).convert("RGB") for entry in entries]
    masks = [inside(entry["outline"], image.size) for entry, image in zip(entries, images, strict=True)]
    return OutlinedImages(images, np.stack(masks))


def inside(outline: list[list[float]], size: tuple[int, int]) -> np.ndarray:
    """Fill an outline: bool (H, W), True where at least half of the pixel lies inside.

    Parameters
    ----------
    outline : list of (x, y)
        In pixels, from the left and from the top.
    size : (int, int)
        Width and height.

    Examples
    --------
    >>> inside([[1, 0], [3, 0], [3, 2], [1, 2]], (4, 2)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 1, 0]]
    """
    width, height = size
    fine = Image.new("L", (width * FINER, height * FINER))
    ImageDraw.Draw(fine).polygon([(x * FINER - 0.5, y * FINER - 0.5) for x, y in outline], fill=1)
    parts = np.asarray(fine).reshape(height, FINER, width, FINER)
    return parts.mean(axis=(1, 3)) >= 0.5


def overlap(masks: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intersection over union of masks (N, H, W), (N,); 1 where both are empty.

    Examples
    --------
    >>> overlap(np.array([[[True, True, False]]]), np.array([[[False, True, True]]]))
    array([0.33333333])
    """
    union = (masks | true).sum(axis=(1, 2))
    return np.where(union == 0, 1.0, (masks & true).sum(axis=(1, 2)) / np.maximum(union, 1))


def best_constant(true: np.ndarray) -> float:
    """Mean overlap of the best silhouette that is the same for all images.

    Tried are the pixels that are foreground in at least 1, 2, ... N of the masks; chosen on the very masks it is scored
    on, so it flatters the one who never looks.

    Parameters
    ----------
    true : ndarray of bool, shape (N, H, W)
    """
    counts = true.sum(axis=0)
    return max(float(overlap((counts >= least)[None] & np.ones_like(true), true).mean())
               for least in np.unique(counts[counts > 0]))  # fmt: skip
