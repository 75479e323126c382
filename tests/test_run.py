"""Going on from stage to stage, beginning, opening, closing and copying."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fakes, runs
from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.run import STAGES, ChoiceError, ModelsDiffer, Run, RunError
from chosen_one_nb.run.store import RunInUse, StoreError
from chosen_one_nb.settings import Settings

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run, finished = runs.quick_steps, runs.models, runs.run, runs.finished


def test_the_stages_come_in_order_and_the_run_ends(run: Run):
    done = []
    while run.next_stage:
        coming = run.next_stage
        done.append(run.step())
        assert done[-1] == coming
    assert done == [*STAGES, *STAGES, "generate", "embed", "check"]
    assert run.outcome.state == "limit"
    assert list(run.nodes) == ["0", "1", "2"]
    with pytest.raises(RunError, match=r"Finished, limit.*run\.go_on"):
        run.step()


def test_a_node_shows_none_of_what_is_not_done_yet(run: Run):
    node = run.current
    assert (len(node.images), node.decision) == (0, None)
    assert (node.embedding, node.check, node.clusters, node.theta) == (None, None, None, None)
    assert (node.losses, node.excluded, node.stages_done, node.state) == ([], (), (), "new")
    assert run.character is None
    assert len(run.tables.gallery()) == 9


def test_a_node_shows_what_is_done(run: Run):
    run.next_iteration()
    node = run.root
    assert node.stages_done == STAGES
    assert node.embedding.features.shape == (9, 6)
    assert node.embedding.clip.shape == (9, 7)
    assert node.images[0].size == (8, 8)
    assert len(node.images[2:4]) == 2
    assert node.images[-1].tobytes() == node.images[8].tobytes()
    assert node.check.health.state == "sound"
    assert len(node.losses) == 2
    assert node.theta.caption == "a sticker of a fox <v>"
    assert run.character is node.theta
    with pytest.raises(IndexError):
        node.images[9]
    with pytest.raises(ValueError, match="read-only"):
        node.embedding.features[0] = 0


def test_next_iteration_ends_with_a_character_or_asks(run: Run):
    assert run.next_iteration(ask=True).state == "unfinished"
    assert run.next_stage == "choose"
    assert run.next_iteration().state == "unfinished"
    assert run.current.refined
    assert run.next_iteration(ask=True).state == "unfinished"
    assert (run.current.id, run.next_stage) == ("1", "choose")


def test_until_converged_stops_when_the_distance_is_small(tmp_path: Path, models: Any):
    with Run.start(runs.PROMPT, models, runs.settings(convergence=0.95, max_iterations=5), tmp_path / "run") as run:
        outcome = run.until_converged()
        assert outcome.state == "converged"
        assert outcome.finished
        assert run.current.state == "converged"
        assert run.current.check.convergence.ratio <= 0.95
        assert run.character is run.current.theta_in
        assert outcome.sound_node == run.current.id


def test_the_first_gallery_never_ends_a_run(tmp_path: Path, models: Any):
    with Run.start(
        runs.PROMPT, models, runs.settings(convergence=9, convergence_mode="absolute"), tmp_path / "run"
    ) as run:
        runs.advance(run, "check")
        assert run.current.judged == "converged"
        assert run.next_stage == "cluster"
        run.until_converged()
        assert run.current.id == "1"


def test_a_collapse_is_told_with_the_last_sound_character(run: Run, monkeypatch: pytest.MonkeyPatch):
    from chosen_one_nb.steps import converge

    run.next_iteration()
    run.next_iteration()
    runs.advance(run, "embed")
    broken = converge.Health("collapsed", ["The images' contrast rose."], [])
    monkeypatch.setattr(converge, "health", lambda *_: broken)
    run.step()
    outcome = run.outcome
    assert (outcome.state, outcome.node, outcome.sound_node) == ("collapsed", "2", "1")
    assert "contrast rose" in outcome.reason
    assert run.current.state == "collapsed"
    assert run.character is run.node("1").theta_in
    assert run.node("1").theta is not run.character


def test_without_a_large_cluster_a_person_may_choose(tmp_path: Path, models: Any):
    strict = runs.settings(min_cluster_size=8, target_cluster_size=2)
    with Run.start(runs.PROMPT, models, strict, tmp_path / "run") as run:
        outcome = run.until_converged()
        assert outcome.state == "no cluster"
        assert not outcome.finished
        with pytest.raises(ChoiceError, match="The rule proposes nothing"):
            run.step()
        with pytest.warns(RuntimeWarning, match="2 images"):
            run.selection.choose(images=[1, 2])
        assert run.step() == "refine"


def test_going_on_past_the_stop_rule(run: Run):
    with pytest.raises(RunError, match="not finished"):
        run.go_on()
    run.until_converged()
    run.go_on()
    assert run.next_stage == "cluster"
    run.next_iteration()
    assert run.current.id == "2"
    run.until_converged()
    assert run.current.id == "3"
    assert run.outcome.state == "limit"


def test_progress_images_and_losses_are_told(run: Run):
    events, images, losses = [], {}, []
    calls = {"on_progress": events.append, "on_images": lambda found: images.update(found), "on_step": losses.append}
    run.next_iteration(**calls)
    drawn = [event["done"] for event in events if event["stage"] == "generate"]
    assert drawn == sorted(drawn)
    assert (drawn[-1], events[0]["total"], events[0]["unit"]) == (9, 9, "images")
    assert sorted(images) == list(range(9))
    assert images[7].tobytes() == run.root.images[7].tobytes()
    assert [event["step"] for event in losses] == [1, 2]
    assert {event["stage"] for event in events} == {"generate", "embed", "refine"}


def test_seeds_are_the_same_on_sibling_branches_and_new_each_iteration(run: Run):
    run.next_iteration()
    run.next_iteration()
    run.select("0")
    run.selection.choose(0)
    run.next_iteration()
    run.step()
    assert (run.current.id, run.node("1b").parent.id) == ("1b", "0b")
    assert run.node("1b").seeds.tolist() == run.node("1").seeds.tolist()
    assert run.node("0").seeds.tolist() != run.node("1").seeds.tolist()


def test_refining_gets_the_chosen_latents_and_the_prior_when_asked(tmp_path: Path, models: Any):
    with Run.start(runs.PROMPT, models, runs.settings(prior_share=0.25), tmp_path / "run") as run:
        run.next_iteration()
        data = models.refined[0]["data"]
    assert len(data.images) == len(data.latents) == len(run.root.decision.images)
    assert len(data.prior.images) == 9
    assert data.prior.latents.shape == (9, 8, 3)


def test_reinit_starts_each_refinement_anew(tmp_path: Path, models: Any):
    with Run.start(runs.PROMPT, models, runs.settings(carry_over="reinit"), tmp_path / "run") as run:
        run.next_iteration()
        run.next_iteration()
        assert [fakes.level(node.theta) for node in run.nodes.values()] == [1.0, 1.0]


def test_files_are_flat_and_readable_without_the_package(run: Run):
    import json

    from PIL import Image

    run.next_iteration()
    node = run.folder / "nodes/0"
    assert np.load(node / "features.npy", allow_pickle=False).shape == (9, 6)
    image = Image.open(node / "gallery/002.png")
    assert image.info["seed"] == str(run.root.seeds[2])
    assert image.info["prompt"] == runs.PROMPT
    assert json.loads(image.info["settings"])["n_images"] == 9
    manifest = json.loads((run.folder / "run.json").read_text())
    assert manifest["prompt"] == runs.PROMPT
    assert manifest["versions"]["torch"]
    edits = json.loads((node / "edits.json").read_text())
    assert edits["edits"][-1]["decision"]["by"] == "rule"
    stamps = json.loads((node / "node.json").read_text())["stages"]["embed"]["files"]
    assert len(stamps["features.npy"]["sha256"]) == 64


def test_the_same_folder_is_the_same_run_within_a_process(run: Run, models: Any):
    assert Run.open(run.folder) is run
    run.close()
    with Run.open(run.folder, models) as again:
        assert again is not run
        assert again.nodes.keys() == run.nodes.keys()
    with pytest.raises(RunError, match="for looking only"):
        run.step()


def test_a_second_process_is_told(run: Run):
    code = f"from chosen_one_nb.run.run import Run; Run.open({str(run.folder)!r})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert "RunInUse" in found.stderr
    assert f"in use by process {os.getpid()}" in found.stderr
    look = code.replace("')", "', read_only=True).outcome")
    assert subprocess.run([sys.executable, "-c", look], cwd=Path(__file__).parents[1]).returncode == 0


def test_looking_changes_nothing(run: Run):
    run.next_iteration()
    run.samples.contexts(contexts=["in the snow"], seeds=1)
    run.close()
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}
    look = Run.open(run.folder, read_only=True)
    look.select("0")
    assert look.root.theta.caption
    assert len(look.samples.contexts(contexts=["in the snow"], seeds=1)["in the snow"]) == 1
    for change in (
        look.step,
        look.selection.choose,
        look.selection.undo,
        look.branch,
        look.go_on,
        lambda: look.selection.exclude([1]),
    ):
        with pytest.raises(RunError, match="for looking only"):
            change()
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_a_copy_can_be_changed(run: Run, tmp_path: Path):
    run.next_iteration()
    with run.copy(tmp_path / "copy") as copy:
        copy.selection.choose(1)
        assert list(copy.nodes) == ["0", "0b"]
    assert list(run.nodes) == ["0"]
    with pytest.raises(RunError, match="holds a run already"):
        run.copy(tmp_path / "copy")


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ("", "expected a description"),
        ("  ", "expected a description"),
        ("a fox <v>", "placeholder"),
        (None, "expected a description"),
    ],
)
def test_a_bad_prompt_is_told_and_nothing_is_made(tmp_path: Path, models: Any, prompt: Any, match: str):
    with pytest.raises(ValueError, match=match):
        Run.start(prompt, models, runs.settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_prompt_too_long_with_its_token_is_told(tmp_path: Path, model_folder: Path):
    with pytest.raises(ValueError, match="at most 32 tokens"):
        Run.start("fox " * 30, model_folder, runs.settings(), tmp_path / "run")


def test_a_folder_that_is_not_empty_is_left_alone(run: Run, models: Any, tmp_path: Path):
    with pytest.raises(RunError, match="holds a run already"):
        Run.start(runs.PROMPT, models, runs.settings(), run.folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").touch()
    with pytest.raises(RunError, match="not empty and holds no run"):
        Run.start(runs.PROMPT, models, runs.settings(), tmp_path / "mine")
    with pytest.raises(RunError, match="Expected a folder, got the file"):
        Run.start(runs.PROMPT, models, runs.settings(), tmp_path / "mine/letter.txt")


def test_a_folder_without_a_run_is_told(tmp_path: Path):
    with pytest.raises(StoreError, match=r"holds no run.*Run\.start"):
        Run.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_told(run: Run):
    run.close()
    manifest = store.read_json(run.folder / "run.json")
    store.write_json(run.folder / "run.json", {**manifest, "format": 99})
    with pytest.raises(StoreError, match="expected a run of format 2, got 99"):
        Run.open(run.folder)


def test_without_a_folder_one_is_found(tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with Run.start("A fox!", models, runs.settings()) as first, Run.start("A fox!", models, runs.settings()) as second:
        assert [run.folder.name for run in (first, second)] == ["a-fox", "a-fox-2"]


def test_other_models_may_look_but_not_go_on_unless_meant(run: Run):
    run.next_iteration()
    run.close()
    others = fakes.fake_models("sdxl", "e" * 64)
    with Run.open(run.folder, others) as again:
        assert again.root.images[0].size == (8, 8)
        with pytest.raises(ModelsDiffer, match=r"made with fake \(ffffffff\), at hand is sdxl \(eeeeeeee\)"):
            again.step()
        assert again.next_stage == "generate"
    with Run.open(run.folder, others, allow_other_models=True) as again:
        assert again.step() == "generate"
        assert again.current.images[0]
        again.until_converged()
        assert "models" in set(again.tables.history()["action"])


def test_patch_tokens_are_made_when_asked_for_and_kept(run: Run, models: Any):
    with pytest.raises(RunError, match="not embedded yet"):
        run.attributes.patch_tokens()
    run.next_iteration()
    run.selection.choose(1)
    assert run.attributes.patch_tokens().shape == (9, 4, 6)
    assert [run.node(name).embedding.patches.shape for name in ("0", "0b")] == [(9, 4, 6)] * 2


def test_importing_and_looking_load_no_widget_and_no_plot(run: Run):
    run.close()
    code = (
        f"import sys; from chosen_one_nb.run.run import Run; run = Run.open({str(run.folder)!r}, read_only=True); "
        "run.outcome, run.current.id; print([m for m in ('torch', 'plotly', 'ipywidgets') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert found.stdout.strip() == "[]", found.stderr


def test_runs_read_well(run: Run):
    assert "a sticker of a fox" in repr(run)
    assert repr(run.current) == "<Node 0: iteration 0, new>"
    assert str(run.outcome) == "unfinished: next comes generate."


def test_errors_of_the_run_are_not_confused_with_those_of_the_store():
    assert not issubclass(RunInUse, RunError)
    assert issubclass(ChoiceError, ValueError)


def test_models_are_loaded_once_although_two_threads_ask(run: Run, monkeypatch: pytest.MonkeyPatch):
    loaded: list[object] = []

    def load(recorded: dict[str, Any]) -> object:
        time.sleep(0.1)
        loaded.append(object())
        return loaded[-1]

    monkeypatch.setattr("chosen_one_nb.run.state.load_recorded", load)
    run._state.loaded = None
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda _: run.models, range(2)))
    assert got == [loaded[0]] * 2
    assert len(loaded) == 1


@pytest.mark.parametrize(("name", "preset"), [("menagerie", "menagerie"), ("sdxl", "paper"), ("owner/model", "paper")])
def test_without_settings_a_run_takes_those_its_models_go_with(name: str, preset: str, tmp_path: Path):
    with Run.start("a fox", fakes.fake_models(name), folder=tmp_path / "run") as run:
        assert run.root.settings == Settings.preset(preset)


def test_of_two_starts_at_once_in_one_folder_one_is_told(tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.run.run as module

    whole, others = module.check_prompt, []

    def while_the_other_begins(*given: Any) -> str:
        monkeypatch.setattr(module, "check_prompt", whole)
        others.append(Run.start(runs.PROMPT, models, runs.settings(), tmp_path / "run"))
        others[0].step()
        others[0].close()
        return whole(*given)

    monkeypatch.setattr(module, "check_prompt", while_the_other_begins)
    with pytest.raises(RunError, match="holds a run already"):
        Run.start("a photo of a cat", models, runs.settings(), tmp_path / "run")
    again = Run.open(tmp_path / "run", read_only=True)
    assert (again.prompt, again.root.stages_done) == (runs.PROMPT, ("generate",))


def test_of_two_starts_at_once_without_a_folder_each_gets_its_own(
    tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        begun = list(threads.map(lambda _: Run.start("a fox", models, runs.settings()), range(4)))
    assert sorted(run.folder.name for run in begun) == ["a-fox", "a-fox-2", "a-fox-3", "a-fox-4"]


def test_half_a_copy_is_no_run(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run.step()
    real = shutil.copyfile

    def cut_short(source: str, target: str) -> str:
        if str(source).endswith("003.png"):
            raise KeyboardInterrupt
        return real(source, target)

    monkeypatch.setattr(shutil, "copyfile", cut_short)
    with pytest.raises(KeyboardInterrupt):
        run.copy(tmp_path / "copy")
    assert (tmp_path / "copy/nodes").exists()
    with pytest.raises(StoreError, match="holds no run"):
        Run.open(tmp_path / "copy")


def test_a_first_gallery_of_one_image_over_and_over_is_told(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fakes, "image", lambda seed, far: Image.new("RGB", (8, 8), "white"))
    with pytest.raises(RunError, match="All 9 images of the first gallery are the same to the feature extractor"):
        run.until_converged()
    assert run.next_stage == "check"
