"""How a character is drawn: body, head, what it wears and holds, from back to front."""

from __future__ import annotations

from random import Random
from typing import Any

from PIL import Image, ImageDraw

from menagerie import heads, wear
from menagerie.pen import Pen
from menagerie.values import BODY, INK, IRIS, PART, RGB, SECOND, WHITE, dark, mix

SCALE = {"close": 1.14, "medium": 0.96, "far": 0.81}
DROP = {"close": 0.055, "medium": 0.02, "far": 0.06}  # how far the middle lies below the image's middle
LINE = {"sticker": 0.0, "drawing": 0.012, "cartoon": 0.022, "watercolour": 0.0, "photo": 0.0}
TO_THE_SIDE = ("avocado", "ball", "ice cream", "balloon", "gift")


class Look:
    """A truth turned into what drawing needs: colours as RGB, proportions as factors near 1."""

    def __init__(self, truth: dict[str, Any]) -> None:
        self.truth = truth
        self.main: RGB = BODY[truth["colour"]]
        self.second: RGB = SECOND[truth["second"]]
        self.marks: RGB = dark(self.main, 0.62)
        self.iris: RGB = IRIS[truth["eyes"]]
        self.garment: RGB | None = PART.get(truth["garment_colour"])
        self.accessory: RGB | None = PART.get(truth["accessory_colour"])
        self.head = 0.25 * (1 + 0.10 * truth["head_width"])
        self.ear = 1 + 0.14 * truth["ear_size"]
        self.eye = 0.072 * (1 + 0.13 * truth["eye_size"])
        self.spacing = 0.115 * (1 + 0.14 * truth["eye_spacing"])
        self.muzzle = 1 + 0.16 * truth["muzzle_size"]
        self.body = 0.165 * (1 + 0.15 * truth["body_width"])


def draw_figure(truth: dict[str, Any], canvas: int) -> Image.Image:
    """Draw the character alone.

    Parameters
    ----------
    truth : dict
        A checked truth.
    canvas : int
        Width and height in pixels.

    Returns
    -------
    PIL.Image.Image
        RGBA, transparent around the figure.
    """
    image = Image.new("RGBA", (canvas, canvas), (128, 128, 128, 0))
    pen, look = _pen(truth, image), Look(truth)
    wear.draw_behind(pen, look)
    heads.draw_tail(pen, look)
    _body(pen, look)
    wear.draw_garment(pen, look)
    _left_arm(pen, look)
    heads.draw_head(pen, look)
    wear.draw_scarf(pen, look)
    _right_arm_and_object(pen, look)
    if truth["accessory"] != "glasses":
        wear.draw_accessory(pen, look)
    _eyes(pen, look)
    if truth["accessory"] == "glasses":
        wear.draw_accessory(pen, look)
    return image


def _pen(truth: dict[str, Any], image: Image.Image) -> Pen:
    canvas, style, rng = image.width, truth["style"], Random(truth["seed"])
    aside = -0.055 if truth["action"] in TO_THE_SIDE else 0.0
    x = 0.5 + aside + rng.uniform(-0.02, 0.02)
    y = 0.5 + DROP[truth["framing"]] + rng.uniform(-0.01, 0.01)
    return Pen(
        ImageDraw.Draw(image),
        canvas * SCALE[truth["framing"]],
        (x * canvas, y * canvas),
        tilt=truth["tilt"],
        line=LINE[style],
        soft=style == "photo",
    )


def _body(pen: Pen, look: Look) -> None:
    box = look.truth["kind"] == "robot"
    pen.pair(0.095, 0.405, 0.085, 0.045, dark(look.main, 0.2), box=box)  # feet
    pen.oval(0, 0.25, look.body, 0.175, look.main, box=box)
    pen.oval(0, 0.265, look.body * 0.62, 0.13, look.second, line=False, box=box)
    wear.draw_body_pattern(pen, look)


def _sleeve(look: Look) -> RGB:
    return look.garment if look.truth["garment"] == "jumper" else look.main


def _left_arm(pen: Pen, look: Look) -> None:
    x = look.body
    if look.truth["action"] != "book":
        pen.limb((-x + 0.01, 0.17), (-x - 0.05, 0.28), 0.085, _sleeve(look))
        pen.oval(-x - 0.055, 0.295, 0.043, 0.043, look.main)


def _right_arm_and_object(pen: Pen, look: Look) -> None:
    x, action = look.body, look.truth["action"]
    if action == "book":
        return wear.draw_book(pen, look, _sleeve(look))
    if action == "standing":
        pen.limb((x - 0.01, 0.17), (x + 0.05, 0.28), 0.085, _sleeve(look))
        return pen.oval(x + 0.055, 0.295, 0.043, 0.043, look.main)
    if action == "waving":
        pen.limb((x - 0.02, 0.18), (x + 0.15, 0.09), 0.085, _sleeve(look))
        return wear.draw_waving_hand(pen, look, x + 0.18)
    pen.limb((x - 0.01, 0.18), (x + 0.09, 0.21), 0.085, _sleeve(look))
    wear.draw_object(pen, action, x + 0.135)
    return pen.oval(x + 0.095, 0.225, 0.042, 0.042, look.main)


def _eyes(pen: Pen, look: Look) -> None:
    r, y = look.eye, heads.eye_height(look.truth["kind"])
    surprised = look.truth["expression"] == "surprised"
    for side in (-1, 1):
        x = side * look.spacing
        pen.oval(x, y, r, r * (1.12 if surprised else 1.0), WHITE)
        pen.oval(x, y, r * 0.80, r * 0.82, look.iris, line=False)
        pen.oval(x, y, r * 0.32, r * 0.34, INK, line=False)
        pen.oval(x - r * 0.30, y - r * 0.32, r * 0.24, r * 0.24, WHITE, line=False)
    if look.truth["expression"] == "sad":
        _tear(pen, look, y)


def _tear(pen: Pen, look: Look, y: float) -> None:
    x, top = -look.spacing - 0.02, y + look.eye * 0.75
    pen.poly(
        [(x, top - 0.02), (x + 0.035, top + 0.055), (x, top + 0.085), (x - 0.035, top + 0.055)],
        mix((90, 190, 255), WHITE, 0.35),
        line=False,
    )
    pen.oval(x, top + 0.055, 0.036, 0.036, (90, 190, 255), line=False)
