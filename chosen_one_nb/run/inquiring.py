"""From a run on disk to an inquiry into what its images share: the vocabulary, CLIP's words, a person's answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.analysis.heatmaps import phrase_heat
from chosen_one_nb.analysis.inquiry import Inquiry
from chosen_one_nb.analysis.localization import shown_by
from chosen_one_nb.analysis.prompt_match import ANSWERS
from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
from chosen_one_nb.analysis.vocabulary import Attribute, Vocabulary, load_vocabulary
from chosen_one_nb.analysis.zero_shot import score_attributes
from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.steps.subject import subject

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run.node import Node

DATA = Path(__file__).parents[2] / "data"
OWN, CORRECTIONS = "vocabulary.json", "corrections.json"
"""A run's own vocabulary (put there by hand), and a person's answers."""

Segmented = tuple[Segmentation | NotAvailable, tuple[np.ndarray, ...] | None]
NOT_LOOKED = NotAvailable("Foreground and scene of this gallery have not been told apart yet: run.segment().")


def vocabulary_file(folder: Path, model_name: str) -> Path:
    """Find the vocabulary of a run: its own, else one for its models, else that for images at large.

    Parameters
    ----------
    folder : Path
        Of the run; a file ``vocabulary.json`` in it goes before all others.
    model_name : str
        ``data/attributes_NAME.json`` is taken for models whose name ends with NAME.
    """
    name = re.sub(r"\W+", "-", Path(model_name).name.lower())
    choices = (folder / OWN, DATA / f"attributes_{name}.json", DATA / "attributes.json")
    return next((path for path in choices if path.exists()), choices[-1])


class Words:
    """CLIP's vectors of texts: looked up where they are known, asked for and kept where not.

    Parameters
    ----------
    path : Path
        Where they are kept.
    models : callable
        Gives the models, loading them when first asked.
    fingerprint : str
        Of these models: vectors of others do not count.
    keep : bool
        Whether what is new is written.
    """

    def __init__(self, path: Path, models: Callable[[], Models], fingerprint: str, keep: bool) -> None:
        self._path, self._models, self._fingerprint, self._keep = path, models, fingerprint, keep
        self._vectors: dict[str, np.ndarray] = {}
        self._sharpness = 0.0
        self._read()

    def _read(self) -> None:
        try:
            kept = store.read_arrays(self._path)
        except store.StoreError:
            return  # nothing yet, or damaged: made again
        if str(kept["fingerprint"]) == self._fingerprint:
            self._vectors = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))
            self._sharpness = float(kept["logit_scale"])

    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors (T, D) of texts."""
        if unknown := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self._vectors |= zip(unknown, _clip(self._models()).texts(unknown), strict=True)
            self._write()
        return np.stack([self._vectors[text] for text in texts])

    @property
    def logit_scale(self) -> float:
        """CLIP's factor on cosines."""
        if not self._sharpness:
            self._sharpness = _clip(self._models()).logit_scale
        return self._sharpness

    def _write(self) -> None:
        if self._keep:
            arrays = {"texts": np.array(list(self._vectors)), "vectors": np.stack(list(self._vectors.values())),
                      "logit_scale": np.array(self.logit_scale),
                      "fingerprint": np.array(self._fingerprint)}  # fmt: skip
            store.write_arrays(self._path, arrays)


class Sight(Words):
    """CLIP's vectors of images, kept in the same way, by a checksum of their pixels."""

    def __call__(self, images: Sequence[Any]) -> np.ndarray:
        """Return unit vectors (N, D) of images."""
        names = [store.digest(image.tobytes()) for image in images]
        unknown = {n: p for n, p in zip(names, images, strict=True) if n not in self._vectors}
        if unknown:
            self._vectors |= zip(unknown, _clip(self._models()).images(list(unknown.values())), strict=True)
            self._write()
        return np.stack([self._vectors[name] for name in names])


def _clip(models: Models) -> Any:
    if models.clip is None:
        raise RunError("These models come without CLIP, which says what an image shows: load_models(..., clip=...).")
    return models.clip


def inquire(prompt: str, nodes: list[Node], segmented: Segmented, words: Words, vocabulary: Vocabulary,
            corrections: dict[str, Any]) -> Inquiry:  # fmt: skip
    """Put an inquiry together from the galleries up to the one in question.

    Parameters
    ----------
    prompt : str
    nodes : list of Node
        From the root to the one in question.
    segmented : (Segmentation or NotAvailable, (ndarray, ndarray) or None)
        Of the last, and what CLIP sees of its foregrounds and scenes alone.
    words : Words
    vocabulary : Vocabulary
    corrections : dict
    """
    seen = [node for node in nodes if node.clip is not None]
    if not seen or seen[-1] is not nodes[-1]:
        raise RunError(f"Node {nodes[-1].id} has not been seen through CLIP yet: run.step(), with models that have it.")
    last = seen[-1]
    segmentation, alone = segmented
    parts = [node.clip for node in seen] + list(alone or ())
    texts = words(vocabulary.texts(subject(prompt)))
    every = score_attributes(np.concatenate(parts), texts, vocabulary, logit_scale=words.logit_scale)
    ends = np.cumsum([0, *(len(part) for part in parts)])
    rows = [every.rows(slice(a, b)) for a, b in pairwise(ends)]
    galleries = {_name(node): part for node, part in zip(seen, rows, strict=False)}
    chosen = np.array(last.decision.images) if last.decision else None
    return Inquiry(prompt, galleries, segmentation, shown_by(*rows[-3:]) if alone else None, corrections, words, chosen)


def _name(node: Node) -> str:
    return f"iteration {node.iteration}" if node.iteration else "base"


def segmentation_of(node: Node) -> Segmented:
    """What is known of the foregrounds without looking for them."""
    return (NOT_LOOKED, None) if node.segmentation is None else (node.segmentation, node.clip_alone)


def sentence(vocabulary: Vocabulary, noun: str) -> Callable[[Attribute, str], str]:
    """Return how a phrase of an attribute's group becomes a sentence for CLIP."""

    def say(attribute: Attribute, phrase: str) -> str:
        return vocabulary.groups[attribute.group].template.replace("{}", phrase).replace("{noun}", noun)

    return say


def wording(vocabulary: Vocabulary, noun: str) -> Callable[[Attribute, str], str]:
    """Return how a phrase of an attribute's group is asked for after a caption, which names the subject already.

    What a template says of the subject follows it ("a {noun} with {} eyes": "with green eyes"); what stands before the
    subject is what it is to be drawn as ("{} of a {noun}": "as a photo"; "{} {noun}": "as an old fox").
    """

    def ask(attribute: Attribute, phrase: str) -> str:
        before, _, after = vocabulary.groups[attribute.group].template.partition("{}")
        if "{noun}" in before:
            said = before.partition("{noun}")[2] + phrase + after
        elif "{noun}" in after:
            said = f"as {phrase}{'' if after.strip().startswith('of ') else after}"
        else:
            said = phrase
        return said.replace("{noun}", noun).strip()

    return ask


def heat_of(models: Models, prompt: str, attribute: Attribute, images: list[Any]) -> Any:
    """Tell which patches of images say an attribute rather than just naming what is in the image."""
    clip = _clip(models)
    patches, grid = clip.patches(images)
    texts = clip.texts([f"a {subject(prompt)}", *attribute.phrases])
    return phrase_heat(patches, texts, range(1, len(texts)), [0], grid)


def read_corrections(folder: Path) -> dict[str, Any]:
    """Read a person's answers, by "group: name"; nothing where there are none."""
    return store.read_json(folder / CORRECTIONS) if (folder / CORRECTIONS).exists() else {}


def write_corrections(folder: Path, answers: dict[str, Any]) -> None:
    """Keep a person's answers with the run."""
    store.write_json(folder / CORRECTIONS, answers)


def corrected(known: dict[str, Any], attribute: str, answer: str | None) -> dict[str, Any]:
    """Return answers with one changed, or (None) taken back."""
    if answer is not None and answer not in ANSWERS:
        raise RunError(f"Expected one of {', '.join(ANSWERS)}, or None to take it back, got {answer!r}.")
    others = {name: value for name, value in known.items() if name != attribute}
    return others if answer is None else {**others, attribute: answer}


def vocabulary_of(given: Vocabulary | str | Path | None, folder: Path, model_name: str) -> Vocabulary:
    """Return the vocabulary that was given, by itself or by its file, or the one that goes with the run."""
    if isinstance(given, Vocabulary):
        return given
    return load_vocabulary(given or vocabulary_file(folder, model_name))
