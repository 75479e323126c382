"""kohya's LoRA files, which A1111, Forge and ComfyUI load: names, alpha, metadata; and back.

A layer is three tensors: `<name>.lora_down.weight` (r, in), `<name>.lora_up.weight` (out, r) and
`<name>.alpha`; it adds alpha / r * up down. Names follow sd-scripts: the SGM code's for SDXL, diffusers' for
SD 1.x; see `names`. Metadata follow Stability AI's ModelSpec (`modelspec.*`) and sd-scripts (`ss_*`), with
this kit's own notes under `chosen_one_nb`, which make the way back exact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.export import safe
from chosen_one_nb.export.base import Base
from chosen_one_nb.export.drawn import Drawn, thumbnail
from chosen_one_nb.export.layers import LoraPair, apart, refuse
from chosen_one_nb.export.names import SDXL_LAYERS, Layer, layers_per_block
from chosen_one_nb.export.wording import a1111_prompt, one_line

__all__ = [
    "FOLDER",
    "NOTES",
    "bundled_rows",
    "is_kohya",
    "metadata",
    "notes",
    "read_halves",
    "tensors",
    "write",
]

FOLDER = "loras"
"""Folder of an export with the LoRA, as ComfyUI calls its own."""

NOTES = "chosen_one_nb"
"""Metadata key of this kit's notes (JSON)."""

SGM = "https://github.com/Stability-AI/generative-models"


def tensors(character: Character, *, sgm: bool | None = None) -> dict[str, torch.Tensor]:
    """Return a character's LoRA as a kohya file's tensors.

    Parameters
    ----------
    character : Character
    sgm : bool, optional
        Whether names follow the SGM code; None is as sd-scripts does: for SDXL.

    Returns
    -------
    dict of str to Tensor
    """
    halves = apart(character.lora, character.alpha)
    named = {name: Layer.parse(name) for name in halves}
    strange = [name for name, layer in named.items() if layer is None]
    if strange:
        raise refuse(strange, Path("this character"))
    per_block = _layers_per_block(character)
    sgm = len(character.tokens) > 1 if sgm is None else sgm
    found: dict[str, torch.Tensor] = {}
    for name, half in halves.items():
        layer = named[name]
        key = layer.sgm(per_block) if sgm else layer.underscored
        found[f"{key}.lora_down.weight"], found[f"{key}.lora_up.weight"] = half.down, half.up
        found[f"{key}.alpha"] = torch.tensor(float(character.alpha))
    return found


def _layers_per_block(character: Character) -> int:
    """Of the base's UNet: 2 in the published models, whichever layers the LoRA has; else told by its layers."""
    return SDXL_LAYERS if Base.of(character).standard else layers_per_block(apart(character.lora, character.alpha))


def write(file: Path, character: Character, name: str, images: Sequence[Drawn] = ()) -> None:
    """Write a character's LoRA as a kohya file, with metadata."""
    weights = tensors(character)
    hashed = safe.body_hash(weights)
    about = metadata(character, name, images)
    about |= {"modelspec.hash_sha256": f"0x{hashed}", "sshs_model_hash": hashed}
    safe.write(file, weights, about)


def metadata(character: Character, name: str, images: Sequence[Drawn] = ()) -> dict[str, str]:
    """Return what a kohya file says about itself: ModelSpec, sd-scripts' own, and this kit's notes."""
    own = {
        "format": 1,
        "token": character.token,
        "caption": character.caption,
        "alpha": character.alpha,
        "layers_per_block": _layers_per_block(character),
        "provenance": character.provenance,
    }
    return {
        **_modelspec(character, name, images),
        **_sd_scripts(character, name),
        NOTES: json.dumps(own, ensure_ascii=False),
    }


def _modelspec(character: Character, name: str, images: Sequence[Drawn]) -> dict[str, str]:
    """https://github.com/Stability-AI/ModelSpec, version 1."""
    base = Base.of(character)
    width, height = images[0].image.size if images else (base.size, base.size)
    prompt = a1111_prompt(character, name)
    subject = one_line(character.provenance.get("prompt", character.caption))
    said = {
        "sai_model_spec": "1.0.0",
        "architecture": f"{base.architecture}/lora",
        "implementation": SGM if base.sdxl else "diffusers",
        "title": name,
        "resolution": f"{width}x{height}",
        "description": f"One consistent character: {subject}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "license": base.licence or "",
        "trigger_phrase": prompt.rsplit(" <lora:", 1)[0],
        "usage_hint": f"Put embeddings/{name}.safetensors beside your embeddings and prompt: {prompt}",
        "tags": "character",
        "thumbnail": thumbnail(images[0].image) if images else "",
    }
    return {f"modelspec.{key}": value for key, value in said.items() if value}


def _sd_scripts(character: Character, name: str) -> dict[str, str]:
    """What sd-scripts writes, as far as it applies; A1111 reads the base's version from it."""
    base, about = Base.of(character), character.provenance
    settings: dict[str, Any] = about.get("settings", {})
    said = {
        "base_model_version": "sdxl_base_v1-0" if base.sdxl else "sd_v1",
        "v2": False,
        "sd_model_name": base.name,
        "output_name": name,
        "network_module": "networks.lora",
        "network_dim": character.rank,
        "network_alpha": character.alpha,
        "num_train_images": about.get("n_images"),
        "seed": about.get("seed"),
        "unet_lr": settings.get("lora_learning_rate"),
        "text_encoder_lr": settings.get("token_learning_rate"),
        "max_train_steps": settings.get("refine_steps"),
        "total_batch_size": settings.get("refine_batch_size"),
        "tag_frequency": json.dumps({"character": {character.caption: about.get("n_images", 1)}}),
    }
    return {f"ss_{key}": str(value) for key, value in said.items() if value is not None}


def is_kohya(names: Sequence[str]) -> bool:
    """Tell a kohya file by the names of its tensors."""
    return any(name.startswith(("lora_unet_", "lora_te")) for name in names)


def notes(about: Mapping[str, str]) -> dict[str, Any]:
    """Return this kit's notes in a file's metadata; empty where there are none, or none that can be read."""
    try:
        found = json.loads(about.get(NOTES, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) and found.get("format") == 1 else {}


def read_halves(weights: Mapping[str, torch.Tensor], about: Mapping[str, str], file: Path) -> dict[str, LoraPair]:
    """Read the tensors of a kohya file by diffusers' layer names.

    SGM names are read for SDXL's two layers per block, unless this kit's notes say otherwise.

    Raises
    ------
    CharacterError
        If it holds other layers than the UNet's attention projections, or a variant of LoRA.
    """
    per_block = notes(about).get("layers_per_block", SDXL_LAYERS)
    halves: dict[str, LoraPair] = {}
    strange = []
    for key, tensor in weights.items():
        name, _, kind = key.partition(".")
        layer = Layer.parse(name, per_block)
        if layer is None or kind not in ("lora_down.weight", "lora_up.weight", "alpha"):
            strange += [] if name == "bundle_emb" else [key]
            continue
        half = halves.setdefault(layer.diffusers, LoraPair())
        if kind == "alpha":
            half.alpha = float(tensor)
        elif kind == "lora_down.weight":
            half.down = tensor
        else:
            half.up = tensor
    if strange:
        raise refuse(strange, file)
    return halves


def bundled_rows(weights: Mapping[str, torch.Tensor], file: Path) -> dict[str, torch.Tensor]:
    """Return rows that a LoRA file carries itself, `bundle_emb.<name>.clip_l` (OneTrainer); else empty.

    Raises
    ------
    CharacterError
        If there is more than one embedding.
    """
    keys = [key for key in weights if key.startswith("bundle_emb.")]
    if len({key.split(".")[1] for key in keys}) > 1:
        raise CharacterError(
            f"{file}: expected at most one embedding in a LoRA file, got {', '.join(sorted(keys))}. "
            "Pass the one that is meant as embeddings=."
        )
    last = {key: key.rsplit(".", 1)[1] for key in keys}
    return {
        name if name in ("clip_l", "clip_g") else "clip_l": torch.atleast_2d(weights[key]).float()
        for key, name in last.items()
    }
