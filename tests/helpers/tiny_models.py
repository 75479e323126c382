"""Tiny models with random weights, of the real classes and in the real folder layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [
    "a",
    "of",
    "the",
    "fox",
    "cat",
    "robot",
    "sticker",
    "photo",
    "red",
    "blue",
    "hat",
    "on",
    "beach",
    "in",
    "snow",
]
SIZE = 32  # pixels of a tiny image


def tiny_tokenizer(length: int = 32) -> Any:
    """A CLIPTokenizer that knows `WORDS` as one token each and spells everything else letter by letter."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    vocab = {piece: i for i, piece in enumerate(letters + [letter + "</w>" for letter in letters])}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            if (pieces[0], pieces[1]) not in merges:
                merges.append((pieces[0], pieces[1]))
            pieces[:2] = [pieces[0] + pieces[1]]
            vocab.setdefault(pieces[0], len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def _text_config(tokenizer: Any, width: int) -> Any:
    """As on the Hub: SDXL's text encoders say eos_token_id 2, which is not the tokenizer's."""
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=1,
    )


def _unet(cross: int, *, pooled: int | None) -> Any:
    from diffusers import UNet2DConditionModel

    added = (
        {}
        if pooled is None
        else {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": pooled + 6 * 8,
        }
    )
    return UNet2DConditionModel(
        sample_size=SIZE // 4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        cross_attention_dim=cross,
        norm_num_groups=8,
        transformer_layers_per_block=1,
        **added,
    )


def _vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        sample_size=SIZE,
        scaling_factor=0.6,
    )


def _scheduler(prediction_type: str) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        prediction_type=prediction_type,
        timestep_spacing="trailing",
        steps_offset=1,
    )


def build_sdxl(prediction_type: str = "v_prediction") -> Any:
    """A StableDiffusionXLPipeline of a few hundred thousand random numbers."""
    import torch
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    first, second = tiny_tokenizer(), tiny_tokenizer()
    return StableDiffusionXLPipeline(
        vae=_vae(),
        unet=_unet(16 + 24, pooled=24),
        scheduler=_scheduler(prediction_type),
        tokenizer=first,
        text_encoder=CLIPTextModel(_text_config(first, 16)).eval(),
        tokenizer_2=second,
        text_encoder_2=CLIPTextModelWithProjection(_text_config(second, 24)).eval(),
        add_watermarker=False,
    )


def build_sd() -> Any:
    """A StableDiffusionPipeline, the class of SD 1.5, just as small."""
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    return StableDiffusionPipeline(
        vae=_vae(),
        unet=_unet(16, pooled=None),
        scheduler=_scheduler("epsilon"),
        tokenizer=tokenizer,
        text_encoder=CLIPTextModel(_text_config(tokenizer, 16)).eval(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save_dinov2(folder: Path) -> None:
    """A Dinov2Model of width 16 with patches of 7 pixels, and its preprocessor configuration."""
    import torch
    from transformers import Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil

    torch.manual_seed(1)
    Dinov2Model(
        Dinov2Config(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=7,
            mlp_ratio=2,
        )
    ).save_pretrained(folder)
    BitImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 28, "width": 28},
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)


def save_clip(folder: Path) -> None:
    """A CLIPModel with both towers, its tokenizer and preprocessor configuration."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(2)
    tokenizer = tiny_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=12,
    )
    text = _text_config(tokenizer, 16)
    CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def made_for(pipeline: Any, *, vectors: int = 1, alpha: float = 2.0, token: str = "<v>") -> Any:
    """A character of random numbers, large enough to be seen."""
    import torch

    from chosen_one_nb.character import Character
    from chosen_one_nb.steps.lora import initial_lora

    g = torch.Generator().manual_seed(5)
    lora = {k: torch.randn(w.shape, generator=g) * 0.3 for k, w in initial_lora(pipeline.unet, 2, g).items()}
    widths = {"clip_l": 16, "clip_g": 24} if hasattr(pipeline, "text_encoder_2") else {"clip_l": 16}
    rows = {key: torch.randn(vectors, width, generator=g) for key, width in widths.items()}
    initial = {key: torch.randn(vectors, width, generator=g) for key, width in widths.items()}
    return Character(lora, rows, token, f"a red fox {token}", 2, alpha, initial, {"prompt": "a red fox"})


def full_size_unet() -> Any:
    """SDXL's UNet without weights."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=128, block_out_channels=(320, 640, 1280), layers_per_block=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2, 10), attention_head_dim=(5, 10, 20), cross_attention_dim=2048,
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )  # fmt: skip
