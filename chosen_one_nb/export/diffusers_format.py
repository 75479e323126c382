"""diffusers' LoRA files: `pytorch_lora_weights.safetensors`, new and old, of this kit or of training scripts.

diffusers writes the layers of a UNet as `unet.<layer>.lora_A.weight` / `.lora_B.weight` (peft's keys) or
`unet.<layer>.lora.down.weight` / `.lora.up.weight`; old files have `unet.<attention>.processor.to_q_lora.
down.weight`. Alpha is not among the tensors: it stands as JSON in the metadata `lora_adapter_metadata`, and
without that it equals the rank.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chosen_one_nb.character import LORA_FILE, CharacterError
from chosen_one_nb.export.layers import LoraPair, refuse
from chosen_one_nb.export.names import Layer

if TYPE_CHECKING:
    from chosen_one_nb.character import Character

__all__ = ["FOLDER", "LORA_FILE", "ROWS_FILE", "read_halves", "write"]

FOLDER = "diffusers"
"""Folder of an export that diffusers loads."""

ROWS_FILE = "learned_embeds.safetensors"
"""Where `load_textual_inversion(folder)` looks for the rows of a single text encoder."""

_KEY = re.compile(
    r"(?:unet\.|base_model\.model\.)?(?P<layer>.+?)"
    r"(?:\.(?P<half>lora_A|lora_B|lora\.down|lora\.up)\.weight|\.(?P<alpha>alpha))"
)
_OLD = re.compile(r"\.processor\.to_(q|k|v|out)_lora\.(down|up)\.weight")


def write(character: Character, folder: Path) -> None:
    """Write a character for diffusers: what `Character.save` writes, and for SD 1.x its single-encoder form.

    `pipeline.load_lora_weights(folder)` reads the LoRA, `load_textual_inversion` the tensors of
    `embeddings.safetensors` one by one (SDXL), or the whole folder (SD 1.x).
    """
    from chosen_one_nb.export.embeddings import write_rows

    character.save(folder)
    if len(character.tokens) == 1:
        write_rows(folder / ROWS_FILE, character, key=character.token)


def read_halves(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], file: Path) -> dict[str, LoraPair]:
    """Read the tensors of a diffusers or peft LoRA file by layer.

    Raises
    ------
    CharacterError
        If it holds other layers than the UNet's attention projections, or a variant of LoRA.
    """
    halves: dict[str, LoraPair] = {}
    strange = []
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(_renewed(key))
        layer = Layer.parse(found["layer"]) if found else None
        if not found or not layer:
            strange.append(key)
            continue
        half = halves.setdefault(layer.diffusers, LoraPair())
        if found["alpha"]:
            half.alpha = float(tensor)
        elif found["half"] in ("lora_A", "lora.down"):
            half.down = tensor
        else:
            half.up = tensor
    if strange:
        raise refuse(strange, file)
    for name, alpha in _alphas(list(halves), metadata, file).items():
        halves[name].alpha = alpha
    return halves


def _renewed(key: str) -> str:
    """Spell an old file's key as newer ones do."""
    return _OLD.sub(lambda m: f".to_{m[1]}{'.0' if m[1] == 'out' else ''}.lora.{m[2]}.weight", key)


def _alphas(names: list[str], metadata: Mapping[str, str], file: Path) -> dict[str, float]:
    """What the metadata says about alpha, by layer; nothing where it is silent."""
    try:
        config: dict[str, Any] = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError as error:
        raise CharacterError(
            f"{file}: expected JSON under the metadata key lora_adapter_metadata, got something else "
            f"({error}). Take another copy of the file."
        ) from error
    config = {key.removeprefix("unet."): value for key, value in config.items()}
    variant = [name for name in ("use_dora", "use_rslora") if config.get(name)]
    if variant:
        raise CharacterError(
            f"{file}: expected a plain LoRA, got one with {variant[0]}. Use the file in diffusers directly."
        )
    if config.get("lora_alpha") is None:
        return {}
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    return {
        name: next(
            (value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", name)),
            config["lora_alpha"],
        )
        for name in names
    }
