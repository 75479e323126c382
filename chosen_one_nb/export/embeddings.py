"""Files of learned rows: `{clip_l, clip_g}` for SDXL, one tensor for SD 1.x.

SDXL    `{"clip_l": (n, 768), "clip_g": (n, 1280)}`: written by sd-scripts' textual inversion and diffusers'
        advanced DreamBooth-LoRA script, read by A1111, Forge and ComfyUI. cog-sdxl calls the same tensors
        `text_encoders_0` and `text_encoders_1`.
SD 1.x  one tensor (n, 768), whose name diffusers takes for the token and the others ignore (`emb_params`).

In A1111 and ComfyUI the file's name is the word to write in a prompt; a token stored inside is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from chosen_one_nb.character import CharacterError
from chosen_one_nb.export import safe

if TYPE_CHECKING:
    from chosen_one_nb.character import Character

__all__ = ["FOLDER", "check_rows", "is_rows", "read_rows", "write_rows"]

FOLDER = "embeddings"
"""Folder of an export with the rows, as A1111 and ComfyUI call their own."""

ONE_ENCODER = "emb_params"
"""Name of the single tensor in A1111's safetensors embeddings."""

_ALIASES = {"text_encoders_0": "clip_l", "text_encoders_1": "clip_g"}


def write_rows(file: Path, character: Character, *, key: str = ONE_ENCODER) -> None:
    """Write a character's rows: by encoder for SDXL, as the one tensor `key` for SD 1.x."""
    rows = character.tokens if len(character.tokens) > 1 else {key: next(iter(character.tokens.values()))}
    safe.write(file, rows, {"token": character.token, "caption": character.caption})


def is_rows(names: list[str]) -> bool:
    """Tell an embeddings file by the names of its tensors."""
    if {_ALIASES.get(name, name) for name in names} <= {"clip_l", "clip_g"}:
        return bool(names)
    return len(names) == 1 and "lora" not in names[0]


def read_rows(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read an embeddings file: rows (n, D) in float32 by encoder, and what it says about token and caption.

    Raises
    ------
    CharacterError
        If it cannot be read, or holds something else.
    """
    tensors, metadata = safe.read(file)
    if not is_rows(list(tensors)):
        raise CharacterError(
            f"{file}: expected learned rows (clip_l and clip_g for SDXL, one tensor for SD 1.x), got tensors "
            f"{', '.join(sorted(tensors)[:3]) or 'none'}. Pass the embeddings file that belongs to the LoRA."
        )
    said = {key: metadata[key] for key in ("token", "caption") if key in metadata}
    name = next(iter(tensors))
    if len(tensors) == 1 and _ALIASES.get(name, name) not in ("clip_l", "clip_g"):
        tensors = {"clip_l": tensors[name]}
        said = ({} if name == ONE_ENCODER else {"token": name}) | said
    return {_ALIASES.get(key, key): torch.atleast_2d(rows).float() for key, rows in tensors.items()}, said


def check_rows(rows: Mapping[str, torch.Tensor], width: int | None, where: str) -> None:
    """Check that rows agree with each other, and with the text width that a LoRA's cross-attention takes.

    Parameters
    ----------
    rows : mapping of str to Tensor (n, D)
    width : int or None
        What the widths must sum to; None is unknown.
    where : str
        The file, for the message.

    Raises
    ------
    CharacterError
        With the numbers expected and found.
    """
    shapes = {key: tuple(row.shape) for key, row in rows.items()}
    if any(len(shape) != 2 for shape in shapes.values()) or len({shape[0] for shape in shapes.values()}) != 1:
        raise CharacterError(
            f"{where}: expected rows (n, width) with the same n for every text encoder, got {shapes}. The "
            "file is damaged or of another kind; take another copy."
        )
    total = sum(shape[1] for shape in shapes.values())
    if width is not None and total != width:
        raise CharacterError(
            f"{where}: expected rows whose widths sum to {width}, which the LoRA's cross-attention takes "
            f"(2048 = 768 + 1280 in SDXL, 768 in SD 1.x), got {total} from {shapes}. LoRA and embeddings "
            "belong to different base models; pass the embeddings file that was made with this LoRA."
        )
