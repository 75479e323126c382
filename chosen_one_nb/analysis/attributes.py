"""What a group of images shares that the rest does not have, corrected for looking at many things at once.

`contrast` compares a group with the rest, attribute by attribute; `explain` says the difference in a few
words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.statistics import auroc, balanced, random_groups, standardised, varying
from chosen_one_nb.analysis.zero_shot import AttributeScores, Members, group_mask, unit_rows

__all__ = ["contrast", "explain"]

SAME = 0.7  # findings whose columns correlate as much are one finding in two words
BLOCK = 1000  # columns at once in the permutation test


def contrast(
    found: AttributeScores, members: Members, *, permutations: int = 1000, level: float = 0.05, seed: int = 0
) -> pd.DataFrame:
    """Compare a group of images with the rest, attribute by attribute, as VisDiff (arXiv 2312.02974) ranks
    them.

    The p-value counts how many random groups of the same size have *any* attribute that stands out as much
    (maximum statistic, Westfall and Young 1993): where nothing is to be found, something is found in a share
    `level` of cases, however many attributes there are and however they hang together. For drift, stack the
    first gallery and a later one, and let the later one's images be the members.

    Parameters
    ----------
    found : AttributeScores
        Of N images.
    members : sequence of int, or ndarray of bool, shape (N,)
        The group: at least one image, and at least one outside.
    permutations : int
        Random groups.
    level : float
        A row is a finding if p <= level.
    seed : int

    Returns
    -------
    DataFrame
        A row per attribute, most outstanding first, indexed by column of `found`: `attribute`, `group`,
        `kind`; `auroc` in [0, 1]; `effect`, difference of the means in standard deviations of the whole;
        `share_in`, `share_out`, `lift`, their quotient with half an image added on each side (these three
        NaN where images were not told apart); `z`, the statistic; `p`; `finding`; `same_as`, the column of
        a stronger finding that says the same, or -1.

    Raises
    ------
    ValueError
        If the group is empty, is everything, or names an image that is not there.
    """
    mask = _compared(members, len(found.values))
    values, size = found.values, int(mask.sum())
    z = balanced(standardised(values, mask[None]), values, size)[0]  # (A,)
    highest = _highest_by_chance(values, size, permutations, seed)  # (B,)
    above = (highest[:, None] >= z - 1e-9).sum(axis=0) if len(z) else np.zeros(0)
    share_in, share_out, lift = _shares(found, mask)
    spread = values.std(axis=0)
    difference = values[mask].mean(axis=0) - values[~mask].mean(axis=0)
    table = pd.DataFrame(
        {
            "attribute": [attribute.name for attribute in found.attributes],
            "group": [attribute.group for attribute in found.attributes],
            "kind": [attribute.kind for attribute in found.attributes],
            "auroc": auroc(values, mask),
            "effect": np.divide(difference, spread, out=np.zeros_like(spread), where=varying(values)),
            "share_in": share_in,
            "share_out": share_out,
            "lift": lift,
            "z": z,
            "p": (1 + above) / (1 + permutations),
        }
    )
    table["finding"] = table["p"] <= level
    table = table.sort_values("z", ascending=False, kind="stable")
    return table.assign(same_as=_same_as(values, table))


def _compared(members: Members, n: int) -> np.ndarray:
    """Return the group's mask (n,) if there are images inside and outside."""
    mask = group_mask(members, n)
    if not mask.any() or mask.all():
        raise ValueError(
            f"expected 1 to {n - 1} of {n} images in the group, got {mask.sum()}: there is "
            "nothing to compare. Choose a group with images inside and outside."
        )
    return mask


def _highest_by_chance(values: np.ndarray, size: int, permutations: int, seed: int) -> np.ndarray:
    """Largest statistic over all columns for each random group, (B,)."""
    groups = random_groups(len(values), size, permutations, seed)
    highest = np.full(permutations, -np.inf)
    for start in range(0, values.shape[1], BLOCK):
        block = values[:, start : start + BLOCK]
        highest = np.maximum(highest, balanced(standardised(block, groups), block, size).max(axis=1))
    return highest


def _shares(found: AttributeScores, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of images that have it, inside and outside, and the lift, each (A,)."""
    inside, outside = found.has_it[mask], found.has_it[~mask]
    smoothed = [(side.sum(axis=0) + 0.5) / (len(side) + 1) for side in (inside, outside)]
    shares = inside.mean(axis=0), outside.mean(axis=0), smoothed[0] / smoothed[1]
    return tuple(np.where(found.separable, share, np.nan) for share in shares)  # type: ignore[return-value]


def _same_as(values: np.ndarray, table: pd.DataFrame) -> list[int]:
    """For each row, the column of the strongest finding above it that correlates with it, or -1."""
    same = dict.fromkeys(table.index, -1)
    heads: list[int] = []
    for column in table.index[table["finding"]]:
        like = [head for head in heads if np.corrcoef(values[:, head], values[:, column])[0, 1] >= SAME]
        same[column] = like[0] if like else -1
        heads += [] if like else [column]
    return [same[column] for column in table.index]


def explain(
    images: np.ndarray, texts: np.ndarray, names: Sequence[str], members: Members, *, words: int = 6
) -> pd.DataFrame:
    """Say the difference between a group and the rest as a sum of few phrases, after SpLiCE (arXiv
    2402.10376).

    A non-negative lasso (least angle regression) of the difference of the mean vectors on the phrases'
    vectors. Unlike `contrast` it does not say twice what two phrases have in common, and unlike it, it proves
    nothing.

    Parameters
    ----------
    images : ndarray of shape (N, D)
    texts : ndarray of shape (T, D)
    names : sequence of str, length T
    members : sequence of int, or ndarray of bool, shape (N,)
    words : int
        At most.

    Returns
    -------
    DataFrame
        `phrase` and `weight` > 0, largest first; empty if the group does not differ.
    """
    from sklearn.linear_model import lars_path

    images, texts = unit_rows(images, "images"), unit_rows(texts, "texts")
    mask = _compared(members, len(images))
    difference = images[mask].mean(axis=0) - images[~mask].mean(axis=0)
    norm = np.linalg.norm(difference)
    if norm < 1e-4:  # of unit vectors: the images are the same
        return pd.DataFrame({"phrase": [], "weight": []})
    directions = unit_rows(texts - texts.mean(axis=0), "texts")
    *_, path = lars_path(directions.T, difference / norm, method="lasso", positive=True, max_iter=words)
    weights = path[:, -1]
    order = [at for at in np.argsort(-weights, kind="stable") if weights[at] > 0]
    return pd.DataFrame({"phrase": [names[at] for at in order], "weight": weights[order]})
