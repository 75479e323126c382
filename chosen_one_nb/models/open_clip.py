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

from chosen_one_nb.models.hub import ModelError, Source, convert_line

__all__ = ["CONFIG", "WEIGHTS", "load", "processor", "renamed"]

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"

RENAMES = [
    (r"^text\.", ""),  # where the text tower is a module of its own
    (r"^visual\.transformer\.resblocks", "vision_model.encoder.layers"),
    (r"^transformer\.resblocks", "text_model.encoder.layers"),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"\.attn\.", ".self_attn."),
    (r"^token_embedding", "text_model.embeddings.token_embedding"),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final", "text_model.final_layer_norm"),
    (r"^text_projection$", "text_projection.weight"),
    (r"^visual\.class_embedding", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1", "vision_model.embeddings.patch_embedding"),
    (r"^visual\.ln_pre", "vision_model.pre_layrnorm"),  # spelled so there
    (r"^visual\.ln_post", "vision_model.post_layernorm"),
    (r"^visual\.proj$", "visual_projection.weight"),
]
"""OpenCLIP's names and transformers', in order."""

KNOWN = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg"},
    "vision_cfg": {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "patch_dropout"},
    "text_cfg": {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"},
}
"""Entries of a configuration that the plain architecture has; others may only say that they do not apply."""

NOT_APPLIED = (None, False, "tok", "argmax", "learnable", "linear")
RESAMPLING = {"bicubic": 3, "bilinear": 2, "nearest": 0}


def load(kind: Any, source: Source, folder: Path, dtype: torch.dtype | None) -> Any:
    """Load a `CLIPModel` or its image tower from OpenCLIP's form.

    Parameters
    ----------
    kind : CLIPModel or CLIPVisionModelWithProjection
    source : Source
        What was asked for, for messages.
    folder : Path
        Where it lies.
    dtype : torch.dtype, optional
        None is float32.

    Raises
    ------
    ModelError
        If it is of another architecture, incomplete, damaged, or a pickle.
    """
    from safetensors.torch import load_file

    values = _values(source, folder)
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(folder.glob("open_clip*.bin"))
        raise source.lacks(WEIGHTS, f" {convert_line(str(pickles[0]))}\nand name it {WEIGHTS}." if pickles else "")
    with source.loading(f"an OpenCLIP model of {kind.__name__}'s architecture"):
        config = _config(values)
        model = kind(config if kind.__name__ == "CLIPModel" else config.vision_config)
        state = renamed(load_file(folder / WEIGHTS))
        model.load_state_dict({name: state[name] for name in model.state_dict().keys() & state.keys()})
    return model.to(dtype or torch.float32)


def processor(source: Source, folder: Path) -> Any:
    """Build the preprocessing that the configuration asks for, by Pillow."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    values = _values(source, folder)
    asked, side = values.get("preprocess_cfg", {}), values["model_cfg"]["vision_cfg"]["image_size"]
    mode = asked.get("resize_mode", "shortest")
    if mode not in ("shortest", "squash"):
        raise ModelError(f"{source}: resize_mode: expected shortest or squash, got {mode!r}.")
    square = {"height": side, "width": side}
    colours = {name: list(asked[key]) for name, key in (("image_mean", "mean"), ("image_std", "std")) if key in asked}
    return CLIPImageProcessorPil(
        size={"shortest_edge": side} if mode == "shortest" else square, do_center_crop=mode == "shortest",
        crop_size=square, resample=RESAMPLING[asked.get("interpolation", "bicubic")], **colours,
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
    for original, tensor in state.items():
        name = original
        for pattern, replacement in RENAMES:
            name = re.sub(pattern, replacement, name)
        if original.endswith(("visual.proj", "text_projection")):  # applied from the right there, from the left here
            found[name] = tensor.T.contiguous()
        elif "in_proj_" in name:  # the joint matrix of query, key and value is parted in three
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                found[name.replace("in_proj_", f"{letter}_proj.")] = part.contiguous()
        else:
            found[name] = tensor
    return found


def _values(source: Source, folder: Path) -> dict[str, Any]:
    """Read the configuration, and refuse what is not of the plain architecture."""
    with source.loading(f"a configuration ({CONFIG})"):
        values = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        model = values["model_cfg"]
        parts = {"": model, "vision_cfg": model["vision_cfg"], "text_cfg": model["text_cfg"]}
    entries = [(part, name, value) for part, entries in parts.items() for name, value in entries.items()]
    strange = sorted(f"{name}={value!r}" for part, name, value in entries
                     if name not in KNOWN[part] and value not in NOT_APPLIED)  # fmt: skip
    if strange or not isinstance(model["vision_cfg"].get("layers", 12), int):
        raise ModelError(
            f"{source}: expected an OpenCLIP model of two plain transformers, got {', '.join(strange) or 'a ResNet'}. "
            "Take a ViT, or a repository that holds the transformers form (config.json of type clip) too."
        )
    model["vision_cfg"].setdefault("image_size", 224)
    return values


def _config(values: dict[str, Any]) -> Any:
    """The same architecture as transformers' configuration says it, with OpenCLIP's defaults."""
    from transformers import CLIPConfig

    model = values["model_cfg"]
    image, text = model["vision_cfg"], model["text_cfg"]
    common = {"hidden_act": "quick_gelu" if model.get("quick_gelu") else "gelu", "projection_dim": model["embed_dim"]}
    image_config = _transformer(image, 768, image.get("width", 768) // image.get("head_width", 64))
    image_config |= {"image_size": image["image_size"], "patch_size": image.get("patch_size", 16)}
    text_config = _transformer(text, 512, text.get("heads", 8))
    text_config |= {"vocab_size": text.get("vocab_size", 49408), "eos_token_id": 2}  # pools at the highest token
    text_config |= {"max_position_embeddings": text.get("context_length", 77)}
    return CLIPConfig(
        vision_config=common | image_config, text_config=common | text_config, projection_dim=model["embed_dim"]
    )


def _transformer(values: dict[str, Any], width: int, heads: int) -> dict[str, Any]:
    width = values.get("width", width)
    return {"hidden_size": width, "num_hidden_layers": values.get("layers", 12), "num_attention_heads": heads,
            "intermediate_size": int(width * values.get("mlp_ratio", 4.0))}  # fmt: skip
