"""Work in batches that shrink when memory runs out, and an error that says what to lower when they cannot."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

__all__ = ["OutOfMemory", "advised", "batches", "is_out_of_memory"]

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
        short = False
        try:
            if len(indices) == 1:
                with advised(advice):
                    done = do(indices)
            else:
                done = do(indices)
        except (RuntimeError, MemoryError) as error:
            if len(indices) == 1 or not is_out_of_memory(error):
                raise
            short = True
        if short:  # outside of `except`, whose traceback holds the tensors that did not fit
            _free()
            size = len(indices) // 2
            continue
        yield indices, done
        start = indices.stop


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Turn an out-of-memory error into an `OutOfMemory` that says what to lower."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemory(f"Out of memory. {advice} ({reason})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise CUDA's and MPS's errors and the CPU allocator's; not one that already says what to lower."""
    if isinstance(error, OutOfMemory):
        return False
    text = str(error).lower()
    return (
        isinstance(error, MemoryError | torch.OutOfMemoryError) or "out of memory" in text or "allocate memory" in text
    )


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        with contextlib.suppress(RuntimeError):
            torch.mps.empty_cache()
