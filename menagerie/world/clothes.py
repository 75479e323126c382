"""What a character wears and holds, and the pattern on its body."""

from __future__ import annotations

import numpy as np

from menagerie.world.appearance import Appearance
from menagerie.world.pen import Pen
from menagerie.world.values import INK, RGB, WHITE, dark, mix


def draw_body_pattern(pen: Pen, look: Appearance) -> None:
    """Spots, stripes or a patch on the body."""
    w, marks = look.body, look.marks
    if look.truth["pattern"] == "spots":
        for x, y in ((-0.8, 0.2), (0.82, 0.27), (-0.76, 0.32), (0.7, 0.36)):
            pen.oval(x * w, y, 0.03, 0.03, marks, line=False)
    elif look.truth["pattern"] == "stripes":
        for y in (0.20, 0.27, 0.34):
            edge = (1 - ((y - 0.25) / 0.175) ** 2) ** 0.5 * w
            pen.polys([(edge, y - 0.024), (edge * 0.55, y), (edge, y + 0.024)], marks, line=False)
    elif look.truth["pattern"] == "patch":
        pen.oval(-0.72 * w, 0.34, 0.055, 0.045, marks, line=False)


def draw_behind(pen: Pen, look: Appearance) -> None:
    """Cape and balloon, which lie behind the body."""
    if look.truth["garment"] == "cape":
        w = look.body
        pen.poly(
            [
                (-0.14, 0.08),
                (0.14, 0.08),
                (w + 0.19, 0.40),
                (w * 0.8, 0.375),
                (0, 0.42),
                (-w * 0.8, 0.375),
                (-w - 0.19, 0.40),
            ],
            look.garment,
        )
    if look.truth["action"] == "balloon":
        x = look.body + 0.20
        pen.stroke([(x, -0.10), (look.body + 0.10, 0.22)], 0.014, INK)
        pen.poly([(x - 0.025, -0.07), (x, -0.11), (x + 0.025, -0.07)], (230, 40, 70))
        pen.oval(x + 0.02, -0.19, 0.105, 0.125, (240, 50, 80))
        pen.oval(x + 0.055, -0.235, 0.022, 0.034, (255, 200, 210), line=False)


def draw_garment(pen: Pen, look: Appearance) -> None:
    """Jumper, overalls or the cape's collar, on the body."""
    garment, colour, w = look.truth["garment"], look.garment, look.body
    if garment == "jumper":
        pen.oval(0, 0.235, w * 1.07, 0.16, colour, box=True)
        pen.oval(0, 0.255, w * 1.03, 0.026, mix(colour, WHITE, 0.72), line=False, box=True)
    elif garment == "overalls":
        for side in (-1, 1):
            pen.stroke([(side * w * 0.72, 0.12), (side * w * 0.45, 0.26)], 0.045, colour)
        pen.oval(0, 0.325, w * 1.06, 0.095, colour, box=True)
        pen.oval(0, 0.265, w * 0.62, 0.065, colour, box=True)
        pen.pair(w * 0.42, 0.225, 0.02, 0.02, WHITE, line=False)
        pen.oval(0, 0.30, 0.05, 0.03, dark(colour, 0.3), line=False, box=True)
    elif garment == "cape":
        pen.polys([(0.0, 0.10), (w * 1.05, 0.10), (w * 0.98, 0.225), (0.0, 0.15)], colour)


def draw_scarf(pen: Pen, look: Appearance) -> None:
    """The scarf, below the chin, and the cape's clasp."""
    w, colour = look.body, look.garment
    if look.truth["garment"] == "scarf":
        tail = -w * 0.42
        pen.poly([(tail - 0.055, 0.15), (tail + 0.055, 0.15), (tail + 0.05, 0.335), (tail - 0.07, 0.335)], colour)
        pen.poly(
            [(tail - 0.062, 0.25), (tail + 0.05, 0.25), (tail + 0.05, 0.285), (tail - 0.066, 0.285)],
            mix(colour, WHITE, 0.7),
            line=False,
        )
        pen.oval(0, 0.147, w * 1.12, 0.050, colour, box=True)
    elif look.truth["garment"] == "cape":
        pen.oval(0, 0.135, 0.032, 0.032, (255, 215, 60) if look.truth["garment_colour"] != "yellow" else WHITE)


def draw_accessory(pen: Pen, look: Appearance) -> None:
    """Hat, crown, bow, flower or glasses."""
    _ACCESSORY.get(look.truth["accessory"], lambda pen, look, colour: None)(pen, look, look.accessory)


def _hat(pen: Pen, look: Appearance, colour: RGB) -> None:
    pen.oval(0, -0.35, 0.115, 0.095, colour, box=True)
    pen.oval(0, -0.293, 0.115, 0.022, WHITE, line=False, box=True)
    pen.oval(0, -0.265, 0.20, 0.03, colour, box=True)


def _crown(pen: Pen, look: Appearance, colour: RGB) -> None:
    pen.poly(
        [
            (-0.14, -0.25),
            (-0.165, -0.41),
            (-0.075, -0.335),
            (0, -0.445),
            (0.075, -0.335),
            (0.165, -0.41),
            (0.14, -0.25),
        ],
        colour,
    )
    for x, y in ((-0.165, -0.41), (0, -0.44), (0.165, -0.41)):
        pen.oval(x, y, 0.026, 0.026, WHITE, line=False)
    pen.oval(0, -0.285, 0.03, 0.03, WHITE, line=False)


def _bow(pen: Pen, look: Appearance, colour: RGB) -> None:
    x, y = 0.58 * look.head, -0.275
    for side in (-1, 1):
        pen.poly([(x, y - 0.015), (x + side * 0.13, y - 0.085), (x + side * 0.13, y + 0.085), (x, y + 0.015)], colour)
    pen.oval(x, y, 0.035, 0.04, mix(colour, WHITE, 0.55))


def _flower(pen: Pen, look: Appearance, colour: RGB) -> None:
    x, y = -0.60 * look.head, -0.27
    for angle in np.deg2rad(np.arange(0, 360, 72) - 90):
        pen.oval(x + 0.066 * np.cos(angle), y + 0.066 * np.sin(angle), 0.052, 0.052, colour)
    pen.oval(x, y, 0.040, 0.040, WHITE if look.truth["accessory_colour"] == "yellow" else (255, 220, 60), line=False)


def _glasses(pen: Pen, look: Appearance, colour: RGB) -> None:
    y, r = look.eye_height, look.eye * 1.28
    for side in (-1, 1):
        pen.arc(side * look.spacing, y, r, r, 0, 360, 0.034, colour)
        pen.stroke([(side * (look.spacing + r), y), (side * max(look.head, look.spacing + r), y - 0.02)], 0.03, colour)
    pen.stroke([(-look.spacing + r, y), (look.spacing - r, y)], 0.034, colour)


_ACCESSORY = {"hat": _hat, "crown": _crown, "bow": _bow, "flower": _flower, "glasses": _glasses}


def draw_book(pen: Pen) -> None:
    """An open book before the belly."""
    pen.polys([(0, 0.22), (0.19, 0.185), (0.19, 0.355), (0, 0.39)], (150, 70, 40))
    pen.polys([(0.006, 0.232), (0.17, 0.202), (0.17, 0.335), (0.006, 0.365)], (255, 252, 240), line=False)
    for y in (0.26, 0.305):
        for side in (-1, 1):
            pen.stroke([(side * 0.035, y + 0.005), (side * 0.145, y - 0.017)], 0.012, (150, 140, 140))


def draw_waving_hand(pen: Pen, look: Appearance, x: float) -> None:
    """A raised hand with three fingers."""
    pen.oval(x, 0.05, 0.06, 0.06, look.main)
    for turn, dx, dy in ((-30, -0.03, -0.05), (0, 0.012, -0.065), (35, 0.05, -0.045)):
        pen.oval(x + dx, 0.05 + dy, 0.022, 0.04, look.main, turn=turn)


def draw_object(pen: Pen, action: str, x: float) -> None:
    """What is held out to the right, around (x, 0.2); the balloon is drawn behind."""
    _OBJECT.get(action, lambda pen, x: None)(pen, x)


def _avocado(pen: Pen, x: float) -> None:
    x += 0.03
    for grow, colour in ((0.018, (40, 84, 36)), (0.0, (206, 226, 110))):
        pen.poly(_pear(x, 0.21, 0.085 + grow, 0.125 + grow), colour, line=grow > 0)
    pen.oval(x, 0.245, 0.044, 0.044, (140, 80, 40), line=False)


def _pear(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    a = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    narrow = 1 - 0.36 * np.clip(-np.sin(a), 0, 1)
    return np.stack([x + rx * np.cos(a) * narrow, y + ry * np.sin(a)], axis=1)


def _ball(pen: Pen, x: float) -> None:
    x, y, r = x + 0.045, 0.235, 0.115
    pen.oval(x, y, r, r, WHITE)
    for k, colour in enumerate(((230, 40, 50), (40, 110, 230), (250, 200, 30))):
        a = np.deg2rad(np.linspace(k * 120, k * 120 + 62, 8))
        points = np.stack([x + 0.96 * r * np.cos(a), y + 0.96 * r * np.sin(a)], axis=1)
        pen.poly(np.vstack([[x, y], points]), colour, line=False)


def _ice_cream(pen: Pen, x: float) -> None:
    x += 0.02
    pen.poly([(x - 0.065, 0.15), (x + 0.065, 0.15), (x, 0.33)], (214, 150, 80))
    pen.oval(x - 0.03, 0.11, 0.06, 0.058, (255, 160, 190))
    pen.oval(x + 0.04, 0.115, 0.056, 0.055, (255, 246, 220))
    pen.oval(x, 0.055, 0.055, 0.052, (120, 70, 50))


def _gift(pen: Pen, x: float) -> None:
    x += 0.045
    pen.oval(x, 0.24, 0.105, 0.095, (70, 200, 220), box=True)
    pen.poly(
        [(x - 0.022, 0.147), (x + 0.022, 0.147), (x + 0.022, 0.333), (x - 0.022, 0.333)], (250, 60, 90), line=False
    )
    pen.poly(
        [(x - 0.103, 0.215), (x + 0.103, 0.215), (x + 0.103, 0.255), (x - 0.103, 0.255)], (250, 60, 90), line=False
    )
    for side in (-1, 1):
        pen.oval(x + side * 0.04, 0.125, 0.042, 0.028, (250, 60, 90), turn=side * -30)


_OBJECT = {"avocado": _avocado, "ball": _ball, "ice cream": _ice_cream, "gift": _gift}
