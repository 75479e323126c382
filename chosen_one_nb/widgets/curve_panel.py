"""The two small curves: distance against d_conv, and the loss of the refinement."""

from __future__ import annotations

import time
from html import escape
from typing import Any

import ipywidgets

from .curves import CurveFigure, LossFigure
from .panel import Panel, framed
from .session import Session
from .status import guarded

LOSS_EVERY = 0.3
"""Seconds between two drawings of the loss."""


class CurvePanel(Panel):
    """Distance of every iteration, and the loss of the one that is shown (or of the work under way)."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.distance, self.loss = CurveFigure(), LossFigure()
        self.verdict = ipywidgets.HTML()
        self.verdict.add_class("chosen-trust")
        self.about = ipywidgets.HTML()
        self.about.add_class("chosen-trust")
        self.ui = ipywidgets.HBox(
            [
                framed("Distance against d_conv", ipywidgets.VBox([self.distance.widget, self.verdict])),
                framed("Loss of the refinement", ipywidgets.VBox([self.loss.widget, self.about])),
            ]
        )
        self.ui.add_class("chosen-curves")
        self.distance.on_click(self._click)
        session.observe(self._step, "training_step")
        self._loss_drawn = 0.0
        self._losses: list[dict[str, Any]] = []
        self._shown: tuple[Any, ...] = ()

    def show(self) -> None:
        """Show the curve as it is now, and the losses of the iteration that is shown."""
        rows = self.run.curve().to_dict("records")
        key = (self.node.id, len(rows), [row["state"] for row in rows])
        if key != self._shown:
            self.distance.show(rows, self.node.id, max(3, self.node.settings.max_iterations))
            self._shown = key
        verdict = self.node.verdict
        self.verdict.value = f"<strong>{escape(verdict.state)}</strong>: {escape(verdict.reason)}" if verdict else ""
        if self.node.refined:
            self._losses = list(self.node.losses)
        elif not self.session.busy:
            self._losses = []
        self.draw_loss()

    @guarded
    def _step(self, change: dict[str, Any]) -> None:
        """Take one training step's report; the drawing follows not too often."""
        event = change["new"]
        if event["step"] <= 1:
            self._losses = []
        self._losses.append(event)
        if time.monotonic() - self._loss_drawn > LOSS_EVERY or event["step"] == event.get("steps"):
            self._loss_drawn = time.monotonic()
            self.draw_loss()

    def draw_loss(self) -> None:
        """Draw the losses so far."""
        self.loss.show(self._losses)
        self.about.value = (
            "Grey: each step. Blue: smoothed. It tells that learning runs, not how good Θ is."
            if self._losses
            else "Nothing has been learnt from this gallery yet."
        )

    @guarded
    def _click(self, node_id: str) -> None:
        self.session.show_node(node_id)
