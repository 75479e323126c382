"""Write a Stable Diffusion 1.x or XL pipeline as the single-file checkpoints of its authors' code name things."""

from __future__ import annotations

import re
from typing import Any

import torch

RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
ENDS = {"conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2":
        "time_embed.2", "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
        "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
MIDDLE = {"resnets.0": "middle_block.0", "attentions.0": "middle_block.1", "resnets.1": "middle_block.2"}


def checkpoint(pipeline: Any) -> dict[str, torch.Tensor]:
    """All weights of a pipeline by the names of a .safetensors checkpoint."""
    layers = pipeline.unet.config.layers_per_block
    found = {}
    for key, tensor in pipeline.unet.state_dict().items():
        found[f"model.diffusion_model.{unet_name(key, layers, pipeline.unet)}"] = tensor
    n = len(pipeline.vae.config.block_out_channels)
    for key, tensor in pipeline.vae.state_dict().items():
        name = vae_name(key, n)
        square = re.search(r"\.(q|k|v|proj_out)\.weight$", name)
        found[f"first_stage_model.{name}"] = tensor[..., None, None] if square else tensor
    second = getattr(pipeline, "text_encoder_2", None)
    first = "conditioner.embedders.0" if second is not None else "cond_stage_model"
    for key, tensor in pipeline.text_encoder.state_dict().items():
        found[f"{first}.transformer.text_model.{key.removeprefix('text_model.')}"] = tensor
    if second is not None:
        found |= {f"conditioner.embedders.1.model.{key}": tensor for key, tensor in second_text(second).items()}
    return {key: tensor.clone().contiguous() for key, tensor in found.items()}


def unet_name(key: str, layers: int, unet: Any) -> str:
    for ours, theirs in ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    if key.startswith("mid_block."):
        part = next(part for part in MIDDLE if part in key)
        name = key.replace(f"mid_block.{part}", MIDDLE[part])
        return inside(name) if part.startswith("resnets") else name
    side, block, kind, layer, rest = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.*)", key).groups()
    block, layer = int(block), int(layer)
    if side == "down":
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.op.{rest.removeprefix('conv.')}"
        place = f"input_blocks.{(layers + 1) * block + layer + 1}"
    else:
        attends = unet.config.up_block_types[block].startswith("Cross")
        if kind == "upsamplers":
            return f"output_blocks.{(layers + 1) * block + layers}.{2 if attends else 1}.{rest}"
        place = f"output_blocks.{(layers + 1) * block + layer}"
    return inside(f"{place}.0.{rest}") if kind == "resnets" else f"{place}.1.{rest}"


def inside(name: str) -> str:
    return re.sub(rf"\.({'|'.join(RESNET)})\.", lambda found: f".{RESNET[found[1]]}.", name)


def vae_name(key: str, n: int) -> str:
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets\.", lambda m: f"up.{n - 1 - int(m[1])}.block.", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0\.", lambda m: f"up.{n - 1 - int(m[1])}.upsample.", key)
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    if "mid_block.attentions.0" in key:
        key = key.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
        key = re.sub(r"to_([qkv])\.", r"\1.", key).replace("to_out.0", "proj_out")
    return key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")


BLOCK = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
         "self_attn.out_proj": "attn.out_proj"}  # fmt: skip


def second_text(encoder: Any) -> dict[str, torch.Tensor]:
    """SDXL's second text encoder, which is OpenCLIP's."""
    state = {key.removeprefix("text_model."): tensor for key, tensor in encoder.state_dict().items()}
    found = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
        "text_projection": state["text_projection.weight"].T,
        "logit_scale": torch.tensor(4.6052),
    }
    for n in range(encoder.config.num_hidden_layers):
        ours, theirs = f"encoder.layers.{n}", f"transformer.resblocks.{n}"
        for end in ("weight", "bias"):
            for mine, their in BLOCK.items():
                found[f"{theirs}.{their}.{end}"] = state[f"{ours}.{mine}.{end}"]
            joint = [state[f"{ours}.self_attn.{letter}_proj.{end}"] for letter in "qkv"]
            found[f"{theirs}.attn.in_proj_{end}"] = torch.cat(joint)
    return found
