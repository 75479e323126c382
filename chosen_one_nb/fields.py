"""How a setting is declared and checked: its type and range, and the sentence when a value does not fit."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Callable
from typing import Any, Literal

__all__ = ["SettingsError", "allowed", "check_field", "setting", "type_name"]

Check = tuple[Callable[[Any], bool], str]

POSITIVE: Check = (lambda v: v > 0, "a number above 0")
NOT_NEGATIVE: Check = (lambda v: v >= 0, "0 or more")
FRACTION: Check = (lambda v: 0 <= v <= 1, "between 0 and 1")
BELOW_ONE: Check = (lambda v: 0 <= v < 1, "0 or more and below 1")
AT_LEAST_ONE: Check = (lambda v: v >= 1, "1 or more")
AT_LEAST_TWO: Check = (lambda v: v >= 2, "2 or more")


class SettingsError(ValueError):
    """A setting that cannot be used: its message names the setting, what was expected, what came, and why."""


def setting(
    default: Any,
    help: str,
    *,
    symbol: str = "",
    source: str = "this kit",
    certainty: str = "-",
    check: Check | None = None,
) -> Any:
    """Declare one field of `Settings` with what the explorer shows about it."""
    about = {"symbol": symbol, "help": help, "source": source, "certainty": certainty, "check": check}
    return dataclasses.field(default=default, metadata=about)


def _options(hint: Any) -> tuple[Any, ...]:
    """Split `int | None` into its members."""
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def type_name(hint: Any) -> str:
    """Name a field's type for people: "int or None", "choice"."""
    names = ["choice" if typing.get_origin(option) is Literal else option.__name__ for option in _options(hint)]
    return " or ".join("None" if name == "NoneType" else name for name in names)


def allowed(field: dataclasses.Field[Any], hint: Any) -> tuple[Any, ...] | str | None:
    """Return the values a field may take: a tuple of choices, a phrase for a range, or None."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return field.metadata["check"][1] if field.metadata["check"] else None


def _matches(value: Any, option: Any) -> bool:
    """Tell whether a value fits one type; bool is no number, an int is a float, NaN never fits."""
    if typing.get_origin(option) is Literal:
        return value in typing.get_args(option)
    if option is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, option)


def check_field(field: dataclasses.Field[Any], hint: Any, value: Any) -> None:
    """Raise `SettingsError` if a value is of the wrong type or out of its field's range."""
    if not any(_matches(value, option) for option in _options(hint)):
        choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else None
        expected = f"one of {', '.join(map(repr, choices))}" if choices else f"{type_name(hint)} (finite)"
        raise SettingsError(f"{field.name}: expected {expected}, got {value!r}. {field.metadata['help']}")
    check = field.metadata["check"]
    if check and value is not None and not check[0](value):
        raise SettingsError(f"{field.name}: expected {check[1]}, got {value!r}. {field.metadata['help']}")
