"""The stage bar and the buttons that step through a run."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets
import traitlets

from . import actions
from .panel import Panel, button, row
from .session import Session
from .status import guarded
from .switch import Switch
from .wording import ABOUT


class StageBar(Panel):
    """Prompt and stages, the coming one lit, with a sentence and a formula about it."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.ui = ipywidgets.HTML()
        self.ui.add_class("chosen-stagebar")

    @property
    def stage(self) -> str | None:
        """The stage being done, or the one that comes next; None when the run is finished."""
        working = self.run.busy
        name = working.split()[0] if working else self.run.next_stage
        return name if name in ABOUT else self.run.next_stage

    def show(self) -> None:
        """Light the stage that comes next, or that is being done."""
        node, coming = self.node, self.stage
        items = "".join(_item(stage, node.done(stage), stage == coming) for stage in ABOUT)
        outcome = self.run.outcome
        name, what, formula = ABOUT.get(coming or "", (f"Finished, {outcome.state}", outcome.reason, ""))
        formula = f" <code>{escape(formula)}</code>" if formula else ""
        models = self.run.manifest["models"]["name"]
        where = f"iteration {node.iteration}" + (f", branch {node.id}" if node.id != str(node.iteration) else "")
        self.ui.value = (
            f'<header><h2 title="The prompt">{escape(self.run.prompt)}</h2>'
            f"<span>{escape(' · '.join(part for part in (models, where) if part))}</span></header>"
            f'<ol aria-label="Stages of an iteration">{items}</ol>'
            f"<p><strong>{escape(name)}.</strong> {escape(what)}{formula}</p>"
        )


def _item(stage: str, done: bool, lit: bool) -> str:
    name, what, _ = ABOUT[stage]
    state, word = ("lit", "now") if lit else ("done", "done") if done else ("todo", "to come")
    mark = "▸ " if lit else "✓ " if done else ""
    current = ' aria-current="step"' if lit else ""
    return f'<li class="is-{state}"{current} title="{escape(what)} ({word})">{mark}{escape(name)}</li>'


class Stepper(Panel):
    """Next, Next iteration, To convergence, Cancel, and how far the work has come."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.next = button("Next", "Do the next stage only", style="primary", icon="step-forward", kind="next")
        self.iteration = button(
            "Next iteration", "Go on until this iteration has its Θ", icon="forward", kind="iteration"
        )
        self.convergence = button(
            "To convergence",
            "Go on until the run converges, collapses or reaches d_iter",
            icon="fast-forward",
            kind="convergence",
        )
        self.cancel = button(
            "Cancel",
            "Stop at the next sampler or training step; finished stages stay",
            style="warning",
            icon="stop",
            kind="cancel",
        )
        self.go_on = button("Go on all the same", "Refine once more although the run is finished", kind="goon")
        self.ask = Switch(description="ask me each time", tooltip="Stop before every choice, so that you can make it")
        self.bar = ipywidgets.FloatProgress(0, min=0, max=1, layout=ipywidgets.Layout(width="200px", height="14px"))
        self.words = ipywidgets.HTML()
        self.words.add_class("chosen-words-now")
        self.ui = row(
            self.next,
            self.iteration,
            self.convergence,
            self.ask,
            self.go_on,
            self.cancel,
            self.bar,
            self.words,
            kind="stepper",
        )
        for control, act in (
            (self.next, actions.next_stage),
            (self.iteration, actions.next_iteration),
            (self.convergence, actions.to_convergence),
            (self.cancel, actions.cancel),
            (self.go_on, actions.go_on),
        ):
            control.on_click(lambda _button, act=act: act(session))
        traitlets.link((self.ask, "value"), (session, "asks"))
        session.observe(self._progressed, "progress")

    def show(self) -> None:
        """Enable what can be done now."""
        busy, stage = self.session.busy, self.run.next_stage
        idle = not busy and not self.run.read_only
        for control in (self.next, self.iteration, self.convergence):
            control.disabled = not (idle and stage is not None)
        name = ABOUT[stage][0] if stage in ABOUT else ""
        self.next.description = f"{'Retry' if self.session.failed else 'Next'}: {name}" if name else "Finished"
        self.cancel.disabled = not busy
        _visible(self.cancel, busy)
        _visible(self.bar, busy)
        _visible(self.go_on, idle and stage is None)
        if not busy:
            self.words.value = ""

    @guarded
    def _progressed(self, change: dict[str, Any]) -> None:
        """Show how far the work has come."""
        progress = change["new"]
        if progress is None:
            return
        self.bar.value = progress.fraction
        name = ABOUT.get(progress.stage, (progress.stage.capitalize(),))[0]
        stopping = " · stopping…" if self.session.tasks.task.cancelled() else ""
        self.words.value = f"<span>{escape(name)}: {escape(progress.text)}{stopping}</span>"


def _visible(widget: ipywidgets.Widget, yes: bool) -> None:
    widget.layout.display = None if yes else "none"
