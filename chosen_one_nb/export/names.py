"""Names of LoRA tensors: those that trainers write, and the one each means in diffusers' modules.

Every program spells the same modules differently: with dots or underscores, after diffusers or after the SGM code,
with prefixes of its own. A name is read as words (`down_blocks`, `1`, `attentions`, ...), whatever stands between them,
brought to diffusers' order, and must then be one that a UNet or a CLIP text encoder has.

| program | a layer's name |
|---|---|
| diffusers | `unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q`, `text_encoder.text_model...` |
| diffusers before 0.20, cog-sdxl | `[unet.]down_blocks.1...attn1.processor.to_q_lora` |
| PEFT | `base_model.model.down_blocks.1...` |
| sd-scripts, LyCORIS | `lora_unet_input_blocks_4_1...` (SDXL), `lora_unet_down_blocks_1...`, `lora_te1_text_model...` |
| OneTrainer | `unet.input_blocks.4.1...`, `lora_unet.down_blocks.1...`, `clip_l.text_model...` |
| ComfyUI | `diffusion_model.input_blocks.4.1...`, `text_encoders.clip_l.transformer.text_model...` |
"""

from __future__ import annotations

import re

__all__ = ["LAYERS_PER_BLOCK", "layer_and_part", "module_name", "other_kind", "sgm_name"]

LAYERS_PER_BLOCK = 2
"""Of the UNets of SDXL and SD 1.x."""

_PREFIXES = (
    (r"(?:base_model\.model\.)?text_encoder_2\.|lora_te2[_.]|(?:text_encoders\.)?clip_g\.(?:transformer\.)?",
     "text_encoder_2"),
    (r"(?:base_model\.model\.)?text_encoder\.|lora_te1?[_.]|(?:text_encoders\.)?clip_l\.(?:transformer\.)?|"
     r"base_model\.model\.(?=text_model\.)", "text_encoder"),
    (r"(?:base_model\.model\.)?unet\.|lora_unet[_.]|base_model\.model\.|(?:model\.)?diffusion_model\.|", "unet"),
)  # fmt: skip

_PART = re.compile(
    r"(?P<layer>.+?)(?:(?:_lora|\.lora|\.lora_linear_layer)\.(?P<a>down|up)|\.lora_(?P<b>down|up|A|B)(?:\.default)?)"
    r"\.weight"
)
_OTHER_KINDS = (
    (r"\.(dora_scale|lora_magnitude_vector)", "DoRA"),
    (r"\.hada_", "LoHa"),
    (r"\.lokr_", "LoKr"),
    (r"\.(oft_|boft_)", "OFT"),
    (r"\.lora_mid\.", "LoCon in Tucker form"),
    (r"\.(w_norm|b_norm|diff|diff_b|set_weight)$", "full differences (LyCORIS full or norm)"),
    (r"\.lora_(B|up)\.bias$", "LoRA with a bias"),
)
_WORDS = re.compile(
    "down_blocks|up_blocks|mid_block|input_blocks|output_blocks|middle_block|transformer_blocks|to_[qkv]|to_out|"
    "proj_in|proj_out|time_emb_proj|conv_in|conv_out|conv_shortcut|time_embedding|add_embedding|linear_[12]|in_layers|"
    "out_layers|emb_layers|skip_connection|time_embed|label_emb|text_model|text_projection|self_attn|[qkv]_proj|"
    "out_proj|[a-z0-9]+"
)
_RESNET = {"in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj",
           "skip_connection": "conv_shortcut"}  # fmt: skip
_ENDS = {"input_blocks.0.0": "conv_in", "out.2": "conv_out", "time_embed.0": "time_embedding.linear_1",
         "time_embed.2": "time_embedding.linear_2", "label_emb.0.0": "add_embedding.linear_1",
         "label_emb.0.2": "add_embedding.linear_2"}  # fmt: skip
_CLIP = {"to_q": "q_proj", "to_k": "k_proj", "to_v": "v_proj", "to_out": "out_proj"}  # of diffusers before 0.20

_MODULES = {
    "unet": re.compile(
        r"(?:(?:down|up)_blocks\.\d+|mid_block)\."
        r"(?:attentions\.\d+\.(?:proj_in|proj_out|transformer_blocks\.\d+\."
        r"(?:attn[12]\.(?:to_[qkv]|to_out\.0)|ff\.net\.(?:0\.proj|2)))"
        r"|resnets\.\d+\.(?:conv1|conv2|time_emb_proj|conv_shortcut)|(?:down|up)samplers\.0\.conv)"
        r"|conv_in|conv_out|(?:time|add)_embedding\.linear_[12]"
    ),
    "text_encoder": re.compile(
        r"text_model\.encoder\.layers\.\d+\.(?:self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12])|text_projection"
    ),
}
_MODULES["text_encoder_2"] = _MODULES["text_encoder"]


def layer_and_part(key: str) -> tuple[str, str] | None:
    """Split a tensor's name into layer and "down", "up" or "alpha"; None for any other tensor.

    Examples
    --------
    >>> layer_and_part("unet.mid_block.attentions.0.proj_in.lora_A.weight")
    ('unet.mid_block.attentions.0.proj_in', 'down')
    """
    if key.endswith(".alpha"):
        return key.removesuffix(".alpha"), "alpha"
    found = _PART.fullmatch(key)
    if found is None:
        return None
    return found["layer"], {"A": "down", "B": "up"}.get(found["a"] or found["b"], found["a"] or found["b"])


def other_kind(key: str) -> str | None:
    """Name the kind of adapter that a tensor belongs to, where it is none that the kit can hold."""
    return next((kind for pattern, kind in _OTHER_KINDS if re.search(pattern, key)), None)


def module_name(layer: str, layers_per_block: int = LAYERS_PER_BLOCK) -> tuple[str, str] | None:
    """Return the part of a pipeline and the module in it that a layer means; None where there is none such.

    Examples
    --------
    >>> module_name("lora_unet_input_blocks_4_1_proj_in")
    ('unet', 'down_blocks.1.attentions.0.proj_in')
    >>> module_name("clip_g.text_model.encoder.layers.3.mlp.fc1")
    ('text_encoder_2', 'text_model.encoder.layers.3.mlp.fc1')
    """
    part, rest = next(
        (part, layer[len(found[0]) :]) for prefix, part in _PREFIXES if (found := re.match(prefix, layer))
    )
    words = [word for word in _WORDS.findall(rest) if word != "processor"]
    if part == "unet":
        name = _from_sgm(words, layers_per_block)
        name = f"{name}.0" if name.endswith(".to_out") else name
    else:
        name = ".".join(_CLIP.get(word, word) for word in words)
        name = f"text_model.{name}" if name.startswith("encoder.") else name
    return (part, name) if _MODULES[part].fullmatch(name) else None


def _from_sgm(words: list[str], layers: int) -> str:
    """Return a module's name in diffusers, from words after it or after the SGM code.

    There a down block of L layers takes L + 1 places (the last one samples down) behind the first convolution, an up
    block of L + 1 layers as many. At index 0 of its place stands the residual layer, at 1 attention.
    """
    name = ".".join(words)
    if name in _ENDS:
        return _ENDS[name]
    if words[0] == "middle_block" and len(words) > 2:
        place = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}.get(words[1], "")
        return f"mid_block.{place}.{_inner(words[2:])}"
    if words[0] not in ("input_blocks", "output_blocks") or len(words) < 4:
        return name
    down = words[0] == "input_blocks"
    block, layer = divmod(int(words[1]) - down, layers + 1)
    start = f"{'down' if down else 'up'}_blocks.{block}"
    if words[3:] in (["op"], ["conv"]):
        return f"{start}.{'down' if down else 'up'}samplers.0.conv"
    return f"{start}.{'resnets' if words[2] == '0' else 'attentions'}.{layer}.{_inner(words[3:])}"


def _inner(words: list[str]) -> str:
    name = ".".join(words)
    return _RESNET.get(name, name)


def sgm_name(module: str, layers: int, attention: bool = True) -> str:
    """Return the SGM code's name of a UNet's module, as `module_name` reads it.

    Parameters
    ----------
    module : str
        In diffusers, such as `mid_block.attentions.0.proj_in`.
    layers : int
        Per block.
    attention : bool
        Whether the up block that it is in has attention, behind which it samples up.
    """
    back = {new: old for old, new in (_ENDS | _RESNET).items()}
    if module in back:
        return back[module]
    found = re.fullmatch(r"(down|up|mid)_blocks?(?:\.(\d+))?\.(\w+)\.(\d+)\.(.+)", module)
    if found is None:
        raise ValueError(f"module: expected one of a UNet, got {module!r}.")
    part, kind, inner = found[1], found[3], back.get(found[5], found[5])
    number = int(found[2] or 0) * (layers + 1)
    if kind == "downsamplers":
        return f"input_blocks.{number + layers + 1}.0.op"
    if kind == "upsamplers":
        return f"output_blocks.{number + layers}.{2 if attention else 1}.conv"
    index = 1 if kind == "attentions" else 0
    if part == "mid":
        return f"middle_block.{1 if index else 2 * int(found[4])}.{inner}"
    number += int(found[4])
    return f"input_blocks.{number + 1}.{index}.{inner}" if part == "down" else f"output_blocks.{number}.{index}.{inner}"
