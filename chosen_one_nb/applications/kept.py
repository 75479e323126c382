"""Uses of a character kept in a run's folder, ``uses/``: each with its image and all it takes to draw it again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chosen_one_nb.applications.skeleton import Skeleton
from chosen_one_nb.run import store
from chosen_one_nb.settings import first_error

__all__ = ["KeptUse", "Use", "keep", "kept"]


class Use(BaseModel):
    """What a character is drawn for.

    Attributes
    ----------
    kind : {"story", "edit", "pose"}
    node : str
        Whose Θ it is drawn with.
    context : str
        Of an edit or a pose: what is added to the character's caption.
    seed : int
    title : str
        Of a story.
    scenes : list of str
        Of a story: its sentences.
    candidates : int
        Of each panel of a story.
    skeleton : Skeleton, optional
        Of a pose.
    scale : float
        How much the skeleton counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["story", "edit", "pose"]
    node: str = ""
    context: str = Field("", max_length=400)
    seed: int = Field(0, ge=0, lt=2**32)
    title: str = Field("", max_length=200)
    scenes: list[str] = Field([], max_length=24)
    candidates: int = Field(4, ge=1, le=16)
    skeleton: Skeleton | None = None
    scale: float = Field(1.0, ge=0, le=2)

    @property
    def words(self) -> str:
        """What it is, in a line."""
        return f"{self.kind} {self.title or self.context or '; '.join(self.scenes)}".strip() + f", seed {self.seed}"


@dataclass(frozen=True)
class KeptUse:
    """A use on disk.

    Attributes
    ----------
    folder : Path
    use : Use
    """

    folder: Path
    use: Use

    def image(self, name: str = "result") -> Image.Image:
        """Return the result, or of an edit also its "source" or "mask"."""
        return store.read_image(self.folder / f"{name}.png")


def keep(run: Path, use: Use, image: Image.Image, **parts: Image.Image) -> KeptUse:
    """Write a use into a run's folder: its image with its text chunks, the settings, and the images it needs."""
    place = store.make_folder(run / "uses", within=run)
    numbers = [int(path.name[:4]) for path in place.iterdir() if path.name[:4].isdigit()]
    folder = store.make_folder(place / f"{max(numbers, default=0) + 1:04d}-{use.kind}", within=place)
    about = {name: value for name, value in image.info.items() if isinstance(value, str)}
    for name, each in {"result": image, **parts}.items():
        store.write_image(folder / f"{name}.png", each, about if name == "result" else {})
    store.write_json(folder / "use.json", use.model_dump(mode="json"))  # last: without it there is no use
    return KeptUse(folder, use)


def kept(run: Path) -> list[KeptUse]:
    """Return the uses in a run's folder, oldest first; a damaged one is left out, with a warning that says where."""
    found = []
    for path in sorted((run / "uses").glob("*/use.json")):
        try:
            found.append(KeptUse(path.parent, _read(path)))
        except store.StoreError as error:
            warnings.warn(f"{error} It is left out.", RuntimeWarning, stacklevel=2)
    return found


def _read(path: Path) -> Use:
    try:
        return Use.model_validate(store.read_json(path))  # not strictly: JSON has lists only, also for joints
    except ValidationError as error:
        raise store.StoreError(f"{path} is damaged: {first_error(error)}", path) from error
