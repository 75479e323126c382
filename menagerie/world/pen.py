"""The pen: filled shapes and strokes in the figure's own coordinates, tilted and scaled onto a canvas.

Units: the image is 1 wide and 1 high, the origin is the figure's middle, y points down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import ImageDraw

from menagerie.world.values import INK, RGB, WHITE, mix

_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1)  # (28, 2)
_SQUARISH = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** 0.45  # a box with round corners
_LIGHT = np.array([-0.10, -0.14])  # where the light comes from, in shares of a shape's size


def _rotation(degrees: float) -> np.ndarray:
    """The matrix that turns rows (x, y) clockwise, y pointing down."""
    a = np.deg2rad(degrees)
    return np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])


def displaced(point: tuple[float, float], down: float, turn: float, about: tuple[float, float]) -> tuple[float, float]:
    """Turn a point clockwise by `turn` degrees about another one, then lower it by `down`."""
    x, y = (np.asarray(point) - about) @ _rotation(turn) + about + (0, down)
    return float(x), float(y)


@dataclass
class Pen:
    """Draws on `draw` with one transformation and one way of lining.

    Attributes
    ----------
    draw : PIL.ImageDraw.ImageDraw
        The canvas.
    scale : float
        Pixels per unit.
    origin : tuple of float
        The pixel of the origin.
    tilt : float
        Turn in degrees.
    line : float
        Width of outlines in units; 0 draws none.
    soft : bool
        Shade every shape as if round, lit from the upper left.
    parts : PIL.ImageDraw.ImageDraw, optional
        A second canvas, which gets the number `part` wherever something is drawn.
    part : int
        What is being drawn.
    """

    draw: ImageDraw.ImageDraw
    scale: float
    origin: tuple[float, float]
    tilt: float = 0.0
    line: float = 0.0
    soft: bool = False
    parts: ImageDraw.ImageDraw | None = None
    part: int = 0

    def __post_init__(self) -> None:
        self._matrix = _rotation(self.tilt) * self.scale
        self._origin = np.asarray(self.origin)

    def moved(self, down: float, turn: float, about: tuple[float, float]) -> Pen:
        """A pen for what is turned by `turn` degrees about a point, then lowered by `down` units."""
        origin = displaced((0, 0), down, turn, about)
        return replace(self, origin=self.pixels([origin])[0], tilt=self.tilt + turn)

    def pixels(self, points: Sequence[tuple[float, float]] | np.ndarray) -> list[tuple[float, float]]:
        """Where points (n, 2) of the figure lie on the canvas."""
        points = np.asarray(points, dtype=float)
        return [tuple(p) for p in (points @ self._matrix + self._origin).tolist()]

    def poly(self, points: Sequence[tuple[float, float]] | np.ndarray, fill: RGB, *, line: bool = True) -> None:
        """Fill a polygon of `points` (n, 2); `line=False` leaves outline and shading away."""
        points = np.asarray(points, dtype=float)
        pixels = self.pixels(points)
        if self.soft and line:
            self._shade(points, pixels, fill)
        else:
            self.draw.polygon(pixels, fill=fill)
        if self.parts:
            self.parts.polygon(pixels, fill=self.part)
        if self.line and line:
            width = max(1, round(self.line * self.scale))
            self.draw.line([*pixels, pixels[0], pixels[1]], fill=INK, width=width, joint="curve")

    def _shade(self, points: np.ndarray, pixels: list[tuple[float, float]], fill: RGB) -> None:
        """Nested, lighter copies towards the light."""
        self.draw.polygon(pixels, fill=mix(fill, (20, 16, 40), 0.32))
        middle, extent = points.mean(axis=0), np.ptp(points, axis=0)
        for size, push, tone in ((0.90, 0.3, 0.16), (0.78, 0.6, 0.0), (0.40, 1.3, -0.22)):
            colour = mix(fill, (20, 16, 40), tone) if tone >= 0 else mix(fill, WHITE, -tone)
            inner = middle + (points - middle) * size + _LIGHT * extent * push
            self.draw.polygon(self.pixels(inner), fill=colour)

    def oval(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: RGB,
        *,
        turn: float = 0.0,
        line: bool = True,
        box: bool = False,
    ) -> None:
        """Fill an ellipse at (x, y), turned by `turn` degrees; `box=True` makes it a box with round corners."""
        points = (_SQUARISH if box else _CIRCLE) * (rx, ry)
        if turn:
            points = points @ _rotation(turn)
        self.poly(points + np.array([x, y]), fill, line=line)

    def pair(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        fill: RGB,
        *,
        turn: float = 0.0,
        line: bool = True,
        box: bool = False,
    ) -> None:
        """Two mirrored ovals at (-x, y) and (x, y)."""
        for side in (-1, 1):
            self.oval(side * x, y, rx, ry, fill, turn=side * turn, line=line, box=box)

    def polys(self, points: Sequence[tuple[float, float]], fill: RGB, *, line: bool = True) -> None:
        """A polygon and its mirror image."""
        points = np.asarray(points, dtype=float)
        self.poly(points * (-1, 1), fill, line=line)
        self.poly(points, fill, line=line)

    def stroke(self, points: Sequence[tuple[float, float]] | np.ndarray, width: float, fill: RGB) -> None:
        """A line with round ends through `points`, `width` in units."""
        pixels = self.pixels(np.asarray(points, dtype=float))
        pixel_width = max(1, round(width * self.scale))
        self.draw.line(pixels, fill=fill, width=pixel_width, joint="curve")
        if self.parts:
            self.parts.line(pixels, fill=self.part, width=pixel_width, joint="curve")
        r = pixel_width / 2
        for x, y in (pixels[0], pixels[-1]):
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float, width: float, fill: RGB) -> None:
        """A stroke along an ellipse, angles in degrees clockwise from the right."""
        a = np.deg2rad(np.linspace(start, end, 14))
        self.stroke(np.stack([x + rx * np.cos(a), y + ry * np.sin(a)], axis=1), width, fill)

    def limb(self, start: tuple[float, float], end: tuple[float, float], width: float, fill: RGB) -> None:
        """A thick limb with round ends, outlined as shapes are."""
        (x0, y0), (x1, y1) = start, end
        length = float(np.hypot(x1 - x0, y1 - y0))
        turn = float(np.rad2deg(np.arctan2(y1 - y0, x1 - x0)))
        self.oval((x0 + x1) / 2, (y0 + y1) / 2, length / 2 + width / 2, width / 2, fill, turn=turn, box=True)

    def tube(self, points: Sequence[tuple[float, float]], width: float, fill: RGB) -> None:
        """A thick limb bent at the second of three points, with round ends, outlined as shapes are."""
        start, bend, end = np.asarray(points, dtype=float)
        t = np.linspace(0, 1, 9)[:, None]
        through = 2 * bend - (start + end) / 2  # the control point of the parabola that passes through the bend
        line = (1 - t) ** 2 * start + 2 * t * (1 - t) * through + t**2 * end
        along = np.gradient(line, axis=0)
        across = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width / 2 / np.linalg.norm(along, axis=1)[:, None])
        angles = np.linspace(0, np.pi, 7)[1:-1, None]
        caps = [middle + np.cos(angles) * side + np.sin(angles) * np.array([side[1], -side[0]])
                for middle, side in ((line[-1], across[-1]), (line[0], -across[0]))]  # fmt: skip
        self.poly(np.concatenate([line + across, caps[0], (line - across)[::-1], caps[1]]), fill)
