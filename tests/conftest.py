"""Tiny models with random weights, of the real classes and in the real folder layout, shared by all tests."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

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
SIZE = 32  # pixels of a tiny picture


# Files that take longest: with several processes they begin first, so that none is still at one of them in the end.
SLOW = ("notebooks", "browser", "run", "browser_care", "explorer", "sweep", "workload", "looking", "attribute_panel")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(SLOW)))


@pytest.fixture(scope="session", autouse=True)
def quick_disk():
    """No test waits for the disk: flushing only looks whether it was given an open file. Returns the real fsync.

    What was written is read back through the system, which has it all; only a loss of power would tell. Other
    processes that a test starts flush as ever, and so do tests that ask for `real_fsync`.
    """
    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield real


@pytest.fixture
def real_fsync(quick_disk: Callable[[int], None]):
    """For tests of flushing itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", quick_disk)
        yield quick_disk


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


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model set: a folder with pipeline/, dinov2/ and clip/, as data/menagerie is. Read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_sdxl().save_pretrained(folder / "pipeline")
    save_dinov2(folder / "dinov2")
    save_clip(folder / "clip")
    return folder


@pytest.fixture(scope="session")
def models(model_folder: Path) -> Any:
    """The model set, loaded once for the whole session: tests leave it as it was."""
    from chosen_one_nb.models.load import load_models

    return load_models(model_folder)


@pytest.fixture(scope="session")
def sd_models(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same eyes with a StableDiffusionPipeline."""
    from chosen_one_nb.models.load import load_models

    folder = tmp_path_factory.mktemp("models") / "sd"
    build_sd().save_pretrained(folder)
    return load_models(folder, extractor=models.extractor, clip=models.clip)


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Eight pictures of one flat colour each, with a little noise."""
    rng = np.random.default_rng(0)
    flat = rng.integers(40, 215, size=(8, 1, 1, 3)) + rng.integers(-20, 20, size=(8, SIZE, SIZE, 3))
    return [Image.fromarray(picture.astype(np.uint8)) for picture in flat]


@pytest.fixture
def quick() -> Any:
    """Settings for tiny models: few pictures, few steps."""
    from chosen_one_nb.settings import Settings

    return Settings.preset(
        "quick",
        n_images=4,
        target_cluster_size=2,
        min_cluster_size=1,
        sampling_steps=3,
        batch_size=4,
        refine_steps=3,
        refine_batch_size=2,
        lora_rank=2,
    )
