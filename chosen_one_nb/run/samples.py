"""Images drawn to look at a character: the same seeds with every one (probe), and the character in contexts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.run import arguments, store
from chosen_one_nb.run.images import CONTEXTS, ImageFolder, draw, missing
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.state import RunState
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest

if TYPE_CHECKING:
    import pandas as pd

PROBES = 8
"""Images drawn with every character on the same seeds."""


MOST = 1024
"""Images drawn at most for one context."""

ADVICE = "Delete it: run.samples.probe(), run.samples.contexts(), or `show` in a shell draws it again."
"""What to do where a sample is damaged."""


class RunSamples:
    """Draw a run's characters; what is drawn is kept on disk and found there the next time.

    Parameters
    ----------
    state : RunState
    """

    def __init__(self, state: RunState) -> None:
        self._state = state
        self._unkept: dict[str | None, dict[str, list[Image.Image]]] = {}  # drawn for a run that is only looked at

    def probe(self, node: Node | str | None = None, *, strength: float = 1.0, **callbacks: Any) -> list[Image.Image]:
        """Draw the run's eight fixed seeds with the character of a node, to compare characters by eye.

        Parameters
        ----------
        node : Node or str, optional
            Whose character: its own, else the one its gallery was drawn with, else none. None: the current node.
        strength : float
            How much of it, in [0, 1].
        **callbacks
            ``on_progress``, ``on_images``, ``cancelled`` as in `Run.step`.

        Returns
        -------
        list of PIL.Image
        """
        source = self._state.tree.theta_node(node or self._state.tree.current)
        strength = arguments.share("strength", strength)
        return self.draw(self.request(source, "", PROBES, strength=strength), source, "probe", Callbacks(**callbacks))

    def drawn_probe(self, node: Node | str | None = None, *, strength: float = 1.0) -> list[Image.Image]:
        """Return what `probe` has drawn before and kept; empty if it has not, or not with this character."""
        source = self._state.tree.theta_node(node or self._state.tree.current)
        paths = sorted((self._folder("probe", source, strength) / store.slug("")).glob("*.png"))
        images = [store.read_or_advise(path, ADVICE) for path in paths]
        # A refinement that was done again may have given another character under the same node.
        whole = len(images) == PROBES and all(image.info.get("theta") == _digest(source) for image in images)
        return images if whole else []

    def contexts(
        self,
        node: Node | str | None = None,
        contexts: str | Sequence[str] | None = None,
        seeds: int = 4,
        *,
        base: bool = False,
        weight: float | None = None,
        **callbacks: Any,
    ) -> dict[str, list[Image.Image]]:
        """Draw the character in contexts on fixed seeds.

        Parameters
        ----------
        node : Node or str, optional
            Whose character, as in `probe`. None: that of `Run.character`.
        contexts : str or sequence of str, optional
            What is added to the caption; None is `CONTEXTS`.
        seeds : int
            Images per context, 1 to `MOST`; the seeds are the same for all contexts and nodes.
        base : bool
            Draw with the base models and the bare prompt instead, for comparison.
        weight : float, optional
            How much the context counts; None is ``settings.context_weight``, 1 the prompt as it is written.
        **callbacks
            ``on_progress``, ``on_images``, ``cancelled`` as in `Run.step`.

        Returns
        -------
        dict of str to list of PIL.Image
        """
        source = None if base else self._state.tree.theta_node(node)
        contexts = arguments.texts("contexts", CONTEXTS if contexts is None else contexts)
        seeds, every = arguments.whole("seeds", seeds, 1, MOST), Callbacks(**callbacks)
        settings = self._state.tree.root.settings
        usual = settings.context_weight
        weight = usual if weight is None else settings.replace(context_weight=weight).context_weight
        # Another weight is another image, so it gets a folder of its own and the usual ones stay.
        kind = "contexts" if weight == usual else f"contexts/weight-{weight:g}"
        found = {}
        for i, text in enumerate(contexts):
            request = self.request(source, text, seeds, weight=weight)
            found[text] = self.draw(request, source, kind, every.part(i, len(contexts)))
        if self._state.read_only and kind == "contexts":
            self._unkept[source.id if source else None] = found
        return found

    def drawn_contexts(self, node: Node | str | None = None) -> dict[str, list[Image.Image]]:
        """Return the images in contexts that are on disk already, by context; see `contexts`."""
        source = self._state.tree.theta_node(node)
        drawn: dict[str, list[Image.Image]] = {context: [] for context in CONTEXTS}
        for path in sorted(self._folder("contexts", source, 1.0).glob("*/*.png")):
            image = store.read_or_advise(path, ADVICE)
            if image.info.get("theta") == _digest(source):
                drawn.setdefault(image.info.get("context", ""), []).append(image)
        drawn |= self._unkept.get(source.id if source else None, {})
        return {context: images for context, images in drawn.items() if images}

    def context_scores(
        self,
        node: Node | str | None = None,
        contexts: Sequence[str] | None = None,
        seeds: int = 4,
        *,
        base: bool = False,
        **callbacks: Any,
    ) -> pd.DataFrame:
        """Score the character over contexts as the paper does (section 4.2); takes what `contexts` takes.

        Returns
        -------
        DataFrame
            As of `RunTables.scores`: prompt similarity of each image with its own prompt, identity over all images.
        """
        from chosen_one_nb.run import tables

        images, state = self.contexts(node, contexts, seeds, base=base, **callbacks), self._state
        with state.working(lambda: (state.tree.root, "scores")):
            return tables.context_scores(state.checked_models(), state.prompt, images, state.tree.root.settings)

    def request(
        self, source: Node | None, context: str, n: int, *, strength: float = 1.0, weight: float = 1.0
    ) -> SamplingRequest:
        """Ask for n images on seeds that depend on the run alone, with the character of ``source``."""
        # The root's settings whatever the node's: characters of branches with other settings are to be compared.
        settings = self._state.tree.root.settings.replace(context_weight=weight)
        theta = source.theta if source else None
        text = theta.prompt() if theta else self._state.prompt
        # A place in the sequence that no iteration has, so that no character was learned from these seeds.
        seeds = np.random.SeedSequence([settings.seed, 2**31]).generate_state(n, np.uint32).astype(np.int64)
        return SamplingRequest(text, seeds, settings, theta, strength, context, character_digest=_digest(source))

    def draw(self, request: SamplingRequest, source: Node | None, kind: str, callbacks: Callbacks) -> list[Image.Image]:
        """Draw what `request` asked for into the folder of its kind, or find it there."""
        state, stage = self._state, kind.partition("/")[0]
        folder = self._folder(kind, source, request.strength) / store.slug(request.context)
        about = {"context": request.context}
        place = ImageFolder(folder, state.folder, state.fingerprint, keep=not state.read_only, about=about)
        # What is on disk can be shown while the run is at work; only drawing needs the models to itself.
        work = state.working(lambda: (source or state.tree.root, stage)) if missing(request, place) else nullcontext()
        with work:
            return draw(request, place, state.checked_models, callbacks, stage=stage)[0]

    def _folder(self, kind: str, source: Node | None, strength: float) -> Path:
        # By strength as well: the same seeds with half a character are other images.
        name = (source.id if source else "base") + (f"@{strength:g}" if strength != 1.0 else "")
        return self._state.folder / kind / name


def typical(node: Node, n: int = 4) -> list[Image.Image]:
    """Return the n most typical images drawn with a node's character: those nearest to the mean of their gallery.

    None where no gallery has been drawn with it; the first n where it has not been embedded.
    """
    child = next((child for child in reversed(node.children) if len(child.images)), None)
    if child is None:
        return []
    order = child.intact
    if child.embedding is not None:
        from chosen_one_nb.steps.embed import in_space

        points = in_space(child.embedding.features, child.settings)
        middle = points[order].mean(0)
        order = sorted(order, key=lambda i: float(np.linalg.norm(points[i] - middle)))
    return [child.images[i] for i in order[:n]]


def _digest(source: Node | None) -> str:
    # By it an image of an earlier character of the same node is told apart, and not taken.
    return source.theta_digest if source else ""
