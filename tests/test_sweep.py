"""Sweeps: plans checked before anything runs, shards that any worker may draw, workers that die."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from helpers import fakes
from helpers.chores import environment, note

from chosen_one_nb import cli
from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, blocks, draw
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.sweep import tasks
from chosen_one_nb.sweep import worker_pool as crews
from chosen_one_nb.sweep.command import workers_of
from chosen_one_nb.sweep.plan import Plan, PlanError
from chosen_one_nb.sweep.pool import WorkerDied, Workers, pinned, visible_devices
from chosen_one_nb.sweep.sweep import sweep
from chosen_one_nb.sweep.worker_pool import Crew, SweepError

SMALL = {"n_images": 8, "batch_size": 4, "target_cluster_size": 4, "min_cluster_size": 1, "refine_steps": 2,
         "max_iterations": 1}  # fmt: skip
FOX = {"preset": "quick", "prompts": ["a fox", "a cat"], "settings": SMALL, "vary": {"guidance_scale": [2, 4]}}


# --- plans

WRONG = {
    "no prompts": ({}, "expected prompts, such as"),
    "empty prompts": ({"prompts": []}, "prompts: expected at least one, got an empty list"),
    "one text": ({"prompts": "a fox"}, "prompts: expected a list of texts, got 'a fox'"),
    "number": ({"prompts": ["a fox", 3]}, "prompts: expected a list of texts, got 3 among them"),
    "blank": ({"prompts": ["a fox", " "]}, "prompts: expected a description in each, got ' '"),
    "twice": ({"prompts": ["a fox", "a fox"]}, "'a fox' stands there twice"),
    "placeholder": ({"prompts": ["a <v> fox"]}, "holds '<v>', the word that is to stand for the character"),
    "same seeds": ({"prompts": ["a fox"], "seeds": [0, 1, 0]}, "seeds: 0 stands there twice"),
    "no seeds": ({"prompts": ["a fox"], "seeds": []}, "seeds: expected at least one"),
    "bad seed": ({"prompts": ["a fox"], "seeds": [1.5]}, "seeds: expected a list of whole numbers from 0, got 1.5"),
    "negative": ({"prompts": ["a fox"], "seeds": [-1]}, "whole numbers from 0, got -1"),
    "unknown entry": ({"prompts": ["a fox"], "colour": 1}, "no such entry: colour. A plan holds prompts, seeds"),
    "unknown setting": ({"prompts": ["a fox"], "settings": {"colour": 1}}, "colour: no such setting"),
    "bad value": ({"prompts": ["a fox"], "vary": {"guidance_scale": [-1]}}, "with guidance_scale=-1: guidance_scale:"),
    "no values": ({"prompts": ["a fox"], "vary": {"guidance_scale": []}}, "vary: guidance_scale: expected at least"),
    "no list": ({"prompts": ["a fox"], "vary": {"guidance_scale": 2}}, "expected a list of values, got 2"),
    "both": ({"prompts": ["a fox"], "vary": {"n_images": [8]}, "settings": {"n_images": 9}}, "Leave one of them out"),
    "seed": ({"prompts": ["a fox"], "settings": {"seed": 3}}, "seed belongs into seeds"),
    "settings": ({"prompts": ["a fox"], "settings": [1]}, "settings: expected an object, got [1]"),
    "preset": ({"prompts": ["a fox"], "preset": "best"}, "preset: expected one of"),
    "do": ({"prompts": ["a fox"], "do": "dance"}, "do: expected one of 'gallery', 'run', got 'dance'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_plan_is_told_before_anything_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    values, match = WRONG[name]
    plan, folder = tmp_path / "plan.json", tmp_path / "out"
    plan.write_text(json.dumps(values))
    assert cli.main(["sweep", str(plan), "--folder", str(folder)]) == 1
    said = capsys.readouterr()
    assert match in said.err
    assert len(said.err.splitlines()) == 1
    assert not folder.exists()


def test_what_is_no_plan(tmp_path: Path):
    with pytest.raises(PlanError, match="cannot be read"):
        Plan.read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"prompts": [')
    with pytest.raises(PlanError, match="expected a plan in JSON"):
        Plan.read(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(PlanError, match="expected a JSON object, got list"):
        Plan.read(tmp_path / "list.json")


def test_a_plan_is_prompts_by_settings_by_seeds():
    jobs = Plan(**FOX, seeds=[0, 7]).jobs()
    assert [(job.prompt, job.settings.guidance_scale, job.settings.seed) for job in jobs[:3]] == [
        ("a fox", 2, 0), ("a fox", 2, 7), ("a fox", 4, 0)]  # fmt: skip
    assert len({job.folder for job in jobs}) == len(jobs) == 8
    assert jobs[0].settings.n_images == 8


def test_the_bundled_example_is_a_plan():
    plan = Plan.read(Path(__file__).parents[1] / "data/sweeps/example_plan.json")
    assert len(plan.jobs()) == 12


# --- what is on disk is not done again


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Steps that take no time, done in this process."""
    import chosen_one_nb.run.cost_estimate
    import chosen_one_nb.run.opening

    fakes.install(monkeypatch)
    models = fakes.fake_models("menagerie")
    monkeypatch.setattr(tasks, "models_of", lambda name: models)
    monkeypatch.setattr(chosen_one_nb.run.opening, "check_prompt", lambda models, prompt, settings: prompt)
    monkeypatch.setattr(
        chosen_one_nb.run.cost_estimate, "estimate_cost", lambda models, settings: f"{settings.batch_size} at once"
    )
    with joblib.parallel_config(backend="sequential"):
        yield models


def test_a_sweep_gives_a_table_and_goes_on(faked: Any, tmp_path: Path):
    heard: list[dict[str, Any]] = []
    table = sweep(Plan(**FOX), tmp_path, on_progress=heard.append)
    assert table[["prompt", "guidance_scale", "seed", "images"]].to_numpy().tolist() == [
        ["a fox", 2, 0, 8], ["a fox", 4, 0, 8], ["a cat", 2, 0, 8], ["a cat", 4, 0, 8]]  # fmt: skip
    assert (table["distance"] > 0).all()
    assert (tmp_path / "table.csv").read_text().startswith("prompt,guidance_scale,seed,images,distance")
    assert [event for event in heard if event["stage"] == "draw"][-1]["done"] == 32
    assert len(faked.drawn) == 8
    faked.drawn.clear()
    again = sweep(Plan(**FOX), tmp_path)
    assert faked.drawn == []
    assert again["distance"].tolist() == table["distance"].tolist()


def test_a_sweep_says_first_what_its_largest_job_needs(faked: Any, tmp_path: Path):
    said: list[str] = []
    sweep(Plan(prompts=["a fox"], preset="quick", vary={"batch_size": [2, 8, 4]}), tmp_path, say=said.append)
    assert said == ["Each worker: 8 at once"]


def test_a_plan_without_a_preset_takes_the_models_own():
    assert Plan(prompts=["a fox"]).jobs()[0].settings == Settings.preset("menagerie")
    assert Plan(prompts=["a fox"], models="sdxl").jobs()[0].settings == Settings.preset("paper")
    assert Plan(prompts=["a fox"], models="sdxl", preset="quick").jobs()[0].settings == Settings.preset("quick")


def test_where_answers_come_all_together_tasks_are_given_out_in_portions():
    with joblib.parallel_config(backend="threading", n_jobs=1), Crew(1) as crew:
        crew._streams, given = False, []
        done = crew.do([partial(given.append, i) for i in range(10)])
        next(done)
        assert given == [0, 1, 2, 3]  # a portion of four for the one worker, not all ten
        assert [number for number, _ in done] == list(range(1, 10))


def test_a_longer_plan_draws_only_what_is_new(faked: Any, tmp_path: Path):
    sweep(Plan(**FOX), tmp_path)
    faked.drawn.clear()
    assert len(sweep(Plan(**{**FOX, "prompts": ["a cat", "a fox", "an owl"]}), tmp_path)) == 6
    assert faked.drawn == [("an owl", 4)] * 4


def test_other_settings_are_never_taken_for_the_old(faked: Any, tmp_path: Path):
    sweep(Plan(**FOX), tmp_path)
    faked.drawn.clear()
    sweep(Plan(**{**FOX, "settings": {**SMALL, "sampling_steps": 3}}), tmp_path)
    assert len(faked.drawn) == 8


def test_a_damaged_image_costs_its_shard(faked: Any, tmp_path: Path):
    sweep(Plan(**FOX), tmp_path)
    faked.drawn.clear()
    broken = sorted(tmp_path.rglob("005.png"))[0]
    whole = broken.read_bytes()
    broken.write_bytes(whole[:50])
    sweep(Plan(**FOX), tmp_path)
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
        sweep(Plan(**FOX), tmp_path)
    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", fakes.generate)
    assert (sweep(Plan(**FOX), tmp_path)["error"] == "").all()
    assert len(faked.drawn) == 8


def test_one_failure_leaves_the_others_be(faked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.generate

    def fail(models: Any, request: SamplingRequest, *args: Any, **more: Any) -> Any:
        if request.prompt == "a cat":
            raise store.StoreError("The disk is full.")
        return fakes.generate(models, request, *args, **more)

    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", fail)
    table = sweep(Plan(**FOX), tmp_path)
    assert table["error"].tolist() == ["", "", "The disk is full.", "The disk is full."]
    assert table["images"].tolist()[:2] == [8, 8]


def test_a_prompt_that_the_models_refuse_stops_all(faked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(models: Any, prompt: str, settings: Any) -> str:
        raise store.StoreError(f"{prompt!r} is too long.")

    monkeypatch.setattr("chosen_one_nb.run.opening.check_prompt", refuse)
    with pytest.raises(SweepError, match="'a fox' is too long"):
        sweep(Plan(**FOX), tmp_path)
    assert faked.drawn == []


def test_whole_runs_go_to_their_end_and_on(faked: Any, tmp_path: Path):
    plan = Plan(**{**FOX, "do": "run", "vary": {}}, seeds=[0, 1])
    table = sweep(plan, tmp_path)
    assert table["iterations"].tolist() == [1] * 4
    assert (table["error"] == "").all()
    assert Run.open(tmp_path / table["folder"][3] / "run", read_only=True).root.settings.seed == 1
    faked.drawn.clear()
    assert sweep(plan, tmp_path)["ratio"].tolist() == table["ratio"].tolist()
    assert faked.drawn == []


def test_a_run_with_workers_is_the_run_without(faked: Any, tmp_path: Path):
    settings = Plan(**FOX).jobs()[0].settings
    with Crew(1) as crew:
        for folder, more in (("alone", {}), ("crew", {"workers": crew})):
            with Run.start("a fox", faked, settings, tmp_path / folder) as run:
                run.until_converged(**more)
    images = [{path.relative_to(tmp_path / folder): path.read_bytes() for path in (tmp_path / folder).rglob("*.png")}
                for folder in ("alone", "crew")]  # fmt: skip
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
        sweep(Plan(**FOX), tmp_path)


# --- workers


def test_a_killed_worker_costs_one_task(tmp_path: Path):
    died: list[int] = []
    with Workers(2, devices=[], on_death=died.append) as workers:
        calls = [joblib.delayed(note)(tmp_path, f"t{i}", wait=0.5, die=int(i == 1)) for i in range(6)]
        joblib.Parallel(backend=workers, n_jobs=2, batch_size=1)(calls)
    assert len(died) == 1
    done = sorted(path.name for path in tmp_path.iterdir())
    assert done == sorted([*(f"t{i}-0" for i in range(6)), "t1-1"])  # the task of the killed one, and no other, twice


def test_a_task_that_always_kills_is_given_up(tmp_path: Path):
    with Workers(1, devices=[]) as workers, pytest.raises(WorkerDied, match="ended 3 processes"):
        joblib.Parallel(backend=workers, n_jobs=1)([joblib.delayed(note)(tmp_path, "t", die=9)])


def test_workers_are_pinned_in_turn():
    with Workers(2, threads=1, devices=["3", "5"]) as workers:
        call = joblib.Parallel(backend=workers, n_jobs=2, batch_size=1)
        assert set(call(joblib.delayed(environment)("CUDA_VISIBLE_DEVICES") for _ in range(4))) == {"3", "5"}
        assert set(call(joblib.delayed(environment)("OMP_NUM_THREADS") for _ in range(2))) == {"1"}
    assert [pinned(i, ["0", "1"], 1)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["0", "1", "0"]


def test_visible_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab")
    assert visible_devices() == ["2", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


def test_another_backend_that_loses_a_worker_goes_on(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    with joblib.parallel_config(backend="sequential"), Crew(1, say=said.append) as crew:
        real, lost = crew._answers, [1]

        def answers(left: dict[int, Any]) -> Any:
            yield next(real(left))
            if lost:
                raise ConnectionError(lost.pop())
            yield from real({k: v for k, v in left.items() if k in left})

        monkeypatch.setattr(crew, "_answers", answers)
        assert sorted(number for number, _ in crew.do([partial(int, i) for i in range(3)])) == [0, 1, 2]
        assert said == ["A worker was lost (ConnectionError); 2 tasks are given out again."]
        monkeypatch.setattr(crew, "_answers", lambda left: {}["gone"])
        with pytest.raises(SweepError, match="cannot go on"):
            list(crew.do([partial(int, 1)]))


def test_numbers_of_workers():
    with pytest.raises(SweepError, match="expected 1 or more"):
        Crew(0)
    assert crews.default_workers(10**6) >= 1


# --- the same images from any number of workers


@pytest.fixture
def gallery(models: Any, quick: Any, tmp_path: Path) -> tuple[SamplingRequest, Any]:
    settings = quick.replace(n_images=12, batch_size=3, sampling_steps=2)
    drawing = SamplingRequest("a fox", np.arange(12), settings)

    def place(name: str) -> ImageFolder:
        folder = store.make_folder(tmp_path / name)
        return ImageFolder(folder / "gallery", folder, models.fingerprint, latents=True)

    return drawing, place


def contents(album: ImageFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(album.folder.iterdir())}


def test_two_workers_draw_what_one_process_draws(gallery: Any, models: Any):
    drawing, album = gallery
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        draw(drawing, album("whole"), lambda: models)
    finally:
        torch.set_num_threads(threads)
    said, split = [], album("split")
    with Crew(2, say=said.append) as crew:
        tasks_ = [partial(note, split.within, "kill", die=1), *shards(drawing, split, models)]
        answers = [answer for _, answer in crew.do(tasks_)]
        assert [answer.error for answer in answers] == [""] * 5
        heard: list[dict[str, Any]] = []
        crew.draw(drawing, split, lambda: models, Callbacks(on_progress=heard.append))
    assert said == ["Worker 0 was ended (killed, or out of memory?). Its task goes to a fresh one."] or len(said) == 1
    assert heard == []  # nothing was left to draw
    assert contents(split) == contents(album("whole"))


def shards(drawing: SamplingRequest, album: ImageFolder, models: Any) -> list[Any]:
    return [tasks.Shard(drawing, album, models.name, block) for block in blocks(drawing)]


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_another_backend_draws_the_same(backend: str, gallery: Any, models: Any):
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    drawing, album = gallery
    whole, split = album("whole"), album("split")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        draw(drawing, whole, lambda: models)
    finally:
        torch.set_num_threads(threads)
    with ExitStack() as stack:
        try:
            stack.enter_context(workers_of(backend, 2))
        except Exception as error:  # Ray gives up after 15 s where the processor is busy
            pytest.skip(f"{backend} does not start here: {error}")
        crew = stack.enter_context(Crew(2))
        pids = {answer.pid for _, answer in crew.do(shards(drawing, split, models))}
    assert os.getpid() not in pids
    assert contents(split) == contents(whole)
