"""How well a gallery fits its prompt and how much it shows one identity, with intervals over images.

Section 4.2's two automatic measures: *prompt similarity*, the cosine of CLIP's image and text vectors, and *identity
consistency*, the mean pairwise cosine of image vectors. The paper takes CLIP's for both, so that the score is not
computed by the feature extractor that was optimised; with features of that extractor it is "in the loop".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chosen_one_nb.analysis.statistics import Statistic, interval, mean, resampled, unit

__all__ = ["Interval", "bootstrap", "identity_consistency", "pair_mean"]


@dataclass(frozen=True)
class Interval:
    """A score of n images and its bootstrap interval, whose ends are NaN where there are too few of them."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pair_mean(similarity: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over pairs of different images of a similarity (N, N) in each resample; a `Statistic`.

    Pairs that share an image are not independent: images are drawn, not pairs, and a pair of an image with its own
    copy is left out. NaN where a resample holds one image only.
    """
    between = similarity - np.diag(np.diag(similarity))
    total = np.einsum("ri,ri->r", counts @ between, counts)
    pairs = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    return np.divide(total, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def bootstrap(values: np.ndarray, statistic: Statistic = mean, *, repeats: int = 1000, seed: int = 0) -> Interval:
    """Score images and tell how far the score would move with other images of the same kind (95 %).

    Parameters
    ----------
    values : ndarray of shape (N,) or (N, N)
        One entry per image, or a similarity of every two with `pair_mean`.
    statistic : callable
        `mean`, `pair_mean`, or another `Statistic`.
    repeats, seed : int
        Same seed, same interval.

    Raises
    ------
    ValueError
        There are no images, or no repeats.

    Examples
    --------
    >>> bootstrap(np.array([1.0, 1.0, 1.0]))
    Interval(value=1.0, low=1.0, high=1.0, n=3)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"Expected the values of at least one image, got shape {values.shape}.")
    if repeats < 1:
        raise ValueError(f"Expected repeats of 1 or more, got {repeats}.")
    n = len(values)
    value = float(statistic(values, np.ones((1, n)))[0])
    if n < 2:
        return Interval(value, np.nan, np.nan, n)
    low, high = interval(resampled(values, statistic, repeats=repeats, seed=seed))
    return Interval(value, float(low), float(high), n)


def identity_consistency(vectors: np.ndarray, *, repeats: int = 1000, seed: int = 0) -> Interval:
    """Mean pairwise cosine of image vectors (N, D) (section 4.2), in [-1, 1], with its interval over images.

    Parameters
    ----------
    vectors : ndarray of shape (N, D)
        CLIP vectors (the paper's), or features of the extractor (then "in the loop"). NaN for a single image.
    repeats, seed
        See `bootstrap`.

    Examples
    --------
    >>> same = np.tile([1.0, 2.0], (4, 1))
    >>> round(identity_consistency(same).value, 6)
    1.0
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2:
        raise ValueError(f"Expected image vectors (N, D), got shape {vectors.shape}.")
    directions = unit(vectors)
    return bootstrap(directions @ directions.T, pair_mean, repeats=repeats, seed=seed)
