"""The stage bar and the buttons that step through a run."""

from __future__ import annotations

from html import escape

import ipywidgets
import traitlets

from . import actions
from .panel import Panel, Switch, help_button, offer, on_change, row, text
from .session import Session
from .status import guarded
from .tasks import Progress

SENTENCES = {
    "generate": "Draw N images of the prompt, each from its own seed, with the Θ learnt so far.",
    "embed": "Turn each image into a feature vector, with an extractor that was never told what is in it.",
    "check": "Stop when the gallery's mean pairwise distance falls to d_conv; watch that it has not collapsed.",
    "cluster": "Group the features by K-means++ with k = ⌊N / d_size-c⌋; drop clusters of d_min-c or fewer.",
    "choose": "The rule takes the most cohesive cluster; you can take another, or images of your own.",
    "refine": "Learn Θ from the chosen images: LoRA weights and a new word, by the denoising loss.",
}
"""What each stage does."""
FORMULAS = {
    "generate": "Sᵢ = { M_Θᵢ(p; seedₙ) : n = 1…N }",
    "embed": "eₙ = F(xₙ)",
    "check": "2/(N(N−1)) · Σ_{a<b} ‖eₐ − e_b‖ ≤ d_conv",
    "cluster": "cohesion(c) = 1/|c| · Σ ‖e − c_cen‖²",
    "choose": "c* = argmin cohesion(c)",
    "refine": "min over Θ of E ‖ε − ε_Θ(z_t, t, text)‖²",
}
"""The formula that each stage follows."""


class StageBar(Panel):
    """Prompt and stages, the coming one lit, with a sentence and a formula about it."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.ui = text("stagebar")

    def show(self) -> None:
        """Light the stage that comes next, or that is being done."""
        node, run = self.node, self.run
        working = (run.busy or "").split(" ")[0]
        coming = working if working in SENTENCES else run.next_stage
        items = "".join(_item(stage, node.done(stage), stage == coming) for stage in SENTENCES)
        name = coming.capitalize() if coming else f"Finished, {run.outcome.state}"
        what = SENTENCES[coming] if coming else run.outcome.reason
        formula = f" <code>{escape(FORMULAS[coming])}</code>" if coming else ""
        branch = f", branch {node.id}" if node.id != str(node.iteration) else ""
        where = " · ".join(filter(None, (run.manifest["models"]["name"], f"iteration {node.iteration}{branch}")))
        self.ui.value = (
            f'<header><h2 title="The prompt">{escape(run.prompt)}</h2><span>{escape(where)}</span></header>'
            f'<ol aria-label="Stages of an iteration">{items}</ol>'
            + help_button("stage", "What this stage does")
            + f'<div popover data-about="stage"><strong>{escape(name)}.</strong> {escape(what)}{formula}</div>'
        )


def _item(stage: str, done: bool, lit: bool) -> str:
    state, word, mark = ("lit", "now", "▸ ") if lit else ("done", "done", "✓ ") if done else ("todo", "to come", "")
    current = ' aria-current="step"' if lit else ""
    title = f"{escape(SENTENCES[stage])} ({word})"
    return f'<li class="is-{state}"{current} title="{title}">{mark}{stage.capitalize()}</li>'


class Stepper(Panel):
    """Next, Next iteration, To convergence, Cancel, and how far the work has come."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        button = self.button
        tip = "Do the next stage only"
        self.next = button("next", "Next", tip, actions.next_stage, style="primary", icon="step-forward")
        tip = "Go on until this iteration has its Θ"
        self.iteration = button("iteration", "Next iteration", tip, actions.next_iteration, icon="forward")
        tip = "Go on until the run converges, collapses or reaches d_iter"
        self.convergence = button("convergence", "To convergence", tip, actions.to_convergence, icon="fast-forward")
        tip = "Stop at the next sampler or training step; finished stages stay"
        self.cancel = button("cancel", "Cancel", tip, actions.cancel, style="warning", icon="stop")
        tip = "Refine once more although the run is finished"
        self.go_on = button("goon", "Go on all the same", tip, actions.go_on)
        self.ask = Switch(description="ask me each time", tooltip="Stop before every choice, so that you can make it")
        self.bar = ipywidgets.FloatProgress(0, min=0, max=1, layout=ipywidgets.Layout(width="160px", height="14px"))
        self.words, self.half, self._fraction = text("words-now"), text("unseen"), 0.0
        parts = (
            self.next,
            self.iteration,
            self.convergence,
            self.ask,
            self.go_on,
            self.cancel,
            self.bar,
            self.words,
            self.half,
        )
        self.ui = row(*parts, kind="stepper")
        traitlets.link((self.ask, "value"), (session, "asks"))
        on_change(session, "progress", self._show_progress)
        session.observe(self.redraw, "screen")

    def show(self) -> None:
        """Enable what can be done now."""
        session, stage, screen = self.session, self.run.next_stage, self.session.screen
        for part in (self.next, self.iteration, self.convergence, self.ask):
            offer(part, screen.steps)
        self.next.layout.display = None if screen.steps or screen.cancels else "none"  # its place is kept during work
        verb = "Retry" if session.failed else "Next"
        self.next.description = f"{verb}: {stage.capitalize()}" if stage else "Finished"
        offer(self.cancel, screen.cancels)
        offer(self.bar, screen.cancels)
        offer(self.go_on, screen.goes_on)
        if not session.busy:
            self.words.value = ""

    @guarded
    def _show_progress(self, progress: Progress | None) -> None:
        if progress is not None:
            self.bar.value = progress.fraction
            stopping = " · stopping…" if self.session.tasks.task.stop.is_set() else ""
            if progress.fraction >= 0.5 > self._fraction:  # beginning and end are said by the status line
                self.half.value = f'<span role="status">{escape(progress.stage.capitalize())}: half done</span>'
            self._fraction = progress.fraction
            said = f"{progress.stage.capitalize()}: {progress.text}{stopping}"
            self.words.value = f"<span>{escape(said)}</span>"
