"""Foreground or scene: which of the two holds a group together, and on which of the two an attribute shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
from chosen_one_nb.analysis.statistics import Members, group_mask, random_groups, varying
from chosen_one_nb.analysis.zero_shot import AttributeScores

__all__ = ["HeldBy", "held_by", "on_foreground", "shown_by"]

LEVEL = 0.05  # share of random groups that may be called held together, by foreground or scene
FEWEST = 8  # images, to tell what predicts an attribute
RIDGE = 0.1  # of the components' mean variance


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
