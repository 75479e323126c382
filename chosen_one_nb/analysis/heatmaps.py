"""Where in the images: patches that say a phrase or make a group cohesive, and parts that recur."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chosen_one_nb.analysis.segmentation import NO_PATCHES, NotAvailable, Segmentation
from chosen_one_nb.analysis.statistics import Members, group_mask
from chosen_one_nb.steps.embed import unit

__all__ = ["Parts", "cohesion_heat", "cosegment", "phrase_heat", "scaled"]

MOST_OTHERS = 24  # images that a group's patches are compared with
MOST_PARTS = 6


def phrase_heat(
    patches: np.ndarray | None, texts: np.ndarray, columns: Sequence[int], group: Sequence[int], grid: tuple[int, int]
) -> np.ndarray | NotAvailable:
    """Tell which patches say an attribute.

    Parameters
    ----------
    patches : ndarray of shape (N, P, D), or None
        CLIP's patch tokens in the space of its texts (through its last norm and visual projection).
    texts : ndarray of shape (T, D)
        The vocabulary's.
    columns : sequence of int
        Texts that say it: `Attribute.columns`.
    group : sequence of int
        Texts of the whole group, whose mean is taken off.
    grid : (int, int)
        h, w with h * w = P.

    Returns
    -------
    ndarray of shape (N, h, w), or NotAvailable
        Cosine less the group's mean cosine; `scaled` makes it an image.
    """
    if patches is None:
        return NO_PATCHES
    words = unit(np.asarray(texts, np.float32))
    direction = words[list(columns)].mean(axis=0) - words[list(group)].mean(axis=0)  # (D,)
    return (unit(np.asarray(patches, np.float32)) @ direction).reshape(-1, *grid)


def cohesion_heat(
    patches: np.ndarray | None, members: Members, grid: tuple[int, int], *, seed: int = 0
) -> np.ndarray | NotAvailable:
    """Tell which patches make a group cohesive: those that the other members have as well and outsiders have not.

    For each patch, the best match in each other image (after Amir et al., arXiv 2112.05814): its mean over
    the members less its mean over images outside, of each at most 24.

    Parameters
    ----------
    patches : ndarray of shape (N, P, D), or None
        The feature extractor's.
    members : sequence of int, or ndarray of bool, shape (N,)
        n images.
    grid : (int, int)
    seed : int
        Which images stand for more than 24.

    Returns
    -------
    ndarray of shape (n, h, w), or NotAvailable
        In the members' ascending order; higher is more shared.
    """
    if patches is None:
        return NO_PATCHES
    mask = group_mask(members, len(patches))
    if mask.sum() < 2:
        return NotAvailable(f"A group of {mask.sum()} images shares nothing with itself; take two or more.")
    tokens = unit(np.asarray(patches, np.float32))
    rng = np.random.default_rng(seed)
    inside, outside = (_some(np.flatnonzero(side), rng) for side in (mask, ~mask))
    heat = [
        _best_matches(tokens[at], tokens[inside[inside != at]]) - _best_matches(tokens[at], tokens[outside])
        for at in np.flatnonzero(mask)
    ]
    return np.stack(heat).reshape(-1, *grid)


def _some(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return images if len(images) <= MOST_OTHERS else rng.choice(images, MOST_OTHERS, replace=False)


def _best_matches(patches: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean over other images (M, P, D) of the best cosine that each patch (P, D) has there, (P,)."""
    if not len(others):
        return np.zeros(len(patches), np.float32)
    cosines = others.reshape(-1, others.shape[-1]) @ patches.T  # (M * P, P)
    return cosines.reshape(*others.shape[:2], -1).max(axis=1).mean(axis=0)


def scaled(heat: np.ndarray) -> np.ndarray:
    """Bring heat maps of any shape to [0, 1] for showing: their 5 % and 95 % quantiles become 0 and 1.

    One scale for all images, so that they can be compared; all 0 where nothing varies.
    """
    low, high = np.quantile(heat, [0.05, 0.95]) if heat.size else (0.0, 0.0)
    return np.clip((heat - low) / (high - low), 0, 1) if high > low else np.zeros_like(heat)


@dataclass(frozen=True)
class Parts:
    """Parts of the foregrounds that recur from image to image.

    Attributes
    ----------
    labels : ndarray of int, shape (n, h, w)
        Part of each patch, largest part first; -1 is scene. Same number, same part, in all images.
    missing : tuple of tuple of int, length n
        Parts that at least half of the others have and this image has not.
    """

    labels: np.ndarray
    missing: tuple[tuple[int, ...], ...]


def cosegment(
    patches: np.ndarray | None,
    found: Segmentation | NotAvailable,
    members: Members,
    *,
    parts: int | None = None,
    seed: int = 0,
) -> Parts | NotAvailable:
    """Cut the foregrounds of a group into common parts: k-means on their patches (after Amir et al., 2112.05814).

    Parameters
    ----------
    patches : ndarray of shape (N, P, D), or None
    found : Segmentation or NotAvailable
        Of the same images; the latter is handed on.
    members : sequence of int, or ndarray of bool, shape (N,)
        n images.
    parts : int, optional
        How many; None takes 2 to 6 by the elbow of the k-means error.
    seed : int
    """
    if isinstance(found, NotAvailable):
        return found
    if patches is None:
        return NO_PATCHES
    mask = group_mask(members, len(patches))
    if not mask.any():
        return NotAvailable("There is no image in this group to cut into parts.")
    masks = found.masks[mask]  # (n, h, w)
    tokens = unit(np.asarray(patches, np.float32)[mask])[masks.reshape(len(masks), -1)]  # (F, D)
    distinct = len(np.unique(tokens, axis=0))
    counts = [min(parts, distinct)] if parts else range(1, min(MOST_PARTS, distinct) + 1)
    fits = [_kmeans(tokens, count, seed) for count in counts]
    chosen = fits[_elbow([error for _, error in fits])][0]
    largest_first = np.argsort(np.argsort(-np.bincount(chosen), kind="stable"))
    labels = np.full(masks.shape, -1)
    labels[masks] = largest_first[chosen]
    return Parts(labels, _missing(labels))


def _kmeans(tokens: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    from sklearn.cluster import KMeans

    fit = KMeans(count, n_init=3, random_state=seed).fit(tokens)
    return fit.labels_, float(fit.inertia_)


def _elbow(errors: list[float]) -> int:
    """Where the error, drawn against the number of parts, is farthest below the line between its ends."""
    if len(errors) < 3:
        return len(errors) - 1
    line = np.linspace(errors[0], errors[-1], len(errors))
    return max(1, int(np.argmax(line - np.asarray(errors))))


def _missing(labels: np.ndarray) -> tuple[tuple[int, ...], ...]:
    parts = range(labels.max() + 1)
    has = np.stack([(labels == part).any(axis=(1, 2)) for part in parts], axis=1)  # (n, parts)
    common = has.mean(axis=0) >= 0.5
    return tuple(tuple(np.flatnonzero(common & ~row).tolist()) for row in has)
