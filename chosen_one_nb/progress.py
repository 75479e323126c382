"""Progress on a terminal: a bar with the time left for one stage after another, and lines about finished stages."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chosen_one_nb.run.node import Node
    from chosen_one_nb.run.run import Run

__all__ = ["ProgressBar", "RunProgress"]

FORM = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total} {unit} · {remaining} left"


class ProgressBar:
    """A bar for one stage after another; called with progress events, shown on a terminal only, for a with-block.

    Parameters
    ----------
    quiet : bool
        Whether to show nothing at all.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._bar: Any = None
        self._stage = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *error: object) -> None:
        self.end_bar()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show a progress event of a step: `stage`, `done`, `total`, `unit`."""
        if self.quiet or not sys.stderr.isatty():
            return
        from tqdm import tqdm

        if event["stage"] != self._stage or self._bar is None:
            self.end_bar()
            self._stage, name = event["stage"], f"  {event['stage']:<9}"
            self._bar = tqdm(total=event["total"], desc=name, unit=event["unit"], leave=False, bar_format=FORM)
        self._bar.update(event["done"] - self._bar.n)

    def end_bar(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None


class RunProgress(ProgressBar):
    """A bar, and a line for each finished stage of a run.

    Parameters
    ----------
    run : Run
        Among its listeners while the bar is shown.
    quiet : bool
        Whether to print nothing at all.
    """

    def __init__(self, run: Run, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._run = run

    def __enter__(self) -> RunProgress:
        self._run.listeners.append(self._on_change)
        return self

    def __exit__(self, *error: object) -> None:
        self.end_bar()
        self._run.listeners.remove(self._on_change)

    def _on_change(self, event: dict[str, Any]) -> None:
        if event["kind"] in ("stage", "choose") and not self.quiet:
            self.end_bar()
            print(_stage_line(self._run.node(event["node"]), event.get("stage", "choose")))


def _stage_line(node: Node, stage: str) -> str:
    results = {
        "generate": lambda: f": {len(node.images)} images",
        "embed": lambda: f": features {node.embedding.features.shape[1]} wide",
        "check": lambda: f": {node.check.verdict.reason}",
        "cluster": lambda: f": {node.clusters.reason}",
        "choose": lambda: f": {len(node.decision.images)} images, by {node.decision.by}",
        "refine": lambda: f": {len(node.losses)} steps",
    }
    result = results.get(stage, str)()
    seconds = node.home.seconds.get(stage, node.seconds.get(stage))
    return f"node {node.id} · {stage}{result}" + ("" if seconds is None else f" ({seconds:.1f} s)")
