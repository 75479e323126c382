"""The phrases that images are asked about, and from CLIP's vectors one number per image and attribute: how surely the
image has it. Phrases stand in groups, read from a JSON file that anybody may edit.

A file holds `{"groups": {name: group}}`, or the groups alone, and optionally `noun`, the word for what is in
the image ("creature") when nobody says it better. A group is a list of phrases, or an object with `phrases`
and, optionally, `kind` (see `Kind`), `one_of` (an image has one of them and no more, as with places or art
styles) and `template` (how a phrase becomes a sentence for CLIP: "a {noun} {}"). A phrase is a text, or an
object with `text`, `attribute` (phrases of a group that share it mean the same thing) and `opposite` (what to
ask for when one wants an image without it).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha1
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, StrictBool, StringConstraints, ValidationError, field_validator, model_validator
from scipy.special import logsumexp

from chosen_one_nb.analysis.statistics import two_kinds
from chosen_one_nb.settings import user_path
from chosen_one_nb.steps.embed import unit

__all__ = [
    "Attribute", "AttributeScores", "Group", "Kind", "Phrase", "Vocabulary", "VocabularyError", "load_vocabulary",
    "read_vocabulary", "score_attributes",
]  # fmt: skip

Kind = Literal["identity", "incidental", "seen"]
"""Whether such attributes make the character ("identity": fur, clothes), or its scene, framing, style and moods
("incidental"), or whether the image has to say ("seen": by whether foreground or scene has it)."""

MAX_PHRASES = 20_000
Text = Annotated[str, StringConstraints(strict=True, strip_whitespace=True, min_length=1, max_length=300)]
"""CLIP reads 77 tokens; 300 characters are about as many."""


class VocabularyError(ValueError):
    """A vocabulary that cannot be used: the message names the place, what was expected, and what it found."""


class Phrase(BaseModel, frozen=True, extra="forbid"):
    """Something to ask an image about.

    Attributes
    ----------
    text : str
        In words, as shown to people. HTML is text like any other: whoever shows it must escape it.
    attribute : str
        What it says; phrases of one group with the same attribute count as one. The text itself if not given.
    opposite : str or None
        What to ask a generator for in its stead ("in the desert" for "in the snow").
    """

    text: Text
    attribute: Text = Field(default_factory=lambda given: given.get("text", ""))
    opposite: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise ValueError("a phrase is a text, or an object with text and, if wanted, attribute and opposite")
        return {"text": value} if isinstance(value, str) else value


class Group(BaseModel, frozen=True, extra="forbid"):
    """Phrases of one kind.

    Attributes
    ----------
    phrases : list of Phrase
    kind : "identity", "incidental" or "seen"
    one_of : bool
        An image has exactly one of them.
    template : str
        Sentence for CLIP with "{}" where the phrase goes and, if wanted, "{noun}".
    """

    phrases: list[Phrase] = []
    kind: Kind = "seen"
    one_of: StrictBool = False
    template: str = "{}"

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return value if isinstance(value, dict) else {"phrases": value}

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError('expected a text with "{}" in it once')
        return template


@dataclass(frozen=True)
class Attribute:
    """What tables have a row for: one meaning, said by one or several phrases.

    Attributes
    ----------
    name, group : str
    kind : "identity", "incidental" or "seen"
    one_of : bool
        As its group says.
    columns : tuple of int
        Which of `Vocabulary.texts()` say it.
    phrases : tuple of str
        The same without template.
    opposite : str or None
        The first that its phrases give.
    """

    name: str
    group: str
    kind: Kind
    one_of: bool
    columns: tuple[int, ...]
    phrases: tuple[str, ...]
    opposite: str | None = None


@dataclass(frozen=True)
class Vocabulary:
    """Groups of phrases.

    Attributes
    ----------
    groups : dict of str to Group
    noun : str
        What is in the image, for the templates.
    notes : tuple of str
        What was left out on reading, as sentences: repeated phrases, empty groups.
    """

    groups: dict[str, Group]
    noun: str = "character"
    notes: tuple[str, ...] = ()

    def texts(self, noun: str | None = None) -> list[str]:
        """Return the T sentences for CLIP, group by group; `noun` says what is in the images ("fox")."""
        return [
            group.template.replace("{}", phrase.text).replace("{noun}", noun or self.noun)
            for group in self.groups.values()
            for phrase in group.phrases
        ]

    def sentence(self, noun: str) -> Callable[[Attribute, str], str]:
        """Return how a phrase of an attribute's group becomes a sentence for CLIP."""

        def say(attribute: Attribute, phrase: str) -> str:
            return self.groups[attribute.group].template.replace("{}", phrase).replace("{noun}", noun)

        return say

    def request(self, noun: str) -> Callable[[Attribute, str], str]:
        """Return how a phrase of an attribute's group is asked for after a caption, which names the subject already.

        What a template says of the subject follows it ("a {noun} with {} eyes": "with green eyes"); what stands before
        the subject is what it is to be drawn as ("{} of a {noun}": "as a photo"; "{} {noun}": "as an old fox").
        """

        def ask(attribute: Attribute, phrase: str) -> str:
            before, _, after = self.groups[attribute.group].template.partition("{}")
            if "{noun}" in before:
                said = before.partition("{noun}")[2] + phrase + after
            elif "{noun}" in after:
                said = f"as {phrase}{'' if after.strip().startswith('of ') else after}"
            else:
                said = phrase
            return said.replace("{noun}", noun).strip()

        return ask

    def __len__(self) -> int:
        """Count the phrases, T."""
        return sum(len(group.phrases) for group in self.groups.values())

    @cached_property
    def digest(self) -> str:
        """Tells vocabularies that ask differently apart: what was found with one says nothing under another."""
        return sha1(repr((self.noun, self.groups)).encode()).hexdigest()[:12]

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """The A <= T attributes, group by group."""
        found: list[Attribute] = []
        start = 0
        for name, group in self.groups.items():
            found += _attributes(name, group, start)
            start += len(group.phrases)
        return tuple(found)


def _attributes(name: str, group: Group, start: int) -> list[Attribute]:
    """Gather a group's phrases by what they say; its first phrase is text number `start`."""
    said: dict[str, list[int]] = {}
    for at, phrase in enumerate(group.phrases):
        said.setdefault(phrase.attribute, []).append(at)
    one_of = group.one_of and len(said) > 1
    return [
        Attribute(
            attribute,
            name,
            group.kind,
            one_of,
            tuple(start + at for at in places),
            tuple(group.phrases[at].text for at in places),
            next((group.phrases[at].opposite for at in places if group.phrases[at].opposite), None),
        )
        for attribute, places in said.items()
    ]


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Read a vocabulary file.

    Parameters
    ----------
    path : str or Path
        A UTF-8 JSON file as the module describes.

    Returns
    -------
    Vocabulary

    Raises
    ------
    VocabularyError
        If the file is missing, not JSON, or `read_vocabulary` refuses what it holds.
    """
    try:
        data = json.loads(user_path("vocabulary", path, VocabularyError).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise VocabularyError(f"{path}: expected JSON in UTF-8, but {error}. Fix the file at that place.") from error
    try:
        return read_vocabulary(data)
    except VocabularyError as error:
        raise VocabularyError(f"{path}: {error}") from error


def read_vocabulary(data: Any) -> Vocabulary:
    """Make a vocabulary of what a JSON file holds; repeated phrases and empty groups are left out and noted.

    Parameters
    ----------
    data : dict
        As the module describes.

    Raises
    ------
    VocabularyError
        If something has the wrong form, nothing is left, or there are more than 20,000 phrases.

    Examples
    --------
    >>> read_vocabulary({"place": ["in the snow", "at the beach", "In the  snow"]}).notes
    ('group "place": "In the  snow" is there twice; the first counts',)
    """
    groups = data.get("groups", data) if isinstance(data, dict) else data
    if not isinstance(groups, dict):
        raise VocabularyError(f"expected an object of groups, got {type(groups).__name__}.")
    noun = data.get("noun", "character")
    if not isinstance(noun, str) or not noun.strip():
        raise VocabularyError(f"noun is a word for what is in the images, got {noun!r}.")
    notes: list[str] = []
    read = {
        name: _group(name, value, notes)
        for name, value in groups.items()
        if groups is not data or name not in ("about", "noun")
    }
    found = Vocabulary({name: group for name, group in read.items() if group.phrases}, noun, tuple(notes))
    if not found.groups:
        raise VocabularyError("expected at least one phrase, found none. Add a group with phrases.")
    if len(found) > MAX_PHRASES:
        raise VocabularyError(f"expected at most {MAX_PHRASES} phrases, got {len(found)}: keep fewer.")
    return found


def _group(name: str, value: Any, notes: list[str]) -> Group:
    try:
        group = Group.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ", ".join([f'group "{name}"', *map(str, fault["loc"])])
        raise VocabularyError(f"{place}: {fault['msg']}, got {fault['input']!r:.80}.") from error
    phrases: dict[str, Phrase] = {}
    for phrase in group.phrases:
        key = " ".join(phrase.text.lower().split())
        if key in phrases:
            notes.append(f'group "{name}": "{phrase.text}" is there twice; the first counts')
        phrases.setdefault(key, phrase)
    if not phrases:
        notes.append(f'group "{name}" is empty and was left out')
    return group.model_copy(update={"phrases": list(phrases.values())})


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
