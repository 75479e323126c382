"""Galleries in two dimensions, comparable from iteration to iteration, and how far to trust the picture.

For looking only: clusters and cohesion are made of the features themselves, whose distances a projection does not
keep. UMAP by McInnes et al. (arXiv 1802.03426); PCA is the deterministic, instant alternative and the yardstick.
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.statistics import varying

__all__ = ["Projection", "project", "quality_table", "sensitivity"]

Method = Literal["umap", "pca"]

KNOWN_WARNINGS = (
    "n_jobs value .* overridden",
    "n_neighbors is larger than the dataset size",
    "Tensorflow not installed",
)
SMALLEST = 5  # points that UMAP projects; fewer go to PCA
QUALITY = ["k", "trustworthiness", "continuity", "pca_trustworthiness", "pca_continuity"]


@dataclass(frozen=True)
class Projection:
    """Where the images of one or several galleries lie.

    Attributes
    ----------
    positions : ndarray of shape (n, 2)
    method : "umap" or "pca"
        As made: "pca" also where UMAP was wanted and there are too few images.
    owners : tuple, length n
        (gallery, index) of each point.
    quality : DataFrame
        See `quality_table`; empty below four points.
    seed, n_neighbors : int
        Of UMAP.
    note : str
        What to know about it, as a sentence; "" if nothing.
    """

    positions: np.ndarray
    method: Method
    owners: tuple[tuple[Hashable, int], ...]
    quality: pd.DataFrame
    seed: int = 0
    n_neighbors: int = 15
    note: str = ""

    def of(self, gallery: Hashable) -> np.ndarray:
        """Return the positions of one gallery, by index, (N, 2)."""
        rows = [at for at, (owner, _) in enumerate(self.owners) if owner == gallery]
        return self.positions[rows]


def project(
    galleries: Mapping[Any, np.ndarray],
    *,
    method: Method = "umap",
    n_neighbors: int = 15,
    seed: int = 0,
    previous: Projection | None = None,
    quality: bool = True,
) -> Projection:
    """Project several galleries at once, so that positions and distances can be compared between them.

    UMAP starts from the previous projection (and then moves gently), or from PCA where there is none. The result is
    turned, mirrored, shifted and, as the scale of UMAP means nothing, scaled (Procrustes) onto the points that both
    have, so that old points stay about where they were.

    Parameters
    ----------
    galleries : mapping of name to ndarray of shape (N_i, D)
        Features as the clustering sees them.
    method : "umap" or "pca"
    n_neighbors : int
        At most n - 1 is used.
    seed : int
        Same features, same seed: same positions, on the same machine.
    previous : Projection, optional
        Of some of the same images.
    quality : bool
        Whether to compute the quality table.

    Returns
    -------
    Projection
        With fewer than five images, or identical ones, by PCA, and its note says so.

    Raises
    ------
    ValueError
        If there is no image, widths differ, a number is not finite, or the method is unknown.
    """
    if method not in ("umap", "pca"):
        raise ValueError(f"expected method 'umap' or 'pca', got {method!r}.")
    features = _joined(galleries)
    owners = tuple((name, at) for name, gallery in galleries.items() for at in range(len(gallery)))
    made, note = _possible(features, method)
    positions = pca = _pca(features)
    if made == "umap":
        start = _spread_out(_start(features, owners, pca, previous), seed)
        positions = _umap(features, start, min(n_neighbors, len(features) - 1), seed, gently=previous is not None)
    positions = _onto(positions, owners, previous, scaling=made == "umap")
    table = quality_table(features, positions, pca) if quality else pd.DataFrame(columns=QUALITY)
    return Projection(positions, made, owners, table, seed, n_neighbors, note)


def _joined(galleries: Mapping[Any, np.ndarray]) -> np.ndarray:
    """Stack galleries (n, D) and check them."""
    arrays = [np.asarray(gallery, dtype=np.float64) for gallery in galleries.values()]
    shapes = [array.shape for array in arrays]
    if not arrays or any(array.ndim != 2 for array in arrays) or len({shape[1] for shape in shapes}) != 1:
        raise ValueError(f"expected galleries of shape (N, D), all of one width; got {shapes}.")
    features = np.concatenate(arrays)
    if not len(features) or not np.isfinite(features).all():
        raise ValueError(
            "expected at least one image and finite features, got "
            + ("none." if not len(features) else "NaN or infinity. Embed the gallery again.")
        )
    return features


def _possible(features: np.ndarray, method: Method) -> tuple[Method, str]:
    """The method that can be used, and a note if it is not the wanted one."""
    if not varying(features).any():
        return "pca", "All images have the same features: one point." if len(features) > 1 else ""
    if method == "umap" and len(features) < SMALLEST:
        return "pca", f"{len(features)} images are too few for UMAP; this is PCA."
    return method, ""


def _pca(features: np.ndarray) -> np.ndarray:
    """First two principal components (n, 2), 0 for those there are not; each one's largest value is positive."""
    from sklearn.decomposition import PCA

    varied = np.where(varying(features), features, features[0])  # rounding is no component
    count = min(2, *features.shape)
    positions = np.zeros((len(features), 2))
    if (varied != varied[0]).any():
        positions[:, :count] = PCA(count, svd_solver="full").fit_transform(varied)
    largest = np.abs(positions).argmax(axis=0)
    return positions * np.where(positions[largest, [0, 1]] < 0, -1.0, 1.0)


def _shared(owners: Sequence[Any], previous: Projection | None) -> tuple[list[int], list[int]]:
    """Rows, here and in the previous projection, of the points that both have."""
    before = {owner: at for at, owner in enumerate(previous.owners)} if previous else {}
    rows = [at for at, owner in enumerate(owners) if owner in before]
    return rows, [before[owners[at]] for at in rows]


def _start(features: np.ndarray, owners: Sequence[Any], pca: np.ndarray, previous: Projection | None) -> np.ndarray:
    """Where UMAP starts, (n, 2): old points where they were, new ones amid their three nearest old points."""
    here, before = _shared(owners, previous)
    if len(here) < 3 or previous is None:
        return pca / max(np.abs(pca).max(), 1e-12) * 10
    from sklearn.neighbors import NearestNeighbors

    places = previous.positions[before]
    nearest = NearestNeighbors(n_neighbors=3).fit(features[here]).kneighbors(features, return_distance=False)
    start = places[nearest].mean(axis=1)
    start[here] = places
    return start


def _spread_out(start: np.ndarray, seed: int) -> np.ndarray:
    """Give an axis on which all points are one something to start from: UMAP would divide by its width."""
    flat = np.ptp(start, axis=0) < 1e-6
    return np.where(flat, np.random.default_rng(seed).standard_normal(start.shape), start)


def _umap(features: np.ndarray, start: np.ndarray, n_neighbors: int, seed: int, gently: bool) -> np.ndarray:
    pace = {"learning_rate": 0.1, "n_epochs": 200} if gently else {}
    for text in KNOWN_WARNINGS:  # for good: `catch_warnings` in one thread undoes the filters that another one sets
        warnings.filterwarnings("ignore", message=text)
    from threadpoolctl import threadpool_limits
    from umap import UMAP  # late: the import alone takes seconds

    # At its first use numba tells OpenMP, which torch goes by as well, to take all cores from then on; leaving
    # the block puts back what a person had set. A seeded UMAP works in one thread anyway.
    with threadpool_limits(1, user_api="openmp"):
        positions = UMAP(
            n_neighbors=max(2, n_neighbors), init=start.astype(np.float32), random_state=seed, n_jobs=1, **pace
        ).fit_transform(features.astype(np.float32))
    return np.asarray(positions, dtype=float)


def _onto(positions: np.ndarray, owners: Sequence[Any], previous: Projection | None, scaling: bool) -> np.ndarray:
    """Turn, mirror, shift and, if asked, scale positions so that shared points lie nearest to where they were."""
    here, before = _shared(owners, previous)
    if len(here) < 2 or previous is None:
        return positions
    from scipy.linalg import orthogonal_procrustes

    points, targets = positions[here], previous.positions[before]
    middle, goal = points.mean(axis=0), targets.mean(axis=0)
    turn, strength = orthogonal_procrustes(points - middle, targets - goal)
    size = ((points - middle) ** 2).sum()
    scale = strength / size if scaling and size > 0 and strength > 0 else 1.0
    return scale * (positions - middle) @ turn + goal


def quality_table(
    features: np.ndarray, positions: np.ndarray, pca: np.ndarray | None = None, *, ks: tuple[int, ...] = (5, 15)
) -> pd.DataFrame:
    """Compare neighbourhoods of the projection with those among the features (Venna and Kaski 2001).

    Parameters
    ----------
    features : ndarray of shape (n, D)
    positions : ndarray of shape (n, 2)
    pca : ndarray of shape (n, 2), optional
        The yardstick.
    ks : tuple of int
        Sizes of the neighbourhood; those of n / 2 and more are left out, or cut down to one that fits.

    Returns
    -------
    DataFrame
        A row per k, each number in [0, 1], 1 is best: `trustworthiness` falls if strangers have become
        neighbours, `continuity` falls if neighbours have been torn apart; `pca_…` are the same for PCA. Empty
        below four points or where all features are the same.
    """
    n = len(features)
    if n < 4 or not varying(features).any():
        return pd.DataFrame(columns=QUALITY)
    from sklearn.manifold import trustworthiness

    rows = []
    for k in sorted({min(k, (n - 1) // 2) for k in ks}):
        row: list[float] = [k]
        for places in (positions, pca):
            both = () if places is None else ((features, places), (places, features))
            row += [trustworthiness(*pair, n_neighbors=k) for pair in both] or [np.nan] * 2
        rows.append(row)
    return pd.DataFrame(rows, columns=QUALITY)


def sensitivity(
    features: np.ndarray, *, seeds: Sequence[int] = (0, 1, 2), n_neighbors: Sequence[int] = (5, 15, 50)
) -> list[Projection]:
    """Project again with other seeds and neighbourhoods: what stays is in the data, what changes is not.

    Parameters
    ----------
    features : ndarray of shape (n, D)
    seeds, n_neighbors : sequence of int

    Returns
    -------
    list of Projection
        A row per number of neighbours, a column per seed, row by row; all turned onto the first one.
    """
    made = [
        project({"": features}, n_neighbors=count, seed=seed, quality=False) for count in n_neighbors for seed in seeds
    ]
    return [replace(one, positions=_onto(one.positions, one.owners, made[0], scaling=True)) for one in made]
