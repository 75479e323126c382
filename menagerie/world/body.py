"""How a character is drawn: body, head, what it wears and holds, from back to front."""

from __future__ import annotations

from random import Random
from typing import Any

from PIL import Image, ImageDraw

from menagerie.world import clothes, heads
from menagerie.world.appearance import Appearance
from menagerie.world.pen import Pen
from menagerie.world.values import INK, RGB, WHITE, dark, mix

SCALE = {"close": 1.14, "medium": 0.96, "far": 0.81}
DROP = {"close": 0.055, "medium": 0.02, "far": 0.06}  # how far the middle lies below the image's middle
LINE = {"sticker": 0.0, "drawing": 0.012, "cartoon": 0.022, "watercolour": 0.0, "photo": 0.0}
TO_THE_SIDE = ("avocado", "ball", "ice cream", "balloon", "gift")


def draw_character(truth: dict[str, Any], canvas: int) -> Image.Image:
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
    pen, look = _pen(truth, image), Appearance(truth)
    clothes.draw_behind(pen, look)
    heads.draw_tail(pen, look)
    _body(pen, look)
    clothes.draw_garment(pen, look)
    _left_arm(pen, look)
    heads.draw_head(pen, look)
    clothes.draw_scarf(pen, look)
    _right_arm_and_object(pen, look)
    if truth["accessory"] != "glasses":
        clothes.draw_accessory(pen, look)
    _eyes(pen, look)
    if truth["accessory"] == "glasses":
        clothes.draw_accessory(pen, look)
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


def _body(pen: Pen, look: Appearance) -> None:
    box = look.truth["kind"] == "robot"
    pen.pair(0.095, 0.405, 0.085, 0.045, dark(look.main, 0.2), box=box)  # feet
    pen.oval(0, 0.25, look.body, 0.175, look.main, box=box)
    pen.oval(0, 0.265, look.body * 0.62, 0.13, look.second, line=False, box=box)
    clothes.draw_body_pattern(pen, look)


def _sleeve(look: Appearance) -> RGB:
    return look.garment if look.truth["garment"] == "jumper" else look.main


def _left_arm(pen: Pen, look: Appearance) -> None:
    x = look.body
    if look.truth["action"] != "book":
        pen.limb((-x + 0.01, 0.17), (-x - 0.05, 0.28), 0.085, _sleeve(look))
        pen.oval(-x - 0.055, 0.295, 0.043, 0.043, look.main)


def _right_arm_and_object(pen: Pen, look: Appearance) -> None:
    x, action = look.body, look.truth["action"]
    if action == "book":
        return clothes.draw_book(pen, look, _sleeve(look))
    if action == "standing":
        pen.limb((x - 0.01, 0.17), (x + 0.05, 0.28), 0.085, _sleeve(look))
        return pen.oval(x + 0.055, 0.295, 0.043, 0.043, look.main)
    if action == "waving":
        pen.limb((x - 0.02, 0.18), (x + 0.15, 0.09), 0.085, _sleeve(look))
        return clothes.draw_waving_hand(pen, look, x + 0.18)
    pen.limb((x - 0.01, 0.18), (x + 0.09, 0.21), 0.085, _sleeve(look))
    clothes.draw_object(pen, action, x + 0.135)
    return pen.oval(x + 0.095, 0.225, 0.042, 0.042, look.main)


def _eyes(pen: Pen, look: Appearance) -> None:
    r, y = look.eye, look.eye_height
    surprised = look.truth["expression"] == "surprised"
    for side in (-1, 1):
        x = side * look.spacing
        pen.oval(x, y, r, r * (1.12 if surprised else 1.0), WHITE)
        pen.oval(x, y, r * 0.80, r * 0.82, look.iris, line=False)
        pen.oval(x, y, r * 0.32, r * 0.34, INK, line=False)
        pen.oval(x - r * 0.30, y - r * 0.32, r * 0.24, r * 0.24, WHITE, line=False)
    if look.truth["expression"] == "sad":
        _tear(pen, look, y)


def _tear(pen: Pen, look: Appearance, y: float) -> None:
    x, top = -look.spacing - 0.02, y + look.eye * 0.75
    pen.poly(
        [(x, top - 0.02), (x + 0.035, top + 0.055), (x, top + 0.085), (x - 0.035, top + 0.055)],
        mix((90, 190, 255), WHITE, 0.35),
        line=False,
    )
    pen.oval(x, top + 0.055, 0.036, 0.036, (90, 190, 255), line=False)
