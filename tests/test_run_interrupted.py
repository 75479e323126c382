"""A run that is interrupted anywhere goes on as if it had not been."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fakes, runs

from chosen_one_nb.run import store
from chosen_one_nb.run.run import Run
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import Cancelled

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run, finished, undisturbed = (
    runs.quick_steps,
    runs.models,
    runs.run,
    runs.finished,
    runs.undisturbed,
)


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
        run = Run.start(runs.PROMPT, fakes.fake_models(), runs.settings(), folder)
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
        assert runs.shown(run) == undisturbed, f"after an interruption at write {at}"
        run.close()
        at += 4  # a fourth of the writes; the four parametrisations begin at different ones
    assert at > 60


def test_a_run_cut_short_while_it_begins_can_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for at in range(1, 6):
        folder = tmp_path / f"{at}"
        with monkeypatch.context() as patch:
            _interrupting(patch, at, KeyboardInterrupt(), after=False)
            with contextlib.suppress(KeyboardInterrupt):
                Run.start(runs.PROMPT, fakes.fake_models(), runs.settings(), folder).close()
        began = (folder / "run.json").exists()
        run = (
            Run.open(folder, fakes.fake_models())
            if began
            else Run.start(runs.PROMPT, fakes.fake_models(), runs.settings(), folder)
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
    assert runs.shown(run) == undisturbed


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
    assert runs.shown(run) == undisturbed


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
    assert runs.shown(run) == undisturbed


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
    with Run.start(runs.PROMPT, models, runs.settings(sampling_steps=9), tmp_path / "other") as other:
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
    assert runs.shown(run) == undisturbed


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
