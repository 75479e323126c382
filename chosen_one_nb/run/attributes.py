"""What the images of a gallery share, and whether anybody asked for it: phrases, CLIP, and a person's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from chosen_one_nb.analysis.counterfactual import Counterfactual
from chosen_one_nb.analysis.inquiry import Inquiry
from chosen_one_nb.analysis.localization import phrase_heat, shown_by
from chosen_one_nb.analysis.prompt_match import ANSWERS, Answer
from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
from chosen_one_nb.analysis.vocabulary import Attribute, Vocabulary, load_vocabulary, score_attributes
from chosen_one_nb.run import arguments, store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.node import Node, embedded
from chosen_one_nb.run.samples import PROBES, RunSamples
from chosen_one_nb.run.stages import Segmented, compute, segmented, vocabulary_file
from chosen_one_nb.run.state import RunState
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.prompts import subject

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.models.features import Clip
    from chosen_one_nb.models.load import Models

CORRECTIONS, TEXTS = "corrections.json", "texts.npz"
GIVEN_ANSWERS = TypeAdapter(dict[str, Answer])
"""Beside ``run.json``: a person's answers, and what CLIP makes of the words of an inquiry."""

NOT_LOOKED = NotAvailable(
    "Foreground and scene of this gallery have not been told apart yet: run.attributes.segment()."
)


MOST_LETTERS = 300
"""Of a phrase: CLIP reads 77 tokens."""


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
        return self._made(node, "patches", callbacks)

    def segment(self, node: Node | str | None = None, **callbacks: Any) -> Segmentation | NotAvailable:
        """Segment each image of a gallery into foreground and scene by patch tokens; computed once and kept.

        Raises
        ------
        RunError
            The gallery is not embedded yet, or the run is read-only and has none.
        """
        return self._made(node, "segmentation", callbacks)

    def _made(self, node: Node | str | None, stage: str, callbacks: Mapping[str, Any]) -> Any:
        # Kept with the node that drew the gallery, so that all its branches have it.
        home = self._state.tree.node(node).home
        embedded(home)
        if not home.done(stage):
            self._state.check_writable()
            with self._state.working(lambda: (home, stage)):
                compute(self._state, home, stage, Callbacks(**callbacks))
        return getattr(embedded(home), stage)  # asked for again: recording a stage forgets what was read before

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
        asked, words = self._vocabulary(vocabulary), self._vectors(TEXTS)
        node = self._state.tree.node(node)
        found = self._segmented(node, callbacks if segment else None)
        seen = {each: each.embedding.clip for each in self._state.tree.path(node) if each.embedding is not None}
        parts = {each: clip for each, clip in seen.items() if clip is not None}
        if node not in parts:
            raise RunError(f"Node {node.id} has not been seen through CLIP yet: run.step(), with models that have it.")
        # All galleries, and foregrounds and scenes alone, are scored at once, so that one measure holds for them.
        every = [*parts.values(), *(found[1] or ())]
        texts = words.texts(asked.texts(subject(self._state.prompt)))
        scores = score_attributes(np.concatenate(every), texts, asked, logit_scale=words.logit_scale)
        ends = np.cumsum([0, *(len(part) for part in every)])
        rows = [scores.rows(slice(a, b)) for a, b in pairwise(ends)]
        names = [f"iteration {each.iteration}" if each.iteration else "base" for each in parts]
        shown = shown_by(*rows[-3:]) if found[1] else None
        chosen = np.array(node.decision.images) if node.decision else None
        galleries = dict(zip(names, rows, strict=False))
        return Inquiry(self._state.prompt, galleries, found[0], shown, self.corrections, words.texts, chosen)

    def search(self, phrase: str, node: Node | str | None = None) -> np.ndarray:
        """Compute how well each image of a gallery (None: the current one) fits a phrase, by CLIP.

        Parameters
        ----------
        phrase : str
            1 to 300 characters, such as ``"a fox at night"``.

        Returns
        -------
        ndarray of shape (N,)
            Cosines. They order the images of one gallery; what counts as a match differs from phrase to phrase.

        Raises
        ------
        RunError
            The phrase is none, or the gallery has not been seen through CLIP.
        """
        node, phrase = self._state.tree.node(node), arguments.text("phrase", phrase).strip()
        if not 1 <= len(phrase) <= MOST_LETTERS:
            raise RunError(f"phrase: expected 1 to {MOST_LETTERS} characters, got {len(phrase)}.")
        if (seen := embedded(node).clip) is None:
            raise RunError(f"Node {node.id} has not been seen through CLIP yet: run.step(), with models that have it.")
        return seen @ clip_of(self._state.checked_models()).texts([phrase])[0]

    def _segmented(self, node: Node, callbacks: Mapping[str, Any] | None) -> Segmented:
        """What is known of a gallery's foregrounds; with callbacks, computed where nothing is yet."""
        # A run that is only looked at can be asked too; then nothing is kept, and asking again computes again.
        if callbacks is not None and node.embedding is not None and node.embedding.segmentation is None:
            if self._state.read_only:
                return segmented(self._state.checked_models(), node, Callbacks(**callbacks))
            self._made(node, "segmentation", callbacks)
        seen = node.embedding
        return (NOT_LOOKED, None) if seen is None or seen.segmentation is None else (seen.segmentation, seen.clip_alone)

    @property
    def cached(self) -> bool:
        """Whether an inquiry has been made: what CLIP makes of the vocabulary's words is then on disk."""
        return (self._state.folder / TEXTS).exists()

    @property
    def vocabulary_file(self) -> Path:
        """The file of phrases that an inquiry asks about."""
        return vocabulary_file(self._state.folder, self._state.tree.manifest["models"]["name"])

    def _vocabulary(self, given: Vocabulary | str | Path | None) -> Vocabulary:
        return given if isinstance(given, Vocabulary) else load_vocabulary(given or self.vocabulary_file)

    def _vectors(self, name: str) -> ClipVectors:
        state = self._state
        return ClipVectors(state.folder / name, state.checked_models, state.fingerprint, keep=not state.read_only)

    def heat(
        self, attribute: Attribute, images: Sequence[int], node: Node | str | None = None
    ) -> np.ndarray | NotAvailable:
        """Compute which patches of images show an attribute, (n, h, w), by CLIP's patch tokens."""
        clip, gallery = clip_of(self._state.checked_models()), self._state.tree.node(node).images
        patches, grid = clip.patches([gallery[i] for i in images])
        texts = clip.texts([f"a {subject(self._state.prompt)}", *attribute.phrases])
        # What merely names the subject is no sign of the attribute: its heat is taken off (the first text).
        return phrase_heat(patches, texts, range(1, len(texts)), [0], grid)

    @property
    def corrections(self) -> dict[str, Answer]:
        """What a person said of attributes, by "group: name"; see `correct`."""
        path = self._state.folder / CORRECTIONS
        advice = "Put back a sound copy, or delete it to begin anew."
        return store.read_or_advise(path, advice, GIVEN_ANSWERS) if path.exists() else {}

    def correct(self, attribute: Attribute, answer: Answer | None) -> None:
        """Say whether an attribute is asked for, identity or incidental; kept with the run. None takes it back."""
        state = self._state
        state.check_writable()
        if answer is not None and answer not in ANSWERS:
            raise RunError(f"Expected one of {', '.join(ANSWERS)}, or None to take it back, got {answer!r}.")
        # By name, not by number: an answer holds for the next vocabulary as well.
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
            raise RunError("There is no character to test yet: run.next_iteration() refines the first one.")
        asked, noun = self._vocabulary(vocabulary), subject(state.prompt)
        words, sight = self._vectors(TEXTS), self._vectors("counterfactual/seen.npz")
        n = 2 * sum(bool(attribute.opposite) for attribute in attributes)
        # Each opposite is drawn twice, with the base models and with the character: so many equal parts of progress.
        parts = iter([Callbacks(**callbacks).part(i, n) for i in range(n)])

        def drawn(whose: Node | None, text: str) -> list[Image.Image]:
            return self._samples.draw(self._samples.request(whose, text, seeds), whose, "counterfactual", next(parts))

        return counterfactual(
            attributes,
            lambda text: drawn(None, text),
            lambda text: drawn(source, text),
            lambda images, texts: sight.images(images) @ words.texts(texts).T,
            say=asked.sentence(noun),
            ask=asked.request(noun),
        )


class ClipVectors:
    """CLIP's unit vectors of texts or images: computed once, kept on disk.

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

    def __init__(self, path: Path, models: Callable[[], Models], fingerprint: str, *, keep: bool) -> None:
        self._path, self._models, self._fingerprint, self._keep = path, models, fingerprint, keep
        self._vectors: dict[str, np.ndarray] = {}
        self._logit_scale = 0.0
        with suppress(store.StoreError, KeyError, TypeError, ValueError):  # nothing yet, or damaged: computed again
            kept = store.read_arrays(path)
            # Vectors of other models live in another space, and comparing across gives numbers that mean nothing.
            if str(kept["fingerprint"]) == fingerprint:
                self._vectors = dict(zip(kept["names"].tolist(), kept["vectors"], strict=True))
                self._logit_scale = float(kept["logit_scale"])

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors (T, D) of texts."""
        return self._looked_up(texts, lambda unknown: clip_of(self._models()).texts(unknown))

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return vectors (N, D) of images, known by a checksum of their pixels."""
        # Known by their pixels: a second test with other attributes finds most of its images seen already.
        named = {store.digest(image.tobytes()): image for image in images}
        names = [store.digest(image.tobytes()) for image in images]
        return self._looked_up(names, lambda new: clip_of(self._models()).images([named[name] for name in new]))

    def _looked_up(self, names: Sequence[str], compute: Callable[[list[str]], np.ndarray]) -> np.ndarray:
        if unknown := [name for name in dict.fromkeys(names) if name not in self._vectors]:
            self._vectors |= zip(unknown, compute(unknown), strict=True)
            if self._keep:
                self._write()
        return np.stack([self._vectors[name] for name in names])

    @property
    def logit_scale(self) -> float:
        """CLIP's factor on cosines."""
        self._logit_scale = self._logit_scale or clip_of(self._models()).logit_scale
        return self._logit_scale

    def _write(self) -> None:
        arrays = {
            "names": np.array(list(self._vectors)),
            "vectors": np.stack(list(self._vectors.values())),
            "logit_scale": np.array(self.logit_scale),
            "fingerprint": np.array(self._fingerprint),
        }
        store.write_arrays(self._path, arrays)


def clip_of(models: Models) -> Clip:
    """Return CLIP of some models; a `RunError` where they have none."""
    if models.clip is None:
        raise RunError("These models come without CLIP, which says what an image shows: load_models(..., clip=...).")
    return models.clip
