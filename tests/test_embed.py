"""Step 2: features of any extractor behind one contract, prepared as the checkpoint says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chosen_one_nb.models.load import FeatureExtractor, ModelError
from chosen_one_nb.steps import Callbacks, Cancelled
from chosen_one_nb.steps.embed import embed


def test_shapes_and_types(models: Any, quick: Any, images: list[Image.Image]) -> None:
    found = embed(models, images, quick, patches=True)
    assert (found.cls.shape, found.cls.dtype) == ((8, 16), np.float32)
    assert (found.patches.shape, found.patches.dtype) == ((8, 16, 16), np.float16)
    assert found.grid == (4, 4)
    assert embed(models, images, quick).patches is None
    assert models.extractor.width == 16


def test_any_batch_size_gives_the_same_features(models: Any, quick: Any, images: list[Image.Image]) -> None:
    whole, parts = (embed(models, images, quick.replace(batch_size=size)) for size in (8, 3))
    np.testing.assert_allclose(parts.cls, whole.cls, atol=1e-5)


def test_progress_per_batch_and_cancelled_between(models: Any, quick: Any, images: list[Image.Image]) -> None:
    events: list[dict[str, Any]] = []
    embed(models, images, quick.replace(batch_size=3), Callbacks(on_progress=events.append))
    assert [(event["stage"], event["done"], event["total"]) for event in events] == [
        ("embed", 3, 8),
        ("embed", 6, 8),
        ("embed", 8, 8),
    ]
    with pytest.raises(Cancelled):
        embed(models, images, quick, Callbacks(cancelled=lambda: True))


def test_no_images(models: Any, quick: Any) -> None:
    assert embed(models, [], quick).cls.shape == (0, 16)


def test_pitfall_18_prepared_as_the_checkpoint_says(models: Any, model_folder: Path) -> None:
    """Resize to 32, centre crop of 28, ImageNet statistics: what the tiny checkpoint's file says, by hand."""
    said = json.loads((model_folder / "dinov2" / "preprocessor_config.json").read_text())
    assert said["crop_size"]["height"] == 28
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))
    pixels = np.asarray(image, np.float32)[2:30, 2:30] / 255
    pixels = (pixels - said["image_mean"]) / said["image_std"]
    by_hand = torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = models.extractor.model(by_hand).pooler_output.numpy()
    np.testing.assert_allclose(models.extractor([image]).cls, expected, atol=1e-4)


def test_pitfall_19_patch_tokens_lie_row_by_row(models: Any) -> None:
    """An image black but for its top right corner: that patch's token stands out."""
    image = Image.new("RGB", (28, 28))
    image.paste((255, 255, 255), (21, 0, 28, 7))
    extractor = FeatureExtractor(models.extractor.model, _as_it_is, "plain")
    plain, marked = (
        extractor([each], patches=True).patches[0].astype(float) for each in (Image.new("RGB", (28, 28)), image)
    )
    assert int(np.linalg.norm(marked - plain, axis=1).argmax()) == 3


def _as_it_is(images: list[Image.Image], return_tensors: str) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) / 255 for image in images])}


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_images_of_other_modes(models: Any, images: list[Image.Image], mode: str) -> None:
    assert np.isfinite(models.extractor([images[0].convert(mode)]).cls).all()


def test_dinov1(tmp_path: Path, images: list[Image.Image]) -> None:
    from transformers import ViTConfig, ViTModel
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    found = FeatureExtractor.load(tmp_path)(images, patches=True)
    assert (found.cls.shape, found.patches.shape, found.grid) == ((8, 16), (8, 16, 16), (4, 4))


def test_dinov2_with_registers_leaves_them_out(tmp_path: Path, model_folder: Path, images: list[Image.Image]) -> None:
    from transformers import AutoImageProcessor, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        num_register_tokens=3,
        mlp_ratio=2,
    )
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    AutoImageProcessor.from_pretrained(model_folder / "dinov2", backend="pil").save_pretrained(tmp_path)
    assert FeatureExtractor.load(tmp_path)(images, patches=True).patches.shape == (8, 16, 16)


def test_clip_as_extractor_is_its_projected_image(models: Any, model_folder: Path, images: list[Image.Image]) -> None:
    found = FeatureExtractor.load(model_folder / "clip")(images, patches=True)
    assert found.grid == (4, 4)
    directions = found.cls / np.linalg.norm(found.cls, axis=1, keepdims=True)
    np.testing.assert_allclose(directions, models.clip.images(images), atol=1e-5)


def test_clip_vectors_have_unit_length(models: Any, images: list[Image.Image]) -> None:
    for vectors in (models.clip.images(images), models.clip.texts(["a fox", "a cat", "a " * 90])):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert models.clip.images([]).shape == (0, 12)


def test_clip_texts_do_not_hang_on_their_neighbours(models: Any) -> None:
    alone, beside = (
        models.clip.texts(["a fox"])[0],
        models.clip.texts(["a fox", "a red robot on the beach"])[0],
    )
    np.testing.assert_allclose(alone, beside, atol=1e-5)


def test_another_kind_of_model_is_refused(model_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"expected a feature extractor of type dinov2, .* got 'clip_text_model'"):
        FeatureExtractor.load(model_folder / "pipeline" / "text_encoder")
