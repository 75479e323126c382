"""What speaks for and against each cluster, as numbers and sentences: stability, silhouette, chance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from chosen_one_nb.analysis.statistics import bootstrap_means, interval

if TYPE_CHECKING:
    from chosen_one_nb.settings import Settings
    from chosen_one_nb.steps.cluster import Clusters

RESAMPLES = 50
SURE = 0.6
"""Below this selection frequency the proposal is called uncertain (shared figure of the kit's cards and tests)."""
CHANCE = 0.05
"""A cluster is no better than chance when at least this share of random groups of its size is as cohesive."""


@dataclass(frozen=True)
class ClusterEvidence:
    """What is known of K clusters beyond their cohesion.

    Parameters
    ----------
    selected : ndarray of shape (K,)
        Selection frequency: share of resamples in which the rule proposes the cluster, in [0, 1].
    silhouette : ndarray of shape (K,)
        Mean silhouette of the members, in [-1, 1].
    chance : ndarray of shape (K,)
        Share of random groups of the same size that are at least as cohesive (p of the null), in [0, 1].
    """

    selected: NDArray[np.floating]
    silhouette: NDArray[np.floating]
    chance: NDArray[np.floating]


def compute_evidence(features: NDArray[np.floating], clusters: Clusters, settings: Settings) -> ClusterEvidence:
    """Resample, compare and draw lots: takes a second or so for 128 images.

    Parameters
    ----------
    features : ndarray of shape (N, D)
    clusters : Clusters
        Of those features.
    settings : Settings
    """
    from chosen_one_nb.steps.cluster import random_group_cohesion, selection_frequency, silhouettes

    each = silhouettes(features, clusters.labels, settings)
    null = {int(size): random_group_cohesion(features, int(size), settings) for size in set(clusters.sizes)}
    pairs = zip(clusters.sizes, clusters.cohesion, strict=True)
    return ClusterEvidence(
        selection_frequency(features, settings, clusters=clusters, resamples=RESAMPLES),
        np.array([each[clusters.labels == c].mean() for c in range(len(clusters.sizes))]),
        np.array([float((null[int(size)] <= cohesion).mean()) for size, cohesion in pairs]),
    )


def half_width(clusters: Clusters, cluster: int, settings: Settings) -> float:
    """Half of the 95 % bootstrap interval of a cluster's cohesion, drawing its members with replacement."""
    distances = clusters.distances[clusters.labels == cluster]
    values = distances**2 if settings.cohesion == "squared" else distances
    low, high = interval(bootstrap_means(values[:, None], 400))
    return float(high[0] - low[0]) / 2


def ranked_clusters(clusters: Clusters) -> list[int]:
    """Clusters that were kept, most cohesive first, then the dropped ones."""
    return sorted((int(c) for c in clusters.order), key=lambda c: not clusters.kept[c])


def ranked_members(clusters: Clusters, cluster: int) -> list[int]:
    """Members of a cluster, nearest to its centroid first."""
    members = clusters.members(cluster)
    return members[np.argsort(clusters.distances[members], kind="stable")].tolist()


def doubt(clusters: Clusters, found: ClusterEvidence | None, settings: Settings, cluster: int) -> str:
    """Say why a proposed cluster should not be trusted blindly; empty when nothing speaks against it."""
    said = []
    if found is not None and found.chance[cluster] >= CHANCE:
        said.append(
            f"it is no tighter than random groups of {clusters.sizes[cluster]} images "
            f"({found.chance[cluster]:.0%} of them are as tight)"
        )
    if found is not None and found.selected[cluster] < SURE:
        said.append(f"resampling picks it in only {found.selected[cluster]:.0%} of the draws")
    rest = [c for c in ranked_clusters(clusters) if clusters.kept[c] and c != cluster]
    if rest and clusters.cohesion[rest[0]] - clusters.cohesion[cluster] < half_width(clusters, cluster, settings):
        said.append(f"its lead over cluster {rest[0]} is within its uncertainty")
    return f"Doubtful: {'; '.join(said)}." if said else ""
