"""A character Theta = (LoRA weights, token rows): put on a pipeline, taken off, saved, loaded."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chosen_one_nb.models.hub import LORA_FILE
from chosen_one_nb.settings import first_error, is_share, user_path
from chosen_one_nb.steps import AdapterError
from chosen_one_nb.steps.lora import TARGETS, apply_frozen, apply_lora
from chosen_one_nb.steps.prompts import encoders
from chosen_one_nb.steps.tokens import add_tokens

__all__ = ["Character", "CharacterError", "packed", "write_files"]

TOKEN_FILE = "embeddings.safetensors"
INITIAL_FILE = "initial_embeddings.safetensors"
NOTES_FILE = "character.json"
FORMAT = 1

_FROZEN = re.compile(rf"(?!{TARGETS}\.lora_).*\.lora_[AB]\.weight")  # all but the UNet's attention


class CharacterError(Exception):
    """A character that cannot be read from its folder or saved, or that does not fit a pipeline."""


class _SaveError(CharacterError, OSError):
    """Also the system's error, with its number: a run that saves a character tells of a full disk in its own words."""

    def __str__(self) -> str:
        return str(self.strerror)


@dataclass
class Character:
    """One consistent character: what the method makes, Theta in the paper (section 3.2).

    Attributes
    ----------
    lora : dict of str to Tensor, float32 on the CPU
        theta: peft keys of the UNet without prefix, `...attn1.to_q.lora_A.weight` (r, in),
        `...lora_B.weight` (out, r).
    tokens : dict of str to Tensor (n, D), float32
        tau: the learned rows, `clip_l` for the first text encoder and `clip_g` for the second. Empty for a LoRA of
        another trainer that came without: then prompts are drawn as they are.
    token : str
        The word that stands for them in a prompt, such as `<v>`; empty without rows.
    caption : str
        The caption it was trained with, such as `a sticker of a fox <v>`.
    rank, alpha : int, float
        The LoRA adds alpha / rank * B A.
    initial : dict of str to Tensor (n, D)
        The rows from which training began, what strength 0 means.
    provenance : dict
        JSON values: prompt, model name and fingerprint, settings, images it was made of.
    frozen : dict of str to Tensor, float32 on the CPU
        What another trainer's LoRA has beside the UNet's attention projections, `unet.<module>.lora_A.weight`,
        `text_encoder.<module>...`: drawn with, saved and exported, but not trained. Each module has its own rank, and
        adds B A.
    """

    lora: dict[str, torch.Tensor]
    tokens: dict[str, torch.Tensor]
    token: str
    caption: str
    rank: int
    alpha: float
    initial: dict[str, torch.Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    frozen: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, tensor in chain(self.lora.items(), self.tokens.items(), self.initial.items()):
            if not tensor.isfinite().all():
                raise CharacterError(
                    f"{key}: expected finite numbers, got NaN or infinity. The training that made it went wrong, or "
                    "the file is damaged: take an earlier one, or another copy."
                )

    def prompt(self, context: str = "") -> str:
        """Return the prompt that draws the character, in a context such as "on the beach"."""
        return f"{self.caption} {context}".strip()

    @contextmanager
    def on(self, pipeline: Any, strength: float = 1.0) -> Iterator[Any]:
        """Put the character on a pipeline for a with-block; afterwards it is bit-identical to before.

        Parameters
        ----------
        pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
            Called as ever inside the block, with the character's token in the prompt.
        strength : float in [0, 1]
            Scales the LoRA, and moves the token rows from the initial word (0) to the learned ones (1).

        Yields
        ------
        The same pipeline.

        Raises
        ------
        CharacterError
            If strength is out of range, the character was made for another kind of model, or another one is
            on.
        """
        if not is_share(strength):
            raise CharacterError(f"strength: expected a number from 0 (off) to 1 (as learned), got {strength!r}.")
        with ExitStack() as stack:
            try:
                if self.tokens:
                    stack.enter_context(add_tokens(pipeline, self.token, self._rows(pipeline, strength)))
                stack.enter_context(apply_lora(pipeline.unet, self.lora, rank=self.rank, alpha=self.alpha * strength))
                stack.enter_context(apply_frozen(pipeline, self.frozen, strength))
            except AdapterError as error:
                raise CharacterError(f"cannot put {self.token!r} on this pipeline: {error}") from error
            yield pipeline

    def _rows(self, pipeline: Any, strength: float) -> dict[str, torch.Tensor]:
        """Token rows (n, D) at a strength, each where its text encoder is."""
        start = {key: self.initial.get(key, rows) for key, rows in self.tokens.items()}
        places = {key: getattr(pipeline, name).device for key, name, _ in encoders(pipeline)}
        return {
            key: torch.lerp(start[key], rows, strength).to(places.get(key, "cpu")) for key, rows in self.tokens.items()
        }

    def save(self, folder: str | Path) -> Path:
        """Write the character to a folder of safetensors and JSON files and return the folder.

        `pytorch_lora_weights.safetensors` is what `pipeline.load_lora_weights(folder)` reads,
        `embeddings.safetensors` holds `clip_l` and `clip_g` as SDXL embedding files do. Each file appears
        whole or not at all.

        Raises
        ------
        CharacterError
            If the folder cannot be written, or the disk is full, in which case what lay there before stays.
        """
        folder = user_path("folder", folder, CharacterError)
        try:
            write_files(folder, self.files())
        except OSError as error:
            message = (
                f"{folder}: expected a folder that a character can be saved to, got: {error.strerror or error}. "
                "Free space there or choose another folder, and save again; the character itself is unchanged."
            )
            raise _SaveError(error.errno, message) from error
        return folder

    def files(self) -> dict[str, bytes]:
        """Return the files that `save` writes: contents by name."""
        lora = {f"unet.{key}": weight for key, weight in self.lora.items()} | self.frozen
        notes = {
            "format": FORMAT,
            "token": self.token,
            "caption": self.caption,
            "rank": self.rank,
            "alpha": self.alpha,
            "provenance": self.provenance,
        }
        return {
            LORA_FILE: packed(lora, {"lora_adapter_metadata": json.dumps(self._adapter_config())}),
            TOKEN_FILE: packed(self.tokens, {"token": self.token}),
            INITIAL_FILE: packed(self.initial),
            NOTES_FILE: json.dumps(notes, indent=1, ensure_ascii=False).encode(),
        }

    def _adapter_config(self) -> dict[str, Any]:
        """Return what diffusers must know to load the LoRA file: PEFT's configuration of each part of a pipeline."""
        config: dict[str, Any] = {"unet.r": self.rank, "unet.lora_alpha": self.alpha, "unet.target_modules": TARGETS}
        for part in ("unet", "text_encoder", "text_encoder_2"):
            # Without "text_model", which some builds of the encoders have and others do not.
            ranks = {
                key.removeprefix(f"{part}.").removeprefix("text_model.").removesuffix(".lora_A.weight"): len(weight)
                for key, weight in self.frozen.items()
                if key.startswith(f"{part}.") and key.endswith(".lora_A.weight")
            }
            if not ranks:
                continue
            attention = [key.removesuffix(".lora_A.weight") for key in self.lora if key.endswith(".lora_A.weight")]
            config |= {f"{part}.rank_pattern": ranks, f"{part}.alpha_pattern": ranks}
            config[f"{part}.target_modules"] = [*(attention if part == "unet" else []), *ranks]
            config = {f"{part}.r": 1, f"{part}.lora_alpha": 1} | config
        return config

    @classmethod
    def load(cls, folder: str | Path) -> Character:
        """Read what `save` wrote, bit by bit; `export.read` also reads the files of other programs.

        Raises
        ------
        CharacterError
            If a file is missing, damaged, or written by a later version; the message names it.
        """
        folder = user_path("folder", folder, CharacterError)
        notes = _read_notes(folder / NOTES_FILE)
        weights, rows, initial = (_read(folder / name) for name in (LORA_FILE, TOKEN_FILE, INITIAL_FILE))
        frozen = {key: weights[key] for key in weights if _FROZEN.fullmatch(key)}
        lora = {key.removeprefix("unet."): weights[key] for key in weights if key not in frozen}
        return cls(lora, rows, notes.token, notes.caption, notes.rank, notes.alpha, initial, notes.provenance, frozen)


def packed(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return tensors as a safetensors file's content."""
    from safetensors.torch import save

    contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
    return save(contiguous, metadata={"format": "pt", **(metadata or {})})


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files (contents by path within the folder): all of them once the disk has all, otherwise none."""
    beside = [folder / f"{name}.part" for name in files]
    try:
        for part, content in zip(beside, files.values(), strict=True):
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        for part, name in zip(beside, files, strict=True):
            part.replace(folder / name)
    finally:
        for part in beside:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CharacterError(
            f"{file}: expected a safetensors file of a character, could not read it ({error}). "
            "Take another copy of the folder."
        ) from error


class _Notes(BaseModel):
    """What stands in the notes beside the tensors; a character may come from anybody."""

    model_config = ConfigDict(strict=True)

    token: str = Field(pattern=r"^\S*$")
    caption: str
    rank: int = Field(ge=1)
    alpha: float = Field(allow_inf_nan=False)
    provenance: dict[str, Any]


def _read_notes(file: Path) -> _Notes:
    try:
        notes = json.loads(file.read_text(encoding="utf-8"))
        json.dumps(notes, ensure_ascii=False).encode()  # half of a surrogate pair could not be written again
    except (OSError, ValueError, RecursionError) as error:
        raise CharacterError(
            f"{file}: expected a character's notes, could not read them ({error}). "
            "Check that the folder is one a character was saved to."
        ) from error
    found = notes.get("format") if isinstance(notes, dict) else None
    if found != FORMAT:
        raise CharacterError(
            f"{file}: expected format {FORMAT}, got {found}. "
            "It was saved by another version of the kit; update the kit."
        )
    try:
        return _Notes.model_validate(notes)
    except ValidationError as error:
        raise CharacterError(f"{file}: {first_error(error)} Save the character again, or take another copy.") from error
