"""Step 3, cluster: features -> clusters, their cohesion, and the proposed choice (section 3.1).

C = K-MEANS++(S, k = N // d_size-c);  keep |c| > d_min-c;  choose argmin over c of cohesion(c)
cohesion(c) = 1 / |c| * sum over e in c of || e - c_cen ||^2
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.embed import in_space

__all__ = ["Clusters", "cluster", "clusters_from_labels", "random_group_cohesion", "selection_frequency", "silhouettes"]


@dataclass(frozen=True)
class Clusters:
    """K clusters of N images. Clusters are numbered by their first image: cluster 0 holds image 0.

    Attributes
    ----------
    labels : ndarray of shape (N,), int
    centroids : ndarray of shape (K, D)
        In the space of the settings.
    sizes : ndarray of shape (K,), int
    cohesion : ndarray of shape (K,)
        Mean (squared, by the settings) distance of the members to their centroid: small is cohesive.
    cohesion_corrected : ndarray of shape (K,)
        The same without the small clusters' advantage: the centroid is fitted to its n members, which
        shrinks the mean squared distance by (n - 1) / n, so it is multiplied by n / (n - 1) (by the root of
        it for plain distances). NaN for a single image.
    distances : ndarray of shape (N,)
        Of each image to its own centroid, not squared.
    medoids : ndarray of shape (K,), int
        Index of the image nearest to its centroid.
    kept : ndarray of shape (K,), bool
        Whether the cluster holds strictly more than d_min-c images.
    order : ndarray of shape (K,), int
        Clusters from most to least cohesive, the kept ones first.
    proposed : int or None
        The most cohesive kept cluster; None if none is kept.
    reason : str
        Why it was proposed, or why none was.
    """

    labels: np.ndarray
    centroids: np.ndarray
    sizes: np.ndarray
    cohesion: np.ndarray
    cohesion_corrected: np.ndarray
    distances: np.ndarray
    medoids: np.ndarray
    kept: np.ndarray
    order: np.ndarray
    proposed: int | None
    reason: str

    @property
    def k(self) -> int:
        """Number of clusters."""
        return len(self.sizes)

    def members(self, cluster: int) -> np.ndarray:
        """Return the indices of a cluster's images, ascending."""
        return np.flatnonzero(self.labels == cluster)


def cluster(
    features: np.ndarray, settings: Settings, *, k: int | None = None, broken: Collection[int] = ()
) -> Clusters:
    """Group images by K-means++ and propose the most cohesive group (section 3.1).

    Parameters
    ----------
    features : ndarray of shape (N, D)
        As `embed` gives them; brought to the space of the settings here.
    settings : Settings
        d_size-c, d_min-c, feature space, form of cohesion, restarts, seed.
    k : int, optional
        Number of clusters, at least 1; None is N // d_size-c, at least 1. Never more than distinct features.
    broken : collection of int
        Images that show nothing (`Gallery.broken`): they do not count in N, and make a cluster more, never kept.

    Returns
    -------
    Clusters

    Raises
    ------
    ValueError
        If the features are not a finite matrix, or k is not between 1 and N.

    Notes
    -----
    Images are put in a canonical order first, so that shuffling the gallery gives the same groups.
    Centroids of unit features are plain means, not brought to unit length again.

    Examples
    --------
    >>> features = np.array([[0.0], [0.2], [0.4], [9.0], [9.1], [9.2], [20.0]])
    >>> found = cluster(features, Settings(feature_space="raw", min_cluster_size=2), k=3)
    >>> found.labels, found.proposed
    (array([0, 0, 0, 1, 1, 1, 2]), 1)
    """
    points = in_space(features, settings)
    intact = np.setdiff1d(np.arange(len(points)), list(broken))
    k = max(1, len(intact) // settings.target_cluster_size) if k is None else k
    if not 1 <= k <= len(intact):
        raise ValueError(f"k: expected between 1 and the {len(intact)} images, got {k}.")
    labels = np.full(len(points), k)
    labels[intact] = _kmeans(points[intact], k, settings.kmeans_restarts, settings.seed)
    return _describe(points, labels, settings, broken=broken)


def clusters_from_labels(
    features: np.ndarray, labels: np.ndarray, settings: Settings, *, broken: Collection[int] = ()
) -> Clusters:
    """Describe groups made elsewhere, such as two clusters merged by hand.

    Parameters
    ----------
    features : ndarray of shape (N, D)
    labels : ndarray of shape (N,), int
        Any numbers; the result's clusters are numbered by their first image.
    settings : Settings
    broken : collection of int
        As of `cluster`; what holds one of them is never kept.

    Returns
    -------
    Clusters
    """
    points = in_space(features, settings)
    if np.shape(labels) != (len(points),):
        raise ValueError(f"labels: expected one for each of {len(points)} images, got shape {np.shape(labels)}.")
    return _describe(points, np.asarray(labels), settings, broken=broken)


def selection_frequency(
    features: np.ndarray,
    settings: Settings,
    *,
    clusters: Clusters | None = None,
    resamples: int = 50,
    share: float = 0.8,
    seed: int = 0,
    broken: Collection[int] = (),
) -> np.ndarray:
    """Estimate how often each cluster would be the proposal had only a share of the images been drawn.

    Parameters
    ----------
    features : ndarray of shape (N, D)
    settings : Settings
    clusters : Clusters, optional
        What to match the proposals with; None clusters the features.
    resamples : int
        How many random subsets.
    share : float in (0, 1]
        Size of a subset; d_min-c shrinks with it and k stays.
    seed : int
    broken : collection of int
        As of `cluster`: never drawn.

    Returns
    -------
    ndarray of shape (K,)
        Share of resamples whose proposal is mostly this cluster. What is missing to 1 are those in which no cluster
        was large enough.
    """
    points, rng = in_space(features, settings), np.random.default_rng(seed)
    clusters = clusters or cluster(features, settings, broken=broken)
    intact = np.setdiff1d(np.arange(len(points)), list(broken))
    n, k = len(intact), len(np.unique(clusters.labels[intact]))
    size = max(k, round(share * n))
    wins = np.zeros(clusters.k)
    for _ in range(resamples):
        chosen = np.sort(rng.choice(intact, size, replace=False))
        # Two restarts are enough: over many resamples a poor one averages out.
        labels = _kmeans(points[chosen], k, 2, int(rng.integers(2**31)))
        found = _describe(points[chosen], labels, settings, minimum=settings.min_cluster_size * size / n)
        if found.proposed is not None:
            # Matched by members, because the numbers of a resample's clusters mean nothing outside of it.
            matched = clusters.labels[chosen[found.members(found.proposed)]]
            wins[np.argmax(np.bincount(matched))] += 1
    return wins / resamples


def random_group_cohesion(
    features: np.ndarray, size: int, settings: Settings, *, draws: int = 500, seed: int = 0
) -> np.ndarray:
    """Return the cohesion of random groups of a size: what a cluster must beat to mean anything.

    Parameters
    ----------
    features : ndarray of shape (N, D)
    size : int
        Images in a group, at most N.
    settings : Settings
    draws : int
    seed : int

    Returns
    -------
    ndarray of shape (draws,)
        In the form of `Clusters.cohesion`.
    """
    points, rng = in_space(features, settings), np.random.default_rng(seed)
    groups = (points[rng.choice(len(points), size, replace=False)] for _ in range(draws))
    return np.array([_cohesion(np.linalg.norm(group - group.mean(0), axis=1), settings) for group in groups])


def silhouettes(features: np.ndarray, labels: np.ndarray, settings: Settings) -> np.ndarray:
    """Return how much nearer each image is to its own cluster than to the next: (N,) in [-1, 1].

    Negative values are candidates to leave out. NaN everywhere if there is only one cluster, or one per
    image.
    """
    points, labels = in_space(features, settings), np.asarray(labels)
    if not 2 <= len(np.unique(labels)) < len(points):
        return np.full(len(points), np.nan)
    from sklearn.metrics import silhouette_samples  # late: what was clustered is read without scikit-learn

    return silhouette_samples(points, labels)


def _kmeans(points: np.ndarray, k: int, restarts: int, seed: int) -> np.ndarray:
    """K-means++ in a canonical order of the points: (N, D) -> labels (N,)."""
    from sklearn.cluster import KMeans  # late, as in silhouettes

    # Why sorted: k-means++ draws its first centroids by number, so a shuffled gallery would give other groups.
    order = np.lexsort(points.T[::-1])
    # Why fewer: equal points cannot be parted, and scikit-learn would warn of empty clusters.
    k = min(k, len(np.unique(points, axis=0)))
    labels = np.empty(len(points), dtype=int)
    labels[order] = KMeans(k, init="k-means++", n_init=restarts, random_state=seed % 2**32).fit_predict(points[order])
    return labels


def _describe(
    points: np.ndarray,
    labels: np.ndarray,
    settings: Settings,
    *,
    minimum: float | None = None,
    broken: Collection[int] = (),
) -> Clusters:
    """Measure groups of points already in their space."""
    minimum = settings.min_cluster_size if minimum is None else minimum
    labels = _by_first_image(labels)
    sizes = np.bincount(labels)
    centroids = np.stack([points[labels == c].mean(0) for c in range(len(sizes))])  # (K, D)
    distances = np.linalg.norm(points - centroids[labels], axis=1)  # (N,)
    members = [np.flatnonzero(labels == c) for c in range(len(sizes))]
    cohesion = np.array([_cohesion(distances[m], settings) for m in members])
    # Why: broken images are all black, so theirs would be the most cohesive cluster of all.
    black = np.unique(labels[np.array(sorted(broken), dtype=int)])
    kept = (sizes > minimum) & ~np.isin(np.arange(len(sizes)), black)
    # The last key counts first: kept clusters before others, then by cohesion, by size, and by first image.
    order = np.lexsort((np.arange(len(sizes)), -sizes, cohesion, ~kept))
    proposed = int(order[0]) if kept[order[0]] else None
    return Clusters(
        labels,
        centroids,
        sizes,
        cohesion,
        _corrected(cohesion, sizes, settings),
        distances,
        np.array([m[np.argmin(distances[m])] for m in members]),
        kept,
        order,
        proposed,
        _reason(proposed, sizes, cohesion, kept, minimum, black),
    )


def _by_first_image(labels: np.ndarray) -> np.ndarray:
    """Renumber groups in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse.ravel()]


def _cohesion(distances: np.ndarray, settings: Settings) -> float:
    """Mean distance, or mean squared distance, of members to their centroid."""
    return float(np.mean(distances**2 if settings.cohesion == "squared" else distances))


def _corrected(cohesion: np.ndarray, sizes: np.ndarray, settings: Settings) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(sizes > 1, sizes / (sizes - 1), np.nan)
    return cohesion * (factor if settings.cohesion == "squared" else np.sqrt(factor))


def _reason(
    proposed: int | None, sizes: np.ndarray, cohesion: np.ndarray, kept: np.ndarray, minimum: float, black: np.ndarray
) -> str:
    left_out = f" Cluster {', '.join(map(str, black))} is of broken images, never learned from." if len(black) else ""
    if proposed is None:
        return (
            f"No cluster holds more than {minimum:g} images; the largest holds {np.delete(sizes, black).max()}. Choose "
            f"fewer clusters, lower min_cluster_size, or choose images by hand.{left_out}"
        )
    return (
        f"Cluster {proposed} is the most cohesive ({cohesion[proposed]:.3g}) of {kept.sum()} with "
        f"more than {minimum:g} images; it holds {sizes[proposed]}.{left_out}"
    )
