"""From CLIP's vectors to one number per image and attribute: how surely the image has it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from chosen_one_nb.analysis.statistics import two_kinds
from chosen_one_nb.analysis.vocabulary import Attribute, Vocabulary
from chosen_one_nb.steps.embed import unit

__all__ = ["AttributeScores", "score_attributes"]

SMALL_GROUP = 8  # phrases
APART = 2.5  # standard deviations; noise splits as far in one column of fifty
HAS_IT = 0.5  # an image has an attribute from this chance on


@dataclass(frozen=True)
class AttributeScores:
    """How surely each image has each attribute.

    Attributes
    ----------
    values : ndarray of shape (N, A), float64
        In [0, 1].
    attributes : tuple of Attribute, length A
    separable : ndarray of bool, shape (A,)
        False where images with and without it could not be told apart: `values` then only orders them, and
        tables give no shares.
    """

    values: np.ndarray
    attributes: tuple[Attribute, ...]
    separable: np.ndarray

    @property
    def has_it(self) -> np.ndarray:
        """Whether each image has each attribute, bool (N, A)."""
        return self.values >= HAS_IT

    @property
    def shares(self) -> np.ndarray:
        """Share of images that have each attribute, (A,); NaN where they cannot be told apart, or there are none."""
        return np.where(self.separable, self.has_it.sum(axis=0) / (len(self.values) or np.nan), np.nan)

    def rows(self, images: Sequence[int] | slice | np.ndarray) -> AttributeScores:
        """Return the same for some of the images: one gallery out of several, for instance."""
        return AttributeScores(self.values[images], self.attributes, self.separable)

    def followed_by(self, later: AttributeScores) -> tuple[AttributeScores, np.ndarray]:
        """Return the images of both, and which of them are the later ones, bool."""
        both = AttributeScores(np.concatenate([self.values, later.values]), self.attributes, self.separable)
        return both, np.arange(len(both.values)) >= len(self.values)


def score_attributes(
    images: np.ndarray, texts: np.ndarray, vocabulary: Vocabulary, *, logit_scale: float = 100.0
) -> AttributeScores:
    """Say how surely each image has each attribute of a vocabulary.

    In a group whose images have one of its phrases, zero-shot classification as CLIP does it: softmax over
    the group. In any other group each attribute by itself: the similarity, less the group's mean (which takes
    out what CLIP likes about an image as such), is split into a low and a high kind over all images given.
    A group of less than eight phrases takes the whole vocabulary's mean, since few would pull each other down.
    Give all galleries that shall be compared at once, so that one and the same split holds for all.

    Parameters
    ----------
    images : ndarray of shape (N, D)
        CLIP's vectors of the images; any length.
    texts : ndarray of shape (T, D)
        CLIP's vectors of `vocabulary.texts(noun)`.
    vocabulary : Vocabulary
    logit_scale : float
        Factor on cosines before the softmax: the model's own `logit_scale.exp()`, 100 in OpenAI's models.

    Raises
    ------
    ValueError
        If shapes do not agree, or a number is not finite.
    """
    images, texts = _checked(images, "images"), _checked(texts, "texts")
    if len(texts) != len(vocabulary) or images.shape[1] != texts.shape[1]:
        raise ValueError(
            f"expected texts of shape ({len(vocabulary)}, {images.shape[1]}), one row per "
            f"phrase of the vocabulary and as wide as the images; got {texts.shape}."
        )
    logits = logit_scale * unit(images) @ unit(texts).T  # (N, T)
    attributes = vocabulary.attributes
    values, separable = np.zeros((len(images), len(attributes))), np.ones(len(attributes), bool)
    for name in vocabulary.groups:
        columns = [at for at, attribute in enumerate(attributes) if attribute.group == name]
        members = [attributes[at] for at in columns]
        scores = np.column_stack([logsumexp(logits[:, member.columns], axis=1) for member in members])
        scores = scores - _level(logits, members)  # (N, a)
        if members[0].one_of:
            values[:, columns] = np.exp(scores)
        elif len(images):
            values[:, columns], gap = two_kinds(scores)
            separable[columns] = gap > APART
    return AttributeScores(values, attributes, separable)


def _checked(vectors: np.ndarray, name: str) -> np.ndarray:
    vectors = np.asarray(vectors, dtype=float)
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        fault = "" if vectors.ndim != 2 else " with NaN or infinity"
        raise ValueError(f"expected finite {name} of shape (N, D), got shape {vectors.shape}{fault}.")
    return vectors


def _level(logits: np.ndarray, members: list[Attribute]) -> np.ndarray:
    """What a group's scores are compared with, (N, 1): the logarithm of their sum, or the mean of logits."""
    phrases = [column for attribute in members for column in attribute.columns]
    if members[0].one_of:
        return logsumexp(logits[:, phrases], axis=1, keepdims=True)
    if len(phrases) < SMALL_GROUP:
        phrases = list(range(logits.shape[1]))
    return logits[:, phrases].mean(axis=1, keepdims=True) if len(phrases) > 1 else np.zeros((len(logits), 1))
