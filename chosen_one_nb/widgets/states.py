"""What the screen offers and says: one function of where a run stands, the work under way and the lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["quiet", "good", "warning", "error"]

FINISHED = {
    "converged": "Choose otherwise at an earlier iteration to begin a branch, open Compare, or go on all the same.",
    "limit": "Open Compare, choose otherwise at an earlier iteration, or go on all the same.",
    "collapsed": "Go back to an earlier iteration in the tree and choose otherwise there: this one learnt too much.",
}
"""What can be done when a run has ended, by its outcome."""
DRAWING = {
    "generate": "Drawing: the images appear in the gallery as they are made.",
    "embed": "Turning the images into features.",
    "check": "Checking for convergence.",
    "cluster": "Clustering the features.",
    "refine": "Learning Θ from the chosen images.",
}
"""What is said while a stage is being done."""


@dataclass(frozen=True)
class Screen:
    """What is on the screen in a state.

    Parameters
    ----------
    name : str
        Of the state; a status line belongs to it and goes when it goes.
    says : str
        What the status line says on entering it.
    kind : {"quiet", "good", "warning", "error"}
        How it says so.
    tab : str
        The tab that the side pane turns to; empty leaves it.
    steps, cancels, decides, goes_on : bool
        Whether the buttons to step, to cancel, to decide and to go on past the end are there.
    """

    name: str
    says: str = ""
    kind: Kind = "quiet"
    tab: str = ""
    steps: bool = False
    cancels: bool = False
    decides: bool = False
    goes_on: bool = False


def screen_of(
    stage: str | None, outcome: str, *, working: str = "", read_only: bool = False, clustered: bool = False,
    reason: str = "", branches: int = 0,
) -> Screen:  # fmt: skip
    """Say what is shown.

    Parameters
    ----------
    stage : str or None
        The stage that comes next; None when the run has ended.
    outcome : str
        `Outcome.state` of the run.
    working : str
        What is being done: a stage's name, or what other work is called; empty when nothing is.
    read_only : bool
        Whether the run is opened for looking only.
    clustered : bool
        Whether the iteration shown has clusters.
    reason : str
        Why the run stands there (`Outcome.reason`).
    branches : int
        Branches of the run; from the first on the end turns to the comparison.

    Examples
    --------
    >>> screen_of("choose", "unfinished", clustered=True).tab
    'Clusters'
    >>> screen_of("embed", "unfinished", working="generate").cancels
    True
    """
    if working:
        return Screen(working, DRAWING.get(working, ""), tab="Gallery" if working == "generate" else "", cancels=True)
    if read_only:
        return Screen("read only", "Read only: everything can be looked at; run.copy(folder) makes a copy to work on.")
    free = {"decides": clustered}
    if outcome == "no cluster":
        says = f"{reason} Choose images yourself, merge clusters or change k."
        return Screen(outcome, says, "warning", "Clusters", steps=stage is not None, goes_on=stage is None, **free)
    if stage is None:
        says = f"Finished, {outcome}. {FINISHED.get(outcome, FINISHED['converged'])}"
        return Screen(outcome, says, tab="Compare" if branches else "", goes_on=True, **free)
    if stage == "choose":
        says = "Your turn: choose a cluster or images, or press Next to take the proposal."
        return Screen("choose", says, tab="Clusters", steps=True, **free)
    return Screen(f"before {stage}", f"Done. Next comes {stage.capitalize()}.", steps=True, **free)
