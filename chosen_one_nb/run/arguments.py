"""What a caller passes, checked before it is used: nothing is converted into something that was not meant.

0.7 is no index and True no number, but NumPy's integers are integers, a boolean array of length N chooses images, and
one text is one text, not its letters.
"""

from __future__ import annotations

import operator
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from chosen_one_nb.run.decision import ChoiceError, RunError
from chosen_one_nb.settings import is_share, is_text, user_path


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, Python's or NumPy's, and no truth value."""
    return hasattr(value, "__index__") and not isinstance(value, bool | np.bool_) and getattr(value, "ndim", 0) == 0


def whole(name: str, value: Any, low: int, high: int, error: type[Exception] = RunError) -> int:
    """Return a whole number; an error where it is none, or beyond its limits."""
    if not (is_whole(value) and low <= operator.index(value) <= high):
        raise error(f"{name}: expected a whole number from {low} to {high}, got {reprlib.repr(value)}.")
    return operator.index(value)


def indices(images: Any, n: int) -> tuple[int, ...]:
    """Return indices of images below n, ascending, each once; n truth values choose where they are True."""
    several = isinstance(images, Iterable) and not isinstance(images, str | bytes | Mapping)
    values = list(images) if several and getattr(images, "ndim", None) != 0 else [images]
    if len(values) == n and all(isinstance(value, bool | np.bool_) for value in values):
        values = np.flatnonzero(values).tolist()
    if bad := [value for value in values if not (is_whole(value) and 0 <= operator.index(value) < n)]:
        raise ChoiceError(f"Expected image indices from 0 to {n - 1}, or {n} truth values, got {reprlib.repr(bad[0])}.")
    return tuple(sorted({operator.index(value) for value in values}))


def text(name: str, value: Any) -> str:
    """Return a text; a `RunError` where it is none, or cannot be written to a file."""
    if not is_text(value):
        raise RunError(f"{name}: expected text that can be written as UTF-8, got {reprlib.repr(value)}.")
    return value


def texts(name: str, values: Any) -> list[str]:
    """Return texts, at least one; a single one counts as a list of it."""
    values = [values] if isinstance(values, str) or not isinstance(values, Iterable) else list(values)
    if not values:
        raise RunError(f"{name}: expected at least one text, got none.")
    return [text(name, value) for value in values]


def share(name: str, value: Any) -> float:
    """Return a number in [0, 1]."""
    if not is_share(value):
        raise RunError(f"{name}: expected a number from 0 to 1, got {reprlib.repr(value)}.")
    return float(value)


def place(name: str, value: Any) -> Path:
    """Return a path, absolute, with ``~`` expanded."""
    return user_path(name, value, RunError).resolve()
