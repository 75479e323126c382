"""kohya's LoRA files, which A1111, Forge, ComfyUI and sd-scripts load: names of layers, alpha, metadata.

A layer is three tensors, `<name>.lora_down.weight` (r, in), `<name>.lora_up.weight` (out, r) and `<name>.alpha`, and
adds alpha / r * up down. As in sd-scripts, names follow the SGM code for SDXL, diffusers for SD 1.x. Metadata follow
Stability AI's ModelSpec (`modelspec.*`) and sd-scripts (`ss_*`); this kit's notes under `chosen_one_nb` make the way
back exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import torch
from pydantic import BaseModel, Field, ValidationError

from chosen_one_nb.character import Character
from chosen_one_nb.export.content import Base, ExportContent, a1111_prompt
from chosen_one_nb.export.names import LAYERS_PER_BLOCK, sgm_name
from chosen_one_nb.models.images import data_uri

__all__ = ["KohyaNotes", "kohya_metadata", "kohya_tensors"]

NOTES = "chosen_one_nb"  # metadata key of this kit's notes (JSON)
THUMBNAIL = 256  # pixels of a preview's longer side, as ModelSpec suggests


def kohya_tensors(character: Character) -> dict[str, torch.Tensor]:
    """Return a character's LoRA as a kohya file's tensors, named as sd-scripts does: for SDXL after the SGM code."""
    tensors: dict[str, torch.Tensor] = {}
    weights = {f"unet.{key}": weight for key, weight in character.lora.items()}
    for key, weight in (weights | character.frozen).items():
        layer, _ = key.rsplit(".lora_", 1)
        name = _kohya_name(layer, character)
        tensors[f"{name}.lora_{'down' if key.endswith('lora_A.weight') else 'up'}.weight"] = weight
        alpha = character.alpha if key in weights else len(character.frozen[f"{layer}.lora_A.weight"])
        tensors[f"{name}.alpha"] = torch.tensor(float(alpha))
    return tensors


def _kohya_name(layer: str, character: Character) -> str:
    part, _, module = layer.partition(".")
    sdxl = Base.of(character).sdxl
    if part == "unet" and sdxl:
        block = re.match(r"up_blocks\.\d+\.", module)
        attention = block is None or any(key.startswith(f"{block[0]}attentions") for key in character.lora)
        module = sgm_name(module, _layers_per_block(character), attention)
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1" if sdxl else "lora_te", "text_encoder_2": "lora_te2"}[
        part
    ]
    return f"{prefix}_{module}".replace(".", "_")


def _layers_per_block(character: Character) -> int:
    """Return the base's layers per block, from its layers where it is no published model (a LoRA may lack some)."""
    if Base.of(character).standard:
        return LAYERS_PER_BLOCK
    found = re.findall(r"(down|up)_blocks\.\d+\.attentions\.(\d+)", " ".join(character.lora))
    return max((int(layer) + (part == "down") for part, layer in found), default=LAYERS_PER_BLOCK)


class KohyaNotes(BaseModel):
    """This kit's notes in a kohya file's metadata."""

    format: Literal[1] = 1
    token: str
    caption: str
    alpha: float
    layers_per_block: int = Field(LAYERS_PER_BLOCK, ge=1)
    provenance: dict[str, Any] = {}

    @classmethod
    def of(cls, metadata: Mapping[str, str]) -> KohyaNotes | None:
        """Read them; None where there are none, or none that can be read."""
        try:
            return cls.model_validate_json(metadata.get(NOTES, ""))
        except ValidationError:
            return None


def kohya_metadata(content: ExportContent) -> dict[str, str]:
    """Return what a kohya file says about itself: ModelSpec, sd-scripts' own, and this kit's notes."""
    c = content.character
    notes = KohyaNotes(
        token=c.token, caption=c.caption, alpha=c.alpha, layers_per_block=_layers_per_block(c), provenance=c.provenance
    )
    return {**_modelspec(content), **_sd_scripts(content), NOTES: notes.model_dump_json()}


def _modelspec(content: ExportContent) -> dict[str, str]:
    """https://github.com/Stability-AI/ModelSpec, version 1."""
    character, base, name = content.character, content.base, content.name
    preview = content.images[0].image if content.images else None
    width, height = preview.size if preview else base.size
    prompt, subject = a1111_prompt(character, name), content.about.prompt or character.caption
    entries = {
        "sai_model_spec": "1.0.0",
        "architecture": f"stable-diffusion-{'xl-v1-base' if base.sdxl else 'v1'}/lora",
        "implementation": "https://github.com/Stability-AI/generative-models" if base.sdxl else "diffusers",
        "title": name,
        "resolution": f"{width}x{height}",
        "description": f"One consistent character: {' '.join(subject.split())}",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "license": base.licence,
        "trigger_phrase": prompt.rsplit(" <lora:", 1)[0],
        "usage_hint": (
            f"Put embeddings/{name}.safetensors beside your embeddings and prompt: " if character.tokens else "Prompt: "
        )
        + prompt,
        "tags": "character",
        "thumbnail": data_uri(preview, THUMBNAIL, "jpeg", 85) if preview else None,
    }
    return {f"modelspec.{key}": value for key, value in entries.items() if value}


def _sd_scripts(content: ExportContent) -> dict[str, str]:
    """Return what sd-scripts writes, as far as it applies; A1111 reads the base's version from it."""
    character, about = content.character, content.about
    settings = about.settings
    entries = {
        "base_model_version": "sdxl_base_v1-0" if content.base.sdxl else "sd_v1",
        "v2": False,
        "sd_model_name": content.base.name,
        "output_name": content.name,
        "network_module": "networks.lora",
        "network_dim": character.rank,
        "network_alpha": character.alpha,
        "num_train_images": about.n_images,
        "seed": about.seed,
        "unet_lr": settings.get("lora_learning_rate"),
        "text_encoder_lr": settings.get("token_learning_rate"),
        "max_train_steps": settings.get("refine_steps"),
        "total_batch_size": settings.get("refine_batch_size"),
        "tag_frequency": json.dumps({"character": {character.caption: about.n_images or 1}}),
    }
    return {f"ss_{key}": str(value) for key, value in entries.items() if value is not None}
