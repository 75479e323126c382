"""What a person or the rule decided at a node, as data; the edits that led there; errors about them."""

from __future__ import annotations

from dataclasses import dataclass

from chosen_one_nb.run.store import Stamp


class RunError(Exception):
    """Something was asked of a run that it cannot do now; says why and what to do."""


class ChoiceError(RunError, ValueError):
    """A choice of images that cannot be refined: none left, an unknown cluster, an index out of range."""


@dataclass(frozen=True)
class Decision:
    """What was chosen at a node, what the rule proposed, by whom and why.

    Parameters
    ----------
    images : tuple of int
        Indices of the images to refine on, ascending, without those left out.
    cluster : int or None
        The cluster taken; None for images picked by hand.
    proposed : int or None
        The cluster the rule proposed; None when none was large enough.
    by : str
        ``"rule"``, ``"person"``, or a name.
    note : str
        Why.
    excluded : tuple of int
        Images of the choice that were left out.
    time : str
        When, UTC.
    """

    images: tuple[int, ...]
    cluster: int | None
    proposed: int | None
    by: str = "person"
    note: str = ""
    excluded: tuple[int, ...] = ()
    time: str = ""


@dataclass(frozen=True)
class Edit:
    """The state of a node's choice after one action; undo goes back to the edit before it.

    Parameters
    ----------
    action : str
        ``"cluster"``, ``"recluster"``, ``"merge"``, ``"exclude"``, ``"include"``, ``"choose"`` or
        ``"branch"``.
    clusters : str
        Stem of the node's cluster files, for example ``"clusters-0"``.
    stamps : dict
        Their stamps by file name.
    excluded : tuple of int
        All images left out at this node.
    decision : Decision or None
    time : str
    """

    action: str
    clusters: str
    stamps: dict[str, Stamp]
    excluded: tuple[int, ...] = ()
    decision: Decision | None = None
    time: str = ""
