"""What a person decides at a node: choose, leave out, merge, undo; recorded as data.

The functions `choose` ... `merge` check what is asked and return a `Change` without writing anything, so a refused
action leaves no trace; `RunSelection` makes the change the state of the current node, or of a new branch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from chosen_one_nb.run import store
from chosen_one_nb.run.arguments import indices, text, whole
from chosen_one_nb.run.decision import ChoiceError, Decision, Edit, RunError
from chosen_one_nb.run.node import UNKNOWN_SEED, Node, chosen, clustered, current_edit, embedded
from chosen_one_nb.run.own import OwnImages
from chosen_one_nb.run.records import SELECTION
from chosen_one_nb.run.stages import compute, segment_if_needed
from chosen_one_nb.run.state import RunState
from chosen_one_nb.settings import SettingsError
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks

if TYPE_CHECKING:
    from chosen_one_nb.steps.cluster import Clusters


class RunSelection:
    """Choose, at the current node of a run, what the next character is learned from.

    At a node that has its character already, each action begins a sibling branch, which becomes the current node.

    Parameters
    ----------
    state : RunState
    """

    def __init__(self, state: RunState) -> None:
        self._state = state

    def choose(
        self,
        cluster: int | None = None,
        images: Sequence[int] | Sequence[Image.Image | str | Path] | str | Path | None = None,
        *,
        exclude: Sequence[int] = (),
        note: str = "",
        by: str | None = None,
    ) -> Decision:
        """Choose what to learn the character from: a cluster, some images, or what the rule proposes.

        Parameters
        ----------
        cluster : int, optional
            A cluster of the current node.
        images : sequence of int, optional
            Indices of images of the current gallery; at most one of the two is given, neither takes the
            proposal. Or your own images, as PIL images, paths or a folder: they become the gallery of a new branch,
            encoded and embedded at once, and all of them are chosen.
        exclude : sequence of int
            Images to leave out, besides those left out before.
        note : str
            Why; kept with the decision.
        by : str, optional
            Who; None is ``"person"``, or ``"rule"`` where the proposal is taken.

        Returns
        -------
        Decision
            On disk when this returns.

        Raises
        ------
        ChoiceError
            Both are given, there is no such cluster or image, nothing is left, or the rule proposes nothing.
        RunError
            There are no clusters yet.
        ImageError
            One of your own images cannot be read.

        Warns
        -----
        RuntimeWarning
            When fewer images are chosen than a cluster must hold: learned from few, a character over-fits.
        """
        first = images[0] if isinstance(images, Sequence) and len(images) and not isinstance(images, str) else images
        if cluster is None and isinstance(first, Image.Image | str | Path):
            images = self._bring(images, exclude, note, by)
        decision = chosen(self._edit(choose, cluster, images, exclude, note, by))
        # Outside the lock: a person may have turned warnings into errors, and the choice stands by now.
        if risk := self.risk(decision.images):
            warnings.warn(risk, RuntimeWarning, stacklevel=2)
        return decision

    def _bring(self, given: Any, exclude: Sequence[int], note: str, by: str | None) -> range:
        """Make a person's images the gallery of a branch at the current node; returns their indices."""
        state, beside = self._state, self._state.tree.current
        state.check_writable()
        current_edit(beside)
        own = OwnImages.read(given, state.checked_models(), beside.settings)
        every, _, _ = range(len(own.images)), text("note", note), text("by", by or "")
        indices(exclude, len(every))

        def begin() -> tuple[Node, str]:
            node = state.tree.add(beside.parent, beside.settings, [UNKNOWN_SEED] * len(every), prepare=own.write)
            node.write(beyond=True)  # whatever the check says of them: a person means to learn from them
            state.set_current(node)
            state.changed("branch", node, of=beside.id, images=own.names)
            return node, "generate"

        with state.working(begin) as (node, _):
            for stage in ("generate", "embed", "check"):
                compute(state, node, stage, NO_CALLBACKS)
            cluster_gallery(state, node, NO_CALLBACKS)
        return every

    def risk(self, images: Sequence[int]) -> str:
        """Say what is risky about learning from these images; empty when nothing is."""
        least = self._state.tree.current.settings.min_cluster_size
        if len(images) > least:
            return ""
        return (
            f"{len(images)} images, a cluster must hold more than {least} (d_min-c): learned from few images, "
            "a character takes over their background and pose. Allowed; look at the next gallery with care."
        )

    def exclude(self, images: Sequence[int], *, note: str = "") -> tuple[int, ...]:
        """Leave images of the current gallery out of what is learned; returns all that are left out now."""
        return self._edit(exclude, images, note).excluded

    def include(self, images: Sequence[int], *, note: str = "") -> tuple[int, ...]:
        """Put left-out images back; returns all that are left out now."""
        return self._edit(include, images, note).excluded

    def recluster(self, k: int | None = None) -> Clusters:
        """Cluster the current gallery again into k clusters (None: N // d_size-c); draws nothing."""
        return clustered(self._edit(recluster, k))

    def merge(self, a: int, b: int) -> Clusters:
        """Make one cluster of two; clusters are numbered anew, most cohesive first."""
        return clustered(self._edit(merge, a, b))

    def undo(self) -> Decision | None:
        """Take back the last choice, exclusion, merge or re-clustering at the current node.

        Returns
        -------
        Decision or None
            The decision that stands now.

        Raises
        ------
        RunError
            There is nothing to take back, or it has been refined (then choose otherwise: that begins a
            branch).
        """
        return self._move(-1, "undo")

    def redo(self) -> Decision | None:
        """Make again what was taken back last; returns the decision that stands now."""
        return self._move(1, "redo")

    def save(self, name: str, images: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Give images of the current gallery a name, kept in the run's log; no images take it away.

        Parameters
        ----------
        name : str
            1 to 80 characters; one that is there already is given anew.
        images : sequence of int
            Indices, or N truth values.

        Returns
        -------
        dict of str to tuple of int
            All named selections of the gallery; see `saved`.
        """
        with self._state.lock:
            self._state.check_writable()
            node = self._state.tree.current
            name = text("name", name).strip()
            if not 1 <= len(name) <= 80:
                raise ChoiceError(f"name: expected 1 to 80 characters, got {len(name)}. Give a short name.")
            kept = list(indices(images, len(node.seeds)))
            self._state.changed("selection", node, gallery=node.gallery_of, name=name, images=kept)
            return self.saved(node)

    def saved(self, node: Node | str | None = None) -> dict[str, tuple[int, ...]]:
        """Return the named selections of a node's gallery (None: the current one), by name."""
        node = self._state.tree.node(node)
        return saved_selections(self._state.folder, node.gallery_of, len(node.seeds))

    def _move(self, by: int, name: str) -> Decision | None:
        with self._editing() as node:
            if node.refined:
                raise RunError(
                    f"Node {node.id} has been refined, so its choice stands. Choose otherwise there: "
                    "that begins a sibling branch and keeps this one."
                )
            if not (node.edits.can_undo if by < 0 else node.edits.can_redo):
                raise RunError(f"There is nothing to {name} at node {node.id}.")
            node.edits.move(by)
            self._state.changed(name, node)
            return node.decision

    @contextmanager
    def _editing(self) -> Iterator[Node]:
        """Change the choice at the current node, unless it is being worked on."""
        state = self._state
        state.check_writable()
        # The lock is reentrant: listeners are called under it, and may read the run.
        with state.lock:
            node = state.tree.current
            state.check_idle(node)
            current_edit(node)
            yield node

    def _edit(self, propose: Callable[..., Change], *asked: Any) -> Node:
        """Make the change that ``propose`` finds of what is asked; returns the node that has it."""
        with self._editing() as node:
            change = propose(node, *asked)  # before anything is written: a refused action leaves no branch behind
            if node.refined:
                # A character was learned from this choice, so it stands: the other choice gets a node of its own.
                of, node = node, branch(self._state, node, None if change.action == "choose" else node.decision)
                self._state.log("branch", node, of=of.id)
            record(self._state, node, change)
            return node


@dataclass(frozen=True)
class Change:
    """The state of a node's choice after an action.

    Parameters
    ----------
    action : str
    excluded : tuple of int
        All images left out.
    decision : Decision or None
    clusters : Clusters or None
        New clusters; None keeps those there are.
    """

    action: str
    excluded: tuple[int, ...] = ()
    decision: Decision | None = None
    clusters: Clusters | None = None


def cluster_gallery(state: RunState, node: Node, callbacks: Callbacks, *, again: bool = False) -> None:
    """Cluster a node's gallery; `again` keeps what a person has chosen on clusters whose files were damaged."""
    from chosen_one_nb.steps.cluster import cluster

    begun = time.monotonic()
    segment_if_needed(state, node, "cluster", callbacks)
    clusters = cluster(embedded(node).clustered_on, node.settings, broken=node.broken)
    with state.lock:
        if again:
            node.edits.repair(clusters)
        else:
            apply(node, Change("cluster", clusters=clusters))
            node.commit("cluster", {}, time.monotonic() - begun)
        state.changed("stage", node, stage="cluster")


def sibling(state: RunState, node: Node, changes: Mapping[str, Any]) -> Node:
    """Add a node that shares another's gallery, with some settings changed, and make it the current one."""
    if not node.done("cluster"):
        raise RunError(f"Node {node.id} has no clusters yet, so there is nothing to branch from: run.step().")
    # The gallery that is shared was drawn with these.
    if bad := [name for name in changes if name in ("n_images", "seed")]:
        raise SettingsError(f"{', '.join(bad)}: cannot differ on a shared gallery. Start a new run for that.")
    new = state.tree.add(node.parent, node.settings.replace(**changes), node.seeds, like=node)
    state.set_current(new)
    return new


def branch(state: RunState, node: Node, decision: Decision | None = None) -> Node:
    """Add a sibling that stands where ``node`` stands, with another decision or none."""
    new = sibling(state, node, {})
    # The same gallery under the same settings: its check and its clusters are copied, not computed again.
    checked = store.read_json(node.folder / "check.json")
    new.commit("check", {"check.json": store.write_json(new.folder / "check.json", checked)}, 0)
    apply(new, Change("branch", node.excluded, decision, node.clusters))
    return new


def record(state: RunState, node: Node, change: Change) -> None:
    """Make a change the state of a node, log it and report it."""
    apply(node, change)
    clusters, decision = current_edit(node).clusters, store.plain(node.decision)
    state.changed(change.action, node, clusters=clusters, excluded=node.excluded, decision=decision)


def choose(
    node: Node,
    cluster: int | None = None,
    images: Sequence[int] | None = None,
    exclude: Sequence[int] = (),
    note: str = "",
    by: str | None = None,
) -> Change:
    """Choose a cluster, images, or (neither given) what the rule proposes; see `RunSelection.choose`."""
    if cluster is not None and images is not None:
        raise ChoiceError("Expected a cluster or images, got both. Give the one you mean.")
    clusters, by_rule = clustered(node), cluster is None and images is None
    if by_rule:
        if clusters.proposed is None:
            raise ChoiceError(
                f"The rule proposes nothing: {clusters.reason} Choose a cluster or images yourself, merge "
                "clusters, cluster again with a smaller k, or begin with more images."
            )
        cluster = clusters.proposed
    n = len(node.seeds)
    base = _members(clusters, cluster) if cluster is not None else indices(images, n)
    excluded = _merged(node.excluded, indices(exclude, n))
    _check_intact(node, base)
    by, note = text("by", by or ("rule" if by_rule else "person")), text("note", note)
    return Change("choose", excluded, _decision(base, excluded, cluster, clusters.proposed, by, note))


def exclude(node: Node, images: Sequence[int], note: str = "") -> Change:
    """Leave images out; a choice made before loses them."""
    excluded = _merged(node.excluded, indices(images, len(node.seeds)))
    return Change("exclude", excluded, _chosen_again(node.decision, excluded, text("note", note)))


def include(node: Node, images: Sequence[int], note: str = "") -> Change:
    """Put images back; a choice made before gets back those that were its own."""
    back = set(indices(images, len(node.seeds)))
    excluded = tuple(index for index in node.excluded if index not in back)
    return Change("include", excluded, _chosen_again(node.decision, excluded, text("note", note)))


def recluster(node: Node, k: int | None) -> Change:
    """Cluster the same features again into k clusters; a choice made before is open again."""
    from chosen_one_nb.steps.cluster import cluster

    k = k if k is None else whole("k", k, 1, len(node.intact), ChoiceError)
    clusters = cluster(embedded(node).clustered_on, node.settings, k=k, broken=node.broken)
    return Change("recluster", node.excluded, None, clusters)


def merge(node: Node, a: int, b: int) -> Change:
    """Make one cluster of two; a choice made before is open again."""
    from chosen_one_nb.steps.cluster import clusters_from_labels

    clusters = clustered(node)
    a, b = (whole("cluster", cluster, 0, clusters.k - 1, ChoiceError) for cluster in (a, b))
    for cluster in (a, b):
        _check_intact(node, _members(clusters, cluster))
    if a == b:
        raise ChoiceError(f"Expected two clusters to merge, got {a} twice.")
    # Renumbered without a gap, as the clustering expects it.
    labels = np.unique(np.where(clusters.labels == b, a, clusters.labels), return_inverse=True)[1]
    merged = clusters_from_labels(embedded(node).clustered_on, labels, node.settings, broken=node.broken)
    return Change("merge", node.excluded, None, merged)


def apply(node: Node, change: Change) -> None:
    """Make a change the state of a node, on disk."""
    if change.clusters is not None:
        stem, stamps = node.edits.write_clusters(change.clusters)
    else:
        stem, stamps = current_edit(node).clusters, current_edit(node).stamps
    node.edits.add(Edit(change.action, stem, stamps, change.excluded, change.decision, store.now()))


def _members(clusters: Clusters, cluster: int) -> tuple[int, ...]:
    cluster = whole("cluster", cluster, 0, clusters.k - 1, ChoiceError)
    return tuple(int(index) for index in clusters.members(cluster))


def _check_intact(node: Node, images: Sequence[int]) -> None:
    if broken := [index for index in images if index in node.broken]:
        raise ChoiceError(f"Images {broken} are broken (NaN or infinity), so nothing can be learned from them.")


def _merged(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({*a, *b}))


def _decision(
    base: Sequence[int], excluded: Sequence[int], cluster: int | None, proposed: int | None, by: str, note: str
) -> Decision:
    images = tuple(index for index in base if index not in excluded)
    if not images:
        why = "every image of it is left out" if base else "no image was given"
        raise ChoiceError(f"Nothing is chosen: {why}. Put images back (run.selection.include) or choose others.")
    left_out = tuple(index for index in base if index in excluded)
    # K-means counts in numpy's integers, which JSON does not know.
    cluster, proposed = (None if number is None else int(number) for number in (cluster, proposed))
    return Decision(images, cluster, proposed, by, note, left_out, store.now())


def _chosen_again(old: Decision | None, excluded: tuple[int, ...], note: str) -> Decision | None:
    """Return a decision on the same base with other images left out; itself where that changes nothing."""
    if old is None:
        return None
    new = _decision(_merged(old.images, old.excluded), excluded, old.cluster, old.proposed, "person", note or old.note)
    # The rule's decision stays the rule's where a person has left out only what it had not taken.
    return old if new.images == old.images else new


def saved_selections(folder: Path, gallery: str, n: int) -> dict[str, tuple[int, ...]]:
    """Read the named selections of a gallery of n images from a run's log; lines that are none are passed over."""
    found: dict[str, tuple[int, ...]] = {}
    for line in store.read_lines(folder / "log.jsonl"):
        if line.get("action") != "selection" or line.get("gallery") != gallery:
            continue
        with suppress(ValidationError):
            record = SELECTION.validate_python(line)
            found.pop(record["name"], None)
            if record["images"] and max(record["images"]) < n:
                found[record["name"]] = tuple(sorted(set(record["images"])))
    return found
