"""The five steps of the method, one module each: generate, embed, cluster, refine, converge.

Steps are functions of arrays, images and settings; they know no file paths and no widgets. The long ones
share three optional arguments:

- `on_progress` is called with a dict: `stage` (the step's name), `done`, `total`, `unit`, and what a step
  adds;
- `cancelled` is asked at each sampler or training step; when it returns True the step raises `Cancelled`;
- whatever happens, cancellation included, the models are left exactly as they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Cancelled", "CancelledCheck", "Progress", "raise_if_cancelled", "report"]

Progress = Callable[[dict[str, Any]], None]
CancelledCheck = Callable[[], bool]


class Cancelled(Exception):
    """The person asked a step to stop; it stopped, nothing was changed, and the last good result stands."""


def raise_if_cancelled(cancelled: CancelledCheck | None) -> None:
    """Raise `Cancelled` if `cancelled` is given and returns True."""
    if cancelled is not None and cancelled():
        raise Cancelled("Cancelled on request; earlier results are untouched.")


def report(on_progress: Progress | None, stage: str, done: float, total: float, unit: str, **more: Any) -> None:
    """Tell `on_progress`, if given, how far a stage has come."""
    if on_progress is not None:
        on_progress({"stage": stage, "done": done, "total": total, "unit": unit, **more})
