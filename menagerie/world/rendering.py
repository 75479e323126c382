"""Truth to image: place, character and style, with the character's mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from menagerie.world.body import draw_character
from menagerie.world.scenery import draw_place
from menagerie.world.style import compose
from menagerie.world.truth import Truth, WorldError, check


@dataclass(frozen=True)
class Render:
    """A drawn character.

    Attributes
    ----------
    image : PIL.Image.Image
        RGB image, `size` x `size` pixels.
    truth : dict
        What was drawn.
    mask : ndarray of bool, shape (size, size)
        The figure's pixels with all that it wears and holds; no extras, no background, no sticker edge.
    joints : ndarray of float32, shape (14, 3)
        A row for each name in `JOINTS`: x and y, from the upper left corner in widths of the image, and 1 where the
        joint is to be seen, 0 where something else is in front of it or it lies outside of the image (then x or y
        is below 0 or above 1). Clothes are no obstacle. Left and right are those of the image.
    """

    image: Image.Image
    truth: Truth
    mask: np.ndarray
    joints: np.ndarray


def render(truth: Truth, size: int = 128) -> Render:
    """Draw a truth.

    Parameters
    ----------
    truth : dict
        From `sample` or `new_scene`, or written by hand.
    size : int
        Width and height in pixels, at least 16.

    Returns
    -------
    Render
        Image, truth, mask and joints; the same pixels for the same truth and size.

    Raises
    ------
    WorldError
        For a truth that `check` refuses, or a size below 16.
    """
    check(truth)
    if size < 16:
        raise WorldError(f"size is at least 16 pixels, got {size}")
    canvas = size * max(2, -(-256 // size))  # drawn larger, then reduced: antialiasing
    figure, joints = draw_character(truth, canvas)
    image, alpha = compose(truth, draw_place(truth, canvas), figure, size)
    return Render(image, dict(truth), np.asarray(alpha) >= 128, joints)
