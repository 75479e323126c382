"""What an export says about the base model a character was made with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chosen_one_nb.character import Character
from chosen_one_nb.models.load import MENAGERIE

__all__ = ["Base"]

_SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
_SD1 = "stable-diffusion-v1-5/stable-diffusion-v1-5"

_RAIL_XL = "CreativeML Open RAIL++-M, https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0"
_RAIL_1 = "CreativeML OpenRAIL-M, https://huggingface.co/spaces/CompVis/stable-diffusion-license"
_LICENCES = {
    _SDXL: _RAIL_XL,
    _SD1: _RAIL_1,
    "runwayml/stable-diffusion-v1-5": _RAIL_1,
    "CompVis/stable-diffusion-v1-4": _RAIL_1,
    "menagerie": "MIT, as the repository of chosen_one_nb that brings it",
}
_CHECKPOINTS = {
    _SDXL: "sd_xl_base_1.0.safetensors",
    _SD1: "v1-5-pruned-emaonly.safetensors",
    "runwayml/stable-diffusion-v1-5": "v1-5-pruned-emaonly.safetensors",
}
_STANDARD = {"clip_l": 768, "clip_g": 1280}


@dataclass(frozen=True)
class Base:
    """The base model of a character.

    Attributes
    ----------
    name : str
        As `load_models` was asked for, or a guess by the text encoders where that is not recorded.
    known : bool
        Whether it was recorded.
    sdxl : bool
        Whether it is of SDXL's kind (two text encoders) rather than SD 1.x's.
    standard : bool
        Whether its text encoders are as wide as the published models' are, which A1111 and ComfyUI expect.
    revision : str or None
        The commit on the Hub that it was loaded at, where that is recorded.
    """

    name: str
    known: bool
    sdxl: bool
    standard: bool
    revision: str | None = None

    @classmethod
    def of(cls, character: Character) -> Base:
        """Read it from a character's provenance and rows."""
        sdxl = len(character.tokens) > 1
        recorded, revision = _recorded(character.provenance)
        name = _SDXL if recorded == "sdxl" else str(recorded or (_SDXL if sdxl else _SD1))
        standard = all(rows.shape[-1] == _STANDARD.get(key) for key, rows in character.tokens.items())
        return cls(name, bool(recorded), sdxl, standard, revision)

    @property
    def pipeline(self) -> str:
        """Where diffusers finds it: a Hub id, or a folder."""
        if self.name == "menagerie":
            return str(MENAGERIE / "pipeline")
        inside = Path(self.name) / "pipeline"
        return str(inside) if inside.is_dir() else self.name

    @property
    def single_file(self) -> bool:
        """Whether diffusers loads it by `from_single_file`."""
        return self.name.endswith(".safetensors")

    @property
    def pipeline_class(self) -> str:
        """The diffusers class that loads it."""
        return "StableDiffusionXLPipeline" if self.sdxl else "StableDiffusionPipeline"

    @property
    def checkpoint(self) -> str:
        """The single file that ComfyUI and A1111 load, by its usual name."""
        return _CHECKPOINTS.get(self.name, f"{Path(self.name).name.removesuffix('.safetensors')}.safetensors")

    @property
    def licence(self) -> str | None:
        """Its licence, where known."""
        return _LICENCES.get(self.name)

    @property
    def architecture(self) -> str:
        """Its architecture in the words of Stability AI's ModelSpec."""
        return "stable-diffusion-xl-v1-base" if self.sdxl else "stable-diffusion-v1"

    @property
    def size(self) -> int:
        """Side of its images in pixels, for the published models."""
        return 1024 if self.sdxl else 512


def _recorded(provenance: dict[str, Any]) -> tuple[str | None, str | None]:
    """The base's name or place, and its commit on the Hub; None for what was not recorded."""
    name = provenance.get("model")
    if name is None or Path(name).exists():
        return name, None
    loaded = str(provenance.get("load", {}).get("name", name))  # the commit stands here, or in the name itself
    return str(name).split("@")[0], loaded.partition("@")[2] or None
