"""Skeletons: where joints are, and the image of coloured limbs that a ControlNet for poses is given."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from PIL import Image, ImageDraw
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from chosen_one_nb.models.hub import bundled
from chosen_one_nb.settings import first_error, user_path

__all__ = ["Skeleton", "SkeletonError", "draw_limbs", "skeleton_names"]

HUES = 18
"""Limbs and joints take colours around this many hues in their order, as OpenPose's 18 points do."""

LIMB = 0.6  # of a hue's brightness: joints stand out from limbs
THICKNESS = 1 / 64  # of an image's side; OpenPose draws 8 of 512 pixels
MOST = 64  # joints or limbs of one skeleton


class SkeletonError(ValueError):
    """A skeleton that cannot be used: the message says what was expected and what came."""


Point = Annotated[tuple[float, float], Field(strict=False)]  # a list too, as JSON and the browser have it
Limb = Annotated[tuple[str, str], Field(strict=False)]


class Skeleton(BaseModel):
    """Named joints and the limbs between them; whose they are does not matter.

    Attributes
    ----------
    joints : dict of str to (float, float) or None
        x and y from the upper left corner, in shares of the image's side; None is a joint that is not to be seen,
        whose limbs are left out. The order gives the colours.
    limbs : tuple of (str, str)
        Pairs of joints.
    note : str
        What the pose is.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    joints: dict[str, Point | None] = Field(min_length=2, max_length=MOST)
    limbs: tuple[Limb, ...] = Field(min_length=1, max_length=MOST, strict=False)
    note: str = Field("", max_length=200)

    @model_validator(mode="after")
    def _check(self) -> Skeleton:
        outside = [name for name, at in self.joints.items() if at and not all(0 <= x <= 1 for x in at)]
        if outside:
            raise ValueError(f"expected joints from 0 to 1, got {outside[0]!r} at {self.joints[outside[0]]}")
        missing = sorted({name for limb in self.limbs for name in limb} - set(self.joints))
        if missing:
            raise ValueError(f"expected every limb to join two of the joints, got {missing[0]!r}, which is none")
        if not any(self.joints.values()):
            raise ValueError("expected joints that are to be seen, got none")
        return self

    @classmethod
    def load(cls, source: Skeleton | str | Path) -> Skeleton:
        """Read a skeleton: a JSON file, or the name of one in `data/poses`; a skeleton is returned as it is.

        Raises
        ------
        SkeletonError
            If it is missing or damaged, a limb lacks a joint, or a joint lies outside of the image.
        """
        if isinstance(source, cls):
            return source
        named = bundled("poses") / f"{user_path('skeleton', source, SkeletonError)}.json"
        file = named if named.is_file() else Path(source).expanduser()
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            found = first_error(error) if isinstance(error, ValidationError) else error.strerror
            known = ", ".join(skeleton_names())
            raise SkeletonError(
                f"{source}: expected a skeleton's JSON file, with joints and limbs, or one of {known} ({found})"
            ) from error

    def moved(self, joint: str, x: float, y: float) -> Skeleton:
        """Return the skeleton with a joint elsewhere, held within the image.

        Raises
        ------
        SkeletonError
            If there is no such joint.
        """
        if joint not in self.joints:
            raise SkeletonError(f"joint: expected one of {', '.join(self.joints)}, got {joint!r}.")
        place = (min(max(float(x), 0.0), 1.0), min(max(float(y), 0.0), 1.0))
        return self.model_copy(update={"joints": {**self.joints, joint: place}})

    def save(self, path: str | Path) -> Path:
        """Write the skeleton as JSON and return the path."""
        file = user_path("path", path, SkeletonError)
        file.write_text(json.dumps(self.model_dump(), indent=1) + "\n", encoding="utf-8")
        return file

    def draw(self, size: int) -> Image.Image:
        """Return its image, `size` x `size` pixels; see `draw_limbs`."""
        names = list(self.joints)
        points = np.array([self.joints[name] or (np.nan, np.nan) for name in names])
        limbs = [(names.index(a), names.index(b)) for a, b in self.limbs]
        return draw_limbs(points, limbs, size)


def skeleton_names() -> list[str]:
    """Return the names of the skeletons in `data/poses`."""
    return sorted(file.stem for file in bundled("poses").glob("*.json"))


def draw_limbs(
    points: np.ndarray, limbs: Sequence[tuple[int, int]], size: int, width: float | None = None
) -> Image.Image:
    """Draw coloured limbs and joints on black, what a ControlNet for poses is trained on and given.

    Parameters
    ----------
    points : ndarray (J, 2)
        x and y of each joint in shares of the image's side; NaN where it is not to be seen.
    limbs : sequence of (int, int)
        Pairs of joints.
    size : int
        Side of the image in pixels.
    width : float, optional
        Of limbs, in pixels; None is a 64th of the side.
    """
    image = Image.new("RGB", (size, size))
    pen, width = ImageDraw.Draw(image), max(1.0, size * THICKNESS) if width is None else width
    places = np.asarray(points, dtype=float) * size
    for number, limb in enumerate(limbs):
        ends = places[list(limb)]
        if np.isfinite(ends).all():
            pen.line([tuple(end) for end in ends], _colour(number, LIMB), round(width))
    for number, (x, y) in enumerate(places):
        if np.isfinite([x, y]).all():
            radius = width / 2
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], _colour(number))
    return image


def _colour(number: int, brightness: float = 1.0) -> tuple[int, ...]:
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number % HUES / HUES, 1.0, brightness))
