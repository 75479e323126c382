"""What a run draws besides its galleries, with the models at hand: probes, contexts, patch tokens.

Work with the models is done here one piece at a time; who asks meanwhile is told what is going on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.run import opening, store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.drawing import CONTEXTS, Album, draw
from chosen_one_nb.run.editor import Editor
from chosen_one_nb.run.node import ASIDE, SHARED, STAGES, Node
from chosen_one_nb.run.stages import DO, Bench
from chosen_one_nb.run.tree import Tree
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.subject import subject

if TYPE_CHECKING:
    import pandas as pd

    from chosen_one_nb.analysis.counterfactual import Counterfactual
    from chosen_one_nb.analysis.inquiry import Inquiry
    from chosen_one_nb.analysis.prompt_match import Answer
    from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
    from chosen_one_nb.analysis.vocabulary import Attribute, Vocabulary
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run import inquiring
    from chosen_one_nb.run.cost_estimate import Plan

PROBES = 8
"""Images drawn with every Θ on the same seeds."""

TEXTS = "texts.npz"
"""What CLIP makes of the words of an inquiry; beside ``run.json``."""


class ModelsDiffer(RunError):
    """The run was made with other models than those at hand."""


class Painter(Editor):
    """The side of a `chosen_one_nb.run.run.Run` that needs models.

    Parameters
    ----------
    tree : Tree
    read_only : bool
        Whether what is drawn is not kept.
    """

    def __init__(self, tree: Tree, read_only: bool) -> None:
        super().__init__(tree, read_only)
        self._models: Models | None = None
        self._loading = threading.Lock()  # a screen counts and asks in the background while a stage is begun
        self._others_allowed = self._others_logged = False

    @property
    def models(self) -> Models:
        """The models, loaded by name when first asked for."""
        with self._loading:
            if self._models is None:
                self._models = opening.reloaded(self._tree.manifest["models"])
            return self._models

    @property
    def _fingerprint(self) -> str:
        """Of the models that draw now, known without loading them."""
        if self._others_allowed and self._models is not None:
            return self._models.fingerprint
        return self._tree.manifest["models"]["fingerprint"]

    def _ready_models(self) -> Models:
        """The models, if they are those the run was made with or others are allowed."""
        made, now = self._tree.manifest["models"], self.models
        if now.fingerprint == made["fingerprint"]:
            return now
        if not self._others_allowed:
            raise ModelsDiffer(
                f"This run was made with {made['name']} ({made['fingerprint'][:8]}), at hand is {now.name} "
                f"({now.fingerprint[:8]}). Looking works; to go on, give the same models, or say that "
                "others are meant: Run.open(folder, models, allow_other_models=True)."
            )
        if not self._others_logged:
            self._log("models", self.current, name=now.name, fingerprint=now.fingerprint)
            self._others_logged = True
        return now

    def plan(self, node: Node | str | None = None) -> Plan:
        """Count what an iteration with a node's settings takes: operations, weights, memory of each stage.

        Nothing is drawn; the models are loaded if they are not yet. `print` it before a long run.
        """
        from chosen_one_nb.run.cost_estimate import plan

        return plan(self.models, self.node(node).settings)

    def probe(self, node: Node | str | None = None, *, strength: float = 1.0, **calls: Any) -> list[Image.Image]:
        """Draw the run's eight fixed seeds with the Θ of a node, to compare Θs by eye; kept on disk.

        Parameters
        ----------
        node : Node or str, optional
            Whose Θ: its own, else the one its gallery was drawn with, else none. None: the current node.
        strength : float
            How much of Θ, in [0, 1].
        **calls
            ``on_progress``, ``on_images``, ``cancelled`` as in `step`.

        Returns
        -------
        list of PIL.Image
        """
        return self._show(self._theta_node(self.node(node)), "", PROBES, "probe", strength, Callbacks(**calls))

    def drawn_probe(self, node: Node | str | None = None, *, strength: float = 1.0) -> list[Image.Image]:
        """Return what `probe` has drawn before and kept; empty if it has not, or not with this Θ."""
        source = self._theta_node(self.node(node))
        paths = sorted((self._shown_in("probe", source, strength) / opening.slug("")).glob("*.png"))
        images = [store.read_image(path) for path in paths]
        digest = source.theta_digest if source else ""
        whole = len(images) == PROBES and all(image.info.get("theta") == digest for image in images)
        return images if whole else []

    def _shown_in(self, kind: str, source: Node | None, strength: float) -> Path:
        name = f"{source.id if source else 'base'}" + (f"@{strength:g}" if strength != 1.0 else "")
        return self.folder / kind / name

    def contexts(
        self,
        node: Node | str | None = None,
        contexts: Sequence[str] | None = None,
        seeds: int = 4,
        *,
        base: bool = False,
        weight: float | None = None,
        **calls: Any,
    ) -> dict[str, list[Image.Image]]:
        """Draw the character in contexts on fixed seeds; kept on disk.

        Parameters
        ----------
        node : Node or str, optional
            Whose Θ, as in `probe`. None: the Θ of `character`.
        contexts : sequence of str, optional
            What is added to the caption; None is `CONTEXTS`.
        seeds : int
            Images per context; the seeds are the same for all contexts and nodes.
        base : bool
            Draw with the base models and the bare prompt instead, for comparison.
        weight : float, optional
            How much the context counts; None is ``settings.context_weight``, 1 the prompt as it is written.
        **calls
            ``on_progress``, ``on_images``, ``cancelled`` as in `step`.

        Returns
        -------
        dict of str to list of PIL.Image
        """
        source = self._source(self.current) if node is None else self._theta_node(self.node(node))
        source, contexts = None if base else source, CONTEXTS if contexts is None else list(contexts)
        calls = Callbacks(**calls)
        parts = [calls.part(i, len(contexts)) for i in range(len(contexts))]
        pairs = zip(contexts, parts, strict=True)
        usual = self.root.settings.context_weight
        weight = usual if weight is None else weight
        kind = "contexts" if weight == usual else f"contexts/weight-{weight:g}"
        return {text: self._show(source, text, seeds, kind, 1.0, part, weight) for text, part in pairs}

    def _show(
        self,
        source: Node | None,
        context: str,
        n: int,
        kind: str,
        strength: float,
        calls: Callbacks,
        weight: float = 1.0,
    ) -> list[Image.Image]:
        """Draw n images on seeds that depend on the run alone, with the Θ of ``source``."""
        settings, theta = self.root.settings.replace(context_weight=weight), source.theta if source else None
        text = theta.prompt() if theta else self.prompt
        seeds = np.random.SeedSequence([settings.seed, 2**31]).generate_state(n, np.uint32).astype(np.int64)
        request = SamplingRequest(
            text, seeds, settings, theta, strength, context, character_digest=source.theta_digest if source else ""
        )
        folder, stage = self._shown_in(kind, source, strength) / opening.slug(context), kind.partition("/")[0]
        album = Album(folder, self.folder, keep=not self.read_only, about={"context": context})
        try:
            return draw(request, album, _not_loaded, self._fingerprint, calls, stage=stage)[0]
        except _NotDrawn:
            with self._working(lambda: (source or self.root, stage)):
                return draw(request, album, self._ready_models, self._fingerprint, calls, stage=stage)[0]

    def context_scores(
        self,
        node: Node | str | None = None,
        contexts: Sequence[str] | None = None,
        seeds: int = 4,
        *,
        base: bool = False,
        **calls: Any,
    ) -> pd.DataFrame:
        """Score the character over contexts as the paper does (section 4.2); takes what `contexts` takes.

        Returns
        -------
        DataFrame
            As of `scores`: prompt similarity of each image with its own prompt and context, identity over all.
        """
        from chosen_one_nb.run import tables

        images = self.contexts(node, contexts, seeds, base=base, **calls)
        with self._working(lambda: (self.root, "scores")):
            return tables.context_scores(self._ready_models(), self.prompt, images, self.root.settings)

    def patch_tokens(self, node: Node | str | None = None, **calls: Any) -> np.ndarray:
        """Return the patch tokens of a gallery, shape (N, P, D) float16; made once and kept.

        Raises
        ------
        RunError
            The gallery is not embedded yet, or the run is read-only and has none.
        """
        node = self.node(node).home
        if node.patches is None:
            if not node.done("embed"):
                raise RunError(f"Node {node.id} is not embedded yet: run.step().")
            self._check_writable()
            with self._working(lambda: (node, "patches")):
                self._compute(node, "patches", Callbacks(**calls))
        return node.patches

    def segment(self, node: Node | str | None = None, **calls: Any) -> Segmentation | NotAvailable:
        """Return foreground and scene of each image of a gallery, told apart by patch tokens; made once and kept.

        Raises
        ------
        RunError
            The gallery is not embedded yet, or the run is read-only and has none.
        """
        node = self.node(node).home
        if node.segmentation is None:
            if not node.done("embed"):
                raise RunError(f"Node {node.id} is not embedded yet: run.step().")
            self._check_writable()
            with self._working(lambda: (node, "segmentation")):
                self._compute(node, "segmentation", Callbacks(**calls))
        return node.segmentation

    def inquiry(
        self,
        node: Node | str | None = None,
        *,
        vocabulary: Vocabulary | str | Path | None = None,
        segment: bool = True,
        **calls: Any,
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
        **calls
            ``on_progress``, ``cancelled`` as in `step`.

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
        from chosen_one_nb.run import inquiring

        node = self.node(node)
        path, keep = self.folder / TEXTS, not self.read_only
        words = inquiring.Words(path, self._ready_models, self._fingerprint, keep)
        chosen = inquiring.vocabulary_of(vocabulary, self.folder, self.model_name)
        found = inquiring.segmentation_of(node)
        if segment and node.segmentation is None and node.done("embed"):
            found = self._segment_now(node, Callbacks(**calls))
        return inquiring.inquire(self.prompt, self.path(node), found, words, chosen, self.corrections)

    def _segment_now(self, node: Node, calls: Callbacks) -> inquiring.Segmented:
        """Segment a gallery, and keep the result unless the run can only be looked at."""
        from chosen_one_nb.run.inquiring import segmentation_of
        from chosen_one_nb.run.stages import segmented

        if self.read_only:
            return segmented(self._ready_models(), node, calls)
        with self._working(lambda: (node.home, "segmentation")):
            self._compute(node.home, "segmentation", calls)
        return segmentation_of(node)

    @property
    def asked_before(self) -> bool:
        """Whether an inquiry has been made: what CLIP makes of the vocabulary's words is then on disk."""
        return (self.folder / TEXTS).exists()

    @property
    def vocabulary_file(self) -> Path:
        """The file of phrases that an inquiry asks about."""
        from chosen_one_nb.run import inquiring

        return inquiring.vocabulary_file(self.folder, self.model_name)

    @property
    def corrections(self) -> dict[str, Answer]:
        """What a person said of attributes, by "group: name"; see `correct`."""
        from chosen_one_nb.run import inquiring

        return inquiring.read_corrections(self.folder)

    def phrase_heat(
        self, attribute: Attribute, images: Sequence[int], node: Node | str | None = None
    ) -> np.ndarray | NotAvailable:
        """Tell which patches of drawn say an attribute, (n, h, w), through CLIP's patch tokens."""
        from chosen_one_nb.run import inquiring

        drawn = [self.node(node).image(i) for i in images]
        return inquiring.heat_of(self._ready_models(), self.prompt, attribute, drawn)

    def correct(self, attribute: Attribute, answer: Answer | None) -> None:
        """Say whether an attribute is asked for, identity or incidental; kept with the run. None takes it back."""
        from chosen_one_nb.run import inquiring

        self._check_writable()
        with self.lock:
            name = f"{attribute.group}: {attribute.name}"
            answers = inquiring.corrected(inquiring.read_corrections(self.folder), name, answer)
            inquiring.write_corrections(self.folder, answers)
            self._changed("correct", self.current, attribute=name, answer=answer)

    def counterfactual(
        self,
        attributes: Sequence[Attribute],
        node: Node | str | None = None,
        seeds: int = PROBES,
        *,
        vocabulary: Vocabulary | str | Path | None = None,
        **calls: Any,
    ) -> Counterfactual:
        """Prove what Θ has baked in: ask for the opposite of attributes, with the base models and with Θ.

        Parameters
        ----------
        attributes : sequence of Attribute
            For example those that `inquiry` flagged; one without an opposite in the vocabulary is skipped.
        node : Node or str, optional
            Whose Θ, as in `probe`. None: the Θ of `character`.
        seeds : int
            Images for each, on the same seeds for base and Θ. What is drawn and seen is kept, so a second call
            needs no models, and another Θ draws only its own side.
        vocabulary
            As of `inquiry`.
        **calls
            ``on_progress``, ``on_images``, ``cancelled`` as in `step`.

        Returns
        -------
        Counterfactual
            A table, and the images by opposite: (base, Θ).

        Raises
        ------
        RunError
            There is no Θ yet.
        """
        from chosen_one_nb.analysis.counterfactual import counterfactual
        from chosen_one_nb.run import inquiring

        source = self._source(self.current) if node is None else self._theta_node(self.node(node))
        if source is None:
            raise RunError("There is no Θ to test yet: it comes with the first refinement, run.next_iteration().")
        chosen, noun = inquiring.vocabulary_of(vocabulary, self.folder, self.model_name), subject(self.prompt)
        with_models = (self._ready_models, self._fingerprint, not self.read_only)
        words = inquiring.Words(self.folder / TEXTS, *with_models)
        sight = inquiring.Sight(self.folder / "counterfactual" / "seen.npz", *with_models)
        asked = [attribute for attribute in attributes if attribute.opposite]
        parts = iter([Callbacks(**calls).part(i, 2 * len(asked)) for i in range(2 * len(asked))])
        return counterfactual(
            attributes,
            lambda text: self._show(None, text, seeds, "counterfactual", 1.0, next(parts)),
            lambda text: self._show(source, text, seeds, "counterfactual", 1.0, next(parts)),
            lambda images, texts: sight(images) @ words(texts).T,
            say=inquiring.sentence(chosen, noun),
            ask=inquiring.wording(chosen, noun),
        )

    def _segment_if_needed(self, node: Node, stage: str, calls: Callbacks) -> None:
        """Segment a gallery before the first stage whose settings need its foregrounds."""
        # "check" needs it as well: the map of a gallery without clusters is drawn from the same features
        compared = node.settings.cluster_on == "foreground"
        wanted = {"check": compared, "cluster": compared, "refine": node.settings.scene_weight < 1}
        if wanted.get(stage) and node.segmentation is None:
            self._compute(node.home, "segmentation", calls)

    def _compute(self, node: Node, stage: str, calls: Callbacks, crew: Any = None) -> None:
        self._segment_if_needed(node, stage, calls)
        begun = time.monotonic()
        bench = Bench(self.prompt, self.root, self.folder, self._ready_models, self._fingerprint, calls, crew)
        files = DO[stage](bench, node)
        keeper = node.home if stage in SHARED else node
        before = keeper.record["stages"].get(stage)
        with self.lock:
            node.commit(stage, files, time.monotonic() - begun)
            if before and stage in STAGES and _essence(before["files"]) != _essence(files):
                self._outdated(keeper, stage)
            self._changed("stage", node, stage=stage)

    def _outdated(self, node: Node, stage: str) -> None:
        """Drop what was made from files that came out differently when done again."""
        followers = [other.id for other in self._tree.nodes.values() if other.parent is node or
                     (other.home is node and other is not node)]  # fmt: skip
        if followers:
            self._log("differs", node, stage=stage, kept=followers)
            return
        later = STAGES[STAGES.index(stage) + 1 :]
        stages = {name: value for name, value in node.record["stages"].items() if name not in (*later, *ASIDE)}
        if stage in ("generate", "embed", "check"):
            node.clear_edits()
        node.write({**node.record, "stages": stages})

    @contextmanager
    def _working(self, find: Callable[[], tuple[Node, str]]) -> Iterator[tuple[Node, str]]:
        """Work alone on the node and stage that ``find`` gives; others are told what is going on."""
        mine = object()
        try:
            with self.lock:
                if self._at is not None:
                    raise RunError(f"The run is at work ({self.busy}). Wait until it is done, or cancel it.")
                node, stage = find()
                self._at = (stage, node.id, mine)
            yield node, stage
        finally:
            if self._at is not None and self._at[2] is mine:
                self._at = None


class _NotDrawn(Exception):
    """Raised where models would be needed."""


def _not_loaded() -> Models:
    raise _NotDrawn


def _essence(files: Mapping[str, Any]) -> dict[str, Any]:
    """The stamps that tell whether a stage came out the same: of Θ its weights, not times and notes."""
    return {name: stamp for name, stamp in files.items() if not name.startswith(("theta/", "losses"))}
