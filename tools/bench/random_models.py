"""Full-size models with random weights, built from their published configurations without a download.

What they draw is noise; how long they take and how much memory they need is what the real ones take and need. On
the device "meta" they have shapes and no weights, which is enough to count with.
"""

from __future__ import annotations

from typing import Any

import torch

from chosen_one_nb.models.features import Clip, FeatureExtractor
from chosen_one_nb.models.hub import ModelError
from chosen_one_nb.models.load import Models, settle
from chosen_one_nb.models.memory import best_device, best_dtype
from chosen_one_nb.models.pipelines import compile_blocks

__all__ = ["EXTRACTORS", "GENERATORS", "random_models"]

_TEXT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
           "hidden_act": "quick_gelu", "projection_dim": 768}  # fmt: skip
_TEXT_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
           "hidden_act": "gelu", "projection_dim": 1280}  # fmt: skip
_DOWN, _CROSS_DOWN, _UP, _CROSS_UP = "DownBlock2D", "CrossAttnDownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D"

GENERATORS: dict[str, dict[str, Any]] = {
    "sdxl": {
        "texts": (_TEXT_L, _TEXT_G),
        "vae": {"scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True},
        "unet": {
            "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
            "down_block_types": (_DOWN, _CROSS_DOWN, _CROSS_DOWN), "up_block_types": (_CROSS_UP, _CROSS_UP, _UP),
            "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
    },
    "sd15": {
        "texts": (_TEXT_L,),
        "vae": {"scaling_factor": 0.18215, "sample_size": 512},
        "unet": {
            "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768,
            "down_block_types": (_CROSS_DOWN, _CROSS_DOWN, _CROSS_DOWN, _DOWN),
            "up_block_types": (_UP, _CROSS_UP, _CROSS_UP, _CROSS_UP), "attention_head_dim": 8,
        },
    },
}  # fmt: skip
"""Generators by short name: the published configurations of SDXL base 1.0 and Stable Diffusion 1.5."""

EXTRACTORS: dict[str, dict[str, Any]] = {
    "dinov2-small": {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6},
    "dinov2-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
    "dinov2-large": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    "dinov2-giant": {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True},
}
"""DINOv2 by size, at patches of 14 pixels."""

LAST = 49407  # the end token's id in CLIP's vocabulary


def random_models(
    name: str = "sdxl",
    *,
    extractor: str = "dinov2-large",
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    low_memory: bool = False,
    compile: bool | str = False,
) -> Models:
    """Build a generator with its eyes from configurations, with random weights.

    Parameters
    ----------
    name : {"sdxl", "sd15"}
    extractor : {"dinov2-small", "dinov2-base", "dinov2-large", "dinov2-giant"}
    device, dtype : optional
        As in `load_models`; "meta" has no weights at all.
    low_memory, compile : optional
        As in `load_models`.

    Raises
    ------
    ModelError
        For a name that is not known here.
    """
    for given, known in ((name, GENERATORS), (extractor, EXTRACTORS)):
        if given not in known:
            raise ModelError(f"random models: expected one of {', '.join(known)}, got {given!r}.")
    place = torch.device(device) if device else best_device()
    kind = dtype or best_dtype(place)
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(kind)
        with torch.device(place):
            pipeline, seeing, reading = _pipeline(**GENERATORS[name]), _extractor(extractor), _clip()
    finally:
        torch.set_default_dtype(before)
    settle(place, pipeline, seeing, reading, low_memory)
    compile_blocks(pipeline.unet, place, compile)
    return Models(pipeline, seeing, reading, f"random {name}", "", {}, place, low_memory)


def _pipeline(texts: tuple[dict[str, Any], ...], vae: dict[str, Any], unet: dict[str, Any]) -> Any:
    import diffusers
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    parts = {
        "unet": diffusers.UNet2DConditionModel(in_channels=4, out_channels=4, layers_per_block=2, **unet),
        "vae": diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, **vae,
        ),
        "scheduler": diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        "tokenizer": _tokenizer(),
        "text_encoder": CLIPTextModel(_text(texts[0])),
    }  # fmt: skip
    if len(texts) == 1:
        more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = diffusers.StableDiffusionPipeline(**parts, **more)
    else:
        second = {"tokenizer_2": _tokenizer(), "text_encoder_2": CLIPTextModelWithProjection(_text(texts[1]))}
        pipeline = diffusers.StableDiffusionXLPipeline(**parts, **second, add_watermarker=False)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _text(config: dict[str, Any]) -> Any:
    """As on the Hub: `eos_token_id` 2, which is not the tokenizer's."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=LAST + 1, max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1, **config
    )


def _tokenizer() -> Any:
    """A tokenizer of CLIP's size that spells everything letter by letter."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    vocab = {piece: i for i, piece in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    vocab |= {"<|startoftext|>": LAST - 1, "<|endoftext|>": LAST}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)


def _extractor(name: str) -> FeatureExtractor:
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    processor = BitImageProcessorPil(
        size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}, resample=3,
        image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225],
    )  # fmt: skip
    model = Dinov2Model(Dinov2Config(image_size=518, patch_size=14, **EXTRACTORS[name]))
    return FeatureExtractor(model, processor, name)


def _clip() -> Clip:
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, patch_size=14,
        projection_dim=768,
    )  # fmt: skip
    config = CLIPConfig(text_config=_text(_TEXT_L).to_dict(), vision_config=vision.to_dict(), projection_dim=768)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224})
    return Clip(CLIPModel(config), processor, _tokenizer(), "clip-vit-large-patch14")
