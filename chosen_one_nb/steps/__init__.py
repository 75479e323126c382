"""The five steps of the method, one module each: generate, embed, cluster, refine, converge.

Steps are functions of arrays, images and settings; they know no file paths and no widgets. The long ones take
`Callbacks`. Whatever happens, cancellation included, the models are left exactly as they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["NO_CALLBACKS", "AdapterError", "Callbacks", "Cancelled", "NumericalError"]


class Cancelled(Exception):
    """A step was cancelled; nothing was changed, and the last good result stands."""


class AdapterError(Exception):
    """A character that does not fit a pipeline, or a pipeline that has one already."""


class NumericalError(ArithmeticError):
    """NaN or infinity where numbers are expected; says where it arose and what to do."""


@dataclass(frozen=True)
class Callbacks:
    """Functions called during a long step; each may be None.

    Parameters
    ----------
    on_progress : callable
        Called with a dict: `stage` (the step's name), `done`, `total`, `unit`, and what a step adds.
    on_images : callable
        Called with a list of (index, image) as images are finished.
    on_step : callable
        Called with a dict after each training step; see `chosen_one_nb.steps.refine.refine`.
    cancelled : callable
        Called at each sampler or training step and between batches; the step raises `Cancelled` when it returns True.
    """

    on_progress: Callable[[dict[str, Any]], None] | None = None
    on_images: Callable[[list[tuple[int, Image.Image]]], None] | None = None
    on_step: Callable[[dict[str, Any]], None] | None = None
    cancelled: Callable[[], bool] | None = None

    def report(self, stage: str, done: float, total: float, unit: str, **more: Any) -> None:
        """Call `on_progress`, if there is one."""
        if self.on_progress is not None:
            self.on_progress({"stage": stage, "done": done, "total": total, "unit": unit, **more})

    def raise_if_cancelled(self) -> None:
        """Raise `Cancelled` if `cancelled` returns True."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled("Cancelled on request; earlier results are untouched.")

    def part(self, i: int, n: int) -> Callbacks:
        """Return the callbacks for the i-th of n equal parts: progress counts over all of them."""
        whole = self.on_progress
        if whole is None:
            return self

        def on_progress(event: dict[str, Any]) -> None:
            done, total = event["done"] + i * event["total"], n * event["total"]
            whole({**event, "done": done, "total": total})

        return dataclasses.replace(self, on_progress=on_progress)


NO_CALLBACKS = Callbacks()
"""The default of every step."""
