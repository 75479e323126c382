"""Sweeps: a table of many jobs; what is on disk is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import joblib
import pytest
from helpers import fakes

from chosen_one_nb import cli
from chosen_one_nb.run import store
from chosen_one_nb.run.run import Run
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.sweep import SweepError, SweepPlan, sweep, workers
from chosen_one_nb.sweep.workers import WorkerPool

SMALL = {"n_images": 8, "batch_size": 4, "target_cluster_size": 4, "min_cluster_size": 1, "refine_steps": 2,
         "max_iterations": 1}  # fmt: skip
FOX = {"preset": "quick", "prompts": ["a fox", "a cat"], "settings": SMALL, "vary": {"guidance_scale": [2, 4]}}


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps that take no time, done in this process."""
    import chosen_one_nb.run.cost_estimate
    import chosen_one_nb.run.run

    fakes.install(monkeypatch)
    models = fakes.fake_models("menagerie")
    monkeypatch.setattr(workers, "_loaded", lambda load: models)
    monkeypatch.setattr(chosen_one_nb.run.run, "check_prompt", lambda models, prompt, settings: prompt)
    monkeypatch.setattr(
        chosen_one_nb.run.cost_estimate, "estimate_cost", lambda models, settings: f"{settings.batch_size} at once"
    )
    with joblib.parallel_config(backend="sequential"):
        yield models


def test_a_sweep_gives_a_table_and_goes_on(faked: Any, tmp_path: Path):
    heard: list[dict[str, Any]] = []
    table = sweep(SweepPlan(**FOX), tmp_path, on_progress=heard.append)
    assert table[["prompt", "guidance_scale", "seed", "images"]].to_numpy().tolist() == [
        ["a fox", 2, 0, 8], ["a fox", 4, 0, 8], ["a cat", 2, 0, 8], ["a cat", 4, 0, 8]]  # fmt: skip
    assert (table["distance"] > 0).all()
    assert (tmp_path / "table.csv").read_text().startswith("prompt,guidance_scale,seed,images,distance")
    assert [event for event in heard if event["stage"] == "draw"][-1]["done"] == 32
    assert len(faked.drawn) == 8
    faked.drawn.clear()
    again = sweep(SweepPlan(**FOX), tmp_path)
    assert faked.drawn == []
    assert again["distance"].tolist() == table["distance"].tolist()


def test_a_sweep_says_first_what_its_largest_job_needs(faked: Any, tmp_path: Path):
    said: list[str] = []
    plan = SweepPlan(prompts=["a fox"], preset="quick", vary={"batch_size": [2, 8, 4]})
    sweep(plan, tmp_path, on_message=said.append)
    assert said == ["Each worker: 8 at once"]


def test_a_longer_plan_draws_only_what_is_new(faked: Any, tmp_path: Path):
    sweep(SweepPlan(**FOX), tmp_path)
    faked.drawn.clear()
    assert len(sweep(SweepPlan(**{**FOX, "prompts": ["a cat", "a fox", "an owl"]}), tmp_path)) == 6
    assert faked.drawn == [("an owl", 4)] * 4


def test_other_settings_are_never_taken_for_the_old(faked: Any, tmp_path: Path):
    sweep(SweepPlan(**FOX), tmp_path)
    faked.drawn.clear()
    sweep(SweepPlan(**{**FOX, "settings": {**SMALL, "sampling_steps": 3}}), tmp_path)
    assert len(faked.drawn) == 8


def test_a_damaged_image_costs_its_shard(faked: Any, tmp_path: Path):
    sweep(SweepPlan(**FOX), tmp_path)
    faked.drawn.clear()
    broken = sorted(tmp_path.rglob("005.png"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    sweep(SweepPlan(**FOX), tmp_path)
    assert len(faked.drawn) == 1
    assert broken.read_bytes() == whole


def test_an_interrupted_sweep_goes_on(faked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.generate

    def interrupt(*args: Any, **more: Any) -> Any:
        if len(faked.drawn) == 3:
            raise KeyboardInterrupt
        return fakes.generate(*args, **more)

    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep(SweepPlan(**FOX), tmp_path)
    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", fakes.generate)
    assert (sweep(SweepPlan(**FOX), tmp_path)["error"] == "").all()
    assert len(faked.drawn) == 8


def test_one_failure_leaves_the_others_be(faked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.generate

    def fail(models: Any, request: SamplingRequest, *args: Any, **more: Any) -> Any:
        if request.prompt == "a cat":
            raise store.StoreError("The disk is full.")
        return fakes.generate(models, request, *args, **more)

    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", fail)
    table = sweep(SweepPlan(**FOX), tmp_path)
    assert table["error"].tolist() == ["", "", "The disk is full.", "The disk is full."]
    assert table["images"].tolist()[:2] == [8, 8]


def test_a_prompt_that_the_models_refuse_stops_all(faked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(models: Any, prompt: str, settings: Any) -> str:
        raise store.StoreError(f"{prompt!r} is too long.")

    monkeypatch.setattr("chosen_one_nb.run.run.check_prompt", refuse)
    with pytest.raises(SweepError, match="'a fox' is too long"):
        sweep(SweepPlan(**FOX), tmp_path)
    assert faked.drawn == []


def test_whole_runs_go_to_their_end_and_on(faked: Any, tmp_path: Path):
    plan = SweepPlan(**{**FOX, "do": "run", "vary": {}}, seeds=[0, 1])
    table = sweep(plan, tmp_path)
    assert table["iterations"].tolist() == [1] * 4
    assert (table["error"] == "").all()
    assert Run.open(tmp_path / table["folder"][3] / "run", read_only=True).root.settings.seed == 1
    faked.drawn.clear()
    assert sweep(plan, tmp_path)["ratio"].tolist() == table["ratio"].tolist()
    assert faked.drawn == []


def test_a_run_with_workers_is_the_run_without(faked: Any, tmp_path: Path):
    settings = SweepPlan(**FOX).jobs()[0].settings
    with WorkerPool(1) as pool:
        for folder, more in (("alone", {}), ("pool", {"workers": pool})):
            with Run.start("a fox", faked, settings, tmp_path / folder) as run:
                run.until_converged(**more)
    images = [{path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.png")}
                for folder in ("alone", "pool")]  # fmt: skip
    assert images[0] == images[1]
    assert len(images[0]) == 16


def test_the_command_prints_the_table(faked: Any, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "plan.json").write_text(json.dumps(FOX))
    arguments = ["sweep", str(tmp_path / "plan.json"), "--folder", str(tmp_path / "out")]
    assert cli.main([*arguments, "--check"]) == 0
    assert "2 prompts x 2 settings x 1 seeds: 4 galleries, 32 images" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    assert "draw: 32 images" in said
    assert "a cat" in said
    assert said.rstrip().endswith("table.csv")


def test_two_sweeps_in_one_folder(faked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def busy(self: store.Lock) -> None:
        raise store.RunInUse("in use by process 7")

    monkeypatch.setattr(store.Lock, "acquire", busy)
    with pytest.raises(store.RunInUse):
        sweep(SweepPlan(**FOX), tmp_path)
