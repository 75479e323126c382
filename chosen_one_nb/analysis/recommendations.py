"""From a finding to a decision: other images, or another cluster, with the reason in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chosen_one_nb.analysis.statistics import Members
from chosen_one_nb.analysis.zero_shot import AttributeScores

__all__ = ["Recommendation", "leave_out", "most_and_least", "prefer_least"]


@dataclass(frozen=True)
class Recommendation:
    """A choice that a finding speaks for, ready to be made.

    Attributes
    ----------
    images : tuple of int
        The images that would be taken.
    exclude : tuple of int
        The images that would be left out.
    cluster : int or None
    reason : str
        A sentence, for the decision's note.
    """

    images: tuple[int, ...]
    exclude: tuple[int, ...]
    cluster: int | None
    reason: str


def most_and_least(values: np.ndarray, members: Members, count: int = 3) -> tuple[list[int], list[int]]:
    """Find the images of a group that have an attribute most, and least.

    Parameters
    ----------
    values : ndarray of shape (N,)
        One column of `AttributeScores.values`.
    members : sequence of int, or ndarray of bool, shape (N,)
    count : int
        Of each; fewer if the group is smaller than twice that, so that no image is in both.

    Returns
    -------
    list of int, list of int
        The most first, and the least first.
    """
    order = _by_score(-np.asarray(values), members).tolist()
    most = order[: min(count, (len(order) + 1) // 2)]
    return most, order[len(most) :][::-1][:count]


def _by_score(values: np.ndarray, members: Members) -> np.ndarray:
    """Image numbers of a group, the lowest value first."""
    members = np.asarray(members)
    images = np.flatnonzero(members) if members.dtype == bool else members.astype(int).ravel()
    return images[np.argsort(values[images], kind="stable")]


def leave_out(found: AttributeScores, column: int, members: Members, *, keep_at_least: int = 3) -> Recommendation:
    """Take a group without the images that have an attribute.

    Parameters
    ----------
    found : AttributeScores
    column : int
        Of the attribute.
    members : sequence of int, or ndarray of bool, shape (N,)
    keep_at_least : int
        If fewer images lack it, those that have it least surely stay, and the reason says so.

    Returns
    -------
    Recommendation
        `cluster` is None; `exclude` is empty if no image has it, too few images are there, or images with and
        without it were not told apart.
    """
    order, name = _by_score(found.values[:, column], members), found.attributes[column].name
    lack = int((~found.has_it[order, column]).sum())
    keep = max(lack, min(keep_at_least, len(order)))
    if not found.separable[column]:
        keep, reason = len(order), f'images with and without "{name}" cannot be told apart: nothing is left out'
    elif lack == len(order):
        reason = f'none of the {lack} images has "{name}": nothing to leave out'
    elif keep == len(order):
        reason = f'{len(order) - lack} of {keep} images have "{name}", but {keep} must stay to learn from'
    else:
        reason = f'left out {len(order) - keep} of {len(order)} images for having "{name}"'
        reason += f"; {len(order) - lack} have it, but {keep} must stay to learn from" if keep > lack else ""
    stay, go = (tuple(sorted(part.tolist())) for part in (order[:keep], order[keep:]))
    return Recommendation(stay, go, None, reason)


def prefer_least(
    found: AttributeScores, column: int, labels: np.ndarray, kept: np.ndarray, instead_of: int | None = None
) -> Recommendation:
    """Take the cluster that has an attribute least.

    Parameters
    ----------
    found : AttributeScores
        Of N images.
    column : int
        Of the attribute.
    labels : ndarray of int, shape (N,)
        Cluster of each image; negative is none.
    kept : ndarray of bool, shape (K,)
        Clusters that may be chosen.
    instead_of : int, optional
        The cluster proposed so far, for the reason.

    Returns
    -------
    Recommendation
        Among equals the first cluster, which is the most cohesive one. The reason counts images, or says that it
        is a ranking only, where images with and without it were not told apart.

    Raises
    ------
    ValueError
        If no cluster may be chosen.
    """
    labels = np.asarray(labels)
    clusters = [int(k) for k in np.unique(labels[labels >= 0]) if kept[k]]
    if not clusters:
        raise ValueError("expected at least one cluster to choose from, got none. Lower the minimum size.")
    means = [found.values[labels == k, column].mean() for k in clusters]
    best = clusters[int(np.argmin(np.round(means, 6)))]
    reason = f'cluster {best} has "{found.attributes[column].name}" least'
    if not found.separable[column]:
        reason += " surely: a ranking only, images with and without it cannot be told apart"
    else:
        reason += f": {_count(found, column, labels == best)}"
        if instead_of is not None and instead_of != best:
            reason += f"; cluster {instead_of}: {_count(found, column, labels == instead_of)}"
    return Recommendation(tuple(np.flatnonzero(labels == best).tolist()), (), best, reason)


def _count(found: AttributeScores, column: int, mask: np.ndarray) -> str:
    return f"{int(found.has_it[mask, column].sum())} of {int(mask.sum())} images"
