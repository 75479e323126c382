"""How a truth looks: the colours and sizes that all parts of a character are drawn with."""

from __future__ import annotations

from typing import Any

from menagerie.world.values import BODY, IRIS, PART, RGB, SECOND, dark

HEAD_Y = -0.10  # middle of every head
EYE_HEIGHT = {"frog": -0.265, "owl": -0.12, "astronaut": -0.11, "wizard": -0.105}  # of the others: -0.12


class Appearance:
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
        self.eye_height = EYE_HEIGHT.get(truth["kind"], -0.12)
