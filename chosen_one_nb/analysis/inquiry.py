"""Everything that can be asked of a gallery about what its images share: one object, made of arrays.

And from a finding to a decision: other images, or another cluster, with the reason in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.attributes import contrast, drift, headline, rise
from chosen_one_nb.analysis.localization import HeldBy, held_by, on_foreground
from chosen_one_nb.analysis.prompt_match import Answer, classify
from chosen_one_nb.analysis.segmentation import NO_PATCHES, NotAvailable, Segmentation
from chosen_one_nb.analysis.statistics import Members, group_mask
from chosen_one_nb.analysis.vocabulary import Attribute, AttributeScores

__all__ = ["Inquiry", "Recommendation", "leave_out", "most_and_least", "prefer_least"]


@dataclass(frozen=True)
class Inquiry:
    """What the groups of a gallery share, whether anybody asked for it, and how it came about.

    Attributes
    ----------
    prompt : str
    galleries : dict of str to AttributeScores
        The first gallery and those after it up to the one in question, which is the last: rows of one table.
    segmentation : Segmentation or NotAvailable
        Of the last gallery.
    shown : ndarray of shape (A,), optional
        Whether foreground or scene shows each attribute, as `localization.shown_by` says it; None asks `on_foreground`.
    corrections : mapping of str to "asked", "identity" or "incidental"
        A person's word, by "group: name".
    encode : callable, optional
        Texts -> unit vectors, to see what the prompt means besides what it says.
    chosen : ndarray of int, optional
        The images that were chosen, which groups default to.
    """

    prompt: str
    galleries: Mapping[str, AttributeScores]
    segmentation: Segmentation | NotAvailable = NO_PATCHES
    shown: np.ndarray | None = None
    corrections: Mapping[str, Answer] = field(default_factory=dict)
    encode: Callable[[list[str]], np.ndarray] | None = None
    chosen: np.ndarray | None = None

    @property
    def found(self) -> AttributeScores:
        """How surely each image of the gallery has each attribute."""
        return list(self.galleries.values())[-1]

    @property
    def first(self) -> AttributeScores:
        """The same of the first gallery."""
        return next(iter(self.galleries.values()))

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """What is asked about."""
        return self.found.attributes

    @cached_property
    def answers(self) -> pd.DataFrame:
        """Asked for, identity or incidental, and why: a row per attribute, by column."""
        evidence = on_foreground(self.found.values, self.segmentation) if self.shown is None else self.shown
        return classify(
            self.attributes, self.prompt, encode=self.encode, on_foreground=evidence, corrections=self.corrections
        )

    def _group(self, members: Members | None) -> Members:
        group = self.chosen if members is None else members
        if group is None:
            raise ValueError("Expected a group of images, since none has been chosen yet: give members.")
        return group

    def findings(
        self, members: Members | None = None, *, against: Literal["rest", "first"] = "rest", level: float = 0.05
    ) -> pd.DataFrame:
        """Compare a group of the last gallery with other images: `attributes.contrast`, with `answer` and `why`.

        Parameters
        ----------
        members : sequence of int, or ndarray of bool, shape (N,), optional
            None: the chosen images.
        against : "rest" or "first"
            The rest of its gallery, or the first gallery: what has come in since, of which a later gallery may be full.
        level : float
            As of `contrast`.

        Raises
        ------
        ValueError
            If there is no group, nothing to compare it with, or `against` is neither of the two.
        """
        if against not in ("rest", "first"):
            raise ValueError(f'Expected against to be "rest" or "first", got {against!r}.')
        found, group = self.found, self._group(members)
        if against == "first":
            if len(self.galleries) < 2:
                raise ValueError("This is the first gallery: there is none before it to compare a group with.")
            found, group = self.first.followed_by(found.rows(group_mask(group, len(found.values))))
        return contrast(found, group, level=level).join(self.answers[["answer", "why"]])

    def flagged(self, members: Members | None = None, *, level: float = 0.05) -> pd.DataFrame:
        """What a group shares although nobody asked for it: the findings that are not asked for, each said once."""
        table = self.findings(members, level=level)
        return table[table.finding & (table.answer != "asked") & (table.same_as < 0)]

    def suspects(self, labels: np.ndarray, *, level: float = 0.05) -> pd.DataFrame:
        """What each cluster shares although nobody asked for it: `flagged` of all of them, strongest first.

        Parameters
        ----------
        labels : ndarray of int, shape (N,)
            Cluster of each image; negative is none.
        level : float
            Of each cluster's findings; 1 takes all attributes, findings or not.

        Returns
        -------
        DataFrame
            As of `flagged`, by rows from 0, and `cluster`, `column` and `opposite`, what to ask for to have an image
            without it (None where the vocabulary knows nothing).
        """
        labels = np.asarray(labels)
        groups = {int(c): labels == c for c in np.unique(labels[labels >= 0]) if not (labels == c).all()}
        parts = [self.flagged(mask, level=level).reset_index(names="column").assign(cluster=c)
                 for c, mask in groups.items()]  # fmt: skip
        if not parts:
            return self.flagged(np.arange(len(labels)) == 0).iloc[:0].assign(cluster=0, column=0, opposite=None)
        table = pd.concat(parts, ignore_index=True)
        table["opposite"] = [self.attributes[column].opposite for column in table["column"]]
        return table.sort_values("z", ascending=False, kind="stable", ignore_index=True)

    def held_by(self, members: Members | None = None) -> HeldBy | NotAvailable:
        """Tell whether foreground or scene holds a group together (None: the chosen images)."""
        return held_by(self.segmentation, self._group(members))

    def leave_out(self, column: int, members: Members) -> Recommendation:
        """Take a group without the images that have an attribute."""
        return leave_out(self.found, column, members)

    def prefer_least(self, column: int, labels: np.ndarray, kept: np.ndarray, instead_of: int | None) -> Recommendation:
        """Take the cluster that has an attribute least."""
        return prefer_least(self.found, column, labels, kept=kept, instead_of=instead_of)

    @cached_property
    def rises(self) -> pd.DataFrame:
        """By how much each attribute became more frequent since the first gallery: `attributes.rise`, with answers."""
        return rise(self.first, self.found).join(self.answers[["answer"]])

    @property
    def headline(self) -> str:
        """What rose most without being asked for, as a sentence."""
        if len(self.galleries) < 2:
            return "Drift shows from the second gallery on."
        return headline(self.rises, list(self.answers.answer))

    def drift(self, columns: list[int] | None = None) -> pd.DataFrame:
        """Count attributes in gallery after gallery; None takes those that rose most without being asked for."""
        table = drift(self.galleries)
        return table[table.column.isin(self.risen() if columns is None else columns)]

    def risen(self, count: int = 5) -> list[int]:
        """The attributes that rose most without being asked for, by column: those certain first."""
        if len(self.galleries) < 2:
            return []
        free = self.rises[(self.rises.answer != "asked") & (self.rises["rise"] > 0)]
        return [int(c) for c in free.sort_values(["certain", "rise"], ascending=False, kind="stable").index[:count]]


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
