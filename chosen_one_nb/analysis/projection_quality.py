"""How far a map can be trusted: neighbours kept and lost, and which points say nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.statistics import varying

__all__ = ["unreliable", "reliability", "nearest_neighbours", "quality_table"]

COLUMNS = ["k", "trustworthiness", "continuity", "pca_trustworthiness", "pca_continuity"]


def quality_table(
    features: np.ndarray, positions: np.ndarray, pca: np.ndarray | None = None, *, ks: tuple[int, ...] = (5, 15)
) -> pd.DataFrame:
    """Compare neighbourhoods on the map with those among the features (Venna and Kaski 2001).

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
        A row per k, each figure in [0, 1], 1 is best: `trustworthiness` falls if strangers have become
        neighbours, `continuity` falls if neighbours have been torn apart; `pca_…` are the same for PCA. Empty
        below four points or where all features are the same.
    """
    n = len(features)
    if n < 4 or not varying(features).any():
        return pd.DataFrame(columns=COLUMNS)
    from sklearn.manifold import trustworthiness

    fitting = sorted({min(k, (n - 1) // 2) for k in ks})
    rows = []
    for k in fitting:
        row = [k]
        for places in (positions, pca):
            both = () if places is None else ((features, places), (places, features))
            row += [trustworthiness(*pair, n_neighbors=k) for pair in both] or [np.nan] * 2
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def nearest_neighbours(features: np.ndarray, k: int = 5) -> np.ndarray:
    """Find the nearest images among the features, whatever a map says.

    Parameters
    ----------
    features : ndarray of shape (n, D)
    k : int

    Returns
    -------
    ndarray of int, shape (n, min(k, n - 1))
        Nearest first, never the image itself; equals by index.
    """
    distances = _distances(np.asarray(features, dtype=float))
    np.fill_diagonal(distances, np.inf)
    return distances.argsort(axis=1, kind="stable")[:, : max(0, min(k, len(features) - 1))]


def _distances(points: np.ndarray) -> np.ndarray:
    """Euclidean distances (n, n)."""
    from scipy.spatial.distance import cdist

    return cdist(points, points)


def reliability(features: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Say for each point how well its distances on the map follow those among the features, after scDEED.

    Simplified from Xia, Lee and Li (Nature Communications 2024): Pearson correlation between a point's
    distances, on the map and among the features, to the half of all points that lies nearest to it on the
    map.

    Parameters
    ----------
    features : ndarray of shape (n, D)
    positions : ndarray of shape (n, 2)

    Returns
    -------
    ndarray of shape (n,)
        In [-1, 1]; NaN below six points, and where nothing varies.
    """
    if len(features) < 6:
        return np.full(len(features), np.nan)
    return _followed(_distances(np.asarray(features, float)), _distances(np.asarray(positions, float)))


def _followed(far: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Row-wise correlation of two distance matrices over the half nearest by the second, (n,)."""
    half = max(3, len(near) // 2)
    order = near.argsort(axis=1, kind="stable")[:, 1 : half + 1]  # without the point itself
    a, b = (np.take_along_axis(side, order, axis=1) for side in (far, near))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), size, out=np.full(len(a), np.nan), where=size > 1e-12)


def unreliable(features: np.ndarray, positions: np.ndarray, *, shuffles: int = 20, seed: int = 0) -> np.ndarray:
    """Mark the points whose place on the map says no more than a random place would: fade them.

    Parameters
    ----------
    features : ndarray of shape (n, D)
    positions : ndarray of shape (n, 2)
    shuffles : int
        How often places are dealt out at random.
    seed : int

    Returns
    -------
    ndarray of bool, shape (n,)
        True where `reliability` is not above 95 % of what shuffled places reach. All False below six points.
    """
    scores = reliability(features, positions)
    if np.isnan(scores).all():
        return np.zeros(len(scores), bool)
    far, near = _distances(np.asarray(features, float)), _distances(np.asarray(positions, float))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(near)) for _ in range(shuffles)]
    chance = np.concatenate([_followed(far, near[np.ix_(order, order)]) for order in orders])
    return ~(scores > np.nanquantile(chance, 0.95))
