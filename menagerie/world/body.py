"""How a character is drawn: body, head, what it wears and holds, from back to front."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from menagerie.world import clothes, heads, pose
from menagerie.world.appearance import Appearance
from menagerie.world.pen import Pen
from menagerie.world.pose import PARTS, Arm
from menagerie.world.values import INK, RGB, WHITE, mix

SCALE = {"close": 1.14, "medium": 0.96, "far": 0.81}
DROP = {"close": 0.055, "medium": 0.02, "far": 0.06}  # how far the middle lies below the image's middle
LINE = {"sticker": 0.0, "drawing": 0.012, "cartoon": 0.022, "watercolour": 0.0, "photo": 0.0}
TO_THE_SIDE = ("avocado", "ball", "ice cream", "balloon", "gift")


def draw_character(truth: dict[str, Any], canvas: int) -> tuple[Image.Image, np.ndarray]:
    """Draw the character alone.

    Parameters
    ----------
    truth : dict
        A checked truth.
    canvas : int
        Width and height in pixels.

    Returns
    -------
    image : PIL.Image.Image
        RGBA, transparent around the figure.
    joints : ndarray of shape (J, 3)
        As of `Render.joints`.
    """
    image = Image.new("RGBA", (canvas, canvas), (128, 128, 128, 0))
    seen = Image.new("L", image.size)
    ground, look = _pen(truth, image, seen), Appearance(truth)
    pen = pose.body_pen(ground, truth)
    pen.part = ground.part = PARTS["other"]
    clothes.draw_behind(pen, look)
    heads.draw_tail(pen, look)
    _body(ground, pen, look)
    arms = pose.arms(look)
    if truth["arms"] == "down" and truth["action"] != "book":
        _arm(pen, look, "left", arms.pop("left"))  # behind the head, all others before it
    pen.part = PARTS["head"]
    heads.draw_head(pen, look)
    pen.part = PARTS["torso"]
    clothes.draw_scarf(pen, look)
    if truth["action"] == "book":
        pen.part = PARTS["other"]
        clothes.draw_book(pen)
    for side, arm in arms.items():
        _arm(pen, look, side, arm)
    pen.part = PARTS["head"]
    if truth["accessory"] != "glasses":
        clothes.draw_accessory(pen, look)
    _eyes(pen, look)
    if truth["accessory"] == "glasses":
        clothes.draw_accessory(pen, look)
    return image, pose.joints(ground, pen, look, seen)


def _pen(truth: dict[str, Any], image: Image.Image, seen: Image.Image) -> Pen:
    canvas, style, rng = image.width, truth["style"], Random(truth["seed"])
    aside = -0.055 if truth["action"] in TO_THE_SIDE else 0.0
    aside += {"upright": 0.0, "left": 0.08, "right": -0.08}[truth["lean"]]
    x = 0.5 + aside + rng.uniform(-0.02, 0.02)
    y = 0.5 + DROP[truth["framing"]] + rng.uniform(-0.01, 0.01)
    return Pen(
        ImageDraw.Draw(image),
        canvas * SCALE[truth["framing"]],
        (x * canvas, y * canvas),
        tilt=truth["tilt"] * (1.0 if truth["lean"] == "upright" else 0.25),  # no lean is undone by the tilt
        line=LINE[style],
        soft=style == "photo",
        parts=ImageDraw.Draw(seen),
    )


def _body(ground: Pen, pen: Pen, look: Appearance) -> None:
    box, sits = look.truth["kind"] == "robot", look.truth["legs"] == "sitting"
    if not sits:
        pose.draw_legs(ground, look)
    pen.part = PARTS["torso"]
    pen.oval(0, 0.25, look.body, 0.175, look.main, box=box)
    pen.oval(0, 0.265, look.body * 0.62, 0.13, look.second, line=False, box=box)
    clothes.draw_body_pattern(pen, look)
    clothes.draw_garment(pen, look)
    if sits:
        pose.draw_legs(ground, look)


def _sleeve(look: Appearance) -> RGB:
    return look.garment if look.truth["garment"] == "jumper" else look.main


def _arm(pen: Pen, look: Appearance, side: str, arm: Arm) -> None:
    """An arm, what it holds and its hand."""
    action = look.truth["action"] if side == "right" else "standing"
    pen.part = PARTS[f"{side} arm"]
    pose.draw_arm(pen, arm, _sleeve(look))
    if action == "waving":
        return clothes.draw_waving_hand(pen, look, arm.hand[0])
    pen.part = PARTS["other"]
    clothes.draw_object(pen, action, look.body + 0.135)
    pen.part = PARTS[f"{side} arm"]
    return pen.oval(*arm.hand, arm.size, arm.size, look.main)


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
