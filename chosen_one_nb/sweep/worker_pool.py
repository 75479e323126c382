"""Give tasks to workers and take the answers as they come, whichever joblib backend has them.

Outside of a ``joblib.parallel_config`` the workers are processes of this machine (`Workers`); inside one,
such as ``with joblib.parallel_config(backend="dask")``, they are that backend's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from joblib import Parallel, delayed
from joblib.parallel import LokyBackend, get_active_backend

from chosen_one_nb.run.images import ImageFolder, missing
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.sweep.pool import WorkerDied, Workers, visible_devices
from chosen_one_nb.sweep.tasks import Done, Shard, attempt, load_of

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models

__all__ = ["Crew", "SweepError"]

PORTION = 4  # tasks of each worker that are given out at once where answers come all together, as Ray's do
ROUNDS = 3  # that may go by without a single task done, before giving up


class SweepError(RuntimeError):
    """The workers cannot go on."""


class Crew:
    """Workers for as long as a with-block.

    Parameters
    ----------
    workers : int, optional
        How many; None is one per GPU, or without any one per processor core and thread.
    threads : int
        Of PyTorch in each worker. Images are the same to the bit only where this is the same.
    say : callable, optional
        Told, in a sentence, when a worker died; None writes to the error stream.
    """

    def __init__(
        self, workers: int | None = None, *, threads: int = 1, say: Callable[[str], None] | None = None
    ) -> None:
        if threads < 1 or (workers is not None and workers < 1):
            raise SweepError(f"workers, threads: expected 1 or more of each, got {workers} and {threads}.")
        self.threads = threads
        self._say = say or (lambda text: print(text, file=sys.stderr, flush=True))
        self._own: Workers | None = None
        backend, n = get_active_backend()
        if isinstance(backend, LokyBackend):
            self.n = workers or (n if n and n > 1 else default_workers(threads))
            self._own = Workers(self.n, threads=threads, on_death=self._died)
        else:
            n = backend.default_n_jobs if n is None else n  # -1, for all there are, with Dask and Ray
            self.n = workers or max(1, backend.effective_n_jobs(n))
        self._streams = self._own is not None or (self.n > 1 and backend.supports_return_generator)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *error: object) -> None:
        if self._own is not None:
            self._own.__exit__(*error)

    def _died(self, index: int) -> None:
        self._say(f"Worker {index} was ended (killed, or out of memory?). Its task goes to a fresh one.")

    def do(self, tasks: Sequence[Any]) -> Iterator[tuple[int, Done]]:
        """Do tasks and yield (number, what came of it) for each, in the order in which they are finished.

        Raises
        ------
        SweepError
            The workers died again and again.
        """
        left, vain = dict(enumerate(tasks)), 0
        while left:
            before = len(left)
            try:
                for number, done in self._answers(left):
                    del left[number]
                    yield number, done
            except WorkerDied as error:
                raise SweepError(str(error)) from error
            except Exception as error:  # each backend has its own for a worker that is gone
                vain = vain + 1 if len(left) == before else 0
                if vain == ROUNDS:
                    raise SweepError(f"The workers cannot go on ({type(error).__name__}: {error}).") from error
                self._say(f"A worker was lost ({type(error).__name__}); {len(left)} tasks are given out again.")

    def _answers(self, tasks: dict[int, Any]) -> Iterator[tuple[int, Done]]:
        parallel = Parallel(
            n_jobs=self.n, batch_size=1, max_nbytes=None,
            return_as="generator_unordered" if self._streams else "list",
            **({"backend": self._own} if self._own is not None else {}),
        )  # fmt: skip
        every = list(tasks.items())
        portion = max(1, len(every)) if self._streams else PORTION * self.n
        for start in range(0, len(every), portion):
            yield from parallel(delayed(numbered)(i, task, self.threads) for i, task in every[start : start + portion])

    def draw(
        self, request: SamplingRequest, place: ImageFolder, models: Callable[[], Models], callbacks: Callbacks
    ) -> None:
        """Draw the blocks of a gallery that are not on disk yet; takes what `keeping.drawing.draw` takes.

        Raises
        ------
        SweepError
            A block could not be drawn.
        """
        wanted = missing(request, place)
        total = len(request.seeds)
        done, load = total - sum(map(len, wanted)), load_of(models()) if wanted else {}
        for _, answer in self.do([Shard(request, place, load, block) for block in wanted]):
            if answer.error:
                raise SweepError(answer.error)
            done += answer.value
            callbacks.report("generate", done, total, "images")
            callbacks.raise_if_cancelled()


def numbered(number: int, task: Any, threads: int) -> tuple[int, Done]:
    """Do a task and say which it was."""
    return number, attempt(task, threads)


def default_workers(threads: int) -> int:
    """One worker per GPU; without any, as many as the cores have room for."""
    return len(visible_devices()) or max(1, (os.cpu_count() or 1) // threads)
