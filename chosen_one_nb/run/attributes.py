"""What the images of a gallery share, and whether anybody asked for it: phrases, CLIP, and a person's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.analysis.counterfactual import Counterfactual
from chosen_one_nb.analysis.heatmaps import phrase_heat
from chosen_one_nb.analysis.inquiry import Inquiry
from chosen_one_nb.analysis.localization import shown_by
from chosen_one_nb.analysis.prompt_match import ANSWERS, Answer
from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
from chosen_one_nb.analysis.vocabulary import Attribute, Vocabulary, load_vocabulary
from chosen_one_nb.analysis.zero_shot import score_attributes
from chosen_one_nb.run import opening, store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.samples import PROBES, RunSamples
from chosen_one_nb.run.stages import StageContext, compute, segmented
from chosen_one_nb.run.state import RunState
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.subject import subject

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models

CORRECTIONS, TEXTS = "corrections.json", "texts.npz"
"""Beside ``run.json``: a person's answers, and what CLIP makes of the words of an inquiry."""

Segmented = tuple[Segmentation | NotAvailable, tuple[np.ndarray, ...] | None]
NOT_LOOKED = NotAvailable(
    "Foreground and scene of this gallery have not been told apart yet: run.attributes.segment()."
)


class RunAttributes:
    """Ask what a run's images share; see `chosen_one_nb.analysis.inquiry`.

    Parameters
    ----------
    state : RunState
    samples : RunSamples
        Draws what the counterfactual test asks for.
    """

    def __init__(self, state: RunState, samples: RunSamples) -> None:
        self._state, self._samples = state, samples

    def patch_tokens(self, node: Node | str | None = None, **callbacks: Any) -> np.ndarray:
        """Return the patch tokens of a gallery, shape (N, P, D) float16; made once and kept.

        Raises
        ------
        RunError
            The gallery is not embedded yet, or the run is read-only and has none.
        """
        return self._made(node, "patches", callbacks).patches

    def segment(self, node: Node | str | None = None, **callbacks: Any) -> Segmentation | NotAvailable:
        """Return foreground and scene of each image of a gallery, told apart by patch tokens; made once and kept.

        Raises
        ------
        RunError
            The gallery is not embedded yet, or the run is read-only and has none.
        """
        return self._made(node, "segmentation", callbacks).segmentation

    def _made(self, node: Node | str | None, stage: str, callbacks: Mapping[str, Any]) -> Node:
        home = self._state.tree.node(node).home
        if not home.done(stage):
            if not home.done("embed"):
                raise RunError(f"Node {home.id} is not embedded yet: run.step().")
            self._state.check_writable()
            with self._state.working(lambda: (home, stage)):
                compute(StageContext(self._state, Callbacks(**callbacks)), home, stage)
        return home

    def inquiry(
        self,
        node: Node | str | None = None,
        *,
        vocabulary: Vocabulary | str | Path | None = None,
        segment: bool = True,
        **callbacks: Any,
    ) -> Inquiry:
        """Ask what the images of a gallery share, and whether anybody asked for it.

        Parameters
        ----------
        node : Node or str, optional
            None: the current one; it is compared with the galleries before it on its branch.
        vocabulary : Vocabulary, str or Path, optional
            The phrases to ask about, or their file. None: ``vocabulary.json`` in the run's folder, else the one
            that comes with the models, else ``data/attributes.json``.
        segment : bool
            Whether to segment the gallery, if that has not been done; needs the models.
        **callbacks
            ``on_progress``, ``cancelled`` as in `Run.step`.

        Returns
        -------
        Inquiry
            Tables, sentences and suggestions; see `chosen_one_nb.analysis.inquiry`.

        Raises
        ------
        RunError
            The gallery has not been seen through CLIP.
        VocabularyError
            The vocabulary cannot be used.
        """
        state, node = self._state, self._state.tree.node(node)
        chosen, found = self._vocabulary(vocabulary), segmentation_of(node)
        if segment and node.segmentation is None and node.done("embed"):
            if state.read_only:
                found = segmented(state.checked_models(), node, Callbacks(**callbacks))
            else:
                self._made(node, "segmentation", callbacks)
                found = segmentation_of(node)
        return inquire(state.prompt, state.tree.path(node), found, self._words(), chosen, self.corrections)

    @property
    def cached(self) -> bool:
        """Whether an inquiry has been made: what CLIP makes of the vocabulary's words is then on disk."""
        return (self._state.folder / TEXTS).exists()

    @property
    def vocabulary_file(self) -> Path:
        """The file of phrases that an inquiry asks about."""
        return opening.vocabulary_file(self._state.folder, self._state.tree.manifest["models"]["name"])

    def _vocabulary(self, given: Vocabulary | str | Path | None) -> Vocabulary:
        return given if isinstance(given, Vocabulary) else load_vocabulary(given or self.vocabulary_file)

    def _words(self) -> Words:
        state = self._state
        return Words(state.folder / TEXTS, state.checked_models, state.fingerprint, not state.read_only)

    def heat(
        self, attribute: Attribute, images: Sequence[int], node: Node | str | None = None
    ) -> np.ndarray | NotAvailable:
        """Tell which patches of images say an attribute, (n, h, w), through CLIP's patch tokens."""
        node = self._state.tree.node(node)
        return heat_of(self._state.checked_models(), self._state.prompt, attribute, [node.image(i) for i in images])

    @property
    def corrections(self) -> dict[str, Answer]:
        """What a person said of attributes, by "group: name"; see `correct`."""
        path = self._state.folder / CORRECTIONS
        return store.read_json(path) if path.exists() else {}

    def correct(self, attribute: Attribute, answer: Answer | None) -> None:
        """Say whether an attribute is asked for, identity or incidental; kept with the run. None takes it back."""
        state = self._state
        state.check_writable()
        if answer is not None and answer not in ANSWERS:
            raise RunError(f"Expected one of {', '.join(ANSWERS)}, or None to take it back, got {answer!r}.")
        with state.lock:
            name = f"{attribute.group}: {attribute.name}"
            answers = {key: value for key, value in self.corrections.items() if key != name}
            store.write_json(state.folder / CORRECTIONS, answers if answer is None else {**answers, name: answer})
            state.changed("correct", state.tree.current, attribute=name, answer=answer)

    def counterfactual(
        self,
        attributes: Sequence[Attribute],
        node: Node | str | None = None,
        seeds: int = PROBES,
        *,
        vocabulary: Vocabulary | str | Path | None = None,
        **callbacks: Any,
    ) -> Counterfactual:
        """Prove what a character has baked in: ask for the opposite of attributes, with the base models and with it.

        Parameters
        ----------
        attributes : sequence of Attribute
            For example those that `inquiry` flagged; one without an opposite in the vocabulary is skipped.
        node : Node or str, optional
            Whose character, as in `RunSamples.probe`. None: that of `Run.character`.
        seeds : int
            Images for each, on the same seeds with and without. What is drawn and seen is kept, so a second call
            needs no models, and another character draws only its own side.
        vocabulary
            As of `inquiry`.
        **callbacks
            ``on_progress``, ``on_images``, ``cancelled`` as in `Run.step`.

        Returns
        -------
        Counterfactual
            A table, and the images by opposite: (base, character).

        Raises
        ------
        RunError
            There is no character yet.
        """
        from chosen_one_nb.analysis.counterfactual import counterfactual

        state, source = self._state, self._state.tree.theta_node(node)
        if source is None:
            raise RunError("There is no Θ to test yet: it comes with the first refinement, run.next_iteration().")
        chosen, noun, words = self._vocabulary(vocabulary), subject(state.prompt), self._words()
        seen = state.folder / "counterfactual" / "seen.npz"
        sight = Sight(seen, state.checked_models, state.fingerprint, not state.read_only)
        n = 2 * sum(bool(attribute.opposite) for attribute in attributes)
        parts = iter([Callbacks(**callbacks).part(i, n) for i in range(n)])
        return counterfactual(
            attributes,
            lambda text: self._samples.draw(None, text, seeds, "counterfactual", next(parts)),
            lambda text: self._samples.draw(source, text, seeds, "counterfactual", next(parts)),
            lambda images, texts: sight(images) @ words(texts).T,
            say=sentence(chosen, noun),
            ask=wording(chosen, noun),
        )


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
