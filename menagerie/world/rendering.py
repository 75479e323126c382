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
    """

    image: Image.Image
    truth: Truth
    mask: np.ndarray


def render(truth: Truth, size: int = 64) -> Render:
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
        Image, truth and mask; the same pixels for the same truth and size.

    Raises
    ------
    WorldError
        For a truth that `check` refuses, or a size below 16.
    """
    check(truth)
    if size < 16:
        raise WorldError(f"size is at least 16 pixels, got {size}")
    canvas = size * max(2, -(-256 // size))  # drawn larger, then reduced: antialiasing
    figure = draw_character(truth, canvas)
    image, alpha = compose(truth, draw_place(truth, canvas), figure, size)
    return Render(image, dict(truth), np.asarray(alpha) >= 128)
