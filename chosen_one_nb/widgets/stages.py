"""The stage bar and the buttons that step through a run."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import ipywidgets

from .panel import Panel, button, row
from .status import guarded
from .switch import Switch
from .tasks import Job

if TYPE_CHECKING:
    from .explorer import Explorer

ABOUT: dict[str, tuple[str, str, str]] = {
    "generate": (
        "Generate",
        "Draw N images of the prompt, each from its own seed, with the Θ learnt so far.",
        "Sᵢ = { M_Θᵢ(p; seedₙ) : n = 1…N }",
    ),
    "embed": (
        "Embed",
        "Turn each image into a feature vector, with an extractor that was never told what is in it.",
        "eₙ = F(xₙ)",
    ),
    "check": (
        "Check",
        "Stop when the gallery's mean pairwise distance falls to d_conv; watch that it has not collapsed.",
        "1/|S|² · Σ ‖eₐ − e_b‖ ≤ d_conv",
    ),
    "cluster": (
        "Cluster",
        "Group the features by K-means++ with k = ⌊N / d_size-c⌋; drop clusters of d_min-c or fewer.",
        "cohesion(c) = 1/|c| · Σ ‖e − c_cen‖²",
    ),
    "choose": (
        "Choose",
        "The rule takes the most cohesive cluster; you can take another, or images of your own.",
        "c* = argmin cohesion(c)",
    ),
    "refine": (
        "Refine",
        "Learn Θ from the chosen images: LoRA weights and a new word, by the denoising loss.",
        "min over Θ of E ‖ε − ε_Θ(z_t, t, text)‖²",
    ),
}
"""Of each stage: its name, what it does in a sentence, and the formula it follows."""


class StageBar(Panel):
    """Prompt and stages, the coming one lit, with a sentence and a formula about it."""

    def __init__(self, explorer: Explorer) -> None:
        super().__init__(explorer)
        self.ui = ipywidgets.HTML()
        self.ui.add_class("chosen-stagebar")

    def show(self) -> None:
        """Light the stage that comes next, or that is being done."""
        node, coming = self.node, self.explorer.stage
        items = "".join(_item(stage, node.done(stage), stage == coming) for stage in ABOUT)
        outcome = self.run.outcome
        name, what, formula = ABOUT.get(coming or "", (f"Finished, {outcome.state}", outcome.reason, ""))
        formula = f" <code>{escape(formula)}</code>" if formula else ""
        where = f"iteration {node.iteration}" + (f", branch {node.id}" if node.id != str(node.iteration) else "")
        self.ui.value = (
            f'<header><h2 title="The prompt">{escape(self.run.prompt)}</h2>'
            f"<span>{escape(' · '.join(part for part in (self.run.model_name, where) if part))}</span></header>"
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

    def __init__(self, explorer: Explorer) -> None:
        super().__init__(explorer)
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
            (self.next, explorer.next),
            (self.iteration, explorer.next_iteration),
            (self.convergence, explorer.to_convergence),
            (self.cancel, explorer.cancel),
            (self.go_on, explorer.go_on),
        ):
            control.on_click(lambda _button, act=act: act())

    def show(self) -> None:
        """Enable what can be done now."""
        busy, stage = self.explorer.busy, self.run.next_stage
        idle = not busy and not self.run.read_only
        for control in (self.next, self.iteration, self.convergence):
            control.disabled = not (idle and stage is not None)
        name = ABOUT[stage][0] if stage in ABOUT else ""
        self.next.description = f"{'Retry' if self.explorer.failed else 'Next'}: {name}" if name else "Finished"
        self.cancel.disabled = not busy
        _visible(self.cancel, busy)
        _visible(self.bar, busy)
        _visible(self.go_on, idle and stage is None)
        if not busy:
            self.words.value = ""

    @guarded
    def progress(self, job: Job) -> None:
        """Show how far the job has come."""
        progress = job.progress
        if progress is None or not job.running:
            return
        self.bar.value = progress.fraction
        name = ABOUT.get(progress.stage, (progress.stage.capitalize(),))[0]
        stopping = " · stopping…" if job.cancelled() else ""
        self.words.value = f"<span>{escape(name)}: {escape(progress.text)}{stopping}</span>"


def _visible(widget: ipywidgets.Widget, yes: bool) -> None:
    widget.layout.display = None if yes else "none"
