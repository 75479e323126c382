"""A skeleton to move by hand, for poses: joints are dragged, or moved by the arrow keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets
from pydantic import ValidationError

from chosen_one_nb.applications.skeleton import Skeleton, SkeletonError
from chosen_one_nb.settings import first_error

from .images import script, style


class PoseEditor(anywidget.AnyWidget):
    """Move the joints of a skeleton, by mouse or by keyboard.

    Parameters
    ----------
    skeleton : Skeleton, str or Path
        What to begin with: also a file, or the name of one in `data/poses`.

    Attributes
    ----------
    joints : dict
        What the page sends: x and y of each joint in shares of the side, or None; see `skeleton`.
    limbs : list of (str, str)
        Pairs of joints.
    """

    _esm = script("pose_editor.js")
    _css = style("drawing.css")

    joints = traitlets.Dict().tag(sync=True)
    limbs = traitlets.List().tag(sync=True)

    def __init__(self, skeleton: Skeleton | str | Path, **traits: Any) -> None:
        begun = Skeleton.load(skeleton).model_dump(mode="json")
        super().__init__(joints=begun["joints"], limbs=begun["limbs"], **traits)

    @property
    def skeleton(self) -> Skeleton:
        """The skeleton as it is now."""
        try:
            return Skeleton(joints=self.joints, limbs=self.limbs)
        except ValidationError as error:
            raise SkeletonError(f"skeleton: {first_error(error)}") from error
