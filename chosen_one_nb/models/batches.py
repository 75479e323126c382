"""Work in batches that shrink when memory runs out, and an error that says what to lower when they cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["OutOfMemory", "advised", "batches", "free_memory", "is_out_of_memory"]

T = TypeVar("T")


class OutOfMemory(RuntimeError):
    """Memory ran out and nothing smaller is left to try: the message says which setting to lower."""


def batches(n: int, size: int, do: Callable[[range], T], advice: str) -> Iterator[tuple[range, T]]:
    """Do n things in batches of at most `size`; where memory runs out, go on with batches of half the size.

    Parameters
    ----------
    n, size : int
    do : callable
        Given a batch's range of indices; called again for its halves when it runs out of memory.
    advice : str
        What to lower, where not even one thing fits.

    Yields
    ------
    (range, result)
        In order; what was yielded is never done again.

    Raises
    ------
    OutOfMemory
        If a single thing does not fit.

    Examples
    --------
    >>> [list(indices) for indices, _ in batches(5, 2, len, "")]
    [[0, 1], [2, 3], [4]]
    """
    start = 0
    while start < n:
        indices = range(start, min(start + size, n))
        try:
            with advised(advice if len(indices) == 1 else None):
                done = do(indices)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            yield indices, done
            start = indices.stop
            continue
        free_memory()  # only here: in `except` the error's traceback holds the tensors that did not fit
        size = len(indices) // 2


@contextmanager
def advised(advice: str | None) -> Iterator[None]:
    """Turn an out-of-memory error into an `OutOfMemory` that says what to lower; None leaves it as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if advice is None or not is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemory(f"Out of memory. {advice} ({reason})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise the errors of accelerators and of the CPU's allocator; not one that already says what to lower."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, OutOfMemory):
        return False
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)


def free_memory() -> None:
    """Give memory that no tensor holds any more back to the device."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
