"""What a person can do to a node's clusters and choice: each action turns the present state into a change.

Nothing here writes: `propose` functions check what is asked and return a `Change`; `apply` then makes it
the state of a node (the same one, or a new branch). So a refused action leaves no trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chosen_one_nb.run import store
from chosen_one_nb.run.decision import ChoiceError, Decision, Edit
from chosen_one_nb.run.node import Node

if TYPE_CHECKING:
    from chosen_one_nb.steps.cluster import Clusters


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


def choose(
    node: Node,
    cluster: int | None,
    images: Sequence[int] | None,
    exclude: Sequence[int],
    note: str,
    by: str | None,
) -> Change:
    """Choose a cluster, images, or (neither given) what the rule proposes; see `Run.choose`."""
    if cluster is not None and images is not None:
        raise ChoiceError("Expected a cluster or images, got both. Give the one you mean.")
    clusters, by_rule = node.clusters, cluster is None and images is None
    if by_rule:
        cluster = _proposed(clusters)
    base = _members(clusters, cluster) if cluster is not None else _indices(node, images)
    excluded = _merged(node.excluded, _indices(node, exclude))
    by = by or ("rule" if by_rule else "person")
    return Change("choose", excluded, _decision(base, excluded, cluster, clusters.proposed, by, note))


def exclude(node: Node, images: Sequence[int], note: str = "") -> Change:
    """Leave images out; a choice made before loses them."""
    excluded = _merged(node.excluded, _indices(node, images))
    return Change("exclude", excluded, _chosen_again(node.decision, excluded, note))


def include(node: Node, images: Sequence[int], note: str = "") -> Change:
    """Put images back; a choice made before gets back those that were its own."""
    back = set(_indices(node, images))
    excluded = tuple(index for index in node.excluded if index not in back)
    return Change("include", excluded, _chosen_again(node.decision, excluded, note))


def recluster(node: Node, k: int | None) -> Change:
    """Cluster the same features again into k clusters; a choice made before is open again."""
    from chosen_one_nb.steps.cluster import cluster

    if k is not None and not 1 <= k <= len(node.features):
        raise ChoiceError(f"Expected k from 1 to N = {len(node.features)} clusters, got {k}.")
    return Change("recluster", node.excluded, None, cluster(node.clustered_on, node.settings, k=k))


def merge(node: Node, a: int, b: int) -> Change:
    """Make one cluster of two; a choice made before is open again."""
    from chosen_one_nb.steps.cluster import clusters_from_labels

    for cluster in (a, b):
        _members(node.clusters, cluster)
    if a == b:
        raise ChoiceError(f"Expected two clusters to merge, got {a} twice.")
    labels = np.where(node.clusters.labels == b, a, node.clusters.labels)
    labels = np.unique(labels, return_inverse=True)[1]
    return Change("merge", node.excluded, None, clusters_from_labels(node.clustered_on, labels, node.settings))


def apply(node: Node, change: Change) -> None:
    """Make a change the state of a node, on disk."""
    if change.clusters is not None:
        stem, stamps = node.write_clusters(change.clusters)
    else:
        stem, stamps = node.edit.clusters, node.edit.stamps
    node.add_edit(Edit(change.action, stem, stamps, change.excluded, change.decision, store.now()))


def _proposed(clusters: Clusters) -> int:
    if clusters.proposed is None:
        raise ChoiceError(
            f"The rule proposes nothing: {clusters.reason} Choose a cluster or images yourself, merge "
            "clusters, cluster again with a smaller k, or begin with more images."
        )
    return int(clusters.proposed)


def _members(clusters: Clusters, cluster: int) -> tuple[int, ...]:
    if isinstance(cluster, bool) or not 0 <= int(cluster) < len(clusters.sizes):
        raise ChoiceError(f"Expected a cluster from 0 to {len(clusters.sizes) - 1}, got {cluster!r}.")
    return tuple(int(index) for index in np.flatnonzero(clusters.labels == int(cluster)))


def _indices(node: Node, images: Sequence[int]) -> tuple[int, ...]:
    """Check image indices and return them ascending, each once."""
    n = len(node.seeds)
    try:
        indices = sorted({int(index) for index in images})
    except (TypeError, ValueError):
        raise ChoiceError(f"Expected image indices, got {images!r}.") from None
    if bad := [index for index in indices if not 0 <= index < n]:
        raise ChoiceError(f"Expected image indices from 0 to {n - 1}, got {bad}.")
    return tuple(indices)


def _merged(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted({*a, *b}))


def _decision(
    base: Sequence[int],
    excluded: Sequence[int],
    cluster: int | None,
    proposed: int | None,
    by: str,
    note: str,
) -> Decision:
    images = tuple(index for index in base if index not in set(excluded))
    left_out = tuple(index for index in base if index in set(excluded))
    if not images:
        why = "every image of it is left out" if base else "no image was given"
        raise ChoiceError(f"Nothing is chosen: {why}. Put images back (run.include) or choose others.")
    cluster = None if cluster is None else int(cluster)
    proposed = None if proposed is None else int(proposed)
    return Decision(images, cluster, proposed, by, note, left_out, store.now())


def _chosen_again(old: Decision | None, excluded: tuple[int, ...], note: str) -> Decision | None:
    """Return a decision on the same base with other images left out; itself where that changes nothing."""
    if old is None:
        return None
    new = _decision(_merged(old.images, old.excluded), excluded, old.cluster, old.proposed, "person", note or old.note)
    return old if new.images == old.images else new
