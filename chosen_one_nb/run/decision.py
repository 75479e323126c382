"""What is decided at a node: which images to learn from, whether the method ends there, which character counts.

A person or the rule chooses (`Decision`), and every step of it can be taken back (`EditHistory`). When a branch stops
(section 3.3 of the paper, and the health of its galleries) and which character to use are pure functions of what was
measured: they know neither nodes nor files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import Field, TypeAdapter

from chosen_one_nb.run import store
from chosen_one_nb.run.records import CLUSTERS, FileName, Index, Stamp
from chosen_one_nb.run.store import StageFiles, StoreError

if TYPE_CHECKING:
    from chosen_one_nb.steps.cluster import Clusters


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

    images: tuple[Index, ...]
    cluster: Index | None
    proposed: Index | None
    by: str = "person"
    note: str = ""
    excluded: tuple[Index, ...] = ()
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
    clusters: Annotated[str, Field(pattern=r"^clusters-[0-9]+$")]
    stamps: dict[FileName, Stamp]
    excluded: tuple[Index, ...] = ()
    decision: Decision | None = None
    time: str = ""


@dataclass(frozen=True)
class _Edits:
    """The contents of ``edits.json``."""

    position: int
    edits: tuple[Edit, ...]


EDITS = TypeAdapter(_Edits)


class EditHistory:
    """What was done to a node's clusters and choice, and where undo and redo stand.

    Parameters
    ----------
    files : StageFiles

    Raises
    ------
    StoreError
        ``edits.json`` is damaged.
    """

    def __init__(self, files: StageFiles) -> None:
        self._files, self._path = files, files.folder / "edits.json"
        self._cache: dict[str, Clusters] = {}
        advice = "Put back a sound copy, or move it away to cluster and choose again (log.jsonl tells what was chosen)."
        kept = store.read_or_advise(self._path, advice, EDITS) if self._path.exists() else _Edits(-1, ())
        chosen = [i for edit in kept.edits if edit.decision for i in edit.decision.images]
        if not -1 <= kept.position < len(kept.edits) or max(chosen, default=0) >= files.images[0]:
            raise StoreError(f"{self._path} is damaged: it speaks of edits or images that are not there. {advice}")
        self.all, self._position = kept.edits, kept.position

    @property
    def current(self) -> Edit | None:
        """The present state of clusters, exclusions and choice; None before clustering."""
        return self.all[self._position] if self._position >= 0 else None

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back (never below the clustering itself)."""
        return self._position > 0

    @property
    def can_redo(self) -> bool:
        """Whether an edit was taken back that can be made again."""
        return self._position < len(self.all) - 1

    def add(self, edit: Edit) -> None:
        """Make an edit the present state; what had been undone is dropped."""
        self._write((*self.all[: self._position + 1], edit), self._position + 1)

    def move(self, by: int) -> None:
        """Go back (-1) or forth (+1) among the edits."""
        self._write(self.all, self._position + by)

    def clear(self) -> None:
        """Forget clusters and choice (the log keeps what they were)."""
        self._path.unlink(missing_ok=True)
        self.all, self._position = (), -1

    def _write(self, edits: tuple[Edit, ...], position: int) -> None:
        # The disk first: where writing fails, the history shown is still the one that is stored.
        store.write_json(self._path, dataclasses.asdict(_Edits(position, edits)))
        self.all, self._position = edits, position

    def clusters(self, edit: Edit) -> Clusters:
        """Read the clusters of an edit."""
        if edit.clusters not in self._cache:
            from chosen_one_nb.steps.cluster import Clusters

            with self._files.advised("cluster"):
                parts = [store.read_file(self._files.folder / name, stamp) for name, stamp in edit.stamps.items()]
                found = Clusters(**{name: value for part in parts for name, value in part.items()})
                _check_clusters(found, self._files.images)
            self._cache[edit.clusters] = found
        return self._cache[edit.clusters]

    def write_clusters(self, clusters: Clusters, stem: str = "") -> tuple[str, dict[str, Stamp]]:
        """Write clusters under a stem (by default a new one) and return it with the files' stamps."""
        # Never a stem that was used: edits that were taken back still name their files, and redo needs them.
        stem = stem or f"clusters-{max((int(edit.clusters.split('-')[1]) for edit in self.all), default=-1) + 1}"
        values = vars(clusters)
        arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
        plain = store.plain({name: value for name, value in values.items() if name not in arrays})
        stamps = store.write_files(self._files.folder, {f"{stem}.json": plain, f"{stem}.npz": arrays})
        self._cache.pop(stem, None)
        return stem, stamps

    def repair(self, clusters: Clusters) -> None:
        """Write the first clusters again, and let edits whose own are damaged stand on them; choices are kept."""
        stem, stamps = self.write_clusters(clusters, "clusters-0")
        # A merge was a person's: the features do not give it back, so its edit falls back on the first clusters.
        edits = list(self.all)
        for i, edit in enumerate(edits):
            try:
                self.clusters(edit)
            except StoreError:
                edits[i] = dataclasses.replace(edit, clusters=stem, stamps=stamps)
        self._write(tuple(edits), self._position)


def _check_clusters(found: Clusters, images: tuple[int]) -> None:
    """Raise a ValueError where the parts of clusters do not go together: they may come from anybody."""
    proposed, _ = CLUSTERS.validate_python((found.proposed, found.reason), strict=True)
    each = dict.fromkeys(("sizes", "centroids", "cohesion", "medoids", "kept", "order"), (found.k,))
    for name, shape in (each | {"labels": images, "distances": images}).items():
        store.check_numbers(name, getattr(found, name), shape)
    for name, limit in {"labels": found.k, "order": found.k, "medoids": images[0]}.items():
        values = getattr(found, name)
        if values.dtype.kind not in "iu" or values.min() < 0 or max(values.max(), proposed or 0) >= limit:
            raise ValueError(f"{name}: expected whole numbers below {limit}, got {values} (proposed: {proposed})")


@dataclass(frozen=True)
class Outcome:
    """Where the present branch stands.

    Parameters
    ----------
    state : {"unfinished", "converged", "collapsed", "limit", "no cluster"}
        ``limit``: the iterations are used up; ``no cluster``: none was large enough, a person may choose.
    reason : str
        Why, as a sentence.
    node : str
        Id of the node it is about.
    sound_node : str or None
        The last node whose gallery is sound and drawn with a character: its ``theta_in`` is the one to use.
    """

    state: str
    reason: str
    node: str
    sound_node: str | None

    @property
    def finished(self) -> bool:
        """Whether the method has come to its end here (a person may still `Run.go_on`)."""
        return self.state in ("converged", "collapsed", "limit")

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


def stop_reason(verdict: str | None, iteration: int, max_iterations: int, *, overruled: bool = False) -> str | None:
    """Say why the method ends at a gallery.

    Parameters
    ----------
    verdict : {"not yet", "converged", "collapsed"} or None
        Of the check; None before it.
    iteration : int
        0 is the first gallery, which never ends a run: it is drawn without a character, so there is nothing to stop
        refining.
    max_iterations : int
        d_iter.
    overruled : bool
        Whether a person asked to go on here (`Run.go_on`).

    Returns
    -------
    {"converged", "collapsed", "limit"} or None
        None where it goes on.
    """
    if overruled or iteration == 0 or verdict is None:
        return None
    # Before the limit: a run that converges in its last iteration has converged.
    if verdict != "not yet":
        return verdict
    return "limit" if iteration >= max_iterations else None


def last_sound(verdicts: Sequence[str | None]) -> int | None:
    """Return the last gallery of a branch, drawn with a character, that was checked and has not collapsed.

    Parameters
    ----------
    verdicts : sequence of {"not yet", "converged", "collapsed", None}
        From the first gallery on.
    """
    sound = [i for i, verdict in enumerate(verdicts) if i and verdict not in (None, "collapsed")]
    return sound[-1] if sound else None


def character_source(verdicts: Sequence[str | None], *, refined: bool, children: Sequence[str | None]) -> int | None:
    """Return whose character to use: the newest that no collapsed gallery speaks against.

    Parameters
    ----------
    verdicts : sequence of {"not yet", "converged", "collapsed", None}
        Of the galleries from the first to the node in question.
    refined : bool
        Whether that node has a character of its own.
    children : sequence of {"not yet", "converged", "collapsed", None}
        Of the galleries drawn with it.

    Returns
    -------
    int or None
        Place on the way from the root; None where there is no such character.
    """
    last = len(verdicts) - 1
    # A character is spoiled when every gallery drawn with it has collapsed; branches may give it several.
    judged = [verdict for verdict in children if verdict]
    spoiled = bool(judged) and all(verdict == "collapsed" for verdict in judged)
    if refined and verdicts[last] != "collapsed" and not spoiled:
        return last
    # A gallery that has not collapsed vouches for the character it was drawn with: its parent's.
    sound = [i for i, verdict in enumerate(verdicts) if verdict != "collapsed"]
    return sound[-1] - 1 if sound and sound[-1] > 0 else None
