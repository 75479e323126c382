"""What speaks for and against each cluster: uncertainty, stability, silhouette, luck; as numbers and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from chosen_one_nb.plots import or_dash

from .cluster_style import marker_of

if TYPE_CHECKING:
    from chosen_one_nb.settings import Settings
    from chosen_one_nb.steps.cluster import Clusters

RESAMPLES = 50
SURE = 0.6
"""Below this share of resamples the proposal is called uncertain (shared figure of the kit's cards and tests)."""
LUCK = 0.05
"""A cluster is no better than luck when at least this share of random groups of its size is as cohesive."""


@dataclass(frozen=True)
class Evidence:
    """What is known of K clusters beyond their cohesion.

    Parameters
    ----------
    picked : ndarray of shape (K,)
        Share of resamples in which the rule picks the cluster, in [0, 1].
    silhouette : ndarray of shape (K,)
        Mean silhouette of the members, in [-1, 1].
    luck : ndarray of shape (K,)
        Share of random groups of the same size that are at least as cohesive, in [0, 1].
    """

    picked: NDArray[np.floating]
    silhouette: NDArray[np.floating]
    luck: NDArray[np.floating]


def evidence(features: NDArray[np.floating], clusters: Clusters, settings: Settings) -> Evidence:
    """Resample, compare and draw lots: takes a second or so for 128 images.

    Parameters
    ----------
    features : ndarray of shape (N, D)
    clusters : Clusters
        Of those features.
    settings : Settings
    """
    from chosen_one_nb.steps import cluster as steps

    frequency = steps.selection_frequency(features, settings, clusters=clusters, resamples=RESAMPLES)
    return Evidence(
        frequency,
        _silhouettes(features, clusters, settings),
        _luck(features, clusters, settings),
    )


def _silhouettes(features: NDArray[np.floating], clusters: Clusters, settings: Settings) -> NDArray[np.floating]:
    from chosen_one_nb.steps import cluster as steps

    each = steps.silhouettes(features, clusters.labels, settings)
    return np.array([each[clusters.labels == c].mean() for c in range(len(clusters.sizes))])


def _luck(features: NDArray[np.floating], clusters: Clusters, settings: Settings) -> NDArray[np.floating]:
    from chosen_one_nb.steps import cluster as steps

    by_size = {int(size): steps.random_group_cohesion(features, int(size), settings) for size in set(clusters.sizes)}
    pairs = zip(clusters.sizes, clusters.cohesion, strict=True)
    return np.array([float((by_size[int(size)] <= cohesion).mean()) for size, cohesion in pairs])


def half_width(clusters: Clusters, cluster: int, squared: bool, draws: int = 400) -> float:
    """Half of the 95 % bootstrap interval of a cluster's cohesion, drawing its members with replacement."""
    values = clusters.distances[clusters.labels == cluster] ** (2 if squared else 1)
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (draws, len(values)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(high - low) / 2


def ranked_members(clusters: Clusters, cluster: int) -> list[int]:
    """Members of a cluster, nearest to its centroid first."""
    members = np.flatnonzero(clusters.labels == cluster)
    return [int(i) for i in members[np.argsort(clusters.distances[members], kind="stable")]]


def doubt(clusters: Clusters, found: Evidence | None, settings: Settings, cluster: int) -> str:
    """Say why a proposed cluster should not be trusted blindly; empty when nothing speaks against it."""
    said = []
    if found is not None and found.luck[cluster] >= LUCK:
        said.append(
            f"it is no tighter than random groups of {clusters.sizes[cluster]} images "
            f"({found.luck[cluster]:.0%} of them are as tight)"
        )
    if found is not None and found.picked[cluster] < SURE:
        said.append(f"resampling picks it in only {found.picked[cluster]:.0%} of the draws")
    rest = [int(c) for c in clusters.order if clusters.kept[c] and c != cluster]
    if rest:
        margin = clusters.cohesion[rest[0]] - clusters.cohesion[cluster]
        if margin < half_width(clusters, cluster, settings.cohesion == "squared"):
            said.append(f"its lead over cluster {rest[0]} is within its uncertainty")
    return f"Doubtful: {'; '.join(said)}." if said else ""


def cards(
    clusters: Clusters,
    settings: Settings,
    found: Evidence | None = None,
    *,
    chosen: int | None = None,
) -> list[dict[str, Any]]:
    """Describe the clusters for the cards: those kept first, most cohesive first, then the dropped ones.

    Parameters
    ----------
    clusters : Clusters
    settings : Settings
        Of the iteration.
    found : Evidence, optional
        None while it is being computed: the figures then read "…".
    chosen : int, optional
        The cluster that was chosen.
    """
    order = sorted((int(c) for c in clusters.order), key=lambda c: not clusters.kept[c])
    return [_card(clusters, settings, found, c, chosen) for c in order]


def _card(clusters: Clusters, settings: Settings, found: Evidence | None, c: int, chosen: int | None) -> dict[str, Any]:
    sign, members = marker_of(clusters, c), ranked_members(clusters, c)
    medoid, kept, proposed = int(clusters.medoids[c]), bool(clusters.kept[c]), clusters.proposed == c
    others = [i for i in members if i != medoid]
    odd = others[-2:][::-1] if len(others) > 3 else []
    return {
        "cluster": c,
        "title": f"Cluster {c}",
        "sign": sign.glyph,
        "colour": sign.colour,
        "size": len(members),
        "kept": kept,
        "proposed": proposed,
        "chosen": chosen == c,
        "medoid": medoid,
        "typical": [i for i in others if i not in odd][:4],
        "odd": odd,
        "facts": _facts(clusters, settings, found, c),
        "reason": clusters.reason if proposed else "",
        "warning": doubt(clusters, found, settings, c) if proposed else "",
        "dropped_tip": f"Not more than d_min-c = {settings.min_cluster_size} images: not for the rule, but for you",
    }


def _facts(clusters: Clusters, settings: Settings, found: Evidence | None, c: int) -> Sequence[tuple[str, str, str]]:
    squared = settings.cohesion == "squared"
    waiting = found is None
    return [
        (
            "cohesion",
            f"{clusters.cohesion[c]:.3f} ± {half_width(clusters, c, squared):.3f}",
            "Mean squared distance of the members to their centroid, smaller is tighter; ± half of the 95 % bootstrap "
            "interval over members"
            if squared
            else "Mean distance of the members to their centroid, smaller is tighter",
        ),
        (
            "corrected",
            or_dash(clusters.cohesion_corrected[c], ".3f"),
            "Cohesion times n/(n−1): the centroid is fitted to its own members, which flatters small clusters",
        ),
        (
            "picked",
            "…" if waiting else f"{found.picked[c]:.0%}",
            f"How often the rule picks this cluster when {RESAMPLES} random subsets of the gallery are clustered anew",
        ),
        (
            "silhouette",
            "…" if waiting else or_dash(found.silhouette[c], ".2f"),
            "How much nearer the members are to their own cluster than to the next, −1 to 1",
        ),
        (
            "luck",
            "…" if waiting else f"{found.luck[c]:.0%}",
            "Share of random groups of the same size that are at least as tight",
        ),
    ]
