"""The few statistics that looking at a gallery needs, for many columns and many groups of images at once.

Among them section 4.2's two automatic measures: *prompt similarity*, the cosine of CLIP's image and text vectors, and
*identity consistency*, the mean pairwise cosine of image vectors. The paper takes CLIP's for both, so that the score is
not computed by the feature extractor that was optimised; with features of that extractor it is "in the loop".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from chosen_one_nb.steps.embed import unit

__all__ = [
    "Interval", "Members", "auroc", "balanced", "bootstrap", "group_mask", "identity_consistency", "interval", "mean",
    "pair_mean", "random_groups", "resampled", "standardised", "two_kinds", "varying",
]  # fmt: skip

Members = Sequence[int] | np.ndarray
"""A group of images: their numbers, or a mask over all."""

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes values (N, ...) and how often each image was drawn (R, N); returns one result per resample, (R, ...)."""


@dataclass(frozen=True)
class Interval:
    """A score of n images and its bootstrap interval, whose ends are NaN where there are too few of them."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def group_mask(members: Members, n: int) -> np.ndarray:
    """Turn image numbers, or a mask, into a mask, bool (n,).

    Raises
    ------
    ValueError
        If an image is named that is not there, or a mask has another length.
    """
    chosen = np.asarray(members)
    if chosen.dtype == bool:
        if chosen.shape != (n,):
            raise ValueError(f"expected a mask of {n} images, got shape {chosen.shape}.")
        return chosen
    chosen = chosen.astype(int).ravel()
    if chosen.size and (chosen.min() < 0 or chosen.max() >= n):
        raise ValueError(f"expected images 0 to {n - 1}, got {chosen.min()} to {chosen.max()}.")
    return np.isin(np.arange(n), chosen)


def random_groups(n: int, size: int, count: int, seed: int = 0) -> np.ndarray:
    """Draw `count` random groups of `size` out of `n`: bool (count, n), `size` True in each row."""
    order = np.random.default_rng(seed).random((count, n)).argsort(axis=1)
    return order < size


def varying(values: np.ndarray) -> np.ndarray:
    """Tell which columns of values (N, A) vary by more than single precision makes of identical images, bool (A,).

    False where all values lie within a ten-thousandth of the largest.
    """
    return np.ptp(values, axis=0) > 1e-4 * np.abs(values).max(axis=0)


def _centred(values: np.ndarray) -> np.ndarray:
    """Columns less their means; a column that does not vary becomes exactly 0."""
    return np.where(varying(values), values - values.mean(axis=0), 0.0)


def standardised(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Say how far each group's sum of each column lies from what random groups of its size would have.

    Mean and variance are those of all groups of that size (sampling without replacement), so ties need no
    correction: they are in the variance. A constant column gives 0.

    Parameters
    ----------
    values : ndarray of shape (N, A)
    groups : ndarray of bool, shape (B, N)

    Returns
    -------
    ndarray of shape (B, A)
        In standard deviations.
    """
    n = len(values)
    size = groups.sum(axis=1)[:, None]  # (B, 1)
    centred = _centred(values)
    variance = size * (n - size) / (n * max(n - 1, 1)) * (centred**2).sum(axis=0)  # (B, A)
    sums = groups.astype(float) @ centred
    return np.divide(sums, np.sqrt(variance), out=np.zeros_like(sums), where=variance > 0)


def balanced(z: np.ndarray, values: np.ndarray, size: int) -> np.ndarray:
    """Bring standardised sums of skewed columns to one scale, so that their maximum is a fair comparison.

    A column that few images have makes large sums by chance more often than an even one. The skewness of the
    sum of a random group is known exactly; the cube-root transform of Wilson and Hilferty (1931) for a
    Pearson III distribution with that skewness makes it normal. It is monotone: within a column nothing
    changes its order.

    Parameters
    ----------
    z : ndarray of shape (B, A)
        From `standardised`.
    values : ndarray of shape (N, A)
        What it was made of.
    size : int
        Of the groups.

    Returns
    -------
    ndarray of shape (B, A)
    """
    skew = _skewness_of_sums(values, size)
    skew = np.where(np.abs(skew) < 1e-4, 1e-4, skew)
    root = np.cbrt(np.maximum(skew / 2 * z + 1, 0))
    return 6 / skew * (root - 1) + skew / 6


def _skewness_of_sums(values: np.ndarray, size: int) -> np.ndarray:
    """Skewness of the sum of `size` values drawn without replacement, (A,)."""
    n = len(values)
    if n < 3 or not 0 < size < n:
        return np.zeros(values.shape[1])
    centred = _centred(values)
    spread = np.sqrt((centred**2).mean(axis=0))
    third = (centred**3).mean(axis=0)
    skew = np.divide(third, spread**3, out=np.zeros_like(third), where=spread > 0)
    return skew * (n - 2 * size) / (n - 2) * np.sqrt((n - 1) / (size * (n - size)))


def auroc(values: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Chance that a member has a higher value than an image outside; ties count half.

    Parameters
    ----------
    values : ndarray of shape (N, A)
    members : ndarray of bool, shape (N,)
        At least one True and one False.

    Returns
    -------
    ndarray of shape (A,)
        In [0, 1]; 0.5 is no difference.
    """
    from scipy.stats import mannwhitneyu  # late: maps need no ranks, and this import alone takes most of a second

    inside, outside = values[members], values[~members]
    pairs = len(inside) * len(outside)
    return mannwhitneyu(inside, outside, axis=0, method="asymptotic").statistic / pairs


def mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of the values (N, ...) in each resample; a `Statistic`."""
    return counts @ values / counts.sum(axis=1, keepdims=values.ndim > 1)


def resampled(values: np.ndarray, statistic: Statistic = mean, *, repeats: int = 1000, seed: int = 0) -> np.ndarray:
    """Bootstrap: compute a statistic of images drawn with replacement, again and again.

    As counts of images, not copies of their values: a matrix product instead of `scipy.stats.bootstrap`'s copies,
    which for 64 images and 830 attributes take four times as long and half a gigabyte, and know no pairs of images.

    Parameters
    ----------
    values : ndarray of shape (N, ...)
        An entry per image.
    statistic : callable
    repeats, seed : int

    Returns
    -------
    ndarray of shape (repeats, ...)
    """
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=repeats)
    return statistic(values, counts.astype(float))


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds, each (...), between which the middle `level` of samples (repeats, ...) lies; NaN left out."""
    low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


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


def two_kinds(values: np.ndarray, rounds: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Split each column into a low and a high kind: two normal distributions of one width, fitted by EM.

    Parameters
    ----------
    values : ndarray of shape (N, A)
    rounds : int
        Of EM; it starts from the quantiles 0.4 and 0.93 of each column, since most things are rare.

    Returns
    -------
    high : ndarray of shape (N, A)
        Chance that the value is of the high kind, in [0, 1]; 0 in a constant column.
    gap : ndarray of shape (A,)
        Distance of the two means in standard deviations; up to 2 the mixture has a single hump.
    """
    centred = _centred(values)
    spread = centred.std(axis=0)
    scaled = np.divide(centred, spread, out=np.zeros(values.shape), where=spread > 0)
    low, high = np.quantile(scaled, [0.4, 0.93], axis=0)
    variance, share = np.full(len(spread), 0.5), np.full(len(spread), 0.15)
    for _ in range(rounds):
        logit = np.log(share / (1 - share)) + ((scaled - low) ** 2 - (scaled - high) ** 2) / (2 * variance)
        chance = 1 / (1 + np.exp(-np.clip(logit, -30, 30)))  # (N, A)
        low, high = _weighted_mean(scaled, 1 - chance), _weighted_mean(scaled, chance)
        within = (chance * (scaled - high) ** 2 + (1 - chance) * (scaled - low) ** 2).mean(axis=0)
        variance = np.maximum(within, 1e-4)
        share = (chance.sum(axis=0) + 1) / (len(values) + 2)
    flat = np.ptp(scaled, axis=0) == 0
    return np.where(flat, 0.0, chance), np.where(flat, 0.0, (high - low) / np.sqrt(variance))


def _weighted_mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return (weights * values).sum(axis=0) / np.maximum(weights.sum(axis=0), 1e-9)
