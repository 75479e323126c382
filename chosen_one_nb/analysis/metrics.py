"""How well a gallery fits its prompt and how much it shows one identity, with intervals over images.

Section 4.2's two automatic measures: *prompt similarity*, the cosine of CLIP's image and text vectors,
and *identity consistency*, the mean pairwise cosine of image vectors. The paper takes CLIP's for both, so
that the score is not computed by the feature extractor that was optimised; with features of that
extractor the score is "in the loop".

Pairs that share an image are not independent. Intervals therefore resample images, not pairs, and a pair
of an image with its own copy is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Statistic = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Takes values (N, ...) and how often each image was drawn (R, N); returns one number per resample, (R,)."""


@dataclass(frozen=True)
class Interval:
    """A score and its bootstrap interval.

    Parameters
    ----------
    value : float
        The score of the images themselves.
    low, high : float
        Ends of the percentile interval; NaN where there are too few images.
    n : int
        How many images.
    level : float
        Of the interval, 0.95 unless asked otherwise.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., D) at unit length; a zero vector stays zero.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1.0)


def prompt_similarity(images: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Cosine of each image vector with the prompt's (section 4.2).

    Parameters
    ----------
    images : (N, D)
        CLIP vectors of the images, of any length.
    text : (D,)
        CLIP vector of the prompt.

    Returns
    -------
    (N,) float64, in [-1, 1]

    Examples
    --------
    >>> prompt_similarity(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([1.0, 0.0])).tolist()
    [1.0, 0.0]
    """
    images, text = np.asarray(images), np.asarray(text)
    if images.ndim != 2 or text.shape != images.shape[1:]:
        raise ValueError(f"Expected image vectors (N, D) and a text vector (D,), got {images.shape}, {text.shape}.")
    return unit(images) @ unit(text)


def cosines(vectors: np.ndarray) -> np.ndarray:
    """Cosine of every two of N vectors (N, D); returns (N, N)."""
    directions = unit(vectors)
    return directions @ directions.T


def agreement(labels: np.ndarray) -> np.ndarray:
    """Tell of every two images whether their labels agree, averaged over attributes.

    Parameters
    ----------
    labels : (N,) or (N, A)
        One label per image, or per image and attribute.

    Returns
    -------
    (N, N) float64, in [0, 1]

    Examples
    --------
    >>> agreement(np.array(["red", "red", "blue"])).tolist()
    [[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    labels = np.asarray(labels)
    labels = labels.reshape(len(labels), -1)
    return np.stack([column[:, None] == column[None, :] for column in labels.T]).mean(axis=0)


def mean(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of the values (N,) in each resample; a `Statistic`."""
    return counts @ values / counts.sum(axis=1)


def pair_mean(similarity: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over pairs of different images of a similarity (N, N) in each resample; a `Statistic`.

    NaN where a resample holds one image only.
    """
    between = similarity - np.diag(np.diag(similarity))
    total = np.einsum("ri,ri->r", counts @ between, counts)
    pairs = counts.sum(axis=1) ** 2 - (counts**2).sum(axis=1)
    return np.divide(total, pairs, out=np.full(len(counts), np.nan), where=pairs > 0)


def bootstrap(
    values: np.ndarray, statistic: Statistic = mean, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Score images and tell how far the score would move with other images of the same kind.

    Parameters
    ----------
    values : (N, ...)
        One entry per image, or a similarity of every two, (N, N), with `pair_mean`.
    statistic : callable
        `mean`, `pair_mean`, or another `Statistic`.
    n : int
        Resamples of N images with replacement.
    seed : int
        Same seed, same interval.
    level : float
        Share of resamples within the interval, in (0, 1).

    Returns
    -------
    Interval
        With NaN ends for fewer than two images.

    Raises
    ------
    ValueError
        There are no images, or n or level is out of range.

    Examples
    --------
    >>> bootstrap(np.array([1.0, 1.0, 1.0]))
    Interval(value=1.0, low=1.0, high=1.0, n=3, level=0.95)
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 0 or len(values) == 0:
        raise ValueError(f"Expected the values of at least one image, got shape {values.shape}.")
    if n < 1 or not 0 < level < 1:
        raise ValueError(f"Expected n of 1 or more and level in (0, 1), got n={n}, level={level}.")
    size = len(values)
    value = float(statistic(values, np.ones((1, size)))[0])
    if size < 2:
        return Interval(value, np.nan, np.nan, size, level)
    counts = np.random.default_rng(seed).multinomial(size, np.full(size, 1 / size), size=n).astype(np.float64)
    tails = [50 * (1 - level), 50 * (1 + level)]
    low, high = np.nanpercentile(statistic(values, counts), tails)
    return Interval(value, float(low), float(high), size, level)


def identity_consistency(vectors: np.ndarray, *, n: int = 1000, seed: int = 0, level: float = 0.95) -> Interval:
    """Mean pairwise cosine of image vectors (N, D) (section 4.2), with its interval over images.

    Parameters
    ----------
    vectors : (N, D)
        CLIP vectors (the paper's), or features of the extractor (then "in the loop").
    n, seed, level
        See `bootstrap`.

    Returns
    -------
    Interval
        Value in [-1, 1]; NaN for a single image.

    Examples
    --------
    >>> same = np.tile([1.0, 2.0], (4, 1))
    >>> round(identity_consistency(same).value, 6)
    1.0
    """
    vectors = np.asarray(vectors)
    if vectors.ndim != 2:
        raise ValueError(f"Expected image vectors (N, D), got shape {vectors.shape}.")
    return bootstrap(cosines(vectors), pair_mean, n=n, seed=seed, level=level)
