"""Values that take a while (a UMAP, the resampling of clusters): asked for, shown when they are there."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


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
        self._asked: set[Hashable] = set()
        self._open: set[Hashable] = set()
        self._queue: queue.SimpleQueue = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._held = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Begin with what is asked for inside only afterwards, so that it does not hold up what shows at once."""
        with self._lock:
            self._held = True
        try:
            yield
        finally:
            with self._lock:
                self._held = False
                self._begin()

    def get(self, key: Hashable, compute: Callable[[], Any], default: Any = None) -> Any:
        """Give the value of `key`, or `default` while it is still being computed or when that failed."""
        with self._lock:
            if key in self._asked:
                return self._values.get(key, default)
            self._asked.add(key)
            self._open.add(key)
            self._queue.put((key, compute))
            self._begin()
        return default

    def _begin(self) -> None:
        """Start the thread when there is something to do (with the lock held)."""
        if self._thread is None and self._open and not self._held:
            self._thread = threading.Thread(target=self._run, name="explorer background", daemon=True)
            self._thread.start()

    def asked(self, key: Hashable) -> bool:
        """Whether `key` has been asked for, or is known."""
        return key in self._asked

    def error(self, key: Hashable) -> Exception | None:
        """Say why `key` could not be computed, None when it could or is not done yet."""
        return self._errors.get(key)

    def waiting(self, key: Hashable) -> bool:
        """Whether `key` has been asked for and is still being computed."""
        return key in self._asked and key not in self._values and key not in self._errors

    def put(self, key: Hashable, value: Any) -> None:
        """Store a value that is known already."""
        with self._lock:
            self._asked.add(key)
            self._values[key] = value

    def settle(self, timeout: float | None = 600.0) -> None:
        """Wait until everything asked for is there (for scripts and tests).

        Raises
        ------
        TimeoutError
            When it is not after `timeout` seconds.
        """
        with self._idle:
            if not self._idle.wait_for(lambda: not self._open, timeout):
                raise TimeoutError(f"Still computing {sorted(map(str, self._open))} after {timeout} s.")

    def _run(self) -> None:
        while True:
            key, compute = self._queue.get()
            try:
                value, error = compute(), None
            except Exception as caught:
                value, error = None, caught
            with self._lock:
                if error is None:
                    self._values[key] = value
                else:
                    self._errors[key] = error
            with suppress(Exception):  # whoever listens shows its own troubles; the next value must still come
                self._on_ready()
            with self._idle:
                self._open.discard(key)
                self._idle.notify_all()
