"""Where an attribute, or what holds a group together, shows: on foreground or scene, and on which patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from chosen_one_nb.analysis.segmentation import NO_PATCHES, NotAvailable, Segmentation
from chosen_one_nb.analysis.statistics import Members, group_mask, random_groups, varying
from chosen_one_nb.analysis.vocabulary import AttributeScores
from chosen_one_nb.steps.embed import unit

__all__ = [
    "HeldBy", "Parts", "cohesion_heat", "cosegment", "held_by", "on_foreground", "phrase_heat", "scaled", "shown_by",
]  # fmt: skip

LEVEL = 0.05  # share of random groups that may be called held together, by foreground or scene
FEWEST = 8  # images, to tell what predicts an attribute
RIDGE = 0.1  # of the components' mean variance
MOST_OTHERS = 24  # images that a group's patches are compared with
MOST_PARTS = 6


@dataclass(frozen=True)
class HeldBy:
    """How tightly foreground and scene of a group lie, against random groups of the same size.

    Attributes
    ----------
    foreground_z, scene_z : float
        How many standard deviations tighter than random groups; 0 where nothing varies.
    foreground_p, scene_p : float
        Share of random groups that are as tight.
    answer : "foreground", "scene" or "neither"
        "scene" if the scenes lie at least as tightly as the foregrounds, and tighter than chance; for random groups
        "neither" in 95 of 100 cases.
    """

    foreground_z: float
    scene_z: float
    foreground_p: float
    scene_p: float
    answer: Literal["foreground", "scene", "neither"]

    @property
    def sentence(self) -> str:
        """The answer with its numbers."""
        numbers = f"foreground {self.foreground_z:+.1f}, scene {self.scene_z:+.1f} standard deviations"
        said = {
            "scene": "This group is held together by its scene at least as much as by its foreground",
            "foreground": "This group is held together by its foreground more than by its scene",
            "neither": "Neither foregrounds nor scenes of this group are more alike than by chance",
        }[self.answer]
        return f"{said} (against random groups: {numbers})."


def held_by(
    found: Segmentation | NotAvailable, members: Members, *, groups: int = 500, seed: int = 0
) -> HeldBy | NotAvailable:
    """Tell whether a group is held together by its foreground or by its scene.

    Surest after `Segmentation.with_features`: mean patch tokens of a foreground also know the scene behind it, and a
    shared scene then makes foregrounds look alike.

    Parameters
    ----------
    found : Segmentation or NotAvailable
        The latter is handed on.
    members : sequence of int, or ndarray of bool, shape (N,)
        The group. One of a single image, or of all, has nothing to be compared with: not available.
    groups : int
        Random groups of the same size.
    seed : int
    """
    if isinstance(found, NotAvailable):
        return found
    n = len(found.foreground)
    mask = group_mask(members, n)
    if not 1 < mask.sum() < n:
        return NotAvailable(f"A group of {mask.sum()} of {n} images cannot be compared with random groups.")
    chance = random_groups(n, int(mask.sum()), groups, seed)
    foreground, foreground_p = _tightness(found.foreground, mask, chance)
    scene, scene_p = _tightness(found.scene, mask, chance)
    answer: Literal["foreground", "scene", "neither"] = "scene" if scene >= foreground else "foreground"
    if 2 * min(foreground_p, scene_p) > LEVEL:  # two chances
        answer = "neither"
    return HeldBy(foreground, scene, foreground_p, scene_p, answer)


def _tightness(features: np.ndarray, mask: np.ndarray, chance: np.ndarray) -> tuple[float, float]:
    """How many standard deviations the group is tighter than random groups, and the share of these as tight.

    By the angle seen from the gallery's mean: what all images have in common is no reason to hold together.
    """
    centred = features.astype(float) - features.mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    directions = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-4)
    spreads = _spread(directions, np.concatenate([mask[None], chance]))
    sd = spreads[1:].std()
    p = (1 + (spreads[1:] <= spreads[0]).sum()) / len(spreads)
    return (float((spreads[1:].mean() - spreads[0]) / sd), float(p)) if sd > 1e-9 else (0.0, 1.0)


def _spread(features: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Mean squared distance to the centroid of each group, (B,)."""
    weights = groups / groups.sum(axis=1, keepdims=True)
    return weights @ (features**2).sum(axis=1) - ((weights @ features) ** 2).sum(axis=1)


def shown_by(whole: AttributeScores, foreground: AttributeScores, scene: AttributeScores) -> np.ndarray:
    """Ask, for each attribute, whether CLIP sees it rather in the foreground alone or in the scene alone.

    Parameters
    ----------
    whole, foreground, scene : AttributeScores
        Of N images, and of their foregrounds and scenes from `segmentation.cut_out`. Score all 3 N images at once,
        and take `AttributeScores.rows` of the result, so that one measure holds.

    Returns
    -------
    ndarray of shape (A,)
        Over the images that have it: mean score in the foreground less that in the scene, in [-1, 1]; positive
        means on the foreground. NaN where no image has it, or images were not told apart.
    """
    difference = np.where(whole.has_it, foreground.values - scene.values, 0.0)
    count = whole.has_it.sum(axis=0)
    known = (count > 0) & whole.separable
    return np.divide(difference.sum(axis=0), count, out=np.full(len(count), np.nan), where=known)


def on_foreground(values: np.ndarray, found: Segmentation | NotAvailable, *, components: int = 12) -> np.ndarray:
    """Ask, for each attribute, whether foregrounds or scenes predict better which images have it.

    Ridge regression on the first principal components of either side's features; how well an image is
    predicted by all the others (leave-one-out), as a share of variance. Needs no similarity of patches and texts.

    Parameters
    ----------
    values : ndarray of shape (N, A)
        `AttributeScores.values`.
    found : Segmentation or NotAvailable
    components : int

    Returns
    -------
    ndarray of shape (A,)
        Predicted by the foreground less predicted by the scene, in [-1, 1]: positive means on the foreground. NaN
        where it cannot be told: no patches, an attribute that all or no images have, less than eight images.
    """
    difference = np.full(values.shape[1], np.nan)
    if isinstance(found, NotAvailable) or len(values) < FEWEST:
        return difference
    varies = varying(values)
    sides = [_predicted(values[:, varies], side, components) for side in (found.foreground, found.scene)]
    difference[varies] = sides[0] - sides[1]
    return difference


def _predicted(values: np.ndarray, features: np.ndarray, components: int) -> np.ndarray:
    """Share of variance predicted by leave-one-out ridge regression, at least 0, (A,)."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import RidgeCV

    if not values.shape[1]:
        return np.zeros(0)
    places = PCA(min(components, *features.shape), svd_solver="full").fit_transform(features.astype(float))
    ridge = RidgeCV([RIDGE * (places**2).sum(axis=0).mean() + 1e-12], store_cv_results=True).fit(places, values)
    errors = ridge.cv_results_.reshape(values.shape)
    return np.maximum(0, 1 - errors.sum(axis=0) / ((values - values.mean(axis=0)) ** 2).sum(axis=0))


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
