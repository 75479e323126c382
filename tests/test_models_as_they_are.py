"""Models as they are: found again from any working directory, and drawn by their own kind of noise or not at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from helpers.single_file import checkpoint
from helpers.tiny_models import made_for
from safetensors.torch import save_file

from chosen_one_nb import export
from chosen_one_nb.models.hub import ModelError, absolute
from chosen_one_nb.models.load import load_models
from chosen_one_nb.models.pipelines import load_pipeline
from chosen_one_nb.run.run import Run
from chosen_one_nb.steps.generate import SAMPLERS, sampler
from chosen_one_nb.sweep import SweepPlan


@pytest.fixture
def here(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, home too, with the tiny models in `models/mine` and an empty folder `elsewhere`."""
    (tmp_path / "models").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "models" / "mine").symlink_to(model_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_run_begun_with_a_relative_path_goes_on_from_another_directory(
    here: Path, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Run.start("a sticker of a fox", "models/mine", quick, here / "run") as run:
        run.step()
    monkeypatch.chdir(here / "elsewhere")
    with Run.open(here / "run") as again:
        assert again.manifest["models"]["load"]["name"] == again.manifest["models"]["name"] == str(here / "models/mine")
        again.step()


@pytest.mark.parametrize("given", ["models/mine/pipeline", "~/models/mine/pipeline"])
def test_every_path_of_models_is_recorded_absolute(here: Path, given: str) -> None:
    loaded = load_models(given, extractor="models/mine/dinov2", clip=Path("~/models/mine/clip"))
    parts = {"name": "pipeline", "extractor": "dinov2", "clip": "clip"}
    assert loaded.recipe == {key: str(here / "models/mine" / part) for key, part in parts.items()}


def test_a_plan_records_paths_absolute(here: Path) -> None:
    plan = SweepPlan(prompts=["a fox"], models="models/mine", load={"clip": "models/mine/clip", "dtype": "float32"})
    assert plan.models == str(here / "models/mine")
    assert plan.load == {"clip": str(here / "models/mine/clip"), "dtype": "float32"}


def test_a_short_name_goes_before_a_folder_of_that_name(here: Path) -> None:
    (here / "menagerie").mkdir()
    assert absolute("menagerie") == "menagerie"


def test_a_missing_path_of_home_is_no_hub_id(here: Path) -> None:
    with pytest.raises(ModelError, match="nowhere/mine: no such folder"):
        load_models("~/nowhere/mine", extractor="models/mine/dinov2")


def test_home_is_home_wherever_a_character_is_written_or_read(here: Path, models: Any) -> None:
    character = made_for(models.pipeline)
    assert character.save("~/a") == here / "a"
    assert export.write(character, "~/b", "kohya") == here / "b"
    assert not (here / "~").exists()
    assert export.read("~/a").token == character.token


# --- schedulers


def with_scheduler(scheduler: Any, model_folder: Path, folder: Path) -> Path:
    """A copy of the tiny pipeline with another scheduler."""
    shutil.copytree(model_folder / "pipeline", folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
    shutil.rmtree(folder / "scheduler")
    scheduler.save_pretrained(folder / "scheduler")
    return folder


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (diffusers.EDMDPMSolverMultistepScheduler(), "got EDMDPMSolverMultistepScheduler"),
        (diffusers.EDMEulerScheduler(), "got EDMEulerScheduler"),
        (diffusers.FlowMatchEulerDiscreteScheduler(), "got FlowMatchEulerDiscreteScheduler"),
        (diffusers.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction"), "continuous"),
        (diffusers.DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction"), "continuous"),
        (diffusers.DDPMScheduler(beta_schedule="sigmoid"), "DDPMScheduler with beta schedule sigmoid"),
        (diffusers.UniPCMultistepScheduler(prediction_type="flow_prediction"), "got 'flow_prediction'"),
    ],
)
def test_noise_that_the_kit_cannot_draw_is_refused_by_name(
    scheduler: Any, message: str, model_folder: Path, tmp_path: Path
) -> None:
    folder = with_scheduler(scheduler, model_folder, tmp_path / "mine")
    with pytest.raises(ModelError, match=rf"mine: expected a model .*{message}"):
        load_models(folder, extractor=model_folder / "dinov2")


@pytest.mark.parametrize("given", ["PNDMScheduler", "EulerAncestralDiscreteScheduler", "LCMScheduler", "DDPMScheduler"])
def test_every_sampler_keeps_the_noise_of_the_models_own_scheduler(
    given: str, model_folder: Path, tmp_path: Path
) -> None:
    betas = {"beta_start": 0.0012, "beta_end": 0.013, "beta_schedule": "scaled_linear"}
    own = getattr(diffusers, given)(prediction_type="v_prediction", **betas)
    pipeline = load_models(
        with_scheduler(own, model_folder, tmp_path / "mine"), extractor=model_folder / "dinov2"
    ).pipeline
    for name in SAMPLERS:
        made = sampler(pipeline, name)
        assert made.config.prediction_type == "v_prediction"
        torch.testing.assert_close(made.alphas_cumprod, own.alphas_cumprod)


@pytest.mark.parametrize("marks", [["v_pred"], ["v_pred", "ztsnr"], []])
def test_a_single_file_says_by_markers_what_it_predicts(
    sd_models: Any, marks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chosen_one_nb.models.hub import Source

    sd_models.pipeline.save_pretrained(tmp_path / "config")
    state = checkpoint(sd_models.pipeline) | {mark: torch.zeros(0) for mark in marks}
    save_file(state, tmp_path / "model.safetensors")
    source = Source.of(tmp_path / "model.safetensors")
    pipeline, _ = load_pipeline(source, torch.float32, config=tmp_path / "config")
    for name in SAMPLERS:
        made = sampler(pipeline, name)
        assert made.config.prediction_type == ("v_prediction" if marks else "epsilon")
        assert (float(made.alphas_cumprod[-1]) < 1e-6) == ("ztsnr" in marks)
    trained = diffusers.DDPMScheduler.from_config(pipeline.scheduler.config)
    assert (float(trained.alphas_cumprod[-1]) < 1e-6) == ("ztsnr" in marks)


@pytest.mark.parametrize("mark", ["edm_mean", "edm_vpred.sigma_max"])
def test_a_single_file_with_edm_markers_is_refused(sd_models: Any, mark: str, tmp_path: Path) -> None:
    save_file(checkpoint(sd_models.pipeline) | {mark: torch.zeros(1)}, tmp_path / "cosxl.safetensors")
    with pytest.raises(ModelError, match=rf"cosxl.safetensors: expected .*DDPM's noise .* marked {mark}"):
        load_models(tmp_path / "cosxl.safetensors", extractor=sd_models.extractor)
