"""The best images of a character, with seed and settings: for previews and READMEs."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    from chosen_one_nb.steps.gallery import Gallery

__all__ = ["Drawn", "Example", "Sampling", "gather", "thumbnail"]

THUMBNAIL = 256  # pixels of a preview's longer side, as ModelSpec suggests


@dataclass(frozen=True)
class Sampling:
    """How an image was drawn: the settings that another tool needs to draw alike."""

    sampler: str
    steps: int
    guidance: float
    rescale: float

    @classmethod
    def of(cls, settings: dict[str, Any]) -> Sampling:
        """Take them from a run's settings; what is not there is the preset "paper"'s."""
        known = Settings.preset("paper").model_dump() | settings
        return cls(known["sampler"], known["sampling_steps"], known["guidance_scale"], known["guidance_rescale"])


@dataclass(frozen=True)
class Drawn:
    """An image of the character.

    Attributes
    ----------
    image : PIL.Image
    seed : int or None
        None where it is not recorded.
    prompt : str
    settings : dict
        As `Settings.model_dump` gives them.
    strength : float
        Of the character, in [0, 1].
    about : dict of str to str
        Text chunks of its PNG file.
    """

    image: Image.Image
    seed: int | None
    prompt: str
    settings: dict[str, Any]
    strength: float = 1.0
    about: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """What the lines of an export draw: the best image again, or the caption where there is none.

    Attributes
    ----------
    prompt : str
    seed : int
    size : (int, int) or None
        Width and height; None is the model's own.
    how : Sampling
    """

    prompt: str
    seed: int
    size: tuple[int, int] | None
    how: Sampling

    @classmethod
    def of(cls, character: Character, images: Sequence[Drawn]) -> Example:
        """Take the first image that others can draw: of known seed, with the character at full strength."""
        best = next((drawn for drawn in images if _repeatable(drawn, character)), None)
        if best is not None:
            return cls(best.prompt, best.seed or 0, best.image.size, Sampling.of(best.settings))
        settings = character.provenance.get("settings", {})
        side = settings.get("image_size")
        return cls(character.caption, 0, side and (side, side), Sampling.of(settings))


def _repeatable(drawn: Drawn, character: Character) -> bool:
    return drawn.seed is not None and drawn.strength == 1 and character.token in drawn.prompt


def gather(images: Gallery | Sequence[Image.Image | str | Path] | None, character: Character) -> list[Drawn]:
    """Gather images with what is known about them.

    Parameters
    ----------
    images : Gallery, or sequence of PIL.Image or path, or None
        A run's images carry seed, prompt and settings in their text chunks; a gallery brings seeds and
        prompt with it. What neither tells comes from the character's provenance.
    character : Character

    Raises
    ------
    CharacterError
        If a file is no image.
    """
    if images is None:
        return []
    settings = character.provenance.get("settings", {})
    if hasattr(images, "seeds"):
        return [
            Drawn(image, int(seed), images.prompt, settings)
            for image, seed in zip(images.images, images.seeds, strict=True)
        ]
    return [_told(_opened(image), character, settings) for image in images]


def _opened(source: Image.Image | str | Path) -> Image.Image:
    if isinstance(source, Image.Image):
        return source
    try:
        with Image.open(source) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        raise CharacterError(
            f"{source}: expected an image, could not read one ({error}). Pass PIL images or paths of whole PNG files."
        ) from error


def _told(image: Image.Image, character: Character, settings: dict[str, Any]) -> Drawn:
    about = {key: value for key, value in image.info.items() if isinstance(value, str)}
    try:
        seed, drawn_with = int(about["seed"]), json.loads(about["settings"])
        strength = float(about.get("strength", 1))
    except (KeyError, ValueError):
        return Drawn(image, None, character.caption, settings, about=about)
    return Drawn(image, seed, about.get("prompt", character.caption), drawn_with, strength, about)


def thumbnail(image: Image.Image) -> str:
    """Return an image of at most 256 pixels a side as a data URI (JPEG)."""
    small = image.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
