"""A mask painted on an image by hand, for local edits: brush, eraser, rectangle, undo."""

from __future__ import annotations

from typing import Any

import anywidget
import numpy as np
import traitlets
from PIL import Image

from chosen_one_nb.applications import EditError

from .images import script, style, webp


class MaskCanvas(anywidget.AnyWidget):
    """Paint what is to be drawn anew, by mouse or by keyboard.

    Parameters
    ----------
    image : PIL.Image.Image
        What is painted on; square.

    Attributes
    ----------
    image : bytes
        The image as WebP.
    side : int
        Its width and height in pixels.
    painted : bytes
        What the page sends: one byte for each pixel, row by row; see `mask`.

    Examples
    --------
    >>> canvas = MaskCanvas(Image.new("RGB", (4, 4)))
    >>> canvas.mask = np.eye(4) > 0
    >>> int(canvas.mask.sum())
    4
    """

    _esm = script("mask_canvas.js")
    _css = style("drawing.css")

    image = traitlets.Bytes().tag(sync=True)
    side = traitlets.Int().tag(sync=True)
    painted = traitlets.Bytes().tag(sync=True, from_json=lambda sent, _widget: bytes(sent))  # the page sends a view

    def __init__(self, image: Image.Image, **traits: Any) -> None:
        if image.width != image.height:
            raise EditError(f"image: expected a square one to paint on, got {image.width} x {image.height} pixels.")
        super().__init__(side=image.width, image=webp(image, image.width), painted=bytes(image.width**2), **traits)

    @property
    def mask(self) -> np.ndarray:
        """What is painted, bool (side, side)."""
        if len(self.painted) != self.side**2:
            raise EditError(f"mask: expected {self.side**2} pixels from the page, got {len(self.painted)}.")
        return np.frombuffer(self.painted, np.uint8).reshape(self.side, self.side) != 0

    @mask.setter
    def mask(self, mask: np.ndarray) -> None:
        """Paint bool (side, side); `EditError` for anything else."""
        if mask.shape != (self.side, self.side) or mask.dtype != bool:
            raise EditError(
                f"mask: expected truth values ({self.side}, {self.side}), got {mask.dtype} of shape {mask.shape}."
            )
        self.painted = mask.astype(np.uint8).tobytes()
