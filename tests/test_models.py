"""Loading models: from a model set or a pipeline folder, safely, in the right precision, with clear
errors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from chosen_one_nb.models.load import Clip, FeatureExtractor, ModelError, fingerprint, load_models


def test_a_model_set(models: Any, model_folder: Path) -> None:
    assert type(models.pipeline).__name__ == "StableDiffusionXLPipeline"
    assert isinstance(models.extractor, FeatureExtractor)
    assert isinstance(models.clip, Clip)
    assert models.name == str(model_folder)
    assert len(models.fingerprint) == 64


def test_nothing_asks_for_gradients_or_shows_a_bar(models: Any) -> None:
    parts = (models.pipeline.unet, models.pipeline.vae, models.pipeline.text_encoder, models.extractor.model)
    assert not any(p.requires_grad or part.training for part in parts for p in part.parameters())
    assert models.pipeline._progress_bar_config == {"disable": True}
    assert models.pipeline.watermark is None


def test_half_precision_files_are_float32_on_the_cpu(model_folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPModel, Dinov2Model

    shutil.copytree(model_folder, tmp_path / "half")
    pipeline = StableDiffusionXLPipeline.from_pretrained(model_folder / "pipeline").to(torch.float16)
    pipeline.save_pretrained(tmp_path / "half" / "pipeline")
    for kind, name in ((Dinov2Model, "dinov2"), (CLIPModel, "clip")):
        kind.from_pretrained(model_folder / name).half().save_pretrained(tmp_path / "half" / name)
    loaded = load_models(tmp_path / "half", device="cpu")
    pipeline = loaded.pipeline
    parts = (
        pipeline.unet,
        pipeline.vae,
        pipeline.text_encoder,
        pipeline.text_encoder_2,
        loaded.extractor.model,
        loaded.clip.model,
    )
    assert {p.dtype for part in parts for p in part.parameters()} == {torch.float32}


def test_a_bare_pipeline_needs_eyes(model_folder: Path, models: Any) -> None:
    with pytest.raises(ModelError, match=r"a pipeline without a feature extractor. Pass one"):
        load_models(model_folder / "pipeline")
    loaded = load_models(model_folder / "pipeline", extractor=model_folder / "dinov2")
    assert loaded.clip is None
    assert loaded.extractor.width == 16


def test_other_eyes_for_a_model_set(model_folder: Path, models: Any) -> None:
    loaded = load_models(model_folder, extractor=model_folder / "clip", clip=models.clip)
    assert loaded.extractor.width == 12
    assert loaded.clip is models.clip
    assert loaded.fingerprint != models.fingerprint


def test_fingerprint_follows_contents_not_places(model_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model_folder, tmp_path / "copy")
    parts = [model_folder / "pipeline", model_folder / "dinov2"]
    moved = [copy / "pipeline", copy / "dinov2"]
    assert fingerprint(parts) == fingerprint(moved)
    file = copy / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert fingerprint(parts) != fingerprint(moved)


def without_index(folder: Path) -> None:
    shutil.rmtree(folder / "pipeline")


def without_unet(folder: Path) -> None:
    (folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors").unlink()


def truncated(folder: Path) -> None:
    file = folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:200])


def another_class(folder: Path) -> None:
    file = folder / "pipeline" / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "_class_name": "FluxPipeline"}))


def broken_json(folder: Path) -> None:
    (folder / "dinov2" / "config.json").write_text("{")


def without_processor(folder: Path) -> None:
    (folder / "dinov2" / "preprocessor_config.json").unlink()


def clip_for_text_only(folder: Path) -> None:
    shutil.rmtree(folder / "clip")
    shutil.copytree(folder / "dinov2", folder / "clip")


def pickled(folder: Path) -> None:
    file = folder / "dinov2" / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(file), folder / "dinov2" / "pytorch_model.bin")
    file.unlink()


def pickled_unet(folder: Path) -> None:
    from safetensors.torch import load_file

    file = folder / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            without_index,
            r"expected a model set \(folders pipeline/, dinov2/, clip/\) or a diffusers pipeline",
        ),
        (without_unet, "expected a diffusers pipeline in safetensors files"),
        (truncated, "Check that the folder is complete"),
        (another_class, "expected a pipeline of class StableDiffusionXLPipeline or .* got FluxPipeline"),
        (broken_json, "expected a configuration"),
        (without_processor, "expected a preprocessor_config.json"),
        (clip_for_text_only, "expected a CLIP model .* got 'dinov2'"),
        (pickled, "pickle files .* are refused because they can run code"),
        (pickled_unet, "pickle files .* are refused because they can run code"),
    ],
)
def test_damaged_folders_are_told(model_folder: Path, tmp_path: Path, damage: Any, message: str) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "damaged")
    damage(folder)
    with pytest.raises(ModelError, match=message):
        load_models(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "nowhere: no such folder, and not a Hub id"),
        ("./no/where", "no such folder"),
        ("owner/name/more", "no such folder"),
    ],
)
def test_names_that_are_none(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_models(name)


def test_a_hub_model_out_of_reach(models: Any) -> None:
    with pytest.raises(ModelError, match="Check the id and the network; a copy in a folder works without one"):
        load_models("no-such-owner/no-such-model", extractor=models.extractor)


def test_an_extractor_that_is_none(model_folder: Path) -> None:
    with pytest.raises(ModelError, match="missing: no such folder, and not a Hub id"):
        load_models(model_folder, extractor=model_folder / "missing")
    with pytest.raises(ModelError, match=r"expected a model folder with a config.json"):
        load_models(model_folder, extractor=model_folder / "pipeline")
