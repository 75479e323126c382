"""Models from the Hub's cache, from single files, distilled, of other eyes; and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.single_file import checkpoint
from helpers.traces import PARTS
from safetensors.torch import load_file, save_file

from chosen_one_nb.models.hub import Source, wanted
from chosen_one_nb.models.load import KNOWN, FeatureExtractor, ModelError, fingerprint, load_models

COMMIT, OTHER = "a" * 40, "b" * 40


@pytest.fixture
def cache(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hub cache that holds owner/pipe and owner/eyes at one commit each."""
    from huggingface_hub import constants

    for name, part in (("pipe", "pipeline"), ("eyes", "dinov2")):
        place = tmp_path / f"models--owner--{name}"
        shutil.copytree(model_folder / part, place / "snapshots" / COMMIT)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_a_hub_id_is_pinned_to_the_commit_that_was_loaded(cache: Path) -> None:
    models = load_models("owner/pipe", extractor="owner/eyes", offline=True)
    assert models.recipe == {"name": f"owner/pipe@{COMMIT}", "extractor": f"owner/eyes@{COMMIT}"}
    again = load_models(**models.recipe)
    assert again.fingerprint == models.fingerprint
    assert again.recipe == models.recipe
    assert (models.name, models.extractor.name) == ("owner/pipe", f"owner/eyes@{COMMIT}")


def test_what_is_not_there_comes_with_the_line_that_fetches_it(cache: Path) -> None:
    with pytest.raises(ModelError, match=r'hf download owner/pipe --include "\*\.json" .* --revision b{40}'):
        load_models(f"owner/pipe@{OTHER}", extractor="owner/eyes")
    place = re.escape(KNOWN["sdxl"][0].split("@")[0])
    with pytest.raises(ModelError, match=rf"hf download {place} .*--revision [0-9a-f]{{40}}"):
        load_models("sdxl")
    with pytest.raises(ModelError, match=r"hf download owner/pipe distilled.safetensors"):
        Source.of("owner/pipe/distilled.safetensors").fetch()


def test_without_a_network_the_cache_will_do(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.list_repo_files", unreachable)
    assert Source.of(f"owner/pipe@{COMMIT}").fetch() == cache / "models--owner--pipe" / "snapshots" / COMMIT
    with pytest.raises(ModelError, match=r"not fetched from the Hub \(no route to host\)"):
        Source.of(f"owner/pipe@{OTHER}").fetch()


def unreachable(*args: Any, **keys: Any) -> list[str]:
    raise ConnectionError("no route to host")


def test_a_repository_of_pickles_says_how_to_convert_them(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.list_repo_files", lambda *a, **k: ["config.json", "pytorch_model.bin"])
    with pytest.raises(ModelError, match="owner/other: its weights are pickle files only") as caught:
        Source.of("owner/other").fetch()
    assert "hf download" not in str(caught.value)


def test_a_lora_of_the_hub_is_fetched() -> None:
    assert wanted(["README.md", "pytorch_lora_weights.safetensors"]) == ["pytorch_lora_weights.safetensors"]
    assert "lora_weights" in Source.of("owner/lora").download_line()


def test_a_lora_by_id_is_distilled_in(cache: Path, models: Any, model_folder: Path) -> None:
    from chosen_one_nb.steps.lora import initial_lora

    place = cache / "models--owner--lora"
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    with pytest.raises(ModelError, match=r"\(a UNet\), found none.*\n.*hf download owner/lora .*lora_weights"):
        load_models(model_folder, distilled="owner/lora", offline=True)
    lora = initial_lora(models.pipeline.unet, 2, torch.Generator().manual_seed(0))
    save_file({f"unet.{key}": weight + 0.1 for key, weight in lora.items()},
              place / "snapshots" / COMMIT / "pytorch_lora_weights.safetensors")  # fmt: skip
    loaded = load_models(model_folder, distilled="owner/lora", offline=True)
    assert loaded.recipe["distilled"] == f"owner/lora@{COMMIT}"


@pytest.mark.parametrize(
    ("repository", "part"),
    [("pipe", "unet/diffusion_pytorch_model.safetensors"), ("pipe", "model_index.json"), ("eyes", "model.safetensors")],
)
def test_a_cache_with_a_part_of_the_files_says_what_fetches_the_rest(cache: Path, repository: str, part: str) -> None:
    (cache / f"models--owner--{repository}" / "snapshots" / COMMIT / part).unlink()
    with pytest.raises(ModelError, match=rf"fetches what is missing:\n    hf download owner/{repository} ") as told:
        load_models("owner/pipe", extractor="owner/eyes", offline=True)
    assert str(told.value).count("hf download") == 1


def test_what_is_of_another_kind_is_not_to_be_fetched_again(cache: Path) -> None:
    index = cache / "models--owner--pipe" / "snapshots" / COMMIT / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"_class_name": "FluxPipeline"}))
    with pytest.raises(ModelError, match="got FluxPipeline") as told:
        load_models("owner/pipe", extractor="owner/eyes", offline=True)
    assert "hf download" not in str(told.value)


def test_a_short_name_and_a_configuration_are_recorded_at_their_commits(
    cache: Path, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KNOWN, "tiny", ("owner/pipe", "owner/eyes", None))
    found = load_models("tiny", offline=True)
    assert found.recipe == {"name": f"owner/pipe@{COMMIT}", "extractor": f"owner/eyes@{COMMIT}"}
    assert load_models(**found.recipe, offline=True).fingerprint == found.fingerprint
    save_file(checkpoint(models.pipeline), tmp_path / "model.safetensors", {"format": "pt"})
    single = load_models(tmp_path / "model.safetensors", config="owner/pipe", extractor="owner/eyes", offline=True)
    assert single.recipe["config"] == f"owner/pipe@{COMMIT}"


def test_only_what_is_needed_is_fetched() -> None:
    names = ["model_index.json", "sd_xl_base_1.0.safetensors", "unet/diffusion_pytorch_model.safetensors",
             "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.safetensors",
             "unet/model.onnx", "text_encoder/openvino_model.bin", "tokenizer/merges.txt"]  # fmt: skip
    assert wanted(names) == [names[0], names[2], names[4], names[7]]
    assert wanted(names, half=True) == [names[0], names[3], names[4], names[7]]
    assert wanted(["open_clip_model.safetensors", "model.safetensors"]) == ["model.safetensors"]
    names = ["open_clip_config.json", "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "tokenizer.json"]
    assert wanted(names) == [names[0], names[1], names[3]]
    with pytest.raises(ModelError, match="pickle files only"):
        wanted(["config.json", "pytorch_model.bin"])


def test_only_half_precision_files(model_folder: Path, models: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder / "pipeline", tmp_path / "half")
    for file in folder.rglob("*.safetensors"):
        half = file.with_name(file.name.replace(".safetensors", ".fp16.safetensors"))
        save_file(load_file(file), half, {"format": "pt"})
        file.unlink()
    loaded = load_models(folder, extractor=models.extractor)
    assert torch.equal(loaded.pipeline.unet.conv_in.weight, models.pipeline.unet.conv_in.weight)


def test_code_of_a_repository_is_never_run(model_folder: Path, models: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder / "pipeline", tmp_path / "strange")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"unet": ["my_unet", "MyUNet"]}))
    with pytest.raises(ModelError, match=r"diffusers and transformers only, got unet: my_unet.MyUNet"):
        load_models(folder, extractor=models.extractor)


# --- single files


@pytest.mark.parametrize("kind", ["models", "sd_models"])
def test_a_single_file_checkpoint(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """SDXL and Stable Diffusion 1.x, in the names of their authors' code, every tensor of every part."""
    given = request.getfixturevalue(kind)
    given.pipeline.save_pretrained(tmp_path / "folder")
    save_file(checkpoint(given.pipeline), tmp_path / "model.safetensors", {"format": "pt"})
    for file in (tmp_path / "folder").rglob("*.safetensors"):
        file.unlink()  # only configuration and tokenizers are taken from there
    loaded = load_models(tmp_path / "model.safetensors", config=tmp_path / "folder", extractor=given.extractor)
    assert type(loaded.pipeline) is type(given.pipeline)
    parts = [name for name in PARTS if getattr(given.pipeline, name, None) is not None]
    assert len(parts) == (4 if kind == "models" else 3)
    for name in parts:
        ours, theirs = (getattr(which, name).state_dict() for which in (loaded.pipeline, given.pipeline))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert loaded.recipe["config"] == str(tmp_path / "folder")
    assert loaded.fingerprint != given.fingerprint


def test_a_single_file_without_some_of_its_tensors(models: Any, model_folder: Path, tmp_path: Path) -> None:
    state = checkpoint(models.pipeline)
    for start, message in [
        ("first_stage_model", "Failed to load AutoencoderKL. Weights for this component appear to be missing"),
        ("conditioner.embedders.1.model.ln_final", r"lacks 2 tensors, such as text_encoder_2.*final_layer_norm.weight"),
    ]:
        save_file({key: t for key, t in state.items() if not key.startswith(start)}, tmp_path / "cut.safetensors")
        with pytest.raises(ModelError, match=rf"cut.safetensors: expected a .*{message}"):
            load_models(tmp_path / "cut.safetensors", config=model_folder / "pipeline", extractor=models.extractor)


def test_a_single_file_asks_for_the_published_configuration_of_its_kind(models: Any, tmp_path: Path) -> None:
    save_file(checkpoint(models.pipeline), tmp_path / "model.safetensors")
    place = re.escape(KNOWN["sdxl"][0].split("@")[0])
    with pytest.raises(ModelError, match=rf"hf download {place} "):
        load_models(tmp_path / "model.safetensors", extractor=models.extractor)


def test_single_files_that_are_none(sd_models: Any, model_folder: Path, tmp_path: Path) -> None:
    state = checkpoint(sd_models.pipeline)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"hf download stable-diffusion-v1-5/stable-diffusion-v1-5"):
        load_models(tmp_path / "model.safetensors", extractor=sd_models.extractor)
    with pytest.raises(ModelError, match=r"checkpoint of StableDiffusionPipeline's shape"):
        load_models(tmp_path / "model.safetensors", config=model_folder / "pipeline", extractor=sd_models.extractor)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cut.safetensors: expected a whole checkpoint"):
        load_models(tmp_path / "cut.safetensors", extractor=sd_models.extractor)
    save_file({"lora.down": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=r"got tensors lora.down. A LoRA is read by export.read"):
        load_models(tmp_path / "lora.safetensors", extractor=sd_models.extractor)


def test_a_pickle_is_refused_and_the_line_given_converts_it(
    sd_models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"state_dict": {"a": torch.ones(2), "step": 3}}, tmp_path / "model.ckpt")
    with pytest.raises(ModelError, match="refused because they can run code") as told:
        load_models(tmp_path / "model.ckpt", extractor=sd_models.extractor)
    _, _, code, *files = shlex.split(str(told.value).splitlines()[-1])
    monkeypatch.setattr("sys.argv", ["-c", *files])
    exec(code, {})
    assert torch.equal(load_file(tmp_path / "model.safetensors")["a"], torch.ones(2))


# --- distilled


def test_a_distilled_lora_becomes_part_of_the_unet(models: Any, model_folder: Path, tmp_path: Path) -> None:
    from chosen_one_nb.character import Character
    from chosen_one_nb.steps.lora import initial_lora

    g = torch.Generator().manual_seed(0)
    lora = {key: torch.randn(w.shape, generator=g) * 0.1 for key, w in initial_lora(models.pipeline.unet, 2, g).items()}
    Character(lora, {"clip_l": torch.zeros(1, 16)}, "<v>", "<v>", 2, 1.0).save(tmp_path / "lora")
    loaded = load_models(model_folder, distilled=tmp_path / "lora")
    name = next(iter(lora)).removesuffix(".lora_A.weight")
    before, after = (which.pipeline.unet.get_submodule(name).weight for which in (models, loaded))
    added = lora[f"{name}.lora_B.weight"] @ lora[f"{name}.lora_A.weight"] / 2
    torch.testing.assert_close(after, before + added)
    assert not getattr(loaded.pipeline.unet, "peft_config", None)
    assert loaded.recipe["distilled"] == str(tmp_path / "lora")
    assert loaded.fingerprint != models.fingerprint
    with pytest.raises(ModelError, match="few_steps"):
        load_models(model_folder, distilled="own")
    with_own = shutil.copytree(model_folder, tmp_path / "set")
    shutil.copytree(tmp_path / "lora", with_own / "few_steps")
    own = load_models(with_own, distilled="own")
    assert torch.equal(own.pipeline.unet.get_submodule(name).weight, after)
    assert own.recipe["distilled"] == "own", "so that the folder may move"


def test_a_distilled_unet_and_what_is_none(models: Any, model_folder: Path, sd_models: Any, tmp_path: Path) -> None:
    unet = {key: tensor + 1 for key, tensor in models.pipeline.unet.state_dict().items()}
    save_file(unet, tmp_path / "unet.safetensors")
    loaded = load_models(model_folder, distilled=tmp_path / "unet.safetensors")
    assert torch.equal(loaded.pipeline.unet.conv_in.bias, unet["conv_in.bias"])
    save_file(sd_models.pipeline.unet.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="expected a distilled LoRA or UNet of the same base"):
        load_models(model_folder, distilled=tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match=r"expected pytorch_lora_weights.safetensors \(a LoRA\)"):
        load_models(model_folder, distilled=model_folder)


# --- eyes of every kind


@pytest.mark.parametrize("kind", ["giant", "registers", "v1"])
def test_other_eyes(kind: str, model_folder: Path, images: Any, tmp_path: Path) -> None:
    import transformers as t

    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    made = {
        "giant": lambda: t.Dinov2Model(t.Dinov2Config(use_swiglu_ffn=True, **small)),
        "registers": lambda: t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(num_register_tokens=4, **small)),
        "v1": lambda: t.ViTModel(t.ViTConfig(intermediate_size=32, **small), add_pooling_layer=False),
    }[kind]()
    made.save_pretrained(tmp_path)
    shutil.copy(model_folder / "dinov2" / "preprocessor_config.json", tmp_path)
    seen = FeatureExtractor.load(tmp_path)(images[:2], patches=True)
    assert seen.cls.shape == (2, 16)
    assert seen.patches.shape == (2, 16, 16)
    assert seen.grid == (4, 4)


def test_device_and_precision(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chosen_one_nb.models import memory

    assert load_models(model_folder, dtype="bfloat16").pipeline.unet.dtype == torch.bfloat16
    with pytest.raises(ModelError, match="dtype: expected float32, bfloat16 or float16, got 'int8'"):
        load_models(model_folder, dtype="int8")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda major, minor: False)
    if not torch.cuda.is_available():
        assert memory.best_device() == torch.device("mps")
    assert memory.best_dtype(torch.device("mps")) == torch.float16
    assert memory.best_dtype(torch.device("cpu")) == torch.float32


def test_a_file_has_a_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"1")
    first = fingerprint([tmp_path / "a.safetensors"])
    (tmp_path / "a.safetensors").write_bytes(b"2")
    assert fingerprint([tmp_path / "a.safetensors"]) != first
