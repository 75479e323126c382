"""Sentences that several parts of the screen use: the stages, where a run stands, what a decision takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chosen_one_nb.run.decision import Decision
    from chosen_one_nb.run.run import Run

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
    "check": "1/|S|² · Σ ‖eₐ − e_b‖ ≤ d_conv",
    "cluster": "cohesion(c) = 1/|c| · Σ ‖e − c_cen‖²",
    "choose": "c* = argmin cohesion(c)",
    "refine": "min over Θ of E ‖ε − ε_Θ(z_t, t, text)‖²",
}
"""The formula that each stage follows."""


def what_comes_next(run: Run) -> str:
    """Say where a run stands and what a person can do."""
    outcome, stage = run.outcome, run.next_stage
    if outcome.state == "no cluster":
        return f"{outcome.reason} Choose images yourself, merge clusters or change k."
    if stage is None:
        return (
            f"Finished, {outcome.state}. Choose otherwise at an earlier iteration to begin a branch, compare "
            "branches below, or go on all the same."
        )
    if stage == "choose":
        return "Your turn: choose a cluster or images, or press Next to take the proposal."
    return f"Done. Next comes {stage.capitalize()}."


def chosen_words(decision: Decision, by_hand: str = "images picked by hand") -> str:
    """Name what a decision takes: a cluster, or images picked by a person."""
    return f"cluster {decision.cluster}" if decision.cluster is not None else by_hand


def counted_words(decision: Decision) -> str:
    """Say what a decision takes, how many images, and how many are left out."""
    left = f", {len(decision.excluded)} left out" if decision.excluded else ""
    return f"{chosen_words(decision)}, {len(decision.images)} images{left}"
