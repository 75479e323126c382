"""How often each attribute occurs in gallery after gallery, and which one rose most without being asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.attributes import contrast
from chosen_one_nb.analysis.statistics import bootstrap_means, interval
from chosen_one_nb.analysis.zero_shot import AttributeScores

__all__ = ["drift", "headline", "rise"]


def drift(galleries: Mapping[str, AttributeScores], *, repeats: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Count how often each attribute occurs in each gallery, with bootstrap intervals over images.

    Parameters
    ----------
    galleries : mapping of str to AttributeScores
        In order: base, iteration 1, ... Rows of *one* presence over all of them (`AttributeScores.rows`), so that
        one and the same measure holds.
    repeats : int
        Of the bootstrap.
    seed : int

    Returns
    -------
    DataFrame
        A row per gallery and attribute: `gallery`, `column`, `attribute`, `group`, `share` in [0, 1], `low`,
        `high` (95 %). NaN where images with and without it were not told apart, or the gallery is empty.
    """
    parts = [_shares(name, found, repeats, seed) for name, found in galleries.items()]
    columns = ["gallery", "column", "attribute", "group", "share", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _shares(name: str, found: AttributeScores, repeats: int, seed: int) -> pd.DataFrame:
    has_it = np.where(found.separable, found.has_it, np.nan)  # (N, A)
    nothing = np.full(len(found.attributes), np.nan)
    low, high = interval(bootstrap_means(has_it, repeats, seed)) if len(has_it) else (nothing, nothing)
    return pd.DataFrame(
        {
            "gallery": name,
            "column": range(len(found.attributes)),
            "attribute": [attribute.name for attribute in found.attributes],
            "group": [attribute.group for attribute in found.attributes],
            "share": has_it.mean(axis=0) if len(has_it) else nothing,
            "low": low,
            "high": high,
        }
    )


def rise(first: AttributeScores, last: AttributeScores, *, repeats: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Compare two galleries: by how much the share of images that have each attribute rose.

    Parameters
    ----------
    first, last : AttributeScores
        Rows of one presence.
    repeats, seed
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
    both = AttributeScores(np.concatenate([first.values, last.values]), first.attributes, first.separable)
    tested = contrast(both, np.arange(len(both.values)) >= len(first.values), seed=seed)
    shares = [np.where(found.separable, found.has_it, np.nan) for found in (first, last)]
    resampled = [bootstrap_means(share, repeats, seed + at) for at, share in enumerate(shares)]
    low, high = interval(resampled[1] - resampled[0])
    table = pd.DataFrame(
        {
            "attribute": [attribute.name for attribute in first.attributes],
            "group": [attribute.group for attribute in first.attributes],
            "first": shares[0].mean(axis=0),
            "last": shares[1].mean(axis=0),
            "low": low,
            "high": high,
        }
    )
    table.insert(4, "rise", table["last"] - table["first"])
    table = table.assign(p=tested["p"], certain=tested["finding"] & (table["rise"] > 0))  # aligned by column
    return table.sort_values("rise", ascending=False, kind="stable")


def headline(table: pd.DataFrame, answers: Sequence[str]) -> str:
    """Say which attribute rose most without being asked for.

    Parameters
    ----------
    table : DataFrame
        From `rise`.
    answers : sequence of str, length A
        "asked", "identity" or "incidental" by column: the column `answer` of `asked.classify`.

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
