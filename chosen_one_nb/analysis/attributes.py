"""What a group of images shares that the rest does not have, and how often in gallery after gallery.

Both tested against random groups, and corrected for looking at many things at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.statistics import (
    Members,
    auroc,
    balanced,
    group_mask,
    interval,
    random_groups,
    resampled,
    standardised,
    varying,
)
from chosen_one_nb.analysis.vocabulary import AttributeScores

__all__ = ["contrast", "drift", "headline", "rise"]

SAME = 0.7  # findings whose columns correlate as much are one finding in two words
BLOCK = 1000  # columns at once in the permutation test


def contrast(
    found: AttributeScores, members: Members, *, permutations: int = 1000, level: float = 0.05, seed: int = 0
) -> pd.DataFrame:
    """Compare a group of images with the rest, attribute by attribute, as VisDiff (arXiv 2312.02974) ranks them.

    The p-value counts how many random groups of the same size have *any* attribute that stands out as much
    (maximum statistic, Westfall and Young 1993): where nothing is to be found, something is found in a share
    `level` of cases, however many attributes there are and however they hang together.

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
    n, values = len(found.values), found.values
    mask = group_mask(members, n)
    if not mask.any() or mask.all():
        raise ValueError(
            f"expected 1 to {n - 1} of {n} images in the group, got {mask.sum()}: there is "
            "nothing to compare. Choose a group with images inside and outside."
        )
    size = int(mask.sum())
    z = balanced(standardised(values, mask[None]), values, size)[0]  # (A,)
    highest = _highest_by_chance(values, size, permutations, seed)  # (B,)
    above = (highest[:, None] >= z - 1e-9).sum(axis=0)
    spread = values.std(axis=0)
    difference = values[mask].mean(axis=0) - values[~mask].mean(axis=0)
    inside, outside = found.rows(mask), found.rows(~mask)
    table = _named(
        found,
        kind=[attribute.kind for attribute in found.attributes],
        auroc=auroc(values, mask),
        effect=np.divide(difference, spread, out=np.zeros_like(spread), where=varying(values)),
        share_in=inside.shares,
        share_out=outside.shares,
        lift=_smoothed(inside) / _smoothed(outside),
        z=z,
        p=(1 + above) / (1 + permutations),
    )
    table["finding"] = table["p"] <= level
    table = table.sort_values("z", ascending=False, kind="stable")
    return table.assign(same_as=_same_as(values, table))


def _named(found: AttributeScores, **columns: object) -> pd.DataFrame:
    """Make a table with a row per attribute, named first."""
    names = {"attribute": [one.name for one in found.attributes], "group": [one.group for one in found.attributes]}
    return pd.DataFrame({**names, **columns})


def _highest_by_chance(values: np.ndarray, size: int, permutations: int, seed: int) -> np.ndarray:
    """Largest statistic over all columns for each random group, (B,)."""
    groups = random_groups(len(values), size, permutations, seed)
    highest = np.full(permutations, -np.inf)
    for start in range(0, values.shape[1], BLOCK):
        block = values[:, start : start + BLOCK]
        highest = np.maximum(highest, balanced(standardised(block, groups), block, size).max(axis=1))
    return highest


def _smoothed(found: AttributeScores) -> np.ndarray:
    """Share of images that have it, with half an image added, (A,)."""
    n = len(found.values)
    return (found.shares * n + 0.5) / (n + 1)


def _same_as(values: np.ndarray, table: pd.DataFrame) -> list[int]:
    """For each row, the column of the strongest finding above it that correlates with it, or -1."""
    same = dict.fromkeys(table.index, -1)
    heads: list[int] = []
    for column in table.index[table["finding"]]:
        like = [head for head in heads if np.corrcoef(values[:, head], values[:, column])[0, 1] >= SAME]
        same[column] = like[0] if like else -1
        heads += [] if like else [column]
    return [same[column] for column in table.index]


# --- gallery after gallery


def drift(galleries: Mapping[str, AttributeScores], *, seed: int = 0) -> pd.DataFrame:
    """Count how often each attribute occurs in each gallery, with bootstrap intervals over images.

    Parameters
    ----------
    galleries : mapping of str to AttributeScores
        In order: base, iteration 1, ... Rows of *one* `AttributeScores` over all of them, so that one and the same
        measure holds.
    seed : int
        Of the bootstrap.

    Returns
    -------
    DataFrame
        A row per gallery and attribute: `gallery`, `column`, `attribute`, `group`, `share` in [0, 1], `low`,
        `high` (95 %). NaN where images with and without it were not told apart, or the gallery is empty.
    """
    parts = []
    for name, found in galleries.items():
        low, high = interval(_resampled_shares(found, seed)) if len(found.values) else (np.nan, np.nan)
        table = _named(found, share=found.shares, low=low, high=high).reset_index(names="column")
        parts.append(
            table.assign(gallery=name, low=table.low.where(found.separable), high=table.high.where(found.separable))
        )
    columns = ["gallery", "column", "attribute", "group", "share", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _resampled_shares(found: AttributeScores, seed: int) -> np.ndarray:
    return resampled(found.has_it.astype(float), seed=seed)  # (repeats, A)


def rise(first: AttributeScores, last: AttributeScores, *, seed: int = 0) -> pd.DataFrame:
    """Compare two galleries: by how much the share of images that have each attribute rose.

    Parameters
    ----------
    first, last : AttributeScores
        Rows of one `AttributeScores`.
    seed : int
        Of the bootstrap, over the images of each gallery by itself.

    Returns
    -------
    DataFrame
        Largest rise first, indexed by column: `attribute`, `group`, `first`, `last`, `rise`, `low`, `high`
        (95 %), `p` (of `contrast`, so corrected for the number of attributes; the interval is not), `certain`
        (p <= 0.05).

    Raises
    ------
    ValueError
        If a gallery is empty.
    """
    tested = contrast(*first.followed_by(last), seed=seed)
    low, high = interval(_resampled_shares(last, seed + 1) - _resampled_shares(first, seed))
    table = _named(first, first=first.shares, last=last.shares, rise=last.shares - first.shares, low=low, high=high)
    table.loc[~first.separable, ["low", "high"]] = np.nan
    table = table.assign(p=tested["p"], certain=tested["finding"] & (table["rise"] > 0))  # aligned by column
    return table.sort_values("rise", ascending=False, kind="stable")


def headline(table: pd.DataFrame, answers: Sequence[str]) -> str:
    """Say which attribute rose most without being asked for.

    Parameters
    ----------
    table : DataFrame
        From `rise`.
    answers : sequence of str, length A
        "asked", "identity" or "incidental" by column: the column `answer` of `prompt_match.classify`.

    Returns
    -------
    str
        A sentence; if nothing rose beyond doubt, it says so.
    """
    free = [column for column in table.index if answers[column] != "asked" and table.at[column, "certain"]]
    if not free:
        return "Nothing that the prompt leaves open has become clearly more frequent."
    row = table.loc[free[0]]
    return (
        f'"{row.attribute}" rose from {row["first"]:.0%} to {row["last"]:.0%} of the images '
        f"({row.low:+.0%} to {row.high:+.0%}) and nobody asked for it."
    )
