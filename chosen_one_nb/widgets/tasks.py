"""Work off the notebook's threads: on the run, one `Task` at a time with progress and cancel; beside it, values.

Widget callbacks must return at once (they share one comm channel, so a callback that works for a minute also
holds up *Cancel*). A `Task` runs a function on its own thread, asks it to stop through `Task.stop`, which every
step polls at each sampler or training step, and reports through one callback. Values that take a while (a UMAP, the
resampling of clusters) come from a `BackgroundCache`: asked for, shown when they are there.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

from tqdm import tqdm

from chosen_one_nb.steps import Cancelled

State = Literal["ready", "running", "done", "cancelled", "failed"]

REPORT_EVERY = 0.1
"""Seconds between two progress reports to the screen; the first and last of a stage always pass."""


class Busy(RuntimeError):
    """Raised when work is asked for while other work is still running."""


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Parameters
    ----------
    stage : str
        The stage's name, for example ``"generate"``.
    done, total : int
        Units finished and units in all; ``total`` 0 means unknown.
    unit : str
        What is counted: ``"images"``, ``"steps"``.
    seconds : float
        Seconds since the stage reported for the first time.
    first : int
        How many units were done at that first report: the speed is measured from there.
    """

    stage: str
    done: int
    total: int
    unit: str = ""
    seconds: float = 0.0
    first: int = 0

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def text(self) -> str:
        """The progress in words, for example ``"71/128 images · 00:21 left"``; "" where the total is unknown.

        Examples
        --------
        >>> Progress("generate", 71, 128, "images", seconds=26.2, first=0).text
        '71/128 images · 00:21 left'
        >>> Progress("embed", 0, 128, "images").text
        '0/128 images'
        """
        if self.total <= 0:
            return ""
        known = self.first < self.done < self.total
        form = "{n_fmt}/{total_fmt} {unit} · {remaining} left" if known else "{n_fmt}/{total_fmt} {unit}"
        return tqdm.format_meter(
            self.done, self.total, self.seconds, unit=self.unit, initial=self.first, bar_format=form
        ).strip()


class Task:
    """Run one piece of work on a thread of its own.

    Parameters
    ----------
    work : callable
        Called with the task; hands `callbacks` on to the steps.
    name : str
        What the work is called on the screen.
    on_change : callable, optional
        Called with the task, on the task's thread, when it starts, progresses and ends.

    Attributes
    ----------
    stop : threading.Event
        Set to ask the work to stop at its next sampler or training step.
    message : str
        What the work wants to be said when it is done; empty where the run's own state says it.

    Notes
    -----
    The thread is a daemon (one of an executor is not): it never keeps a kernel alive that is to be restarted in the
    middle of a training stage. What a stage has finished is on disk already.
    """

    def __init__(
        self, work: Callable[[Task], Any], *, name: str = "work", on_change: Callable[[Task], None] | None = None
    ) -> None:
        self.name, self.message = name, ""
        self.state: State = "ready"
        self.progress: Progress | None = None
        self.error: BaseException | None = None
        self.stop = threading.Event()
        self._work, self._on_change = work, on_change or (lambda task: None)
        self._thread = threading.Thread(target=self._run, name=f"task {name}", daemon=True)
        self._started = self._reported = 0.0

    @property
    def running(self) -> bool:
        """Whether the work has begun and not ended."""
        return self.state == "running"

    @property
    def callbacks(self) -> dict[str, Callable[..., Any]]:
        """``on_progress`` and ``cancelled``, as every method of `Run` that works long takes them."""
        return {"on_progress": self.report, "cancelled": self.stop.is_set}

    def start(self) -> Task:
        """Begin; returns the task itself, at once."""
        self.state = "running"
        self._thread.start()
        return self

    def wait(self, timeout: float | None = None) -> Task:
        """Wait until the work has ended.

        Raises
        ------
        TimeoutError
            When it is still running after `timeout` seconds.
        """
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
            if self._thread.is_alive():
                raise TimeoutError(f"{self.name} is still running after {timeout} s.")
        return self

    def report(self, event: Mapping[str, Any]) -> None:
        """Take one progress event ``{"stage", "done", "total", "unit"}`` from a step."""
        now, last = time.monotonic(), self.progress
        stage, done, total = str(event["stage"]), int(event["done"]), int(event.get("total") or 0)
        if last is None or last.stage != stage or done < last.done:
            self._started, self._reported, first = now, 0.0, done
        else:
            first = last.first
        self.progress = Progress(stage, done, total, str(event.get("unit", "")), now - self._started, first)
        if now - self._reported >= REPORT_EVERY or done >= total:
            self._reported = now
            self._on_change(self)

    def _run(self) -> None:
        try:
            self._on_change(self)
            self._work(self)
            self.state = "done"
        except Cancelled:
            self.state = "cancelled"
        except BaseException as error:
            self.error, self.state = error, "failed"
        self._on_change(self)


class TaskRunner:
    """Where the work on one run is handed in: one task at a time, and all who watch are told how it goes.

    Attributes
    ----------
    task : Task or None
        The present or last task.
    watchers : list of callable
        Called as ``watcher(kind, what)`` on the task's thread: ``("task", task)`` when it starts, progresses and ends,
        ``("images", pairs)`` and ``("step", dict)`` with what the steps report.

    Examples
    --------
    >>> runner = TaskRunner()
    >>> runner.start(lambda task: None, name="nothing").wait().state
    'done'
    """

    def __init__(self) -> None:
        self.task: Task | None = None
        self.watchers: list[Callable[[str, Any], None]] = []
        self._lock = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a task is running."""
        return self.task is not None and self.task.running

    def start(self, work: Callable[[Task], Any], *, name: str = "work") -> Task:
        """Start `work` as a `Task`.

        Raises
        ------
        Busy
            When a task is still running; nothing is started.
        """
        with self._lock:
            if self.busy:
                raise Busy(f"Still at work ({self.task.name}). Wait until it is done, or press Cancel.")
            self.task = Task(work, name=name, on_change=lambda task: self.tell("task", task))
            return self.task.start()

    def tell(self, kind: str, what: Any) -> None:
        """Tell the watchers."""
        for watcher in list(self.watchers):
            watcher(kind, what)


_runners: weakref.WeakKeyDictionary[Any, TaskRunner] = weakref.WeakKeyDictionary()


def runner_of(run: Any) -> TaskRunner:
    """Give the one task runner of a run, made at first use: all screens of a run share it."""
    return _runners.setdefault(run, TaskRunner())


class BackgroundCache:
    """Compute values once each, one after another, on a background thread.

    Parameters
    ----------
    on_ready : callable, optional
        Called without arguments, on the background thread, whenever a value has become ready or has failed.

    Examples
    --------
    >>> cache = BackgroundCache()
    >>> cache.get("answer", lambda: 42) is None    # asked for; not there yet
    True
    >>> cache.settle(); cache.get("answer", lambda: 42)
    42
    """

    def __init__(self, on_ready: Callable[[], None] | None = None) -> None:
        self._on_ready = on_ready or (lambda: None)
        self._values: dict[Hashable, Any] = {}
        self._errors: dict[Hashable, Exception] = {}
        self._futures: dict[Hashable, Future[None]] = {}
        self._executor = ThreadPoolExecutor(1, "explorer background")
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Begin with what is asked for inside only afterwards, so that it does not hold up what shows at once."""
        gate = threading.Event()
        self._executor.submit(gate.wait)
        try:
            yield
        finally:
            gate.set()

    def get(self, key: Hashable, compute: Callable[[], Any], default: Any = None) -> Any:
        """Give the value of `key`, or `default` while it is still being computed or when that failed."""
        with self._lock:
            if not self.asked(key):
                self._futures[key] = self._executor.submit(self._compute, key, compute)
                return default
        return self._values.get(key, default)

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value that is known already."""
        self._values[key] = value

    def asked(self, key: Hashable) -> bool:
        """Whether `key` has been asked for, or is known."""
        return key in self._futures or key in self._values

    def error(self, key: Hashable) -> Exception | None:
        """Say why `key` could not be computed, None when it could or is not done yet."""
        return self._errors.get(key)

    def settle(self, timeout: float | None = 600.0) -> None:
        """Wait until everything asked for is there and has been announced (for scripts and tests).

        Raises
        ------
        TimeoutError
            When it is not after `timeout` seconds.
        """
        while not all(future.done() for future in list(self._futures.values())):  # showing one may ask for another
            if wait(list(self._futures.values()), timeout).not_done:
                late = sorted(str(key) for key, future in self._futures.items() if not future.done())
                raise TimeoutError(f"Still computing {late} after {timeout} s.")

    def close(self) -> None:
        """Drop what has not begun, wait for what has, and end the thread."""
        self._on_ready = lambda: None
        self._executor.shutdown(cancel_futures=True)

    def _compute(self, key: Hashable, compute: Callable[[], Any]) -> None:
        try:
            self._values[key] = compute()
        except Exception as error:
            self._errors[key] = error
        with suppress(Exception):  # whoever listens shows its own troubles; the next value must still come
            self._on_ready()
