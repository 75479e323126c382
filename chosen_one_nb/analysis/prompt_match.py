"""Whether a shared attribute was asked for, makes the identity, or came along by accident; and what to caption.

Asked for: the prompt says it, by its words or, if a text encoder is given, by words close to it in meaning.
Identity: it belongs to the foreground. Incidental: it belongs to scene, framing, style or mood. A person's
correction, kept as a plain dict, goes over all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.vocabulary import Attribute, AttributeScores, Vocabulary

__all__ = ["ANSWERS", "Answer", "asked", "classify", "descriptions", "pieces"]

Answer = Literal["asked", "identity", "incidental"]
Encode = Callable[[list[str]], np.ndarray]
ANSWERS: tuple[Answer, ...] = get_args(Answer)

FILLERS = frozenset(
    re.findall(
        r"\w+",
        "a an the of in on at by to for from with and or is are its his her their very some "
        "wearing holding having showing made picture image scene someone somebody something",
    )
)
NEGATIONS = frozenset({"without", "no", "not", "never"})
CLAUSE_ENDS = frozenset({",", ".", ";", "but", "and", "with", "in", "on", "at", "wearing", "holding"})
LONGEST_PIECE = 4  # words
ALIKE = 0.92  # cosine from which two texts mean the same
MARGIN = 0.05  # evidence from the images below it does not count
FOLLOWS = "a {noun} {}"  # the template of groups whose phrases can stand after a caption


def _wished(prompt: str) -> list[str]:
    """The telling words of a prompt, in lower case and singular; what it does *not* want is left out, "|" is a gap."""
    kept: list[str] = []
    denied = False
    for word in re.findall(r"[^\W_]+(?:['-][^\W_]+)*|[,.;]", prompt.lower()):
        word = word[:-1] if len(word) > 3 and re.search(r"[^s]s$", word) else word
        denied = (denied and word not in CLAUSE_ENDS) or word in NEGATIONS
        if denied or word in ",.;":
            kept.append("|")
        elif word not in FILLERS:
            kept.append(word)
    return kept


def pieces(prompt: str) -> list[str]:
    """List the runs of one to four telling words of a prompt, whose meaning a phrase is compared with.

    Examples
    --------
    >>> pieces("a sticker of a ginger cat")
    ['sticker', 'sticker ginger', 'sticker ginger cat', 'ginger', 'ginger cat', 'cat']
    """
    words = _wished(prompt)
    runs = [
        words[start:stop]
        for start in range(len(words))
        for stop in range(start + 1, min(start + LONGEST_PIECE, len(words)) + 1)
    ]
    return list(dict.fromkeys(" ".join(run) for run in runs if "|" not in run))


def asked(
    attributes: Sequence[Attribute], prompt: str, *, encode: Encode | None = None, threshold: float = ALIKE
) -> list[str]:
    """Tell which attributes a prompt asks for.

    First by words: the telling words of one of the attribute's phrases stand in the prompt, side by side and
    in order ("red hat" is not in "a red scarf and a blue hat"), and not after "without" or "no". Then by
    meaning, for what the vocabulary says otherwise: of all phrases, one is closest to some run of the prompt's words,
    and close enough. Runs whose words are all in the vocabulary as they stand have said what they mean: "cat" is
    close to "kitten", but asks for a cat.

    Parameters
    ----------
    attributes : sequence of Attribute, length A
    prompt : str
    encode : callable, optional
        Texts -> unit vectors (T, D): `Clip.texts`. Without it only words count.
    threshold : float
        Cosine from which two texts mean the same.

    Returns
    -------
    list of str, length A
        Why it counts as asked for, "" where it does not.
    """
    said = [_said(attribute, prompt) for attribute in attributes]
    reasons = [words and f'the prompt says "{words}"' for words in said]
    clear = {word for words in said for word in words.split()}
    runs = [run for run in pieces(prompt) if not clear.issuperset(run.split())]
    unsaid = [(at, " ".join(_wished(phrase))) for at, attribute in enumerate(attributes) if not reasons[at]
              for phrase in attribute.phrases]  # fmt: skip
    unsaid = [(at, phrase) for at, phrase in unsaid if phrase.strip("| ")]
    if encode is None or not runs or not unsaid:
        return reasons
    cosines = encode([phrase for _, phrase in unsaid]) @ encode(runs).T  # (phrases, runs)
    for run, column in zip(runs, cosines.T, strict=True):
        nearest = {unsaid[place][0] for place in np.flatnonzero(column >= column.max() - 1e-6)}
        if column.max() >= threshold and len(nearest) == 1:
            at = nearest.pop()
            reasons[at] = reasons[at] or f'close to "{run}" in the prompt (cosine {column.max():.2f})'
    return reasons


def _said(attribute: Attribute, prompt: str) -> str:
    """Give the words of the attribute's phrase that a prompt holds word by word, or ""."""
    line = f" {' '.join(_wished(prompt))} "
    for phrase in (attribute.name, *attribute.phrases):
        telling = " ".join(_wished(phrase))
        if telling.strip("| ") and f" {telling} " in line:
            return telling
    return ""


def classify(
    attributes: Sequence[Attribute],
    prompt: str,
    *,
    encode: Encode | None = None,
    on_foreground: np.ndarray | None = None,
    corrections: Mapping[str, Answer] | None = None,
) -> pd.DataFrame:
    """Say of each attribute whether it is asked for, identity or incidental, and why.

    Parameters
    ----------
    attributes : sequence of Attribute, length A
    prompt : str
    encode : callable, optional
        See `asked`.
    on_foreground : ndarray of shape (A,), optional
        Evidence from the images, positive where the foreground shows it: `localization.shown_by` or
        `localization.on_foreground`. Speaks where the vocabulary leaves it open (kind "seen"); without evidence the
        attribute is incidental.
    corrections : mapping of str to "asked", "identity" or "incidental", optional
        A person's word, by attribute name, or "group: name" where a name is in two groups.

    Returns
    -------
    DataFrame
        A row per attribute, in their order: `attribute`, `group`, `answer`, `why`.

    Raises
    ------
    ValueError
        If a correction is none of the three, or `on_foreground` has another length.
    """
    corrections = corrections or {}
    wrong = {name: answer for name, answer in corrections.items() if answer not in ANSWERS}
    if wrong:
        raise ValueError(f"expected corrections to be one of {', '.join(ANSWERS)}, got {wrong}.")
    evidence = np.full(len(attributes), np.nan) if on_foreground is None else on_foreground
    if len(evidence) != len(attributes):
        raise ValueError(f"expected evidence for {len(attributes)} attributes, got {len(evidence)}.")
    reasons = asked(attributes, prompt, encode=encode)
    rows = [
        (attribute.name, attribute.group, *_answer(attribute, reason, shown, corrections))
        for attribute, reason, shown in zip(attributes, reasons, evidence, strict=True)
    ]
    return pd.DataFrame(rows, columns=["attribute", "group", "answer", "why"])


def _answer(
    attribute: Attribute, reason: str, evidence: float, corrections: Mapping[str, Answer]
) -> tuple[Answer, str]:
    said = corrections.get(f"{attribute.group}: {attribute.name}", corrections.get(attribute.name))
    if said:
        return said, "you said so"
    if reason:
        return "asked", reason
    if attribute.kind != "seen":
        return attribute.kind, f'"{attribute.group}" counts as {attribute.kind}'
    if np.isnan(evidence) or abs(evidence) < MARGIN:
        return "incidental", "the images do not tell whether it is on the foreground"
    return ("identity", "it shows on the foreground") if evidence > 0 else ("incidental", "it shows in the scene")


def descriptions(found: AttributeScores, vocabulary: Vocabulary, prompt: str) -> list[list[str]]:
    """Describe the scene of each image, in words that can follow a caption.

    Of every group that belongs to the scene and of which an image has one (a place, a pose, surroundings): the
    attribute that it surely has. What the prompt asks for is left out, since the caption says it already.

    Parameters
    ----------
    found : AttributeScores
        Of N images.
    vocabulary : Vocabulary
        The one that `found` was made with.
    prompt : str

    Returns
    -------
    list of list of str, length N
        Phrases, the surest first.
    """
    reasons = asked(found.attributes, prompt)
    spoken = {attribute.group for attribute, reason in zip(found.attributes, reasons, strict=True) if reason}
    columns = [
        column for column, attribute in enumerate(found.attributes)
        if attribute.one_of and attribute.kind == "incidental" and attribute.group not in spoken
        and vocabulary.groups[attribute.group].template == FOLLOWS
    ]  # fmt: skip
    has = found.has_it
    return [
        [found.attributes[c].phrases[0] for c in sorted(columns, key=lambda c: -row[c]) if has[i, c]]
        for i, row in enumerate(found.values)
    ]
