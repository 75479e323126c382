"""A run: from a prompt to one consistent character, stage by stage, as a tree of iterations on disk.

`Run` knows what has been done, what comes next and where it lies; the steps it calls know nothing of it.
Whatever a person can click in the explorer is a method here, and leaves the same record.
"""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb import store
from chosen_one_nb.keeping import choosing, opening
from chosen_one_nb.keeping.choosing import Change
from chosen_one_nb.keeping.decision import ChoiceError, Decision, RunError
from chosen_one_nb.keeping.drawing import CONTEXTS, Album, Calls, Drawing, draw
from chosen_one_nb.keeping.editor import Editor
from chosen_one_nb.keeping.node import SHARED, STAGES, Node
from chosen_one_nb.keeping.stages import DO, Bench
from chosen_one_nb.keeping.tree import Tree
from chosen_one_nb.keeping.view import Outcome
from chosen_one_nb.settings import Settings
from chosen_one_nb.store import Lock

if TYPE_CHECKING:
    import pandas as pd

    from chosen_one_nb.models import Models
    from chosen_one_nb.steps import CancelledCheck, Progress
    from chosen_one_nb.steps.generate import OnImages

__all__ = [
    "CONTEXTS",
    "STAGES",
    "ChoiceError",
    "Decision",
    "ModelsDiffer",
    "Node",
    "Outcome",
    "Run",
    "RunError",
]

PROBES = 8
"""Pictures drawn with every Θ on the same seeds."""

_open_runs: weakref.WeakValueDictionary[Path, Run] = weakref.WeakValueDictionary()


class ModelsDiffer(RunError):
    """The run was made with other models than those at hand."""


class Run(Editor):
    """A run of the method; made by `Run.start` or `Run.open`, never directly.

    Attributes
    ----------
    folder : Path
        Where everything lies.
    lock : threading.RLock
        Held while the run's state changes (never during long work); take it to read several things at once.
    listeners : list of callable
        Called after each change with a dict: ``kind``, ``node``, ``version``, and what the kind adds.
    version : int
        Counts the changes.
    read_only : bool
        Whether this run can only be looked at.
    """

    def __init__(self, tree: Tree, keeper: Lock | None) -> None:
        super().__init__(tree, read_only=keeper is None)
        self._keeper = keeper
        self._models: Models | None = None
        self._others_allowed = self._others_logged = False
        self._finalizer = weakref.finalize(self, keeper.release) if keeper else None

    @classmethod
    def start(
        cls,
        prompt: str,
        models: Models | str | Path = "menagerie",
        settings: Settings | None = None,
        folder: str | Path | None = None,
    ) -> Run:
        """Begin a run; nothing is drawn yet.

        Parameters
        ----------
        prompt : str
            What the character is, for example ``"a sticker of a fox"``.
        models : Models, str or Path
            The models, or the name or folder to load them from.
        settings : Settings, optional
            None takes the ``menagerie`` preset.
        folder : str or Path, optional
            A new or empty folder; None makes ``runs/<prompt>``.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            The prompt is empty, too long, or holds the placeholder token; the folder holds something else.
        StoreError
            The folder cannot be written.
        """
        settings = settings or Settings()
        place = opening.free_folder(prompt) if folder is None else Path(folder).expanduser().resolve()
        opening.check_empty(place)
        models = opening.loaded(models)
        prompt = opening.check_prompt(models, prompt, settings)
        keeper = Lock(store.make_folder(place))
        keeper.acquire()
        try:
            manifest = opening.manifest(prompt, models, settings)
            store.make_folder(place / "nodes")
            store.write_json(place / "run.json", manifest)
            run = cls(Tree(place, manifest), keeper)
            run._models = models
            run._changed("start", run._add_node(None), prompt=prompt)
        except BaseException:
            keeper.release()
            raise
        _open_runs[place] = run
        return run

    @classmethod
    def open(
        cls,
        folder: str | Path,
        models: Models | str | Path | None = None,
        *,
        read_only: bool = False,
        allow_other_models: bool = False,
    ) -> Run:
        """Open a run to look at it or to go on where it stopped.

        Within one process the same folder gives the same `Run`, so that two views of it agree.

        Parameters
        ----------
        folder : str or Path
            The run's folder.
        models : Models, str or Path, optional
            None loads those the run was made with, by name, when they are first needed.
        read_only : bool
            Only look; needs no lock and writes nothing.
        allow_other_models : bool
            Go on with models other than those the run was made with (recorded in its log).

        Returns
        -------
        Run

        Raises
        ------
        StoreError
            There is no run, or a file of it is damaged.
        RunInUse
            Another process has it open for writing.
        """
        place = Path(folder).expanduser().resolve()
        run = None if read_only else _open_runs.get(place)
        if run is None or run.closed:
            run = cls._opened(place, read_only)
        if models is not None:
            run._models = opening.loaded(models)
        run._others_allowed = run._others_allowed or allow_other_models
        return run

    @classmethod
    def _opened(cls, place: Path, read_only: bool) -> Run:
        keeper = None
        if not read_only and (place / "run.json").exists():
            keeper = Lock(place)
            keeper.acquire()
            store.sweep(place)
        try:
            run = cls(Tree.load(place), keeper)
        except BaseException:
            if keeper:
                keeper.release()
            raise
        if not run._tree.nodes and keeper:  # cut short right after it was begun
            run._add_node(None)
        if keeper:
            _open_runs[place] = run
        return run

    def close(self) -> None:
        """Give the folder back to other processes; the run can still be looked at."""
        with self.lock:
            if self._finalizer:
                self._finalizer()
            self.read_only, self._keeper, self._finalizer = True, None, None
            _open_runs.pop(self.folder, None)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Run {self.prompt!r} in {self.folder}: at {self._current}, {self.outcome}>"

    @property
    def closed(self) -> bool:
        """Whether it can no longer be written through this object."""
        return self._keeper is None

    def copy(self, folder: str | Path) -> Run:
        """Copy the whole run to a new folder and open it there, for example to change a bundled one."""
        place = Path(folder).expanduser().resolve()
        opening.check_empty(place)
        leave = shutil.ignore_patterns(".lock", "keeper.json", f"*{store.TEMPORARY}")
        with store.told_of(place):
            shutil.copytree(self.folder, place, ignore=leave, dirs_exist_ok=True)
        return Run.open(place, self._models)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run as one HTML page that needs nothing else; None: ``report.html`` in its folder."""
        from chosen_one_nb.report import page

        place = Path(path) if path else self.folder / "report.html"
        store.write_bytes(place, page(self).encode())
        return place

    @property
    def models(self) -> Models:
        """The models, loaded by name when first asked for."""
        if self._models is None:
            self._models = opening.loaded(self._tree.manifest["models"]["name"])
        return self._models

    def step(
        self,
        *,
        on_progress: Progress | None = None,
        on_images: OnImages | None = None,
        on_step: Callable[[dict[str, Any]], None] | None = None,
        cancelled: CancelledCheck | None = None,
    ) -> str:
        """Do the next stage of the present branch and put it on disk.

        Parameters
        ----------
        on_progress, on_images, on_step, cancelled : callable, optional
            See `chosen_one_nb.keeping.drawing.Calls`.

        Returns
        -------
        str
            The stage done.

        Raises
        ------
        RunError
            The branch is finished, or the run is at work already.
        ChoiceError
            The stage is to choose, and the rule finds no cluster large enough.
        ModelsDiffer
            The run was made with other models.
        Cancelled
            ``cancelled`` said so; nothing but whole pictures was kept.
        """
        self._check_writable()
        calls = Calls(on_progress, on_images, on_step, cancelled)
        with self._working() as (node, stage):
            if stage == "choose":
                self._choose_by_rule(node)
            elif stage == "cluster":
                self._cluster(node)
            else:
                self._compute(node, stage, calls)
        return stage

    def next_iteration(self, *, ask: bool = False, **calls: Any) -> Outcome:
        """Go on until the present iteration has its Θ, or the branch is finished; takes what `step` takes.

        Parameters
        ----------
        ask : bool
            Stop before choosing, so that a person can.
        """
        return self._go(ask, lambda stage: stage == "refine", calls)

    def until_converged(self, *, ask: bool = False, **calls: Any) -> Outcome:
        """Go on until the branch is finished; takes what `step` takes.

        Parameters
        ----------
        ask : bool
            Stop before choosing, so that a person can; call again after `choose`.

        Returns
        -------
        Outcome
            ``"unfinished"`` when it stopped to ask.
        """
        return self._go(ask, lambda stage: False, calls)

    def _go(self, ask: bool, enough: Callable[[str], bool], calls: Mapping[str, Any]) -> Outcome:
        while (stage := self.next_stage) is not None:
            if stage == "choose" and (ask or self.outcome.state == "no cluster"):
                break
            if enough(self.step(**calls)):
                break
        return self.outcome

    def go_on(self) -> None:
        """Go on past the stop rule at a finished node (recorded); `step` then clusters and refines again."""
        self._check_writable()
        with self.lock:
            node = self._frontier()
            if not self._outcome(node).finished:
                raise RunError(f"Node {node.id} is not finished: run.step() goes on.")
            node.write({**node.record, "beyond": True})
            self._changed("go_on", node)

    def redo_stage(self, stage: str, node: Node | str | None = None) -> None:
        """Do a stage of a node again, for example because a file of it was damaged.

        Whole pictures are kept. What came after stands when the new files equal the old ones; otherwise it is
        dropped, unless other nodes were made from it: then it stands too, and the log says so.

        Raises
        ------
        RunError
            The stage is unknown, or has not been done.
        """
        self._check_writable()
        node = self.node(node)
        if stage not in (*DO, "cluster") or not (stage == "patches" or node.done(stage)):
            raise RunError(f"Expected a finished stage of node {node.id}, got {stage!r}: {node.stages_done}.")
        keeper = node.home if stage in (*SHARED, "patches") else node
        with self._working((keeper, stage)):
            if stage == "cluster":
                self._recluster(keeper)
            else:
                self._compute(keeper, stage, Calls())

    def _compute(self, node: Node, stage: str, calls: Calls) -> None:
        begun = time.monotonic()
        bench = Bench(self.prompt, self.root, self._ready_models, self._fingerprint, calls)
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
        stages = {
            name: value for name, value in node.record["stages"].items() if name not in (*later, "patches")
        }
        if stage in ("generate", "embed", "check"):
            node.clear_edits()
        node.write({**node.record, "stages": stages})

    def _cluster(self, node: Node) -> None:
        from chosen_one_nb.steps.cluster import cluster

        begun = time.monotonic()
        clusters = cluster(node.features, node.settings)
        with self.lock:
            choosing.apply(node, Change("cluster", clusters=clusters))
            node.commit("cluster", {}, time.monotonic() - begun)
            self._changed("stage", node, stage="cluster")

    def _recluster(self, node: Node) -> None:
        from chosen_one_nb.steps.cluster import cluster

        clusters = cluster(node.features, node.settings)
        with self.lock:
            node.mend_clusters(clusters)
            self._changed("stage", node, stage="cluster")

    def probe(
        self, node: Node | str | None = None, *, strength: float = 1.0, **calls: Any
    ) -> list[Image.Image]:
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
        return self._show(self._theta_node(self.node(node)), "", PROBES, "probe", strength, Calls(**calls))

    def contexts(
        self,
        node: Node | str | None = None,
        contexts: Sequence[str] | None = None,
        seeds: int = 4,
        *,
        base: bool = False,
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
            Pictures per context; the seeds are the same for all contexts and nodes.
        base : bool
            Draw with the base models and the bare prompt instead, for comparison.
        **calls
            ``on_progress``, ``on_images``, ``cancelled`` as in `step`.

        Returns
        -------
        dict of str to list of PIL.Image
        """
        source = self._source(self.current) if node is None else self._theta_node(self.node(node))
        source, contexts = None if base else source, CONTEXTS if contexts is None else list(contexts)
        calls = Calls(**calls)
        parts = [calls.part(i, len(contexts)) for i in range(len(contexts))]
        pairs = zip(contexts, parts, strict=True)
        return {text: self._show(source, text, seeds, "contexts", 1.0, part) for text, part in pairs}

    def _show(
        self, source: Node | None, context: str, n: int, kind: str, strength: float, calls: Calls
    ) -> list[Image.Image]:
        """Draw n pictures on seeds that depend on the run alone, with the Θ of ``source``."""
        settings, theta = self.root.settings, source.theta if source else None
        text = theta.prompt(context) if theta else f"{self.prompt} {context}".strip()
        seeds = np.random.SeedSequence([settings.seed, 2**31]).generate_state(n, np.uint32).astype(np.int64)
        digest = source.theta_digest if source else ""
        drawing = Drawing(text, seeds, settings, theta, digest, strength)
        name = f"{source.id if source else 'base'}" + (f"@{strength:g}" if strength != 1.0 else "")
        folder = self.folder / kind / name / opening.slug(context)
        album = Album(folder, self.folder, keep=not self.read_only, about={"context": context})
        try:
            return draw(drawing, album, _not_loaded, self._fingerprint, calls, stage=kind)[0]
        except _NotDrawn:
            with self._working((source or self.root, kind)):
                return draw(drawing, album, self._ready_models, self._fingerprint, calls, stage=kind)[0]

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
            As of `scores`: prompt similarity of each picture with its own prompt and context, identity over all.
        """
        from chosen_one_nb.keeping import tables

        pictures = self.contexts(node, contexts, seeds, base=base, **calls)
        with self._working((self.root, "scores")):
            return tables.context_scores(self._ready_models(), self.prompt, pictures, self.root.settings)

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
            with self._working((node, "patches")):
                self._compute(node, "patches", Calls(**calls))
        return node.patches

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

    def _advance(self) -> tuple[Node, str]:
        """Make the node that is to be worked on the current one, adding it to the tree if need be."""
        node, stage = self._next()
        if stage is None:
            raise RunError(
                f"Finished, {self._outcome(node)} To go on all the same: run.go_on(), then run.step()."
            )
        if node.refined:
            node = self._add_node(node)
        elif node.id != self._current:
            self._set_current(node)
        return node, stage

    def _add_node(self, parent: Node | None) -> Node:
        from chosen_one_nb.steps.generate import image_seeds

        settings = parent.settings if parent else Settings.from_dict(self._tree.manifest["settings"])
        node = self._tree.add(parent, settings, image_seeds(settings, parent.iteration + 1 if parent else 0))
        self._set_current(node)
        return node

    @contextmanager
    def _working(self, what: tuple[Node, str] | None = None) -> Iterator[tuple[Node, str]]:
        """Work on one stage, alone; others are told what is going on."""
        mine = object()
        try:
            with self.lock:
                if self._at is not None:
                    raise RunError(f"The run is at work ({self.busy}). Wait until it is done, or cancel it.")
                node, stage = what or self._advance()
                self._at = (stage, node.id, mine)
            yield node, stage
        finally:
            if self._at is not None and self._at[2] is mine:
                self._at = None


def _essence(files: Mapping[str, Any]) -> dict[str, Any]:
    """The stamps that tell whether a stage came out the same: of Θ its weights, not times and notes."""
    return {name: stamp for name, stamp in files.items() if not name.startswith(("theta/", "losses"))}


class _NotDrawn(Exception):
    """Raised where models would be needed."""


def _not_loaded() -> Models:
    raise _NotDrawn
