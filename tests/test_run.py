from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fakes

from chosen_one_nb.run import store
from chosen_one_nb.run.run import CONTEXTS, STAGES, ChoiceError, ModelsDiffer, Run, RunError
from chosen_one_nb.run.store import RunInUse, StoreError
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import Cancelled

pytestmark = pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")  # tests choose small clusters on purpose

PROMPT = "a sticker of a fox"
ITERATION = ["generate", "embed", "check", "cluster", "choose", "refine"]


def settings(**changes: Any) -> Settings:
    few = {
        "n_images": 9,
        "target_cluster_size": 3,
        "min_cluster_size": 1,
        "batch_size": 4,
        "refine_steps": 2,
        "max_iterations": 2,
        "convergence": 0.01,
    }
    return Settings.preset("quick", **{**few, **changes})


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch: pytest.MonkeyPatch):
    fakes.install(monkeypatch)


@pytest.fixture
def models() -> Any:
    return fakes.fake_models()


@pytest.fixture
def run(tmp_path: Path, models: Any):
    with Run.start(PROMPT, models, settings(), tmp_path / "run") as run:
        yield run


def advance(run: Run, stage: str) -> None:
    """Do stages until ``stage`` is done."""
    while run.step() != stage:
        pass


def shown(run: Run) -> dict[str, Any]:
    """All that a run has found out, times left out."""
    found = {}
    for node in run.nodes.values():
        decision = node.decision and (node.decision.images, node.decision.cluster, node.decision.excluded)
        losses = [event["loss"] for event in node.losses]
        found[node.id] = (
            node.stages_done,
            node.seeds.tolist(),
            [image.tobytes() for image in node.images],
            None if node.embedding is None else node.embedding.features.tobytes(),
            None if node.clusters is None else node.clusters.labels.tolist(),
            decision,
            losses,
            node.theta_digest,
            node.check,
        )
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run that nothing interrupted, to be copied by tests, and what it found."""
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        folder = tmp_path_factory.mktemp("finished") / "run"
        with Run.start(PROMPT, fakes.fake_models(), settings(), folder) as run:
            run.until_converged()
            return folder, shown(run)


@pytest.fixture(scope="module")
def undisturbed(finished: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """What a run finds when nothing interrupts it."""
    return finished[1]


# --- going on


def test_the_stages_come_in_order_and_the_run_ends(run: Run):
    done = []
    while run.next_stage:
        coming = run.next_stage
        done.append(run.step())
        assert done[-1] == coming
    assert done == [*ITERATION, *ITERATION, "generate", "embed", "check"]
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
    with Run.start(PROMPT, models, settings(convergence=0.95, max_iterations=5), tmp_path / "run") as run:
        outcome = run.until_converged()
        assert outcome.state == "converged"
        assert outcome.finished
        assert run.current.state == "converged"
        assert run.current.check.convergence.ratio <= 0.95
        assert run.character is run.current.theta_in
        assert outcome.sound_node == run.current.id


def test_the_first_gallery_never_ends_a_run(tmp_path: Path, models: Any):
    with Run.start(PROMPT, models, settings(convergence=9, convergence_mode="absolute"), tmp_path / "run") as run:
        advance(run, "check")
        assert run.current.judged == "converged"
        assert run.next_stage == "cluster"
        run.until_converged()
        assert run.current.id == "1"


def test_a_collapse_is_told_with_the_last_sound_character(run: Run, monkeypatch: pytest.MonkeyPatch):
    from chosen_one_nb.steps import converge

    run.next_iteration()
    run.next_iteration()
    advance(run, "embed")
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
    strict = settings(min_cluster_size=8, target_cluster_size=2)
    with Run.start(PROMPT, models, strict, tmp_path / "run") as run:
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
    with Run.start(PROMPT, models, settings(prior_share=0.25), tmp_path / "run") as run:
        run.next_iteration()
        data = models.refined[0]["data"]
    assert len(data.images) == len(data.latents) == len(run.root.decision.images)
    assert len(data.prior.images) == 9
    assert data.prior.latents.shape == (9, 8, 3)


def test_reinit_starts_each_refinement_anew(tmp_path: Path, models: Any):
    with Run.start(PROMPT, models, settings(carry_over="reinit"), tmp_path / "run") as run:
        run.next_iteration()
        run.next_iteration()
        assert [fakes.level(node.theta) for node in run.nodes.values()] == [1.0, 1.0]


# --- interrupted, and gone on


def _interrupting(monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException, after: bool) -> list[Path]:
    """Let the ``at``-th write raise, before or after it is done; returns what was written."""
    whole, written = store.write_bytes, []

    def write(path: Path, data: bytes, **more: Any) -> Any:
        written.append(path)
        if len(written) == at and not after:
            raise error
        stamp = whole(path, data, **more)
        if len(written) == at:
            raise error
        return stamp

    monkeypatch.setattr(store, "write_bytes", write)
    return written


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("reopened", [False, True], ids=["same", "reopened"])
def test_interrupted_at_any_write_it_ends_as_if_it_had_not_been(
    tmp_path: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, reopened: bool, after: bool
):
    at, interrupted = 1 + 2 * after + reopened, True
    while interrupted:
        folder = tmp_path / f"{at}"
        run = Run.start(PROMPT, fakes.fake_models(), settings(), folder)
        with monkeypatch.context() as patch:
            _interrupting(patch, at, KeyboardInterrupt(), after)
            try:
                run.until_converged()
                interrupted = False
            except KeyboardInterrupt:
                assert run.busy is None
        if reopened:
            run.close()
            run = Run.open(folder, fakes.fake_models())
        run.until_converged()
        assert shown(run) == undisturbed, f"after an interruption at write {at}"
        run.close()
        at += 4  # a fourth of the writes; the four parametrisations begin at different ones
    assert at > 60


def test_a_run_cut_short_while_it_begins_can_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for at in range(1, 6):
        folder = tmp_path / f"{at}"
        with monkeypatch.context() as patch:
            _interrupting(patch, at, KeyboardInterrupt(), after=False)
            with contextlib.suppress(KeyboardInterrupt):
                Run.start(PROMPT, fakes.fake_models(), settings(), folder).close()
        began = (folder / "run.json").exists()
        run = (
            Run.open(folder, fakes.fake_models())
            if began
            else Run.start(PROMPT, fakes.fake_models(), settings(), folder)
        )
        assert run.next_stage == "generate"
        assert list(run.nodes) == ["0"]
        run.close()


@pytest.mark.parametrize("call", ["on_progress", "on_images", "on_step", "cancelled"])
def test_ctrl_c_in_a_callback_loses_nothing(run: Run, undisturbed: dict[str, Any], call: str):
    heard = 0

    def interrupt(*_: Any) -> None:
        nonlocal heard
        heard += 1
        if heard % 7 == 0:
            raise KeyboardInterrupt

    for _ in range(200):
        try:
            run.until_converged(**{call: interrupt})
            break
        except KeyboardInterrupt:
            assert run.busy is None
    assert shown(run) == undisturbed


def test_ctrl_c_in_a_listener_loses_nothing(run: Run, undisturbed: dict[str, Any]):
    heard = []

    def interrupt(event: dict[str, Any]) -> None:
        heard.append(event["kind"])
        if len(heard) % 2:
            raise KeyboardInterrupt

    run.listeners.append(interrupt)
    for _ in range(40):
        try:
            run.until_converged()
            break
        except KeyboardInterrupt:
            continue
    assert shown(run) == undisturbed


@pytest.mark.parametrize("stage", ["generate", "embed", "refine"])
def test_cancelling_keeps_the_last_good_state(run: Run, undisturbed: dict[str, Any], stage: str):
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return run.next_stage == stage and asked > 6

    with pytest.raises(Cancelled):
        run.until_converged(cancelled=cancelled)
    assert run.next_stage == stage
    assert run.busy is None
    run.until_converged()
    assert shown(run) == undisturbed


def test_images_that_are_there_are_not_drawn_again(run: Run, models: Any):
    calls = 0

    def cancelled() -> bool:
        nonlocal calls
        calls += 1
        return calls > 6  # in the second block of four

    with pytest.raises(Cancelled):
        run.step(cancelled=cancelled)
    assert len(list((run.folder / "nodes/0/gallery").glob("*.png"))) == 4
    models.drawn.clear()
    seen = {}
    run.step(on_images=lambda found: seen.update(found))
    assert [n for _, n in models.drawn] == [5]
    assert len(seen) == 9


def test_images_of_another_recipe_are_drawn_again(run: Run, models: Any, tmp_path: Path):
    run.step()
    with Run.start(PROMPT, models, settings(sampling_steps=9), tmp_path / "other") as other:
        shutil.copytree(run.folder / "nodes/0/gallery", other.folder / "nodes/0/gallery")
        models.drawn.clear()
        other.step()
    assert sum(n for _, n in models.drawn) == 9


def test_a_full_disk_is_told_and_the_run_goes_on_afterwards(
    real_fsync: Any, run: Run, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch
):
    room = 40

    def fsync(handle: int) -> None:
        nonlocal room
        room -= 1
        if room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real_fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(StoreError, match=r"The disk is full: .* Free some space and call the same step again"):
            run.until_converged()
    run.until_converged()
    assert shown(run) == undisturbed


def test_a_folder_deleted_under_an_open_run_is_told(run: Run):
    run.next_iteration()
    shutil.rmtree(run.folder)
    with pytest.raises(StoreError, match="is gone"):
        run.step()
    with pytest.raises(StoreError, match="is gone"):
        run.root.images[0]
    assert not run.folder.exists()


KILLED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from chosen_one_nb.models.load import load_models
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
run = Run.start("a fox", load_models(Path(sys.argv[2])), Settings.model_validate_json(sys.argv[3]), Path(sys.argv[1]))
run.until_converged(on_progress=lambda event: print(event["stage"], event["done"], flush=True))
"""


def test_killed_on_real_models_it_ends_as_if_it_had_not_been(
    tmp_path: Path, models: Any, model_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """Killed in a refinement in another process, cancelled in the second block of a gallery in this one."""
    from chosen_one_nb.models.load import load_models

    monkeypatch.undo()  # the real steps
    real = load_models(model_folder)
    small = Settings.preset(
        "quick",
        n_images=4,
        target_cluster_size=2,
        min_cluster_size=1,
        sampling_steps=3,
        batch_size=2,
        refine_steps=3,
        refine_batch_size=2,
        lora_rank=2,
        max_iterations=1,
        convergence=0.01,
        statistic_limit=1e6,
        prompt_limit=1e6,
        drift_limit=1e6,
        variety_floor=0.0,
    )
    command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(model_folder), small.model_dump_json()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]) as process:
        for line in process.stdout:
            if line.startswith("refine 2"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    with Run.start("a fox", real, small, tmp_path / "whole") as whole:
        assert whole.until_converged().finished
    with Run.open(tmp_path / "killed", real) as killed:
        assert killed.next_stage == "refine"
        killed.step()
        with pytest.raises(Cancelled):
            killed.step(cancelled=lambda: (killed.folder / "nodes/1/gallery/001.png").exists())
        killed.until_converged()
        assert killed.current.id == "1"
        for node, same in zip(whole.nodes.values(), killed.nodes.values(), strict=True):
            assert (node.id, node.stages_done, node.decision and node.decision.images) == (
                same.id,
                same.stages_done,
                same.decision and same.decision.images,
            )
            # two processes place their arrays differently in memory, and sums may then differ in the last bit
            np.testing.assert_allclose(node.embedding.features, same.embedding.features, atol=1e-4)
            np.testing.assert_allclose([e["loss"] for e in node.losses], [e["loss"] for e in same.losses], rtol=1e-4)


# --- damaged files


DAMAGE = {
    "generate": ["gallery/003.png", "gallery/003.npy"],
    "embed": ["features.npy", "measures.npz"],
    "check": ["check.json"],
    "cluster": ["clusters-0.npz", "clusters-0.json"],
    "refine": ["losses.json", "theta/pytorch_lora_weights.safetensors"],
}


def _read(run: Run, name: str) -> Any:
    node = run.root
    ways = {
        "gallery/003.png": lambda: list(node.images),
        "gallery/003.npy": lambda: node.images.latents([3]),
        "features.npy": lambda: node.embedding.features,
        "measures.npz": lambda: node.embedding.measures,
        "check.json": lambda: node.check,
        "clusters-0.npz": lambda: node.clusters,
        "clusters-0.json": lambda: node.clusters,
        "losses.json": lambda: node.losses,
        "theta/pytorch_lora_weights.safetensors": lambda: node.theta,
    }
    return ways[name]()


@pytest.mark.parametrize("how", ["truncated", "missing", "changed"])
@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, names in DAMAGE.items() for name in names])
def test_a_damaged_file_is_named_and_mended(
    tmp_path: Path, finished: tuple[Path, dict[str, Any]], stage: str, name: str, how: str
):
    whole, undisturbed = finished
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run/nodes/0" / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if how == "truncated" else data[:-9] + b"X" + data[-8:])
    with Run.open(tmp_path / "run", fakes.fake_models()) as run:
        with pytest.raises(StoreError, match=rf"{re.escape(path.name)} is (damaged|missing).*") as caught:
            _read(run, name)
        assert f"run.redo_stage('{stage}', '0')" in str(caught.value)
        run.redo_stage(stage, "0")
        _read(run, name)
        assert shown(run) == undisturbed


def test_a_damaged_node_file_is_named(run: Run):
    run.next_iteration()
    run.close()
    path = run.folder / "nodes/0/node.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(StoreError, match=r"node\.json is damaged.*Put back a sound copy"):
        Run.open(run.folder)


def test_redoing_a_stage_that_comes_out_otherwise_drops_what_came_after(run: Run, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.embed as embedding

    run.next_iteration()
    real = embedding.embed
    other = lambda *a, **k: type("F", (), {"cls": real(*a, **k).cls + 1})  # noqa: E731
    monkeypatch.setattr(embedding, "embed", other)
    run.redo_stage("embed")
    assert run.current.stages_done == ("generate", "embed")
    assert run.next_stage == "check"


def test_redoing_keeps_what_other_nodes_were_made_from(run: Run, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.embed as embedding

    run.next_iteration()
    run.step()
    real = embedding.embed
    monkeypatch.setattr(embedding, "embed", lambda *a, **k: type("F", (), {"cls": real(*a, **k).cls + 1}))
    run.redo_stage("embed", "0")
    assert run.root.stages_done == STAGES
    assert "differs" in set(run.tables.history()["action"])


def test_only_finished_stages_are_redone(run: Run):
    with pytest.raises(RunError, match="Expected a finished stage of node 0, got 'embed'"):
        run.redo_stage("embed")
    with pytest.raises(RunError, match="Expected a finished stage"):
        run.redo_stage("dance")


# --- choosing


def test_choosing_nothing_takes_the_proposal(run: Run):
    advance(run, "cluster")
    decision = run.selection.choose(note="fine")
    assert decision.cluster == decision.proposed == run.current.clusters.proposed
    assert (decision.by, decision.note, decision.excluded) == ("rule", "fine", ())
    assert decision.images == tuple(np.flatnonzero(run.current.clusters.labels == decision.cluster))
    assert run.next_stage == "refine"


def test_choosing_another_cluster_or_images_says_what_was_proposed(run: Run):
    advance(run, "cluster")
    other = next(int(c) for c in run.current.clusters.order if c != run.current.clusters.proposed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decision = run.selection.choose(other, exclude=[0], by="Ada")
        by_hand = run.selection.choose(images=[8, 2, 2, 5])
    assert (decision.cluster, decision.by) == (other, "Ada")
    assert decision.proposed == run.current.clusters.proposed
    assert (by_hand.images, by_hand.cluster, by_hand.by) == ((2, 5, 8), None, "person")


@pytest.mark.parametrize(("choice", "match"), [
    ({"cluster": 99}, "Expected a cluster from 0 to"),
    ({"cluster": -1}, "Expected a cluster from 0 to"),
    ({"cluster": 0, "images": [1]}, "got both"),
    ({"images": []}, "no image was given"),
    ({"images": [1, 99]}, r"from 0 to 8, got \[99\]"),
    ({"images": ["x"]}, "Expected image indices"),
    ({"images": [1, 2], "exclude": [1, 2]}, "every image of it is left out"),
])  # fmt: skip
def test_a_bad_choice_changes_nothing(run: Run, choice: dict, match: str):
    advance(run, "cluster")
    before = run.current.edits.all
    with pytest.raises(ChoiceError, match=match):
        run.selection.choose(**choice)
    assert run.current.edits.all == before
    assert list(run.nodes) == ["0"]


def test_a_bad_choice_at_a_refined_node_leaves_no_branch(run: Run):
    run.next_iteration()
    with pytest.raises(ChoiceError):
        run.selection.choose(99)
    assert list(run.nodes) == ["0"]


def test_choosing_before_clustering_is_told(run: Run):
    with pytest.raises(RunError, match=r"no clusters yet.*run\.step"):
        run.selection.choose(0)


def test_choosing_few_images_is_allowed_with_a_warning(run: Run):
    advance(run, "cluster")
    with pytest.warns(RuntimeWarning, match=r"1 images, a cluster must hold more than 1 \(d_min-c\)"):
        run.selection.choose(images=[4])
    assert run.selection.risk([1, 2, 3]) == ""


def test_images_are_left_out_and_put_back(run: Run):
    advance(run, "cluster")
    whole = run.selection.choose(images=[1, 2, 3, 4])
    assert run.selection.exclude([2, 7]) == (2, 7)
    assert run.current.decision.images == (1, 3, 4)
    assert run.current.decision.excluded == (2,)
    assert run.selection.include([2]) == (7,)
    assert run.current.decision.images == whole.images
    with pytest.raises(ChoiceError, match="every image of it is left out"):
        run.selection.exclude([1, 2, 3, 4])


def test_images_left_out_before_choosing_stay_out(run: Run):
    advance(run, "cluster")
    run.selection.exclude([1])
    decision = run.selection.choose(images=[1, 2, 3])
    assert (decision.images, decision.excluded) == ((2, 3), (1,))
    assert run.tables.gallery()["excluded"].tolist() == [i == 1 for i in range(9)]


def test_merging_and_reclustering_open_the_choice_again(run: Run):
    advance(run, "cluster")
    run.selection.choose()
    before = run.current.clusters
    members = {*before.members(0), *before.members(1)}
    merged = run.selection.merge(0, 1)
    assert len(merged.sizes) == len(before.sizes) - 1
    assert any(set(merged.members(c)) == members for c in range(len(merged.sizes)))
    assert run.current.decision is None
    assert run.next_stage == "choose"
    assert len(run.selection.recluster(2).sizes) == 2
    assert len(run.selection.recluster().sizes) == 3
    with pytest.raises(ChoiceError, match="got 1 twice"):
        run.selection.merge(1, 1)
    with pytest.raises(ChoiceError, match="from 1 to N = 9"):
        run.selection.recluster(10)


def test_undo_and_redo_go_through_all_edits(run: Run):
    advance(run, "cluster")
    assert not run.current.edits.can_undo
    states = [run.current.edits.current]
    for do in (
        run.selection.choose,
        lambda: run.selection.exclude([0]),
        lambda: run.selection.merge(0, 1),
        lambda: run.selection.choose(0),
    ):
        do()
        states.append(run.current.edits.current)
    for state in reversed(states[:-1]):
        assert run.selection.undo() == state.decision
        assert run.current.edits.current == state
    with pytest.raises(RunError, match="nothing to undo"):
        run.selection.undo()
    for state in states[1:]:
        run.selection.redo()
        assert run.current.edits.current == state
    with pytest.raises(RunError, match="nothing to redo"):
        run.selection.redo()


def test_a_new_edit_after_undo_drops_what_was_undone(run: Run):
    advance(run, "cluster")
    run.selection.choose()
    run.selection.undo()
    run.selection.recluster(2)
    assert not run.current.edits.can_redo
    assert [edit.action for edit in run.current.edits.all] == ["cluster", "recluster"]
    assert list(run.tables.history()["action"])[-3:] == ["choose", "undo", "recluster"]


def test_each_edit_has_its_own_clusters(run: Run):
    """Also after undo, where fewer edits are left than there were."""
    advance(run, "cluster")
    run.selection.recluster(2)
    run.selection.undo()
    run.selection.recluster(4)
    run.selection.merge(0, 1)
    run.selection.merge(0, 1)
    for n in (3, 4, 3):
        run.selection.undo()
        assert len(run.current.clusters.sizes) == n
    run.close()
    assert len(Run.open(run.folder, read_only=True).current.clusters.sizes) == 3


def test_damaged_clusters_of_a_merge_leave_the_choice(run: Run):
    advance(run, "cluster")
    run.selection.merge(0, 1)
    decision = run.selection.choose(images=[1, 2, 3])
    (run.folder / "nodes/0/clusters-1.npz").unlink()
    run.close()
    with Run.open(run.folder, fakes.fake_models()) as run:
        with pytest.raises(StoreError, match=r"clusters-1\.npz is missing"):
            run.current.clusters  # noqa: B018
        run.redo_stage("cluster")
        assert len(run.current.clusters.sizes) == 3
        assert run.current.decision == decision


def test_damaged_edits_are_named_and_can_be_made_again(run: Run):
    run.next_iteration()
    run.close()
    path = run.folder / "nodes/0/edits.json"
    path.write_text("{")
    with pytest.raises(StoreError, match=r"edits\.json is damaged.*move it away"):
        Run.open(run.folder)
    path.unlink()
    with Run.open(run.folder, fakes.fake_models()) as again:
        assert again.next_stage == "generate"
        again.until_converged()
        again.report()


def test_edits_survive_a_reopening(run: Run, models: Any):
    advance(run, "cluster")
    run.selection.merge(0, 1)
    run.selection.choose(0, note="<b>mine</b>")
    run.selection.undo()
    edits, labels = run.current.edits.all, run.current.clusters.labels
    run.close()
    with Run.open(run.folder, models) as again:
        assert again.current.edits.all == edits
        np.testing.assert_array_equal(again.current.clusters.labels, labels)
        assert again.current.edits.can_redo
        assert again.selection.redo().note == "<b>mine</b>"


def test_a_refined_choice_is_not_undone_but_branched(run: Run):
    run.next_iteration()
    with pytest.raises(RunError, match="has been refined, so its choice stands"):
        run.selection.undo()


# --- branches


def test_choosing_at_a_refined_node_begins_a_sibling_that_shares_the_gallery(run: Run, models: Any):
    run.next_iteration()
    run.step()
    first = shown(run)
    models.drawn.clear()
    run.select("0")
    decision = run.selection.choose(1, note="the other one")
    new = run.current
    assert (new.id, new.parent, new.gallery_of, new.iteration) == ("0b", None, "0", 0)
    assert new.decision == decision
    assert np.array_equal(new.embedding.features, run.root.embedding.features)
    assert new.check == run.root.check
    assert not (new.folder / "gallery").exists()
    assert run.next_stage == "refine"
    run.next_iteration()
    run.step()
    assert (run.current.id, run.current.parent.id) == ("1b", "0b")
    assert models.drawn[0][0].endswith("<v>")
    assert {name: shown(run)[name] for name in first} == first


def test_undo_on_such_a_branch_opens_the_choice(run: Run):
    run.next_iteration()
    run.selection.choose(1)
    assert run.selection.undo() is None
    assert run.next_stage == "choose"


def test_leaving_out_at_a_refined_node_branches_with_the_same_choice(run: Run):
    run.next_iteration()
    images = run.current.decision.images
    run.selection.exclude([images[0]])
    assert run.current.id == "0b"
    assert run.current.decision.images == images[1:]
    assert run.node("0").decision.images == images


def test_a_branch_goes_on_from_choosing_or_with_other_settings_from_the_check(run: Run):
    run.next_iteration()
    assert run.branch("0").id == "0b"
    assert run.next_stage == "choose"
    other = run.branch("0", target_cluster_size=4, convergence=0.5)
    assert (other.id, other.settings.target_cluster_size, run.next_stage) == ("0c", 4, "check")
    run.next_iteration()
    assert len(other.clusters.sizes) == 2
    assert other.check.convergence.threshold == pytest.approx(0.5 * other.check.convergence.distance)
    run.step()
    assert run.current.settings.target_cluster_size == 4


def test_a_branch_of_a_branch_shares_the_first_gallery(run: Run):
    run.next_iteration()
    run.branch("0")
    run.branch("0b")
    assert (run.current.id, run.current.gallery_of) == ("0c", "0")


def test_what_a_shared_gallery_cannot_follow_is_refused(run: Run):
    with pytest.raises(RunError, match="no clusters yet"):
        run.branch()
    run.next_iteration()
    with pytest.raises(SettingsError, match="n_images: cannot differ"):
        run.branch("0", n_images=12)
    with pytest.raises(SettingsError):
        run.branch("0", convergence=-1)
    assert list(run.nodes) == ["0"]


def test_selecting_a_refined_node_goes_on_along_its_newest_line(run: Run):
    run.next_iteration()
    run.step()
    run.select("0")
    assert run.next_stage == "embed"
    run.step()
    assert run.current.id == "1"
    with pytest.raises(RunError, match="Expected one of the nodes 0, 1, got '7'"):
        run.select("7")


def test_branches_survive_a_reopening(run: Run, models: Any):
    run.next_iteration()
    run.selection.choose(1)
    found = shown(run)
    run.close()
    with Run.open(run.folder, models) as again:
        assert again.current.id == "0b"
        assert shown(again) == found


# --- keeping


def test_files_are_flat_and_readable_without_the_package(run: Run):
    import json

    from PIL import Image

    run.next_iteration()
    node = run.folder / "nodes/0"
    assert np.load(node / "features.npy", allow_pickle=False).shape == (9, 6)
    image = Image.open(node / "gallery/002.png")
    assert image.info["seed"] == str(run.root.seeds[2])
    assert image.info["prompt"] == PROMPT
    assert json.loads(image.info["settings"])["n_images"] == 9
    manifest = json.loads((run.folder / "run.json").read_text())
    assert manifest["prompt"] == PROMPT
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
        Run.start(prompt, models, settings(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_prompt_too_long_with_its_token_is_told(tmp_path: Path, model_folder: Path):
    with pytest.raises(ValueError, match="at most 32 tokens"):
        Run.start("fox " * 30, model_folder, settings(), tmp_path / "run")


def test_a_folder_that_is_not_empty_is_left_alone(run: Run, models: Any, tmp_path: Path):
    with pytest.raises(RunError, match="holds a run already"):
        Run.start(PROMPT, models, settings(), run.folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").touch()
    with pytest.raises(RunError, match="not empty and holds no run"):
        Run.start(PROMPT, models, settings(), tmp_path / "mine")
    with pytest.raises(RunError, match="Expected a folder, got the file"):
        Run.start(PROMPT, models, settings(), tmp_path / "mine/letter.txt")


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
    with Run.start("A fox!", models, settings()) as first, Run.start("A fox!", models, settings()) as second:
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


# --- several who watch


def test_listeners_hear_of_every_change_in_order(run: Run):
    heard = []
    run.listeners.append(heard.append)
    advance(run, "cluster")
    run.selection.choose()
    run.selection.undo()
    run.selection.redo()
    run.step()
    run.selection.choose(1)
    run.select("0")
    kinds = [(event["kind"], event["node"]) for event in heard]
    assert kinds == [("stage", "0")] * 4 + [("choose", "0"), ("undo", "0"), ("redo", "0"), ("stage", "0"),
                                            ("choose", "0b"), ("select", "0")]  # fmt: skip
    versions = [event["version"] for event in heard]
    assert versions == list(range(versions[0], versions[0] + len(versions)))


def test_a_listener_that_fails_is_a_warning(run: Run):
    run.listeners.append(lambda event: 1 / 0)
    with pytest.warns(RuntimeWarning, match="listener of the run failed"):
        assert run.step() == "generate"


def test_two_clicks_on_next_do_one_stage(run: Run):
    inside, go_on, errors = threading.Event(), threading.Event(), []

    def wait(event: dict[str, Any]) -> None:
        inside.set()
        go_on.wait(20)

    worker = threading.Thread(target=lambda: run.step(on_progress=wait))
    worker.start()
    assert inside.wait(20)
    assert run.busy == "generate at 0"
    for do in (run.step, run.selection.choose, lambda: run.redo_stage("generate")):
        with pytest.raises(RunError) as caught:
            do()
        errors.append(str(caught.value))
    go_on.set()
    worker.join()
    assert "The run is at work (generate at 0)" in errors[0]
    assert run.busy is None
    assert run.next_stage == "embed"


def test_the_screen_can_be_read_during_work(run: Run):
    """The lock is free while a stage computes."""
    run.next_iteration()
    free = []
    run.step(on_progress=lambda event: free.append(_acquired(run)))
    assert free
    assert all(free)


def _acquired(run: Run) -> bool:
    found = []
    thread = threading.Thread(target=lambda: found.append(run.lock.acquire(timeout=5) and not run.lock.release()))
    thread.start()
    thread.join()
    return found == [True]


def test_choosing_elsewhere_is_possible_during_work(run: Run):
    run.next_iteration()
    told = []

    def branch(event: dict[str, Any]) -> None:
        if not told:
            run.select("0")
            told.append(run.selection.choose(1))

    run.step(on_progress=branch)
    assert run.current.id == "0b"
    assert run.node("1").done("generate")


# --- looking


def test_table_has_a_row_per_image(run: Run):
    run.next_iteration()
    table = run.tables.gallery("0")
    columns = ["image_id", "iteration", "index", "seed", "cluster", "distance", "kept", "chosen", "excluded"]
    assert list(table) == columns
    assert table["image_id"].tolist()[:2] == ["0/000", "0/001"]
    assert table["chosen"].sum() == len(run.root.decision.images)
    assert table["cluster"].tolist() == run.root.clusters.labels.tolist()


def test_curve_and_comparison(run: Run):
    run.next_iteration()
    advance(run, "check")
    run.select("0")
    run.selection.choose(1, note="less hat")
    run.next_iteration()
    advance(run, "check")
    assert run.tables.curve()["node"].tolist() == ["0", "1", "0b", "1b"]
    assert run.tables.curve("1b")["node"].tolist() == ["0b", "1b"]
    assert run.tables.curve()["ratio"][0] == pytest.approx(1.0)
    both = run.tables.compare("0", "0b")
    assert list(both) == ["0", "0b"]
    assert both.loc["note", "0b"] == "less hat"
    assert both.loc["next node"].tolist() == ["1", "1b"]
    assert both.loc["next distance", "0b"] == run.node("1b").check.convergence.distance
    assert 0 < both.loc["next identity (CLIP)", "0"] <= 1


def test_scores_have_intervals(run: Run):
    assert len(run.tables.scores()) == 0
    advance(run, "embed")
    scores = run.tables.scores()
    assert list(scores.index) == ["prompt similarity (CLIP)", "identity (CLIP)", "identity (features, in the loop)"]
    assert (scores["low"] <= scores["value"]).all()


def test_without_clip_it_works_with_fewer_scores(tmp_path: Path):
    blind = fakes.fake_models()
    blind.clip = None
    with Run.start(PROMPT, blind, settings(), tmp_path / "run") as run:
        run.next_iteration()
        assert run.root.embedding.clip is None
        assert list(run.tables.scores("0").index) == ["identity (features, in the loop)"]


def test_the_probe_is_the_same_seeds_for_every_theta_and_kept(run: Run, models: Any):
    base = run.samples.probe()
    run.next_iteration()
    after, half = run.samples.probe(), run.samples.probe(strength=0.5)
    assert len(base) == len(after) == 8
    assert (run.folder / "probe/base/plain/000.png").exists()
    assert (run.folder / "probe/0@0.5/plain/000.png").exists()
    seeds = [store.read_image(run.folder / f"probe/{name}/plain/003.png").info["seed"] for name in ("base", "0")]
    assert seeds[0] == seeds[1]
    models.drawn.clear()
    assert [image.tobytes() for image in run.samples.probe()] == [image.tobytes() for image in after]
    assert [image.tobytes() for image in run.samples.probe(strength=0.5)] == [image.tobytes() for image in half]
    assert models.drawn == []


def test_contexts_are_drawn_with_the_character_and_kept(run: Run, models: Any):
    run.next_iteration()
    models.drawn.clear()
    found = run.samples.contexts(seeds=2)
    assert list(found) == list(CONTEXTS)
    assert all(len(images) == 2 for images in found.values())
    assert models.drawn[0] == ("a sticker of a fox <v> at the beach", 2)
    assert list(run.samples.drawn_contexts()) == list(CONTEXTS)
    models.drawn.clear()
    run.samples.contexts(seeds=2)
    assert models.drawn == []
    run.samples.contexts(contexts=["in the snow"], seeds=1, base=True)
    assert models.drawn == [("a sticker of a fox in the snow", 1)]


def test_a_context_drawn_with_another_weight_stands_beside_the_usual_one(run: Run, models: Any):
    run.next_iteration()
    run.samples.contexts(contexts=["in the snow"], seeds=2)
    models.drawn.clear()
    events: list[dict] = []
    run.samples.contexts(contexts=["in the snow"], seeds=2, weight=1, on_progress=events.append)
    assert len(models.drawn) == 1
    assert events[-1]["stage"] == "contexts"
    models.drawn.clear()
    run.samples.contexts(contexts=["in the snow"], seeds=2)
    run.samples.contexts(contexts=["in the snow"], seeds=2, weight=1)
    assert models.drawn == []
    assert len(run.samples.drawn_contexts()["in the snow"]) == 2


def test_progress_counts_over_all_contexts(run: Run):
    events = []
    run.samples.contexts(contexts=["here", "there"], seeds=3, on_progress=events.append)
    assert [event["done"] for event in events if event["stage"] == "contexts"] == sorted(
        event["done"] for event in events
    )
    assert (events[-1]["done"], events[-1]["total"]) == (6, 6)


def test_contexts_are_scored(run: Run):
    run.next_iteration()
    scores = run.samples.context_scores(contexts=["here", "there"], seeds=3)
    assert scores["n"].tolist() == [6, 6, 6]
    assert (scores["low"] <= scores["value"]).all()
    assert len(run.samples.context_scores(contexts=["here"], seeds=1, base=True)) == 3


def test_what_is_drawn_can_be_seen_during_work_but_nothing_else_drawn(run: Run):
    run.next_iteration()
    drawn, told = run.samples.contexts(contexts=["here"], seeds=1), []

    def look(event: dict[str, Any]) -> None:
        if not told:
            told.append(run.samples.contexts(contexts=["here"], seeds=1))
            with pytest.raises(RunError, match="at work"):
                run.samples.contexts(contexts=["there"], seeds=1)

    run.step(on_progress=look)
    assert told[0]["here"][0].tobytes() == drawn["here"][0].tobytes()


def test_the_contexts_are_those_the_menagerie_can_judge():
    from menagerie.world import CONTEXTS as JUDGED

    assert [text for text, _ in JUDGED] == list(CONTEXTS)


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

    monkeypatch.setattr("chosen_one_nb.run.opening.reloaded", load)
    run._state._models = None
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda _: run.models, range(2)))
    assert got == [loaded[0]] * 2
    assert len(loaded) == 1


@pytest.mark.parametrize(("name", "preset"), [("menagerie", "menagerie"), ("sdxl", "paper"), ("owner/model", "paper")])
def test_without_settings_a_run_takes_those_its_models_go_with(name: str, preset: str, tmp_path: Path):
    with Run.start("a fox", fakes.fake_models(name), folder=tmp_path / "run") as run:
        assert run.root.settings == Settings.preset(preset)
