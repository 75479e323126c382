"""Poses: where a character's joints are, and how arms and legs are drawn through them.

Left and right are those of the image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from menagerie.world.appearance import HEAD_Y, Appearance
from menagerie.world.pen import Pen, displaced
from menagerie.world.values import RGB, dark

Point = tuple[float, float]

SIDES = {"left": -1, "right": 1}
JOINTS = (
    "head", "neck",
    *(f"{side} {joint}" for side in SIDES for joint in ("shoulder", "elbow", "hand")),
    *(f"{side} {joint}" for side in SIDES for joint in ("hip", "knee", "foot")),
)  # fmt: skip
"""The rows of a render's `joints`."""

LIMBS = tuple(
    (JOINTS.index(one), JOINTS.index(other))
    for one, other in (
        ("head", "neck"),
        *((a, f"{side} {b}") for side in SIDES for a, b in (("neck", "shoulder"), ("neck", "hip"))),
        *((f"{side} {a}", f"{side} {b}") for side in SIDES
          for a, b in (("shoulder", "elbow"), ("elbow", "hand"), ("hip", "knee"), ("knee", "foot"))),
    )
)  # fmt: skip
"""Rows of joints that a limb lies between."""

PARTS = {"torso": 1, "left arm": 2, "right arm": 3, "left leg": 4, "right leg": 5, "head": 6, "other": 7}
"""Numbers in the map of what is seen at each pixel; 0 is no part of the character."""

GROUND = (0.0, 0.42)  # what a leaning body turns about
LEAN = 20.0  # degrees
RIM = 0.012  # around a bent arm in styles without outlines
LIFT = {"together": 0.0, "apart": -0.055, "sitting": 0.015}  # how much lower the body is than above feet side by side
LEGS = {
    "together": ((0.09, 0.385), (0.095, 0.405)),
    "apart": ((0.155, 0.375), (0.195, 0.42)),
    "sitting": ((0.16, 0.365), (0.215, 0.39)),
}  # knee and foot of the right leg


@dataclass(frozen=True)
class Arm:
    """An arm in units of the figure, as if it were the right one and the body had no width.

    Attributes
    ----------
    shoulder, elbow, wrist, hand : (float, float)
        The hand's middle lies a little beyond the wrist, where the sleeve ends.
    bent : bool
        Drawn through the elbow; otherwise as one straight piece.
    size, width : float
        The hand's radius and the arm's thickness.
    """

    shoulder: Point
    elbow: Point
    wrist: Point
    hand: Point
    bent: bool = False
    size: float = 0.043
    width: float = 0.085

    def at(self, side: int, body: float) -> Arm:
        """The arm at a side (-1 left, 1 right) of a body, `body` half its width."""
        points = ((side * (body + x), y) for x, y in (self.shoulder, self.elbow, self.wrist, self.hand))
        return Arm(*points, self.bent, self.size, self.width)


def _straight(shoulder: Point, wrist: Point, hand: Point) -> Arm:
    elbow = ((shoulder[0] + wrist[0]) / 2, (shoulder[1] + wrist[1]) / 2)
    return Arm(shoulder, elbow, wrist, hand)


DOWN = _straight((-0.01, 0.17), (0.05, 0.28), (0.055, 0.295))
HOLDING = replace(_straight((-0.01, 0.18), (0.09, 0.21), (0.095, 0.225)), size=0.042)
WAVING = _straight((-0.02, 0.18), (0.15, 0.09), (0.18, 0.05))
UP = Arm((-0.02, 0.19), (0.12, 0.115), (0.175, -0.05), (0.18, -0.09), bent=True)
OUT = Arm((-0.02, 0.175), (0.075, 0.18), (0.165, 0.15), (0.185, 0.145), bent=True)
HIGH = Arm((-0.02, 0.19), (0.12, 0.10), (0.16, -0.125), (0.165, -0.165), bent=True)
ARMS = {"down": (DOWN, DOWN), "up": (UP, UP), "out": (OUT, OUT), "raised": (HIGH, DOWN)}
HELD = {"standing": DOWN, "waving": WAVING}  # the right arm where the left one is down


def arms(look: Appearance) -> dict[str, Arm]:
    """Both arms by side, in the coordinates of the body."""
    pose, action = look.truth["arms"], look.truth["action"]
    if action == "book":  # both hands meet in front, whatever the width of the body
        right = _straight((look.body, 0.19), (0.195, 0.26), (0.195, 0.285))
        return {side: replace(right.at(s, 0.0), size=0.042, width=0.075) for side, s in SIDES.items()}
    left, right = ARMS[pose] if pose != "down" else (DOWN, HELD.get(action, HOLDING))
    return {"left": left.at(-1, look.body), "right": right.at(1, look.body)}


def legs(look: Appearance) -> dict[str, tuple[Point, Point, Point]]:
    """Hip, knee and foot by side: where they are, whatever the body's lean."""
    turn, down = _displacement(look.truth)
    hips = {side: displaced((s * 0.08, 0.35), down, turn, GROUND) for side, s in SIDES.items()}
    knee, foot = LEGS[look.truth["legs"]]
    return {side: (hips[side], (s * knee[0], knee[1]), (s * foot[0], foot[1])) for side, s in SIDES.items()}


def _displacement(truth: dict[str, Any]) -> tuple[float, float]:
    """Degrees, clockwise, and units, downwards, by which the body is away from where it stands upright."""
    return {"upright": 0.0, "left": -LEAN, "right": LEAN}[truth["lean"]], LIFT[truth["legs"]]


def body_pen(pen: Pen, truth: dict[str, Any]) -> Pen:
    """The pen for all that is above the feet: turned by leaning, lifted or lowered by the legs."""
    turn, down = _displacement(truth)
    return pen.moved(down, turn, GROUND) if turn or down else replace(pen)


def joints(pen: Pen, body: Pen, look: Appearance, seen: Image.Image) -> np.ndarray:
    """Where the joints lie on a canvas and whether they are to be seen, as of `Render.joints`.

    Parameters
    ----------
    pen, body : Pen
        Of the ground and of the body.
    look : Appearance
    seen : PIL.Image.Image
        For each pixel of the canvas the number of the part that is seen there ("L").
    """
    at = {"head": (0.0, HEAD_Y), "neck": (0.0, 0.115)}
    parts = {"head": ("head",), "neck": ("torso", "head")}
    for side, arm in arms(look).items():
        mine = f"{side} arm"
        at |= {f"{side} shoulder": arm.shoulder, f"{side} elbow": arm.elbow, f"{side} hand": arm.hand}
        parts |= {f"{side} shoulder": ("torso", mine), f"{side} elbow": (mine,), f"{side} hand": (mine,)}
    places = dict(zip(at, body.pixels(list(at.values())), strict=True))
    for side, points in legs(look).items():
        mine, names = f"{side} leg", [f"{side} {joint}" for joint in ("hip", "knee", "foot")]
        places |= dict(zip(names, pen.pixels(points), strict=True))
        parts |= dict(zip(names, (("torso", mine), ("torso", mine), (mine,)), strict=True))
    rows = [(*places[name], _is_seen(places[name], [PARTS[part] for part in parts[name]], seen)) for name in JOINTS]
    return np.array(rows, np.float32) / (seen.width, seen.height, 1)


def _is_seen(place: Point, parts: list[int], seen: Image.Image) -> bool:
    x, y = int(place[0]), int(place[1])
    return 0 <= x < seen.width and 0 <= y < seen.height and seen.getpixel((x, y)) in parts


def draw_arm(pen: Pen, arm: Arm, sleeve: RGB) -> None:
    """An arm without its hand; a bent one with a dark rim, for it may cross a head of its own colour."""
    if arm.bent:
        if not pen.line:
            rim = dark(sleeve, 0.35)
            pen.tube([arm.shoulder, arm.elbow, arm.wrist], arm.width + 2 * RIM, rim)
            pen.oval(*arm.hand, arm.size + RIM, arm.size + RIM, rim)
        pen.tube([arm.shoulder, arm.elbow, arm.wrist], arm.width, sleeve)
    else:
        pen.limb(arm.shoulder, arm.wrist, arm.width, sleeve)


def draw_legs(pen: Pen, look: Appearance) -> None:
    """Legs and feet, before the body or, of one who sits, over it."""
    box, pose = look.truth["kind"] == "robot", look.truth["legs"]
    trousers = look.garment if look.truth["garment"] == "overalls" else look.main
    if pose == "together":
        pen.pair(0.095, 0.405, 0.085, 0.045, dark(look.main, 0.2), box=box)
        return
    for side, points in legs(look).items():
        pen.part = PARTS[f"{side} leg"]
        pen.tube(points, 0.10, trousers)
        x, y = points[2]
        if pose == "apart":
            pen.oval(x + 0.018 * SIDES[side], y + 0.012, 0.085, 0.045, dark(look.main, 0.2), box=box)
        else:  # the soles
            pen.oval(x, y, 0.066, 0.072, dark(look.main, 0.2), box=box)
            pen.oval(x, y + 0.006, 0.04, 0.045, look.second, line=False, box=box)
