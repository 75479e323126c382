"""What an export says: the base model, the images with their prompts and settings, the prompt for each program."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.models.hub import model_set
from chosen_one_nb.models.images import ImageError, read_image
from chosen_one_nb.settings import Settings, first_error

if TYPE_CHECKING:
    from chosen_one_nb.steps.gallery import Gallery

__all__ = ["Base", "ExportContent", "ImageRecord", "Images", "a1111_prompt", "comfyui_prompt", "image_records"]

Images: TypeAlias = "Gallery | Sequence[Image.Image | str | Path] | None"

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SD1 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
RAIL_XL = f"CreativeML Open RAIL++-M, https://huggingface.co/{SDXL}"
RAIL_1 = "CreativeML OpenRAIL-M, https://huggingface.co/spaces/CompVis/stable-diffusion-license"
BASES: dict[str, tuple[str | None, str]] = {
    SDXL: (RAIL_XL, "sd_xl_base_1.0.safetensors"),
    SD1: (RAIL_1, "v1-5-pruned-emaonly.safetensors"),
    "runwayml/stable-diffusion-v1-5": (RAIL_1, "v1-5-pruned-emaonly.safetensors"),
    "CompVis/stable-diffusion-v1-4": (RAIL_1, "stable-diffusion-v1-4.safetensors"),
    "menagerie": ("MIT, as the repository of chosen_one_nb that brings it", "menagerie.safetensors"),
}
"""Licence and usual file name of base models."""

DRAWING = ("sampler", "sampling_steps", "guidance_scale", "guidance_rescale", "image_size", "context_weight")
"""The settings that other programs are told."""

STANDARD_WIDTHS = {"clip_l": 768, "clip_g": 1280}


class Provenance(BaseModel):
    """What an export says of where a character comes from; checked, since a character may come from anybody."""

    model_config = ConfigDict(strict=True, frozen=True)

    prompt: str | None = None
    model: str | None = None
    load: dict[str, str] = {}
    distilled: str | None = None
    n_images: int | None = Field(None, ge=0)
    seed: int | None = None
    settings: dict[str, Any] = {}

    @classmethod
    def of(cls, character: Character) -> Provenance:
        """Check a character's provenance.

        Raises
        ------
        CharacterError
            An entry is of another type than this kit writes.
        """
        try:
            return cls.model_validate(character.provenance)
        except ValidationError as error:
            raise CharacterError(f"provenance: {first_error(error)} Take another copy of the character.") from error

    def drawing(self) -> Settings:
        """Return what it was drawn with; what is not recorded is the preset "paper"'s."""
        try:
            return _drawing(self.settings)
        except ValueError as error:
            raise CharacterError(f"provenance: settings: {error} Take another copy of the character.") from error


@dataclass(frozen=True)
class Base:
    """The base model of a character.

    Attributes
    ----------
    name : str
        As `load_models` was asked for; a guess by the text encoders where that is not recorded.
    recorded : bool
        Whether the name was recorded.
    sdxl : bool
        Whether it is of SDXL's kind (two text encoders) rather than SD 1.x's.
    standard : bool
        Whether its text encoders are as wide as those of the published models, which A1111 and ComfyUI expect.
    revision : str or None
        The commit on the Hub that it was loaded at, where that is recorded.
    """

    name: str
    recorded: bool
    sdxl: bool
    standard: bool
    revision: str | None = None

    @classmethod
    def of(cls, character: Character) -> Base:
        """Read it from a character's provenance and token rows; `CharacterError` where the former is no such thing."""
        # Without rows by the width of the text that cross-attention takes: 768 in SD 1.x, 2048 in SDXL.
        widths = {weight.shape[1] for key, weight in character.lora.items() if key.endswith("attn2.to_k.lora_A.weight")}
        sdxl = len(character.tokens) > 1 or (not character.tokens and widths != {STANDARD_WIDTHS["clip_l"]})
        standard = all(rows.shape[-1] == STANDARD_WIDTHS.get(key) for key, rows in character.tokens.items())
        about = Provenance.of(character)
        name = about.model
        if name is None:
            return cls(SDXL if sdxl else SD1, False, sdxl, standard)
        revision = None
        if not Path(name).exists():  # a Hub id: the commit stands in it, or in what was passed to load_models
            revision = about.load.get("name", name).partition("@")[2] or None
            name = name.split("@")[0]
        return cls(SDXL if name == "sdxl" else name, True, sdxl, standard, revision)

    @property
    def pipeline(self) -> str:
        """Where diffusers finds it: a Hub id, a folder or a file."""
        folder = model_set(self.name) / "pipeline"
        return str(folder) if folder.is_dir() else self.name

    @property
    def licence(self) -> str | None:
        """Its licence, where known."""
        return BASES.get(self.name, (None, ""))[0]

    @property
    def checkpoint(self) -> str:
        """The single file that ComfyUI and A1111 load, by its usual name."""
        return BASES.get(self.name, (None, f"{Path(self.name).name.removesuffix('.safetensors')}.safetensors"))[1]

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images of the published models."""
        return (1024, 1024) if self.sdxl else (512, 512)


@dataclass(frozen=True)
class ImageRecord:
    """What another program needs to draw an image alike, and the image itself where there is one.

    Attributes
    ----------
    prompt : str
    seed : int or None
        None where it is not recorded.
    settings : Settings
        Of the run that drew it, as far as it was drawn by them; what is not recorded is the preset "paper"'s.
    strength : float
        Of the character, in [0, 1].
    context_weight : float
        How much the part of the prompt that names a context counted.
    """

    prompt: str
    seed: int | None
    settings: Settings
    image: Image.Image | None = None
    strength: float = 1.0
    context_weight: float = 1.0

    @property
    def repeatable(self) -> bool:
        """Whether another program draws the same from prompt, seed and settings: nothing was weighed differently."""
        return self.seed is not None and self.strength == 1 and self.context_weight == 1

    @property
    def size(self) -> tuple[int, int] | None:
        """Width and height in pixels; None is the base model's own."""
        side = self.settings.image_size
        return self.image.size if self.image else (side, side) if side else None


@dataclass(frozen=True)
class ExportContent:
    """A character, its file name (without ending) in the export, and its images, the best first."""

    character: Character
    name: str
    images: Sequence[ImageRecord] = ()

    @cached_property
    def base(self) -> Base:
        """The base model."""
        return Base.of(self.character)

    @cached_property
    def example(self) -> ImageRecord:
        """The best image that others can draw again (see `ImageRecord.repeatable`); without one, the caption."""
        for record in self.images:
            if record.repeatable and self.character.token in record.prompt:
                return record
        return ImageRecord(self.character.caption, 0, self.about.drawing())

    @cached_property
    def about(self) -> Provenance:
        """Where the character comes from."""
        return Provenance.of(self.character)


def image_records(images: Images, character: Character) -> list[ImageRecord]:
    """Return images with what is known about each.

    Parameters
    ----------
    images : Gallery, or sequence of PIL.Image or path, or None
        A run's images carry seed, prompt and settings in their text chunks, a gallery brings seeds and prompt. The
        rest comes from the character's provenance.
    character : Character

    Raises
    ------
    CharacterError
        If a file is no image.
    """
    if images is None:
        return []
    settings = Provenance.of(character).drawing()
    if not isinstance(images, Sequence):
        pairs = zip(images.images, images.seeds, strict=True)
        return [ImageRecord(images.prompt, int(seed), settings, image) for image, seed in pairs]
    records = []
    for image in map(_opened, [images] if isinstance(images, str | Path) else images):
        try:
            chunks = _Chunks.model_validate(image.info)
            drawn_with = _drawing(_OBJECT.validate_json(chunks.settings))
            prompt = character.caption if chunks.prompt is None else chunks.prompt
            weight = drawn_with.context_weight if chunks.context else 1.0
            records.append(ImageRecord(prompt, chunks.seed, drawn_with, image, chunks.strength, weight))
        except ValueError:  # another program's image, or one that somebody has changed
            records.append(ImageRecord(character.caption, None, settings, image))
    return records


class _Chunks(BaseModel):
    """The text chunks of an image of this kit."""

    seed: int = Field(ge=0, lt=2**63)
    settings: str
    prompt: str | None = None
    context: str = ""
    strength: float = Field(1.0, ge=0, le=1)


_OBJECT: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[str, Any])


def _drawing(settings: dict[str, Any]) -> Settings:
    """Return what images were drawn with; settings of a file become numbers in programs, so they are checked."""
    return Settings.preset("paper", **{name: settings[name] for name in DRAWING if name in settings})


def _opened(source: Image.Image | str | Path) -> Image.Image:
    try:
        return read_image(source)
    except ImageError as error:
        raise CharacterError(str(error)) from error


def a1111_prompt(character: Character, name: str, prompt: str | None = None) -> str:
    """Return a prompt (None: the caption) for A1111 and Forge: the embedding by its name, `<lora:name:1>`.

    Brackets and backslashes, which weigh words there, are escaped.
    """
    return _replace_token(prompt, character, name, r"[()\[\]\\]") + f" <lora:{name}:1>"


def comfyui_prompt(character: Character, name: str, prompt: str | None = None) -> str:
    """Return a prompt (None: the caption) for ComfyUI: the embedding as `embedding:name`, brackets escaped."""
    return _replace_token(prompt, character, f"embedding:{name}", r"[(){}]")


def _replace_token(prompt: str | None, character: Character, word: str, special: str) -> str:
    """Replace the token by a word that stands apart; escape special characters elsewhere."""
    text = " ".join((character.caption if prompt is None else prompt).split())
    if not character.token:  # a LoRA without rows
        return re.sub(special, lambda found: "\\" + found[0], text)
    escaped = [re.sub(special, lambda found: "\\" + found[0], part) for part in text.split(character.token)]
    return re.sub(r" +", " ", f" {word} ".join(escaped)).replace(f"{word} ,", f"{word},").strip()
