"""Workers: the same images from any number of them, whichever processes die; they load what was loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from helpers.chores import environment, note
from joblib.parallel import ThreadingBackend

from chosen_one_nb.models.load import load_models
from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, blocks, draw
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.sweep.workers import (
    Processes,
    SweepError,
    WorkerPool,
    draw_shard,
    joblib_backend,
    load_same_models,
    loading_of,
    visible_devices,
)


@contextmanager
def processes(n: int, on_message: Any = print) -> Iterator[Processes]:
    found = Processes(n, 1, on_message)
    try:
        yield found
    finally:
        found.close()


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- processes


def test_a_killed_worker_costs_one_task(tmp_path: Path):
    said: list[str] = []
    with processes(2, said.append) as workers:
        list(workers.do([partial(note, tmp_path, f"t{i}", wait=0.5, die=int(i == 1)) for i in range(6)]))
    assert len(said) == 1
    assert "died (killed, or out of memory?); a fresh one does its task." in said[0]
    done = sorted(path.name for path in tmp_path.iterdir())
    assert done == sorted([*(f"t{i}-0" for i in range(6)), "t1-1"])  # the task of the killed one, and no other, twice


def test_a_task_that_always_kills_is_given_up(tmp_path: Path):
    with processes(1) as workers, pytest.raises(SweepError, match="ended 3 processes"):
        list(workers.do([partial(note, tmp_path, "t", die=9)]))


def test_an_error_ends_the_processes_at_once(tmp_path: Path):
    tasks = [partial(note, tmp_path, "quick"), *(partial(note, tmp_path, f"t{i}", wait=60) for i in range(3))]
    begun = time.monotonic()
    with pytest.raises(ZeroDivisionError), WorkerPool(2) as pool:  # noqa: PT012
        for _ in pool.do(tasks):
            raise ZeroDivisionError
    assert time.monotonic() - begun < 50
    assert len(list(tmp_path.glob("t*"))) <= 2  # the third was never begun


def test_workers_are_pinned_in_turn(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")

    def values(workers: Processes, name: str) -> set[str]:
        return {result.value for _, result in workers.do([partial(environment, name)] * 4)}

    with processes(2) as workers:
        assert values(workers, "CUDA_VISIBLE_DEVICES") == {"3", "5"}
        assert values(workers, "OMP_NUM_THREADS") == {"1"}


def test_visible_devices(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-ab")
    assert visible_devices() == ["2", "GPU-ab"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_devices() == []


def test_a_number_of_workers_below_one_is_refused():
    with pytest.raises(SweepError, match="expected 1 or more"):
        WorkerPool(0)


# --- other backends


def test_where_answers_come_all_together_tasks_are_given_out_in_portions():
    with joblib.parallel_config(backend="threading", n_jobs=1), WorkerPool(1) as pool:
        pool._streams, given = False, []
        done = pool.do([partial(given.append, i) for i in range(10)])
        next(done)
        assert given == [0, 1, 2, 3]  # a portion of four for the one worker, not all ten
        assert [number for number, _ in done] == list(range(1, 10))


class Many(ThreadingBackend):
    """As Dask's: unless told otherwise, all the workers there are."""

    default_n_jobs = -1

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 3


def test_a_backend_says_itself_how_many_it_has_and_answers_come_one_by_one() -> None:
    heard = threading.Event()
    with joblib.parallel_config(backend=Many()), WorkerPool() as pool:
        assert pool.n == 3
        answers = pool.do([partial(int, 7), partial(heard.wait, 20)])
        assert next(answers)[1].value == 7
        heard.set()
        assert next(answers)[1].value is True


def test_another_backend_that_loses_a_worker_goes_on(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    with joblib.parallel_config(backend="sequential"), WorkerPool(1, on_message=said.append) as pool:
        real, lost = pool._on_backend, [1]

        def answers(left: dict[int, Any]) -> Any:
            yield next(real(left))
            if lost:
                raise ConnectionError(lost.pop())
            yield from real({k: v for k, v in left.items() if k in left})

        monkeypatch.setattr(pool, "_on_backend", answers)
        assert sorted(number for number, _ in pool.do([partial(int, i) for i in range(3)])) == [0, 1, 2]
        assert said == ["A worker was lost (ConnectionError); 2 tasks are given out again."]
        monkeypatch.setattr(pool, "_on_backend", lambda left: {}["gone"])
        with pytest.raises(SweepError, match="cannot go on"):
            list(pool.do([partial(int, 1)]))


# --- the same images


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
    with one_thread():
        draw(drawing, album("whole"), lambda: models)
    said, split = [], album("split")
    with WorkerPool(2, on_message=said.append) as pool:
        tasks_ = [partial(note, split.within, "kill", die=1), *shards(drawing, split, models)]
        results = [result for _, result in pool.do(tasks_)]
        assert [result.error for result in results] == [""] * 5
        heard: list[dict[str, Any]] = []
        pool.draw(drawing, split, lambda: models, Callbacks(on_progress=heard.append))
    assert len(said) == 1
    assert heard == []  # nothing was left to draw
    assert contents(split) == contents(album("whole"))


def shards(drawing: SamplingRequest, album: ImageFolder, models: Any) -> list[Any]:
    return [partial(draw_shard, drawing, album, {"name": models.name}, block) for block in blocks(drawing)]


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_another_backend_draws_the_same(backend: str, gallery: Any, models: Any):
    pytest.importorskip({"dask": "distributed", "ray": "ray"}[backend])
    drawing, album = gallery
    whole, split = album("whole"), album("split")
    with one_thread():
        draw(drawing, whole, lambda: models)
    with ExitStack() as stack:
        try:
            stack.enter_context(joblib_backend(backend, 2))
        except Exception as error:  # Ray gives up after 15 s where the processor is busy
            pytest.skip(f"{backend} does not start here: {error}")
        pool = stack.enter_context(WorkerPool(2))
        done = [result.value for _, result in pool.do([os.getpid, *shards(drawing, split, models)])]
    assert done[0] != os.getpid()
    assert contents(split) == contents(whole)


def test_what_is_sent_loads_the_same_models(model_folder: Path) -> None:
    """A bare pipeline with eyes of its own, in half precision and low memory."""
    given = load_models(
        model_folder / "pipeline", extractor=model_folder / "dinov2", dtype="bfloat16", low_memory=True, device="cpu"
    )
    again = load_same_models(json.loads(json.dumps(loading_of(given))), given.fingerprint)
    assert (again.fingerprint, again.recipe, again.machine) == (given.fingerprint, given.recipe, given.machine)
    assert again.pipeline.unet.dtype == torch.bfloat16
    assert again.low_memory


def test_a_worker_draws_in_the_precision_of_the_run(model_folder: Path, quick: Any, tmp_path: Path) -> None:
    models = load_models(model_folder, dtype="bfloat16")
    drawing = SamplingRequest("a fox", np.arange(2), quick.replace(n_images=2, sampling_steps=1))
    folders = [ImageFolder(tmp_path / name, tmp_path, models.fingerprint, latents=True) for name in ("here", "there")]
    with one_thread():
        draw(drawing, folders[0], lambda: models)
    with WorkerPool(1) as pool:
        pool.draw(drawing, folders[1], lambda: models, Callbacks())
    here, there = ({path.name: path.read_bytes() for path in place.folder.iterdir()} for place in folders)
    assert here == there


PARENT = """
import sys
from functools import partial
from pathlib import Path
from helpers.chores import note
from chosen_one_nb.sweep.workers import WorkerPool
with WorkerPool(2) as pool:
    for _, result in pool.do([partial(note, Path(sys.argv[1]), f"t{i}", wait=0 if i < 2 else 600) for i in range(4)]):
        print(result.value, flush=True)
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="counts processes in /proc")
def test_workers_die_with_their_parent(tmp_path: Path):
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}", "KILL_MARK": str(tmp_path)}

    def left() -> list[str]:
        """Those that this test has begun, by what they have in their environment."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"KILL_MARK={tmp_path}".encode() in (process / "environ").read_bytes():
                    found.append(process.name)
        return found

    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as run:
        workers = {int(run.stdout.readline()) for _ in range(2)}  # both are at their long task, or about to
        assert {str(worker) for worker in workers} < set(left())
        run.send_signal(signal.SIGKILL)
    late = time.monotonic() + 5
    while left() and time.monotonic() < late:
        time.sleep(0.1)
    assert left() == []
