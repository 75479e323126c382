"""Progress of a run on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chosen_one_nb.run.node import Node
    from chosen_one_nb.run.run import Run


class Bars:
    """Progress of one stage after another: a bar with the time left on a terminal, a line a stage elsewhere.

    Parameters
    ----------
    run : Run
        Heard for finished stages.
    quiet : bool
        Whether to say nothing at all.
    """

    def __init__(self, run: Run, *, quiet: bool = False) -> None:
        self._run, self._quiet = run, quiet
        self._bar: Any = None
        self._stage = ""
        run.listeners.append(self._heard)

    def __call__(self, event: dict[str, Any]) -> None:
        """Take a progress event of a step."""
        if self._quiet or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if event["stage"] != self._stage or self._bar is None:
            self._end()
            self._stage = event["stage"]
            form = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total} {unit} · {remaining} left"
            name = f"  {self._stage:<9}"
            self._bar = tqdm(total=event["total"], desc=name, unit=event["unit"], leave=False, bar_format=form)
        self._bar.update(event["done"] - self._bar.n)

    def _heard(self, event: dict[str, Any]) -> None:
        if event["kind"] in ("stage", "choose") and not self._quiet:
            self._end()
            print(self._line(self._run.node(event["node"]), event.get("stage", "choose")))

    @staticmethod
    def _line(node: Node, stage: str) -> str:
        told = {
            "generate": lambda: f"{len(node.images)} images",
            "embed": lambda: f"features {node.features.shape[1]} wide",
            "check": lambda: node.verdict.reason,
            "cluster": lambda: node.clusters.reason,
            "choose": lambda: f"{len(node.decision.images)} images, by {node.decision.by}",
            "refine": lambda: f"{len(node.losses)} steps",
        }
        about = f": {told[stage]()}" if stage in told else ""
        seconds = node.home.seconds.get(stage, node.seconds.get(stage))
        return f"node {node.id} · {stage}{about}" + ("" if seconds is None else f" ({seconds:.1f} s)")

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None

    def close(self) -> None:
        """Take the bar off the screen and listen no more."""
        self._end()
        if self._heard in self._run.listeners:
            self._run.listeners.remove(self._heard)
