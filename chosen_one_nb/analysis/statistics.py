"""The few statistics that looking at a gallery needs, for many columns and many groups of images at once; and those
that compare methods over characters.

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
    "Interval", "Members", "PairTests", "auroc", "balanced", "bootstrap", "friedman", "group_mask",
    "identity_consistency", "interval", "krippendorff_alpha", "max_t", "mean", "pair_mean", "random_groups",
    "resampled", "standardised", "two_kinds", "two_way", "varying",
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


# --- methods compared over characters


@dataclass(frozen=True)
class PairTests:
    """Every two of K methods, compared over n characters.

    Attributes
    ----------
    difference : ndarray of shape (K, K)
        Mean of the row's scores less the column's, over characters.
    p : ndarray of shape (K, K)
        Chance of a difference as plain anywhere among the pairs if methods made none, in [0, 1]: corrected for the
        number of pairs. NaN on the diagonal, and everywhere where there are fewer than two characters.
    n : int
        Characters that have a score of every method.
    """

    difference: np.ndarray
    p: np.ndarray
    n: int


def max_t(scores: np.ndarray, *, repeats: int = 10_000, seed: int = 0) -> PairTests:
    """Test every pair of methods by permutation, the character being the unit (max-T of Westfall and Young, 1993).

    If two methods draw a character equally well, its difference could as well have had the other sign. All differences
    of a character change sign together, so that what pairs have in common is kept, and the largest |t| among the
    pairs is what each pair's own |t| is compared with. Ratings or images of one character are no independent
    observations: pass their mean.

    Parameters
    ----------
    scores : ndarray of shape (N, K)
        One score per character and method; a character without a score of every method (NaN) is left out.
    repeats : int
        Random signs where there are more than 13 characters; up to 13, all signs are tried (4,096).
    seed : int
        Of the random signs.

    Examples
    --------
    >>> scores = np.array([[5.0, 1.0], [4.0, 2.0], [5.0, 2.0], [4.0, 1.0], [5.0, 3.0], [4.0, 1.0]])
    >>> float(max_t(scores).p[0, 1])  # all six the same way round: 2 of 64 signs are as extreme
    0.03125
    """
    scores = _complete(scores)
    n, k = scores.shape
    difference, p = np.full((k, k), np.nan), np.full((k, k), np.nan)
    if n < 2:
        return PairTests(difference, p, n)
    first, second = np.triu_indices(k, 1)
    values = scores[:, first] - scores[:, second]  # (N, pairs)
    # |sum| / sqrt(n * sum of squares) grows with |t|, and is defined where all differences are one number.
    size = np.sqrt(n * (values**2).sum(axis=0))
    sums = np.abs(_signs(n, repeats, seed) @ values)  # (signs, pairs)
    extreme = np.divide(sums, size, out=np.zeros_like(sums), where=size > 0)
    found, largest = extreme[0], extreme.max(axis=1)  # the first row of signs is the observation
    p[first, second] = p[second, first] = (largest[:, None] >= found - 1e-9).mean(axis=0)
    mean_of = scores.mean(axis=0)
    return PairTests(mean_of[:, None] - mean_of, p, n)


def _complete(scores: np.ndarray) -> np.ndarray:
    """Rows without a gap; ValueError where there are no two columns."""
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or scores.shape[1] < 2:
        raise ValueError(f"Expected scores (characters, methods) of at least two methods, got shape {scores.shape}.")
    return scores[np.isfinite(scores).all(axis=1)]


def _signs(n: int, repeats: int, seed: int) -> np.ndarray:
    """Rows of n signs, the first all +1; up to 13 all that differ by more than a common sign, else random ones."""
    if n <= 13:
        numbers = np.arange(2 ** (n - 1))
        return 1 - 2.0 * (numbers[:, None] >> np.arange(n) & 1)
    signs = np.random.default_rng(seed).integers(0, 2, size=(repeats, n)) * 2.0 - 1
    return np.vstack([np.ones(n), signs])


def friedman(scores: np.ndarray) -> tuple[float, float]:
    """Friedman's test whether any of at least three methods differs, the character being the unit.

    Parameters
    ----------
    scores : ndarray of shape (N, K)
        As for `max_t`.

    Returns
    -------
    statistic, p : float
        NaN where there are fewer than three methods or two characters, or all scores of each character are equal.
    """
    from scipy.stats import friedmanchisquare  # late, as in `auroc`

    scores = _complete(scores)
    if min(scores.shape[1] - 1, len(scores)) < 2 or not np.ptp(scores, axis=1).any():
        return np.nan, np.nan
    result = friedmanchisquare(*scores.T)
    return float(result.statistic), float(result.pvalue)


def two_way(ratings: np.ndarray, *, repeats: int = 2000, seed: int = 0) -> np.ndarray:
    """Bootstrap the mean rating of each method over characters *and* raters, since other ones might have been asked.

    Parameters
    ----------
    ratings : ndarray of shape (N, R, K)
        Of each character by each rater for each method; NaN where a rater did not rate it.
    repeats, seed : int

    Returns
    -------
    ndarray of shape (repeats, K)
        For `interval`; NaN in a resample that holds no rating of a method.
    """
    n, r, _ = ratings.shape
    rng = np.random.default_rng(seed)
    characters = rng.multinomial(n, np.full(n, 1 / n), size=repeats).astype(float)
    raters = rng.multinomial(r, np.full(r, 1 / r), size=repeats).astype(float)
    there = np.isfinite(ratings)
    parts = np.where(there, ratings, 0.0), there.astype(float)
    total, count = (np.einsum("bn,br,nrk->bk", characters, raters, part, optimize=True) for part in parts)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Krippendorff's alpha for ordinal ratings: agreement of raters, 1 in full, 0 as by chance, below 0 worse.

    Parameters
    ----------
    ratings : ndarray of shape (raters, items)
        NaN where an item was not rated; items with one rating say nothing and are left out.

    Returns
    -------
    float
        NaN where no item has two ratings, or all ratings are equal.
    """
    levels, coded = np.unique(ratings[np.isfinite(ratings)], return_inverse=True)
    counts = np.zeros((ratings.shape[1], len(levels)))  # how often each item got each level
    np.add.at(counts, (np.nonzero(np.isfinite(ratings))[1], coded), 1)
    counts = counts[counts.sum(axis=1) > 1]
    per_item = counts.sum(axis=1, keepdims=True)
    pairs = (counts / (per_item - 1)).T @ counts - np.diag((counts / (per_item - 1)).sum(axis=0))
    totals = pairs.sum(axis=0)
    # Ordinal: how far apart two levels are is how many ratings lie between them, each level itself by half.
    middle = np.cumsum(totals) - totals / 2
    distance = (middle[:, None] - middle) ** 2
    expected = totals @ distance @ totals / max(totals.sum() - 1, 1)
    return float(1 - (pairs * distance).sum() / expected) if expected > 0 else np.nan
