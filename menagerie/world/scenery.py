"""The places, and what floats around the figure."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from menagerie.world.pen import Pen
from menagerie.world.values import RGB, WHITE, mix

TINTS: tuple[RGB, ...] = ((232, 240, 246), (246, 236, 220), (228, 242, 228), (244, 230, 240), (240, 240, 240))


def draw_place(truth: dict[str, Any], canvas: int) -> Image.Image:
    """Draw place and extras without the figure.

    Parameters
    ----------
    truth : dict
        A checked truth; its seed moves trees, houses, bubbles a little.
    canvas : int
        Width and height in pixels.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    rng = Random(truth["seed"] + 1)
    image = Image.new("RGB", (canvas, canvas), WHITE)
    pen = Pen(ImageDraw.Draw(image), canvas, (0, 0))
    _PLACE[truth["place"]](pen, rng)
    if truth["extra"] != "none":
        _extras(pen, rng, truth["extra"])
    return image


def _band(pen: Pen, top: float, bottom: float, colour: RGB) -> None:
    pen.poly([(0, top), (1, top), (1, bottom), (0, bottom)], colour, line=False)


def _hill(pen: Pen, x: float, y: float, rx: float, ry: float, colour: RGB) -> None:
    pen.oval(x, y, rx, ry, colour, line=False)


def _plain(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, rng.choice(TINTS))


def _beach(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 0.42, (176, 226, 250))
    _band(pen, 0.42, 0.66, (64, 190, 214))
    _band(pen, 0.60, 0.63, (200, 240, 244))
    _band(pen, 0.66, 1, (246, 224, 166))
    pen.oval(rng.choice((0.13, 0.87)), 0.12, 0.085, 0.085, (255, 226, 90), line=False)
    x = rng.choice((0.09, 0.91))  # a palm tree
    pen.stroke([(x, 0.80), (x * 0.94 + 0.03, 0.40)], 0.03, (160, 110, 70))
    for turn in (20, 90, 160, -35, 215):
        a = np.deg2rad(turn)
        pen.oval(
            x * 0.94 + 0.03 + 0.07 * np.cos(a),
            0.39 + 0.05 * np.sin(a),
            0.085,
            0.024,
            (70, 170, 90),
            turn=turn,
            line=False,
        )


def _snow(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, (186, 210, 232))
    _hill(pen, 0.2, 0.98, 0.6, 0.36, (232, 240, 248))
    _hill(pen, 0.85, 1.0, 0.6, 0.32, (248, 251, 255))
    for x in (rng.uniform(0.07, 0.15), rng.uniform(0.85, 0.93)):
        for k in range(3):
            y = 0.30 + 0.11 * k
            w = 0.06 + 0.025 * k
            pen.poly([(x, y), (x + w, y + 0.16), (x - w, y + 0.16)], (112, 160, 160), line=False)
            pen.poly([(x, y), (x + w * 0.5, y + 0.08), (x - w * 0.5, y + 0.08)], WHITE, line=False)
    for _ in range(26):
        r = rng.uniform(0.009, 0.017)
        pen.oval(rng.random(), rng.random(), r, r, WHITE, line=False)


def _forest(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, (206, 230, 190))
    for x in (0.02, 0.17, 0.33, 0.67, 0.83, 0.98):
        x += rng.uniform(-0.025, 0.025)
        pen.stroke([(x, 0.2), (x, 0.82)], 0.05, (128, 94, 66))
        tone = mix((64, 130, 76), (120, 170, 90), rng.random())
        pen.oval(x, 0.22, 0.14, 0.20, tone, line=False)
    _band(pen, 0.76, 1, (132, 176, 92))


def _city(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, (222, 226, 236))
    for k in range(6):
        x, top = k / 6 + 0.01, rng.uniform(0.10, 0.36)
        tone = rng.choice(((176, 166, 176), (200, 172, 160), (160, 172, 190), (190, 186, 176)))
        pen.poly([(x, top), (x + 0.145, top), (x + 0.145, 0.85), (x, 0.85)], tone, line=False)
        for row in range(5):
            for column in (0.02, 0.085):
                y = top + 0.04 + 0.11 * row
                pen.poly(
                    [(x + column, y), (x + column + 0.04, y), (x + column + 0.04, y + 0.055), (x + column, y + 0.055)],
                    (252, 240, 190),
                    line=False,
                )
    _band(pen, 0.82, 1, (120, 122, 132))
    for x in (0.05, 0.4, 0.75):
        pen.poly([(x, 0.90), (x + 0.18, 0.90), (x + 0.18, 0.93), (x, 0.93)], (240, 240, 230), line=False)


def _night(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, (30, 34, 84))
    _band(pen, 0.5, 1, (40, 46, 104))
    x = rng.choice((0.14, 0.86))
    pen.oval(x, 0.15, 0.10, 0.10, (250, 244, 200), line=False)
    pen.oval(x + 0.045, 0.125, 0.085, 0.085, (30, 34, 84), line=False)
    for _ in range(24):
        r = rng.uniform(0.006, 0.011)
        pen.oval(rng.random(), rng.uniform(0, 0.75), r, r, (240, 240, 210), line=False)
    _hill(pen, 0.3, 1.0, 0.8, 0.20, (22, 26, 60))


def _room(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, (238, 214, 196))
    for x in np.arange(0.04, 1, 0.12):
        pen.stroke([(x, 0), (x, 0.76)], 0.016, (228, 198, 180))
    _band(pen, 0.76, 1, (176, 126, 90))
    _band(pen, 0.74, 0.77, (250, 244, 236))
    x = rng.choice((0.02, 0.72))  # a window and, on the other side, a lamp
    pen.poly([(x, 0.08), (x + 0.26, 0.08), (x + 0.26, 0.42), (x, 0.42)], (252, 250, 246), line=False)
    pen.poly(
        [(x + 0.025, 0.105), (x + 0.235, 0.105), (x + 0.235, 0.395), (x + 0.025, 0.395)], (164, 214, 240), line=False
    )
    pen.stroke([(x + 0.13, 0.10), (x + 0.13, 0.40)], 0.02, (252, 250, 246))
    lamp = 0.10 if x > 0.5 else 0.90
    pen.stroke([(lamp, 0.45), (lamp, 0.86)], 0.022, (110, 90, 80))
    pen.poly(
        [(lamp - 0.05, 0.33), (lamp + 0.05, 0.33), (lamp + 0.10, 0.49), (lamp - 0.10, 0.49)],
        (255, 222, 130),
        line=False,
    )


def _desert(pen: Pen, rng: Random) -> None:
    _band(pen, 0, 1, (252, 222, 186))
    _hill(pen, 0.15, 0.92, 0.5, 0.34, (228, 176, 116))
    _hill(pen, 0.9, 0.98, 0.6, 0.36, (218, 160, 100))
    _band(pen, 0.88, 1, (206, 148, 92))
    pen.oval(rng.uniform(0.1, 0.2), 0.13, 0.08, 0.08, (255, 244, 200), line=False)
    for x in (rng.uniform(0.06, 0.13), rng.uniform(0.87, 0.94)):
        pen.stroke([(x, 0.45), (x, 0.86)], 0.06, (84, 140, 92))
        pen.stroke([(x - 0.085, 0.52), (x - 0.085, 0.62), (x, 0.64)], 0.036, (84, 140, 92))
        pen.stroke([(x + 0.085, 0.56), (x + 0.085, 0.68), (x, 0.70)], 0.036, (84, 140, 92))


def _underwater(pen: Pen, rng: Random) -> None:
    for k in range(5):
        _band(pen, k * 0.2, k * 0.2 + 0.2, mix((120, 216, 226), (36, 120, 160), k / 4))
    _band(pen, 0.90, 1, (210, 196, 150))
    for x in (0.05, 0.13, 0.87, 0.95):
        x += rng.uniform(-0.01, 0.01)
        points = [(x + 0.025 * np.sin(t * 9), 0.95 - t) for t in np.linspace(0, rng.uniform(0.3, 0.5), 8)]
        pen.stroke(points, 0.032, (34, 140, 100))
    for _ in range(9):
        x, y, r = (
            rng.choice((rng.uniform(0.02, 0.25), rng.uniform(0.75, 0.98))),
            rng.uniform(0.03, 0.8),
            rng.uniform(0.02, 0.036),
        )
        pen.oval(x, y, r, r, (206, 244, 250), line=False)
        pen.oval(x, y, r * 0.62, r * 0.62, (130, 210, 226), line=False)


_PLACE = {
    "plain": _plain,
    "beach": _beach,
    "snow": _snow,
    "forest": _forest,
    "city": _city,
    "night": _night,
    "room": _room,
    "desert": _desert,
    "underwater": _underwater,
}


def _extras(pen: Pen, rng: Random, extra: str) -> None:
    """Five on either side, clear of the figure."""
    for k in range(10):
        x = 0.085 + rng.uniform(-0.035, 0.05)
        y = 0.09 + 0.195 * (k // 2) + rng.uniform(-0.04, 0.04)
        _EXTRA[extra](pen, rng, x if k % 2 else 1 - x, y)


def _leaf(pen: Pen, rng: Random, x: float, y: float) -> None:
    turn = rng.uniform(0, 180)
    a = np.deg2rad(turn)
    pen.oval(x, y, 0.082, 0.05, WHITE, turn=turn, line=False)
    pen.oval(x, y, 0.068, 0.037, rng.choice(((214, 96, 20), (196, 64, 20), (226, 130, 30))), turn=turn, line=False)
    pen.stroke(
        [(x - 0.085 * np.cos(a), y - 0.085 * np.sin(a)), (x + 0.05 * np.cos(a), y + 0.05 * np.sin(a))],
        0.014,
        (110, 50, 16),
    )


def _star(pen: Pen, rng: Random, x: float, y: float) -> None:
    angles = np.deg2rad(np.arange(-90, 270, 36) + rng.uniform(-20, 20))
    spikes = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.tile([[1.0], [0.48]], (5, 1))
    pen.poly(spikes * 0.098 + (x, y), WHITE, line=False)
    pen.poly(spikes * 0.074 + (x, y), (250, 190, 0), line=False)


def _heart(pen: Pen, rng: Random, x: float, y: float) -> None:
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    shape = np.stack([np.sin(t) ** 3, -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t)) / 16], axis=1)
    pen.poly(shape * 0.082 + (x, y), WHITE, line=False)
    pen.poly(shape * 0.062 + (x, y), (240, 40, 110), line=False)


_EXTRA = {"leaves": _leaf, "stars": _star, "hearts": _heart}
