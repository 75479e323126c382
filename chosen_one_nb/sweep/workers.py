"""Workers: processes of this machine, or those of a joblib backend (Dask, Ray), and what they can do.

A task is plain data that any backend can send, and doing it twice does no harm: what lies on disk already is taken from
there. Models are loaded once per process and kept.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any, Literal

import torch
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky import ProcessPoolExecutor
from joblib.parallel import LokyBackend, ParallelBackendBase, get_active_backend

from chosen_one_nb.models.load import Models, load_models
from chosen_one_nb.run.images import ImageFolder, draw_block, missing
from chosen_one_nb.run.state import ModelsDiffer
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest

__all__ = ["SweepError", "TaskResult", "WorkerPool", "draw_shard", "joblib_backend", "load_same_models", "run_task"]

LIVES = 3  # processes that a task may cost
PORTION = 4  # tasks of each worker that are given out at once where results come all together, as Ray's do
ROUNDS = 3  # that may go by without a single task done, before giving up


class SweepError(RuntimeError):
    """The workers cannot go on."""


# --- in a worker


@dataclass(frozen=True)
class TaskResult:
    """Result of a task.

    Attributes
    ----------
    value : object
        What it returned; None where it failed.
    error : str
        Why it failed, as a sentence; empty where it did not.
    seconds, cpu : float
        It took, by the clock and of the processor.
    """

    value: Any
    error: str
    seconds: float
    cpu: float


def run_task(task: Callable[[], Any], threads: int) -> TaskResult:
    """Do a task with so many threads of PyTorch; an error becomes part of the result, so that other tasks go on."""
    begun, cpu, value, error = time.monotonic(), time.process_time(), None, ""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        value = task()
    except Exception as caught:
        ours = type(caught).__module__.startswith("chosen_one_nb")
        error = str(caught) if ours else f"{type(caught).__name__}: {caught}"
    finally:
        torch.set_num_threads(before)
    return TaskResult(value, error, time.monotonic() - begun, time.process_time() - cpu)


def load_same_models(load: Mapping[str, Any], fingerprint: str = "") -> Models:
    """Load models, once per process, and check that they are those that were meant.

    Parameters
    ----------
    load : mapping
        Arguments of `load_models` as plain data.
    fingerprint : str
        Empty takes any.
    """
    models = _loaded(json.dumps(dict(load), sort_keys=True))
    if fingerprint and models.fingerprint != fingerprint:
        raise ModelsDiffer(
            f"Expected the models {fingerprint[:8]}, but a worker that loads {load['name']!r} gets "
            f"{models.fingerprint[:8]}. Workers load models by name: put the same files where each finds them."
        )
    return models


@lru_cache(maxsize=1)
def _loaded(load: str) -> Models:
    return load_models(**json.loads(load))


def draw_shard(request: SamplingRequest, place: ImageFolder, load: Mapping[str, Any], block: range) -> int:
    """Draw one block of a gallery unless it is there; returns how many images it holds."""
    models = partial(load_same_models, load, place.fingerprint)  # loaded only if need be
    draw_block(request, place, models, block)
    return len(block)


def end_with(parent: int) -> None:
    """End this process soon after its parent has ended, however that did; called in a worker when it begins."""

    def watch() -> None:
        # Why not the pipe that tasks come through: a worker holds both of its ends, so a killed parent closes nothing.
        # Why not the death signal of Linux: it is sent when the thread that began the worker ends, not the process.
        if sys.platform == "win32":
            multiprocessing.parent_process().join()
        while os.getppid() == parent and sys.platform != "win32":
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- beside the workers


class WorkerPool:
    """Workers for as long as a with-block.

    Outside of a ``joblib.parallel_config`` they are processes of this machine; inside one, such as
    ``with joblib.parallel_config(backend="dask")``, they are that backend's.

    Parameters
    ----------
    workers : int, optional
        How many; None is one per GPU, or without any one per processor core and thread.
    threads : int
        Of PyTorch in each worker. Images are the same to the bit only where this is the same.
    on_message : callable, optional
        Called with a sentence when a worker died; None writes to the error stream.
    """

    def __init__(
        self, workers: int | None = None, *, threads: int = 1, on_message: Callable[[str], None] | None = None
    ) -> None:
        if threads < 1 or (workers is not None and workers < 1):
            raise SweepError(f"workers, threads: expected 1 or more of each, got {workers} and {threads}.")
        self.threads = threads
        self._on_message = on_message or partial(print, file=sys.stderr, flush=True)
        backend, n = get_active_backend()
        self._processes: Processes | None = None
        if isinstance(backend, LokyBackend):  # joblib's default
            default = len(visible_devices()) or max(1, (os.cpu_count() or 1) // threads)
            self.n = workers or (n if n and n > 1 else default)
            self._processes = Processes(self.n, threads, self._on_message)
        else:
            n = backend.default_n_jobs if n is None else n  # -1, for all there are, with Dask and Ray
            self.n = workers or max(1, backend.effective_n_jobs(n))
        self._streams = self.n > 1 and backend.supports_return_generator

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if self._processes is not None:
            self._processes.close(kill=kind is not None)

    def do(self, tasks: Sequence[Callable[[], Any]]) -> Iterator[tuple[int, TaskResult]]:
        """Do tasks and yield (number, result) of each, in the order in which they are finished.

        Raises
        ------
        SweepError
            The workers died again and again.
        """
        if self._processes is not None:
            yield from self._processes.do(tasks)
            return
        left, vain = dict(enumerate(tasks)), 0
        while left:
            before = len(left)
            try:
                for number, result in self._on_backend(left):
                    del left[number]
                    yield number, result
            except Exception as error:  # each backend has its own for a worker that is gone
                vain = vain + 1 if len(left) == before else 0
                if vain == ROUNDS:
                    raise SweepError(f"The workers cannot go on ({type(error).__name__}: {error}).") from error
                self._on_message(f"A worker was lost ({type(error).__name__}); {len(left)} tasks are given out again.")

    def _on_backend(self, tasks: Mapping[int, Callable[[], Any]]) -> Iterator[tuple[int, TaskResult]]:
        kind = "generator_unordered" if self._streams else "list"
        parallel = Parallel(n_jobs=self.n, batch_size=1, max_nbytes=None, return_as=kind)
        calls = [delayed(_numbered)(number, task, self.threads) for number, task in tasks.items()]
        portion = len(calls) if self._streams else PORTION * self.n
        for start in range(0, len(calls), portion):
            yield from parallel(calls[start : start + portion])

    def draw(
        self, request: SamplingRequest, place: ImageFolder, models: Callable[[], Models], callbacks: Callbacks
    ) -> None:
        """Draw the blocks of a gallery that are not on disk yet; see `chosen_one_nb.run.images.GalleryWorkers`.

        Raises
        ------
        SweepError
            A block could not be drawn.
        """
        wanted = missing(request, place)
        total = len(request.seeds)
        done, load = total - sum(map(len, wanted)), loading_of(models()) if wanted else {}
        for _, result in self.do([partial(draw_shard, request, place, load, block) for block in wanted]):
            if result.error:
                raise SweepError(result.error)
            done += result.value
            callbacks.report("generate", done, total, "images")
            callbacks.raise_if_cancelled()


def _numbered(number: int, task: Callable[[], Any], threads: int) -> tuple[int, TaskResult]:
    return number, run_task(task, threads)


def loading_of(models: Models) -> dict[str, Any]:
    """Return the arguments with which a worker loads these very models: sources, precision, device, switches."""
    return {"name": models.name, **models.recipe, **models.machine}


def visible_devices() -> list[str]:
    """Return the GPUs that workers may be pinned to, as CUDA_VISIBLE_DEVICES names them; [] without any."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(i) for i in range(torch.cuda.device_count())]
    return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]


class Processes:
    """Processes of this machine, each pinned to a GPU in turn; a dead one is replaced, and its task done again.

    Each is an executor of one process: in a shared pool, joblib's as the standard library's, one killed process ends
    all of them, and costs what every worker has in hand. loky's do not run a script's main module again, as spawn does.

    Parameters
    ----------
    n, threads : int
        How many processes, and threads of each.
    on_message : callable
        Called with a sentence when a process died.
    """

    def __init__(self, n: int, threads: int, on_message: Callable[[str], None]) -> None:
        self._threads, self._on_message, self._devices = threads, on_message, visible_devices()
        self._executors: dict[int, ProcessPoolExecutor] = {}
        self._given: dict[int, Future[TaskResult]] = {}  # what each process does
        self._free: SimpleQueue[int] = SimpleQueue()
        for index in range(n):
            self._free.put(index)
        self._waiting = ThreadPoolExecutor(n)  # a thread for each process, which waits for its results
        self._closed = threading.Event()

    def do(self, tasks: Sequence[Callable[[], Any]]) -> Iterator[tuple[int, TaskResult]]:
        """Do tasks and yield (number, result) of each as it is finished."""
        futures: dict[Future[TaskResult], int] = {
            self._waiting.submit(self._do, task): number for number, task in enumerate(tasks)
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()

    def _do(self, task: Callable[[], Any]) -> TaskResult:
        """Do a task in a free process, and where that dies in another one; runs in a thread."""
        index = self._free.get()
        try:
            for _ in range(LIVES):
                try:
                    self._given[index] = self._executor(index).submit(run_task, task, self._threads)
                    return self._given[index].result()
                except BrokenExecutor:
                    self._executors.pop(index, None)
                    if self._closed.is_set():
                        break
                    self._on_message(f"Worker {index} died (killed, or out of memory?); a fresh one does its task.")
        finally:
            self._free.put(index)
        raise SweepError(
            f"A task ended {LIVES} processes, one after another (killed by hand, or by the system for memory?). "
            "Take fewer workers or a smaller batch_size, then give the same command again: what is done is kept."
        )

    def _executor(self, index: int) -> ProcessPoolExecutor:
        if index not in self._executors:
            environment = {name: str(self._threads) for name in ParallelBackendBase.MAX_NUM_THREADS_VARS}
            if self._devices:
                environment["CUDA_VISIBLE_DEVICES"] = self._devices[index % len(self._devices)]
            self._executors[index] = ProcessPoolExecutor(
                1, env=environment, initializer=end_with, initargs=(os.getpid(),)
            )
        return self._executors[index]

    def close(self, *, kill: bool = False) -> None:
        """End all processes: after their tasks, or at once."""
        self._closed.set()
        self._waiting.shutdown(wait=not kill, cancel_futures=kill)
        # loky's own thread fails where a task is killed on its way to its process, which takes milliseconds
        late = time.monotonic() + 1
        while kill and time.monotonic() < late and not all(f.running() or f.done() for f in self._given.values()):
            time.sleep(0.01)
        for executor in list(self._executors.values()):
            executor.shutdown(kill_workers=kill)
        self._waiting.shutdown()


@contextmanager
def joblib_backend(name: Literal["dask", "ray"], n: int | None, address: str | None = None) -> Iterator[None]:
    """Make Dask or Ray the active joblib backend, with a local cluster of its own where no address is given."""
    try:
        if name == "dask":
            from dask.distributed import Client

            local = {} if address else {"n_workers": n, "threads_per_worker": 1, "dashboard_address": None}
            cluster, n = Client(address, **local), None
        else:
            import ray
            from ray.util.joblib import register_ray

            register_ray()
            cluster = ray.init(address, **({} if address else {"num_cpus": n, "include_dashboard": False}))
    except ImportError as error:
        raise SweepError(
            f"{name} is not installed. It comes with: pip install 'chosen_one_nb[sweep]', or leave --backend out."
        ) from error
    with cluster, parallel_config(backend=name, n_jobs=n or -1):
        yield
