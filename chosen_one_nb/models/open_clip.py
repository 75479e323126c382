"""CLIP models in OpenCLIP's own form: `open_clip_config.json` and `open_clip_model.safetensors`.

Of the plain architecture (two transformers, as in all ViT-B, L, H, g and bigG of LAION, DataComp and OpenAI) the
weights are those of transformers' `CLIPModel` under other names, query, key and value in one matrix. Towers of other
kinds (timm's, ConvNeXt, SigLIP, CoCa) are refused. Many repositories hold both forms; then transformers' own is taken.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.models.files import ModelError, convert_line, explained, quietly

__all__ = ["CONFIG", "WEIGHTS", "load", "processor", "renamed"]

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

ENDS = {
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # spelled so there
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
}
LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
         "attn.out_proj": "self_attn.out_proj"}  # fmt: skip
KNOWN = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
"""Entries of a configuration that the plain architecture has; others may only say that they do not apply."""

RESAMPLING = {"bicubic": 3, "bilinear": 2, "nearest": 0}


def load(kind: Any, folder: Path, device: str | torch.device | None, dtype: torch.dtype | None) -> Any:
    """Load a `CLIPModel` or its image tower from OpenCLIP's form.

    Parameters
    ----------
    kind : CLIPModel or CLIPVisionModelWithProjection
    folder : Path
    device, dtype : optional
        None is the CPU, and float32.

    Raises
    ------
    ModelError
        If it is of another architecture, incomplete, damaged, or a pickle.
    """
    from safetensors.torch import load_file

    values = _values(folder)
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(folder.glob("open_clip*.bin"))
        more = f" {convert_line(str(pickles[0]))}\nand name it {WEIGHTS}." if pickles else ""
        raise ModelError(f"{folder}: expected {WEIGHTS}, found none.{more} Or take a copy that has it.")
    with explained(folder, f"an OpenCLIP model of {kind.__name__}'s architecture"), quietly():
        config = _config(values)
        model = kind(config if kind.__name__ == "CLIPModel" else config.vision_config)
        state, names = renamed(load_file(folder / WEIGHTS)), model.state_dict().keys()
        model.load_state_dict({name: state[name] for name in names if name in state}, strict=True)
    return model.to(device or "cpu", dtype or torch.float32)


def processor(folder: Path) -> Any:
    """Build the preprocessing that the configuration asks for, by Pillow."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    values = _values(folder)
    asked, side = values.get("preprocess_cfg", {}), values["model_cfg"]["vision_cfg"]["image_size"]
    mode = asked.get("resize_mode", "shortest")
    if mode not in ("shortest", "squash"):
        raise ModelError(f"{folder}: resize_mode: expected shortest or squash, got {mode!r}.")
    square = {"height": side, "width": side}
    about = {name: list(asked[key]) for name, key in (("image_mean", "mean"), ("image_std", "std")) if key in asked}
    return CLIPImageProcessorPil(
        size={"shortest_edge": side} if mode == "shortest" else square, do_center_crop=mode == "shortest",
        crop_size=square, resample=RESAMPLING[asked.get("interpolation", "bicubic")], **about,
    )  # fmt: skip


def renamed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give OpenCLIP's tensors the names and shapes that `CLIPModel` has them under.

    Examples
    --------
    >>> list(renamed({"visual.transformer.resblocks.0.ln_1.bias": torch.zeros(2)}))
    ['vision_model.encoder.layers.0.layer_norm1.bias']
    >>> renamed({"visual.proj": torch.zeros(4, 2)})["visual_projection.weight"].shape
    torch.Size([2, 4])
    """
    found: dict[str, torch.Tensor] = {}
    for name, tensor in state.items():
        name = name.removeprefix("text.")  # where the text tower is a module of its own
        layer = re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)", name)
        if layer:
            place = f"{'vision' if layer[1] else 'text'}_model.encoder.layers.{layer[2]}"
            found |= _of_layer(place, layer[3], tensor)
        elif name in ENDS:
            found[ENDS[name]] = tensor.T.contiguous() if name.endswith("proj") or name == "text_projection" else tensor
        elif name.rpartition(".")[0] in ENDS:
            start, _, end = name.rpartition(".")
            found[f"{ENDS[start]}.{end}"] = tensor
    return found


def _of_layer(place: str, name: str, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
    """One tensor of a layer; the joint matrix of query, key and value is parted in three."""
    joint = re.fullmatch(r"attn\.in_proj_(weight|bias)", name)
    if joint:
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{place}.self_attn.{letter}_proj.{joint[1]}": part.contiguous() for letter, part in parts}
    start, _, end = name.rpartition(".")
    return {f"{place}.{LAYER.get(start, start)}.{end}": tensor}


def _values(folder: Path) -> dict[str, Any]:
    """Read the configuration, and refuse what is not of the plain architecture."""
    with explained(folder, f"a configuration ({CONFIG})"):
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        parts = {"": values["model_cfg"]} | {name: values["model_cfg"][name] for name in ("vision_cfg", "text_cfg")}
    strange = sorted(
        f"{name}={value!r}"
        for part, entries in parts.items()
        for name, value in entries.items()
        if name not in KNOWN[part] and value not in (None, False, "tok", "argmax", "learnable", "linear")
    )
    if strange or not isinstance(parts["vision_cfg"].get("layers", 12), int):
        raise ModelError(
            f"{folder}: expected an OpenCLIP model of two plain transformers, got {', '.join(strange) or 'a ResNet'}. "
            "Take a ViT, or a repository that holds the transformers form (config.json of type clip) too."
        )
    parts["vision_cfg"].setdefault("image_size", 224)
    return values


def _config(values: dict[str, Any]) -> Any:
    from transformers import CLIPConfig

    model = values["model_cfg"]
    common = {"hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu", "projection_dim": model["embed_dim"]}
    see = {"layers": 12, "width": 768, "head_width": 64, "mlp_ratio": 4.0, "patch_size": 16} | model["vision_cfg"]
    read = {"layers": 12, "width": 512, "heads": 8, "mlp_ratio": 4.0, "vocab_size": 49408, "context_length": 77} | (
        model["text_cfg"]
    )
    vision = common | _transformer(see, see["width"] // see["head_width"]) | {
        "image_size": see["image_size"], "patch_size": see["patch_size"],
    }  # fmt: skip
    text = common | _transformer(read, read["heads"]) | {
        "vocab_size": read["vocab_size"], "max_position_embeddings": read["context_length"],
        "eos_token_id": 2,  # by which transformers pools where OpenCLIP does, at the highest token
    }  # fmt: skip
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=model["embed_dim"])


def _transformer(values: dict[str, Any], heads: int) -> dict[str, Any]:
    width = values["width"]
    return {"hidden_size": width, "num_hidden_layers": values["layers"], "num_attention_heads": heads,
            "intermediate_size": int(width * values["mlp_ratio"])}  # fmt: skip
