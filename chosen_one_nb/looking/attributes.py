"""What a group of pictures shares that the rest does not have, corrected for looking at many things at once.

Everything starts from CLIP's vectors of the pictures and of a vocabulary's texts. `presence` turns them into one
number per picture and attribute, `contrast` compares a group with the rest, `explain` says the difference in a few
words, `leave_out` and `prefer_least` turn a finding into a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import logsumexp

from chosen_one_nb.looking.statistics import auroc, balanced, random_groups, standardised, two_kinds
from chosen_one_nb.looking.vocabulary import Attribute, Vocabulary

__all__ = ["Presence", "Suggestion", "contrast", "explain", "leave_out", "most_and_least", "prefer_least", "presence"]

HAS_IT = 0.5  # a picture has an attribute from this chance on
SAME = 0.7  # findings whose columns correlate as much are one finding in two words
BLOCK = 1000  # columns at once in the permutation test


@dataclass(frozen=True)
class Presence:
    """How surely each picture has each attribute.

    Attributes
    ----------
    values : ndarray of shape (N, A), float64
        In [0, 1].
    attributes : tuple of Attribute, length A
    told_apart : ndarray of bool, shape (A,)
        False where pictures with and without it could not be told apart: `values` then only orders them, and tables
        give no shares.
    """

    values: np.ndarray
    attributes: tuple[Attribute, ...]
    told_apart: np.ndarray

    @property
    def has_it(self) -> np.ndarray:
        """Whether each picture has each attribute, bool (N, A)."""
        return self.values >= HAS_IT

    def rows(self, images: Sequence[int] | slice | np.ndarray) -> Presence:
        """Return the same for some of the pictures: one gallery out of several, for instance."""
        return Presence(self.values[images], self.attributes, self.told_apart)

    def column(self, name: str, group: str | None = None) -> int:
        """Find an attribute by its name; raises `KeyError` if there is none, or several and no group is given."""
        found = [at for at, attribute in enumerate(self.attributes)
                 if attribute.name == name and group in (None, attribute.group)]
        if len(found) != 1:
            groups = [self.attributes[at].group for at in found]
            raise KeyError(f"expected one attribute {name!r}, got {len(found)}"
                           + (f" in the groups {groups}: say which." if found else ": see the vocabulary's names."))
        return found[0]


def presence(images: np.ndarray, texts: np.ndarray, vocabulary: Vocabulary, *, sharpness: float = 100.0) -> Presence:
    """Say how surely each picture has each attribute of a vocabulary.

    In a group whose pictures have one of its phrases, zero-shot classification as CLIP does it: softmax over the
    group. In any other group each attribute by itself: the similarity, less the group's mean (which takes out what
    CLIP likes about a picture as such), is split into a low and a high kind over all pictures given. Give all
    galleries that shall be compared at once, so that one and the same split holds for all.

    Parameters
    ----------
    images : ndarray of shape (N, D)
        CLIP's vectors of the pictures; any length.
    texts : ndarray of shape (T, D)
        CLIP's vectors of `vocabulary.texts(noun)`.
    vocabulary : Vocabulary
    sharpness : float
        Factor on cosines before the softmax: the model's own `logit_scale.exp()`, 100 in OpenAI's models.

    Returns
    -------
    Presence

    Raises
    ------
    ValueError
        If shapes do not agree, or a number is not finite.
    """
    images, texts = _vectors(images, "images"), _vectors(texts, "texts")
    if len(texts) != len(vocabulary) or images.shape[1] != texts.shape[1]:
        raise ValueError(f"expected texts of shape ({len(vocabulary)}, {images.shape[1]}), one row per phrase of "
                         f"the vocabulary and as wide as the images; got {texts.shape}.")
    logits = sharpness * images @ texts.T  # (N, T)
    attributes = vocabulary.attributes
    values, told_apart = np.zeros((len(images), len(attributes))), np.ones(len(attributes), bool)
    for columns in _by_group(attributes):
        members = [attributes[at] for at in columns]
        scores = _group_scores(logits, members)  # (N, a)
        if members[0].one_of:
            values[:, columns] = np.exp(scores)
        elif len(images):
            values[:, columns], gap = two_kinds(scores)
            told_apart[columns] = gap > 2
    return Presence(values, attributes, told_apart)


def _vectors(vectors: np.ndarray, name: str) -> np.ndarray:
    """Check and bring to unit length; a zero vector stays zero."""
    vectors = np.asarray(vectors, dtype=float)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"expected finite {name} of shape (N, D), got shape {vectors.shape}"
                         + ("" if vectors.ndim != 2 else " with NaN or infinity") + ".")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _by_group(attributes: Sequence[Attribute]) -> list[list[int]]:
    groups: dict[str, list[int]] = {}
    for at, attribute in enumerate(attributes):
        groups.setdefault(attribute.group, []).append(at)
    return list(groups.values())


def _group_scores(logits: np.ndarray, members: list[Attribute]) -> np.ndarray:
    """(N, a): logarithm of each attribute's share in its group, or its logit less the group's mean."""
    phrases = [column for attribute in members for column in attribute.columns]
    base = logsumexp if members[0].one_of else np.mean
    level = base(logits[:, phrases], axis=1, keepdims=True)
    return np.column_stack([logsumexp(logits[:, attribute.columns], axis=1) for attribute in members]) - level


def contrast(found: Presence, members: Sequence[int] | np.ndarray, *, permutations: int = 1000, level: float = 0.05,
             seed: int = 0) -> pd.DataFrame:
    """Compare a group of pictures with the rest, attribute by attribute, as VisDiff (arXiv 2312.02974) ranks them.

    The p-value counts how many random groups of the same size have *any* attribute that stands out as much (maximum
    statistic, Westfall and Young 1993): where nothing is to be found, something is found in a share `level` of cases,
    however many attributes there are and however they hang together. For drift, stack the first gallery and a later
    one, and let the later one's pictures be the members.

    Parameters
    ----------
    found : Presence
        Of N pictures.
    members : sequence of int, or ndarray of bool, shape (N,)
        The group: at least one picture, and at least one outside.
    permutations : int
        Random groups.
    level : float
        A row is a finding if p <= level.
    seed : int

    Returns
    -------
    DataFrame
        A row per attribute, most outstanding first, indexed by column of `found`: `attribute`, `group`, `kind`;
        `auroc` in [0, 1]; `effect`, difference of the means in standard deviations of the whole; `share_in`,
        `share_out`, `lift`, their quotient with half a picture added on each side (these three NaN where pictures
        were not told apart); `z`, the statistic; `p`; `finding`; `same_as`, the column of a stronger finding that
        says the same, or -1.

    Raises
    ------
    ValueError
        If the group is empty, is everything, or names a picture that is not there.
    """
    mask = _mask(members, len(found.values))
    values, size = found.values, int(mask.sum())
    z = balanced(standardised(values, mask[None]), values, size)[0]  # (A,)
    highest = _highest_by_chance(values, size, permutations, seed)  # (B,)
    above = (highest[:, None] >= z - 1e-9).sum(axis=0) if len(z) else np.zeros(0)
    share_in, share_out, lift = _shares(found, mask)
    spread = values.std(axis=0)
    difference = values[mask].mean(axis=0) - values[~mask].mean(axis=0)
    table = pd.DataFrame({
        "attribute": [attribute.name for attribute in found.attributes],
        "group": [attribute.group for attribute in found.attributes],
        "kind": [attribute.kind for attribute in found.attributes],
        "auroc": auroc(values, mask),
        "effect": np.divide(difference, spread, out=np.zeros_like(spread), where=spread > 1e-9),
        "share_in": share_in, "share_out": share_out, "lift": lift,
        "z": z, "p": (1 + above) / (1 + permutations)})
    table["finding"] = table["p"] <= level
    table = table.sort_values("z", ascending=False, kind="stable")
    return table.assign(same_as=_same_as(values, table))


def _mask(members: Sequence[int] | np.ndarray, n: int) -> np.ndarray:
    """Turn picture numbers, or a mask, into a mask (n,) and check it."""
    chosen = np.asarray(members)
    if chosen.dtype == bool and chosen.shape == (n,):
        mask = chosen
    else:
        chosen = chosen.astype(int).ravel()
        if chosen.size and (chosen.min() < 0 or chosen.max() >= n):
            raise ValueError(f"expected pictures 0 to {n - 1}, got {chosen.min()} to {chosen.max()}.")
        mask = np.isin(np.arange(n), chosen)
    if not mask.any() or mask.all():
        raise ValueError(f"expected 1 to {n - 1} of {n} pictures in the group, got {mask.sum()}: there is nothing to "
                         "compare. Choose a group with pictures inside and outside.")
    return mask


def _highest_by_chance(values: np.ndarray, size: int, permutations: int, seed: int) -> np.ndarray:
    """Largest statistic over all columns for each random group, (B,)."""
    groups = random_groups(len(values), size, permutations, seed)
    highest = np.full(permutations, -np.inf)
    for start in range(0, values.shape[1], BLOCK):
        block = values[:, start:start + BLOCK]
        highest = np.maximum(highest, balanced(standardised(block, groups), block, size).max(axis=1))
    return highest


def _shares(found: Presence, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of pictures that have it, inside and outside, and the lift, each (A,)."""
    inside, outside = found.has_it[mask], found.has_it[~mask]
    lift = ((inside.sum(axis=0) + 0.5) / (len(inside) + 1)) / ((outside.sum(axis=0) + 0.5) / (len(outside) + 1))
    shares = inside.mean(axis=0), outside.mean(axis=0), lift
    return tuple(np.where(found.told_apart, share, np.nan) for share in shares)  # type: ignore[return-value]


def _same_as(values: np.ndarray, table: pd.DataFrame) -> list[int]:
    """For each row, the column of the strongest finding above it that correlates with it, or -1."""
    same = dict.fromkeys(table.index, -1)
    heads: list[int] = []
    for column in table.index[table["finding"]]:
        like = [head for head in heads if np.corrcoef(values[:, head], values[:, column])[0, 1] >= SAME]
        same[column] = like[0] if like else -1
        heads += [] if like else [column]
    return [same[column] for column in table.index]


def explain(images: np.ndarray, texts: np.ndarray, names: Sequence[str], members: Sequence[int] | np.ndarray, *,
            words: int = 6) -> pd.DataFrame:
    """Say the difference between a group and the rest as a sum of few phrases, after SpLiCE (arXiv 2402.10376).

    A non-negative lasso (least angle regression) of the difference of the mean vectors on the phrases' vectors.
    Unlike `contrast` it does not say twice what two phrases have in common, and unlike it, it proves nothing.

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

    images, texts = _vectors(images, "images"), _vectors(texts, "texts")
    mask = _mask(members, len(images))
    difference = images[mask].mean(axis=0) - images[~mask].mean(axis=0)
    norm = np.linalg.norm(difference)
    if norm < 1e-9:
        return pd.DataFrame({"phrase": [], "weight": []})
    directions = _vectors(texts - texts.mean(axis=0), "texts")
    *_, path = lars_path(directions.T, difference / norm, method="lasso", positive=True, max_iter=words)
    weights = path[:, -1]
    order = [at for at in np.argsort(-weights, kind="stable") if weights[at] > 0]
    return pd.DataFrame({"phrase": [names[at] for at in order], "weight": weights[order]})


# --- from a finding to a decision -------------------------------------------------------------------------


@dataclass(frozen=True)
class Suggestion:
    """A choice that a finding speaks for, ready for `Run.choose`.

    Attributes
    ----------
    images : tuple of int
        The pictures that would be taken.
    exclude : tuple of int
        The pictures that would be left out.
    cluster : int or None
    reason : str
        A sentence, for the decision's note.
    """

    images: tuple[int, ...]
    exclude: tuple[int, ...]
    cluster: int | None
    reason: str


def most_and_least(values: np.ndarray, members: Sequence[int] | np.ndarray, count: int = 3) -> tuple[list[int], list[int]]:
    """Find the pictures of a group that have an attribute most, and least.

    Parameters
    ----------
    values : ndarray of shape (N,)
        One column of a presence.
    members : sequence of int, or ndarray of bool, shape (N,)
    count : int
        Of each; fewer if the group is smaller than twice that, so that no picture is in both.

    Returns
    -------
    list of int, list of int
        The most first, and the least first.
    """
    pictures = _pictures(members)
    order = [int(picture) for picture in pictures[np.argsort(-np.asarray(values)[pictures], kind="stable")]]
    most = order[:min(count, (len(order) + 1) // 2)]
    return most, order[len(most):][::-1][:count]


def _pictures(members: Sequence[int] | np.ndarray) -> np.ndarray:
    members = np.asarray(members)
    return np.flatnonzero(members) if members.dtype == bool else members.astype(int).ravel()


def leave_out(found: Presence, column: int, members: Sequence[int] | np.ndarray, *, keep_at_least: int = 3) -> Suggestion:
    """Take a group without the pictures that have an attribute.

    Parameters
    ----------
    found : Presence
    column : int
        Of the attribute.
    members : sequence of int, or ndarray of bool, shape (N,)
    keep_at_least : int
        If fewer pictures lack it, those that have it least surely stay, and the reason says so.

    Returns
    -------
    Suggestion
        `cluster` is None; `exclude` is empty if no picture has it.
    """
    pictures, name = _pictures(members), found.attributes[column].name
    order = pictures[np.argsort(found.values[pictures, column], kind="stable")]
    lack = int((~found.has_it[pictures, column]).sum())
    keep = max(lack, min(keep_at_least, len(order)))
    reason = f'left out {len(order) - keep} of {len(order)} pictures for having "{name}"'
    if lack == len(order):
        reason = f'none of the {lack} pictures has "{name}": nothing to leave out'
    elif keep > lack:
        reason += f"; {len(order) - lack} have it, but {keep} must stay to learn from"
    return Suggestion(tuple(sorted(order[:keep].tolist())), tuple(sorted(order[keep:].tolist())), None, reason)


def prefer_least(found: Presence, column: int, labels: np.ndarray, *, kept: np.ndarray | None = None,
                 instead_of: int | None = None) -> Suggestion:
    """Take the cluster that has an attribute least.

    Parameters
    ----------
    found : Presence
        Of N pictures.
    column : int
        Of the attribute.
    labels : ndarray of int, shape (N,)
        Cluster of each picture; negative is none.
    kept : ndarray of bool, shape (K,), optional
        Clusters that may be chosen.
    instead_of : int, optional
        The cluster proposed so far, for the reason.

    Returns
    -------
    Suggestion
        Among equals the first cluster, which is the most cohesive one.

    Raises
    ------
    ValueError
        If no cluster may be chosen.
    """
    labels = np.asarray(labels)
    clusters = [int(k) for k in np.unique(labels[labels >= 0]) if kept is None or kept[k]]
    if not clusters:
        raise ValueError("expected at least one cluster that may be chosen, got none. Lower the minimum size.")
    means = [found.values[labels == k, column].mean() for k in clusters]
    best = clusters[int(np.argmin(np.round(means, 6)))]
    reason = f'cluster {best} has "{found.attributes[column].name}" least: {_count(found, column, labels == best)}'
    if instead_of is not None and instead_of != best:
        reason += f"; cluster {instead_of}: {_count(found, column, labels == instead_of)}"
    return Suggestion(tuple(np.flatnonzero(labels == best).tolist()), (), best, reason)


def _count(found: Presence, column: int, mask: np.ndarray) -> str:
    return f"{int(found.has_it[mask, column].sum())} of {int(mask.sum())} pictures"
