"""A sheet to draw still pictures on with Pillow: text, pictures, cluster symbols, lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GROUND, TEXT, FAINT = "#FFFFFF", "#202020", "#6A6A6A"
SCALE = 2
"""Drawn this much larger and reduced, which smooths all edges."""


class Page:
    """A sheet to draw on in plain pixels, smoothed when it is finished."""

    def __init__(self, width: int, height: int) -> None:
        self.height = height
        self._image = Image.new("RGB", (width * SCALE, height * SCALE), GROUND)
        self.draw = ImageDraw.Draw(self._image)

    def text(self, at: tuple[float, float], text: str, *, size: int = 14, colour: str = TEXT) -> None:
        """Write a line; what the font lacks is left to it."""
        font = ImageFont.load_default(size * SCALE)
        self.draw.text(_scaled(at), text, fill=colour, font=font)

    def picture(self, at: tuple[float, float], image: Image.Image, side: int, *, faint: bool = False) -> None:
        """Put a picture, a left-out one faintly."""
        small = image.convert("RGB").resize((side * SCALE, side * SCALE), Image.Resampling.LANCZOS)
        if faint:
            small = Image.blend(small.convert("L").convert("RGB"), Image.new("RGB", small.size, GROUND), 0.6)
        self._image.paste(small, tuple(int(v) for v in _scaled(at)))

    def mark(self, at: tuple[float, float], symbol: str, colour: str, radius: float) -> None:
        """Draw a cluster's symbol."""
        shape = np.array(SHAPES.get(symbol, SHAPES["circle"])) * radius * SCALE + np.array(_scaled(at))
        if symbol == "circle-open":
            self.draw.polygon([tuple(p) for p in shape], outline=colour, width=SCALE)
        else:
            self.draw.polygon([tuple(p) for p in shape], fill=colour, outline="#505050")

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5) -> None:
        """Draw a line."""
        self.draw.line([_scaled(p) for p in points], fill=colour, width=int(width * SCALE))

    def box(self, corners: tuple[float, float, float, float], colour: str, width: float = 1) -> None:
        """Draw a frame."""
        self.draw.rectangle([v * SCALE for v in corners], outline=colour, width=int(width * SCALE))

    def finished(self, height: float) -> Image.Image:
        """Cut the sheet to its height and reduce it."""
        width, height = self._image.width // SCALE, min(int(height), self._image.height // SCALE)
        return self._image.crop((0, 0, width * SCALE, height * SCALE)).resize(
            (width, height), Image.Resampling.LANCZOS
        )


def _polygon(corners: int, start: float, inner: float | None = None) -> list[tuple[float, float]]:
    n = corners * (2 if inner else 1)
    radii = [inner if inner and i % 2 else 1.0 for i in range(n)]
    angles = [start + 2 * np.pi * i / n for i in range(n)]
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]


SHAPES: dict[str, list[tuple[float, float]]] = {
    "circle": _polygon(24, 0),
    "circle-open": _polygon(24, 0),
    "square": _polygon(4, np.pi / 4),
    "diamond": _polygon(4, 0),
    "triangle-up": _polygon(3, -np.pi / 2),
    "triangle-down": _polygon(3, np.pi / 2),
    "star": _polygon(5, -np.pi / 2, 0.45),
    "hexagon": _polygon(6, 0),
    "cross": [
        (-0.35, -1),
        (0.35, -1),
        (0.35, -0.35),
        (1, -0.35),
        (1, 0.35),
        (0.35, 0.35),
        (0.35, 1),
        (-0.35, 1),
        (-0.35, 0.35),
        (-1, 0.35),
        (-1, -0.35),
        (-0.35, -0.35),
    ],
}


def _scaled(at: Sequence[float]) -> tuple[float, float]:
    return (at[0] * SCALE, at[1] * SCALE)


def fitted(
    xy: NDArray[np.floating], corner: tuple[float, float], side: float, edge: float = 20
) -> list[tuple[float, float]]:
    """Fit positions of a map into a square on the page, its proportions kept, y upwards."""
    span, room = float(np.ptp(xy, axis=0).max() or 1.0), side - 2 * edge
    shares = (xy - xy.min(0)) / span
    left, low = (1 - shares.max(0)) / 2
    return [
        (float(corner[0] + edge + (x + left) * room), float(corner[1] + side - edge - (y + low) * room))
        for x, y in shares
    ]
