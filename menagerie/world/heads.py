"""Heads and tails of every kind: silhouette, ears, muzzle, nose and mouth."""

from __future__ import annotations

from menagerie.world.appearance import HEAD_Y, Appearance
from menagerie.world.pen import Pen
from menagerie.world.values import INK, RGB, WHITE, dark, mix

SKIN: RGB = (236, 188, 150)
BEAK: RGB = (255, 160, 30)


def draw_tail(pen: Pen, look: Appearance) -> None:
    """Draw tail or wings, which lie behind the body."""
    kind, x = look.truth["kind"], -look.body
    if kind == "fox":
        pen.oval(x - 0.10, 0.29, 0.15, 0.085, look.main, turn=35)
        pen.oval(x - 0.18, 0.235, 0.07, 0.062, look.second, turn=35)
    elif kind == "cat":
        _line_tail(pen, [(x, 0.38), (x - 0.12, 0.36), (x - 0.16, 0.26), (x - 0.13, 0.18)], 0.05, look.main)
    elif kind == "mouse":
        _line_tail(pen, [(x, 0.39), (x - 0.1, 0.38), (x - 0.15, 0.32), (x - 0.22, 0.33)], 0.03, look.second)
    elif kind == "dog":
        pen.oval(x - 0.06, 0.26, 0.095, 0.04, look.main, turn=50)
    elif kind == "dragon":
        pen.polys([(0.08, 0.16), (0.27, 0.06), (0.31, 0.20), (0.24, 0.22), (0.21, 0.30)], look.second)
        pen.poly([(x + 0.05, 0.33), (x - 0.20, 0.40), (x - 0.22, 0.32), (x - 0.14, 0.34), (x, 0.26)], look.main)


def _line_tail(pen: Pen, points: list[tuple[float, float]], width: float, fill: RGB) -> None:
    if pen.line:
        pen.stroke(points, width + 2 * pen.line, INK)
    pen.stroke(points, width, fill)


def draw_head(pen: Pen, look: Appearance) -> None:
    """Draw ears, head, its pattern, muzzle, nose and mouth; the eyes come later."""
    kind = look.truth["kind"]
    _EARS.get(kind, lambda pen, look: None)(pen, look)
    _SKULL.get(kind, _round_skull)(pen, look)
    draw_head_pattern(pen, look)
    _FACE.get(kind, _plain_face)(pen, look)


def draw_head_pattern(pen: Pen, look: Appearance) -> None:
    """Spots, stripes or a patch on the head, in a dark shade of the main colour."""
    pattern, w, marks = look.truth["pattern"], look.head, look.marks
    if pattern == "spots":
        for x, y, r in (
            (-0.74, 0.02, 0.040),
            (0.74, 0.03, 0.040),
            (-0.52, 0.085, 0.032),
            (0.52, 0.09, 0.032),
            (-0.05, -0.225, 0.040),
            (0.62, -0.205, 0.034),
            (-0.66, -0.19, 0.038),
        ):
            pen.oval(x * w, y - 0.03, r, r, marks, line=False)
    elif pattern == "stripes":
        for side in (-1, 1):
            for y in (-0.12, -0.045, 0.025):
                edge = (1 - ((y - HEAD_Y) / 0.2) ** 2) ** 0.5 * w * 0.97
                pen.poly(
                    [(side * edge, y - 0.028), (side * edge * 0.6, y), (side * edge, y + 0.028)], marks, line=False
                )
        for x in (-0.07, 0, 0.07):
            pen.poly([(x - 0.024, -0.292), (x + 0.024, -0.292), (x * 0.9, -0.19)], marks, line=False)
    elif pattern == "patch":
        masked = look.truth["kind"] in ("owl", "penguin") and look.truth["second"] == "black"
        pen.oval(
            look.spacing + 0.012,
            look.eye_height,
            look.eye * 1.65,
            look.eye * 1.8,
            look.main if masked else marks,
            turn=-15,
            line=False,
        )


# --- ears -------------------------------------------------------------------------------------------------


def _pointed(pen: Pen, look: Appearance, *, inner: float, out: float, tall: float, wide: float) -> None:
    w, e = look.head, look.ear
    base, tip = -0.20, -0.22 - tall * e
    x0, x1, xt = 0.18 * w, (0.18 + wide * e) * w, out * w
    pen.polys([(x0, base - 0.06), (xt, tip), (x1, base + 0.06)], look.main)
    middle_x, middle_y = (x0 + x1 + xt) / 3, (2 * base + tip) / 3
    pen.polys(
        [
            (middle_x + (x - middle_x) * inner, middle_y + (y - middle_y) * inner)
            for x, y in ((x0, base - 0.06), (xt, tip), (x1, base + 0.06))
        ],
        look.second,
        line=False,
    )


def _fox_ears(pen: Pen, look: Appearance) -> None:
    _pointed(pen, look, inner=0.5, out=0.92, tall=0.22, wide=0.82)
    w, tip = look.head, -0.22 - 0.22 * look.ear
    pen.polys([(0.92 * w, tip), (0.72 * w, tip + 0.085), (0.97 * w, tip + 0.10)], INK, line=False)


def _cat_ears(pen: Pen, look: Appearance) -> None:
    _pointed(pen, look, inner=0.55, out=0.70, tall=0.155, wide=0.68)


def _pig_ears(pen: Pen, look: Appearance) -> None:
    w, e = look.head, look.ear
    pen.polys(
        [(0.30 * w, -0.27), (0.62 * w, -0.28 - 0.09 * e), (1.02 * w, -0.22 - 0.03 * e), (0.84 * w, -0.16)], look.main
    )
    pen.polys([(0.62 * w, -0.26 - 0.06 * e), (1.0 * w, -0.22 - 0.03 * e), (0.80 * w, -0.20)], look.second, line=False)


def _dog_ears(pen: Pen, look: Appearance) -> None:
    pen.pair(look.head * 1.02, -0.10, 0.075 * look.ear, 0.17 * look.ear, dark(look.main, 0.28), turn=-14)


def _rabbit_ears(pen: Pen, look: Appearance) -> None:
    pen.pair(0.52 * look.head, -0.25 - 0.10 * look.ear, 0.062, 0.135 * look.ear, look.main, turn=10)
    pen.pair(0.52 * look.head, -0.25 - 0.10 * look.ear, 0.034, 0.105 * look.ear, look.second, turn=10, line=False)


def _bear_ears(pen: Pen, look: Appearance) -> None:
    pen.pair(0.74 * look.head, -0.265, 0.078 * look.ear, 0.078 * look.ear, look.main)
    pen.pair(0.74 * look.head, -0.265, 0.042 * look.ear, 0.042 * look.ear, look.second, line=False)


def _mouse_ears(pen: Pen, look: Appearance) -> None:
    pen.pair(0.98 * look.head, -0.275, 0.135 * look.ear, 0.135 * look.ear, look.main)
    pen.pair(0.98 * look.head, -0.275, 0.095 * look.ear, 0.095 * look.ear, look.second, line=False)


def _owl_ears(pen: Pen, look: Appearance) -> None:
    w = look.head
    pen.polys([(0.30 * w, -0.26), (1.0 * w, -0.28 - 0.10 * look.ear), (0.96 * w, -0.12)], dark(look.main, 0.25))


def _dragon_ears(pen: Pen, look: Appearance) -> None:
    w, e = look.head, look.ear
    pen.polys([(0.30 * w, -0.26), (0.46 * w, -0.29 - 0.16 * e), (0.66 * w, -0.23)], look.second)
    pen.polys(
        [
            (0.88 * w, -0.16),
            (1.05 * w + 0.10 * e, -0.20),
            (1.02 * w + 0.05 * e, -0.12),
            (1.03 * w + 0.09 * e, -0.04),
            (0.9 * w, -0.04),
        ],
        look.main,
    )


def _robot_ears(pen: Pen, look: Appearance) -> None:
    pen.stroke([(0.0, -0.28), (0.0, -0.40)], 0.03, dark(look.main, 0.4))
    pen.oval(0, -0.41, 0.045 * look.ear, 0.045 * look.ear, (255, 70, 70))
    pen.pair(look.head * 1.02, -0.10, 0.05, 0.075 * look.ear, dark(look.main, 0.4), box=True)


_EARS = {
    "fox": _fox_ears,
    "cat": _cat_ears,
    "pig": _pig_ears,
    "rabbit": _rabbit_ears,
    "bear": _bear_ears,
    "mouse": _mouse_ears,
    "owl": _owl_ears,
    "dragon": _dragon_ears,
    "robot": _robot_ears,
}


# --- skulls -----------------------------------------------------------------------------------------------


def _round_skull(pen: Pen, look: Appearance) -> None:
    pen.oval(0, HEAD_Y, look.head, 0.20, look.main)


def _fox_skull(pen: Pen, look: Appearance) -> None:
    w = look.head
    pen.poly(
        [
            (-0.5 * w, -0.285),
            (0, -0.305),
            (0.5 * w, -0.285),
            (0.9 * w, -0.18),
            (1.22 * w, 0.01),
            (0.72 * w, 0.06),
            (0, 0.115),
            (-0.72 * w, 0.06),
            (-1.22 * w, 0.01),
            (-0.9 * w, -0.18),
        ],
        look.main,
    )
    pen.polys(
        [(1.19 * w, 0.01), (0.72 * w, 0.055), (0.02, 0.11), (0.1 * w, -0.02), (0.62 * w, -0.04)],
        look.second,
        line=False,
    )


def _dog_skull(pen: Pen, look: Appearance) -> None:
    _round_skull(pen, look)
    _dog_ears(pen, look)


def _frog_skull(pen: Pen, look: Appearance) -> None:
    pen.pair(look.spacing, -0.265, look.eye * 1.35, look.eye * 1.35, look.main)
    pen.oval(0, -0.075, look.head * 1.1, 0.175, look.main)


def _robot_skull(pen: Pen, look: Appearance) -> None:
    pen.oval(0, HEAD_Y, look.head, 0.195, look.main, box=True)


def _penguin_skull(pen: Pen, look: Appearance) -> None:
    _round_skull(pen, look)
    pen.pair(0.11, -0.085, 0.125, 0.13, look.second, line=False)
    pen.oval(0, 0.0, 0.15, 0.085, look.second, line=False)


def _owl_skull(pen: Pen, look: Appearance) -> None:
    _round_skull(pen, look)
    pen.pair(look.spacing, -0.115, look.eye * 1.5, look.eye * 1.6, look.second, line=False)


def _astronaut_skull(pen: Pen, look: Appearance) -> None:
    pen.pair(look.head * 1.06, -0.09, 0.05, 0.085 * look.ear, (224, 228, 236), box=True)
    pen.oval(0, HEAD_Y, look.head * 1.04, 0.22, look.main)
    pen.oval(0, -0.085, look.head * 0.86, 0.172, look.second)
    pen.oval(0, -0.08, look.head * 0.70, 0.128, SKIN, line=False)


def _wizard_skull(pen: Pen, look: Appearance) -> None:
    w = look.head
    pen.oval(0, HEAD_Y, w * 0.94, 0.19, SKIN)
    beard = [
        (-0.95 * w, -0.10),
        (-0.4 * w, -0.02),
        (0.4 * w, -0.02),
        (0.95 * w, -0.10),
        (0.86 * w, 0.08),
        (0.42 * w, 0.165),
        (0, 0.225),
        (-0.42 * w, 0.165),
        (-0.86 * w, 0.08),
    ]
    pen.poly(beard, look.second)
    pen.poly(
        [(-0.86 * w, -0.22), (-0.42 * w, -0.38), (-0.72 * w, -0.47), (0.05 * w, -0.44), (0.86 * w, -0.22)], look.main
    )
    pen.oval(0, -0.215, w * 1.2, 0.042, look.main)


_SKULL = {
    "fox": _fox_skull,
    "dog": _dog_skull,
    "frog": _frog_skull,
    "robot": _robot_skull,
    "penguin": _penguin_skull,
    "owl": _owl_skull,
    "astronaut": _astronaut_skull,
    "wizard": _wizard_skull,
}


# --- faces ------------------------------------------------------------------------------------------------


def _mouth(pen: Pen, look: Appearance, y: float, *, on: RGB, size: float = 1.0) -> None:
    """Draw the expression's mouth at height `y`, readable on the colour `on`."""
    ink = WHITE if sum(on) < 250 else INK
    expression, s = look.truth["expression"], 0.075 * size
    if expression == "smiling":
        pen.poly(
            [(-s, y - 0.012), (s, y - 0.012), (s * 0.72, y + 0.035), (0, y + 0.055), (-s * 0.72, y + 0.035)],
            (190, 30, 50),
            line=False,
        )
        pen.arc(0, y - 0.012, s * 1.1, 0.066, 10, 170, 0.018, ink)
        pen.stroke([(-s * 1.1, y - 0.012), (s * 1.1, y - 0.012)], 0.016, ink)
    elif expression == "surprised":
        pen.oval(0, y + 0.022, 0.054, 0.066, ink, line=False)
        pen.oval(0, y + 0.026, 0.036, 0.046, (190, 30, 50), line=False)
    else:
        pen.arc(0, y + 0.052, s, 0.055, 190, 350, 0.026, ink)


def _nose(pen: Pen, y: float, fill: RGB = INK, rx: float = 0.036, ry: float = 0.025) -> None:
    pen.oval(0, y, rx, ry, fill, line=False)


def _plain_face(pen: Pen, look: Appearance) -> None:
    m = look.muzzle
    pen.oval(0, 0.012, 0.125 * m, 0.088 * m, look.second, line=False)
    _mouth(pen, look, 0.03, on=look.second)
    _nose(pen, -0.045, mix(INK, WHITE, 0.35) if sum(look.second) < 250 else INK)


def _fox_face(pen: Pen, look: Appearance) -> None:
    pen.oval(0, 0.02, 0.085 * look.muzzle, 0.075 * look.muzzle, look.second, line=False)
    _mouth(pen, look, 0.035, on=look.second, size=0.85)
    _nose(pen, -0.03, mix(INK, WHITE, 0.35) if sum(look.second) < 250 else INK)


def _cat_face(pen: Pen, look: Appearance) -> None:
    m = look.muzzle
    pen.pair(0.052 * m, 0.015, 0.075 * m, 0.07 * m, look.second, line=False)
    for side in (-1, 1):
        for y0, y1 in ((-0.01, -0.03), (0.03, 0.045)):
            pen.stroke([(side * 0.15, y0), (side * look.head * 1.12, y1)], 0.013, mix(INK, WHITE, 0.1))
    _mouth(pen, look, 0.03, on=look.second, size=0.9)
    pen.poly([(-0.032, -0.055), (0.032, -0.055), (0, -0.022)], (255, 110, 130), line=False)


def _mouse_face(pen: Pen, look: Appearance) -> None:
    pen.oval(0, 0.02, 0.10 * look.muzzle, 0.075 * look.muzzle, look.second, line=False)
    _mouth(pen, look, 0.035, on=look.second, size=0.8)
    _nose(pen, -0.035, (255, 100, 130), 0.034, 0.03)


def _pig_face(pen: Pen, look: Appearance) -> None:
    m = look.muzzle
    _mouth(pen, look, 0.04, on=look.main)
    pen.oval(0, -0.035, 0.105 * m, 0.062 * m, look.second)
    pen.pair(0.038 * m, -0.035, 0.018, 0.028, INK if sum(look.second) > 250 else (200, 190, 200), line=False)


def _frog_face(pen: Pen, look: Appearance) -> None:
    pen.oval(0, 0.02, look.head * 0.82, 0.075 * look.muzzle, look.second, line=False)
    pen.pair(0.028, -0.115, 0.011, 0.014, INK, line=False)
    _mouth(pen, look, 0.0, on=look.second, size=1.7)


def _beak_face(pen: Pen, look: Appearance, *, wide: float, mouth: float, on: RGB) -> None:
    m = look.muzzle
    _mouth(pen, look, mouth, on=on, size=0.85)
    pen.poly([(-wide * m, -0.065), (0, -0.09), (wide * m, -0.065), (0, -0.065 + 0.085 * m)], BEAK)


def _owl_face(pen: Pen, look: Appearance) -> None:
    _beak_face(pen, look, wide=0.042, mouth=0.04, on=look.main)


def _penguin_face(pen: Pen, look: Appearance) -> None:
    _beak_face(pen, look, wide=0.07, mouth=0.035, on=look.second)


def _dragon_face(pen: Pen, look: Appearance) -> None:
    m = look.muzzle
    pen.oval(0, 0.02, 0.16 * m, 0.085 * m, look.second, line=False)
    pen.pair(0.05, -0.03, 0.016, 0.016, INK if sum(look.second) > 250 else WHITE, line=False)
    _mouth(pen, look, 0.025, on=look.second, size=1.2)
    pen.polys([(0.045, 0.02), (0.075, 0.02), (0.06, 0.05)], WHITE, line=False)


def _robot_face(pen: Pen, look: Appearance) -> None:
    pen.oval(0, 0.02, 0.15 * look.muzzle, 0.06, look.second, box=True)
    _mouth(pen, look, 0.005, on=look.second, size=1.1)


def _astronaut_face(pen: Pen, look: Appearance) -> None:
    _mouth(pen, look, -0.005, on=SKIN, size=0.8)


def _wizard_face(pen: Pen, look: Appearance) -> None:
    pen.oval(0, -0.05, 0.038 * look.muzzle, 0.034 * look.muzzle, dark(SKIN, 0.15), line=False)
    _mouth(pen, look, 0.02, on=look.second, size=0.9)


_FACE = {
    "fox": _fox_face,
    "cat": _cat_face,
    "mouse": _mouse_face,
    "pig": _pig_face,
    "frog": _frog_face,
    "owl": _owl_face,
    "penguin": _penguin_face,
    "dragon": _dragon_face,
    "robot": _robot_face,
    "astronaut": _astronaut_face,
    "wizard": _wizard_face,
}
