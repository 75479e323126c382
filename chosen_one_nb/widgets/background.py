"""Values that take a while (a UMAP, the resampling of clusters): asked for, shown when they are there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
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

    def waiting(self, key: Hashable) -> bool:
        """Whether `key` has been asked for and is still being computed."""
        return self.asked(key) and key not in self._values and key not in self._errors

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
                late = sorted(str(key) for key in self._futures if self.waiting(key))
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
