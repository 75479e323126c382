"""A joblib backend of one process per worker: each pinned to its device, a dead one replaced.

joblib's own loky backend shares one pool: when one of its processes is killed, all are, with what they had in
hand. Here every worker has a pool of its own, so a kill costs the task of the killed worker alone, which is
given to a fresh process. Everything else is joblib's: the same call runs on Dask or Ray inside
``with joblib.parallel_config(backend="dask")``.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from joblib.externals.loky import ProcessPoolExecutor
from joblib.externals.loky.process_executor import BrokenProcessPool, ShutdownExecutorError
from joblib.parallel import ParallelBackendBase

__all__ = ["WorkerDied", "Workers", "pinned", "visible_devices"]

LIVES = 3  # processes that a task may cost
END = (None, None)


class WorkerDied(RuntimeError):
    """A task ended the process that did it, again and again."""


def visible_devices() -> list[str]:
    """Return the GPUs that workers may be pinned to, as CUDA_VISIBLE_DEVICES names them; [] without any."""
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return [str(i) for i in range(torch.cuda.device_count())]
    return [part.strip() for part in named.split(",") if part.strip() not in ("", "-1")]


def pinned(index: int, devices: Sequence[str], threads: int) -> dict[str, str]:
    """Return the environment of a worker: one of the devices, in turn, and so many threads.

    >>> pinned(3, ["0", "1"], 1)["CUDA_VISIBLE_DEVICES"]
    '1'
    >>> "CUDA_VISIBLE_DEVICES" in pinned(3, [], 1)
    False
    """
    limits = {name: str(threads) for name in ParallelBackendBase.MAX_NUM_THREADS_VARS}
    return limits | ({"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]} if devices else {})


class Workers(ParallelBackendBase):
    """Processes of this machine, kept from call to call until `close`.

    Parameters
    ----------
    n : int
        How many.
    threads : int
        Of each.
    devices : sequence of str, optional
        GPUs to share out in turn; None takes those that are visible.
    on_death : callable, optional
        Given the index of a worker whose process died.
    """

    supports_retrieve_callback = True

    def __init__(
        self,
        n: int = 1,
        *,
        threads: int = 1,
        devices: Sequence[str] | None = None,
        on_death: Callable[[int], None] | None = None,
    ) -> None:
        super().__init__(nesting_level=0)
        self.default_n_jobs, self.threads = n, threads
        self.devices = visible_devices() if devices is None else list(devices)
        self._on_death = on_death or (lambda index: None)
        self._tasks: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        self._pools: dict[int, ProcessPoolExecutor] = {}
        self._round = 0  # counts the aborts, so that a task knows that it is no longer wanted
        self._servants = [threading.Thread(target=self._serve, args=(i,), daemon=True) for i in range(n)]
        for servant in self._servants:
            servant.start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        if kind is not None:
            self.abort_everything()
        self.close()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Return how many tasks to hand over at once: at least 2, for told of 1 joblib would do them itself."""
        return max(2, self.default_n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], None] | None = None) -> Future[Any]:
        """Give a task to the next free worker."""
        future: Future[Any] = Future()
        if callback is not None:
            future.add_done_callback(callback)
        self._tasks.put((func, future))
        return future

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Return what a task returned, or raise what it raised."""
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Forget the tasks that wait and end the processes at work; the next task gets fresh ones."""
        self._round += 1
        while not self._tasks.empty():
            self._tasks.get()
        for pool in list(self._pools.values()):
            pool.shutdown(wait=True, kill_workers=True)
        self._pools.clear()

    def close(self) -> None:
        """Let all processes end."""
        for _ in self._servants:
            self._tasks.put(END)
        for servant in self._servants:
            servant.join()
        for pool in self._pools.values():
            pool.shutdown(wait=True)
        self._pools.clear()

    def _serve(self, index: int) -> None:
        """Do tasks one after another; runs in a thread of the parent, one per worker."""
        while (task := self._tasks.get()) != END:
            func, future = task
            try:
                future.set_result(self._done(index, func))
            except BaseException as error:
                future.set_exception(error)

    def _done(self, index: int, func: Callable[[], Any]) -> Any:
        mine = self._round
        for _ in range(LIVES):
            try:
                return self._pool(index).submit(func).result()
            except (BrokenProcessPool, ShutdownExecutorError) as error:
                self._pools.pop(index, None)
                if self._round != mine:
                    raise WorkerDied("stopped") from error
                self._on_death(index)
        raise WorkerDied(
            f"A task ended {LIVES} processes, one after another (killed by hand, or by the system for memory?). "
            "Take fewer workers or a smaller batch_size, then give the same command again: what is done is kept."
        )

    def _pool(self, index: int) -> ProcessPoolExecutor:
        if index not in self._pools:
            environment = pinned(index, self.devices, self.threads)
            self._pools[index] = ProcessPoolExecutor(max_workers=1, env=environment)
        return self._pools[index]
