"""A run: from a prompt to one consistent character, stage by stage, as a tree of iterations on disk.

`Run` knows what has been done, what comes next and where it lies; the steps it calls know nothing of it.
Whatever a person can click in the explorer is a method here, and leaves the same record.
"""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chosen_one_nb import export
from chosen_one_nb.run import choosing, opening, store
from chosen_one_nb.run.choosing import Change
from chosen_one_nb.run.decision import ChoiceError, Decision, RunError
from chosen_one_nb.run.drawing import CONTEXTS, typical
from chosen_one_nb.run.node import ASIDE, SHARED, STAGES, Node
from chosen_one_nb.run.painter import ModelsDiffer, Painter
from chosen_one_nb.run.stages import DO
from chosen_one_nb.run.store import Lock
from chosen_one_nb.run.tree import Tree
from chosen_one_nb.run.view import Outcome
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import Callbacks

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.models.load import Models
    from chosen_one_nb.sweep.worker_pool import Crew

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


_open_runs: weakref.WeakValueDictionary[Path, Run] = weakref.WeakValueDictionary()


class Run(Painter):
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
            None takes the preset that the models go with: ``menagerie`` for the bundled ones, ``paper`` for others.
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

        Warns
        -----
        RuntimeWarning
            Settings for distilled models ("flash"), and models that were loaded without distilled weights.
        """
        from chosen_one_nb.models.load import warn_unless_distilled

        place = opening.free_folder(prompt) if folder is None else Path(folder).expanduser().resolve()
        opening.check_empty(place)
        models = opening.loaded(models)
        settings = settings or Settings.preset(Settings.preset_for(models.name))
        warn_unless_distilled(models, settings)
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
    def example(cls, folder: str | Path | None = None) -> Run:
        """Open the bundled finished run: two branches of "a sticker of a fox".

        Parameters
        ----------
        folder : str or Path, optional
            Where to put a copy that can be worked on; one that is there already is opened as it is. None: only
            look at the bundled one, which writes nothing.

        Returns
        -------
        Run

        Raises
        ------
        StoreError
            The bundled run is missing: it comes with the repository, in ``data/runs``.
        """
        if folder is None:
            return cls.open(opening.EXAMPLE, read_only=True)
        if (Path(folder).expanduser() / "run.json").exists():
            return cls.open(folder)
        return cls.open(opening.EXAMPLE, read_only=True).copy(folder)

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
            shutil.copytree(self.folder, place, ignore=leave, copy_function=shutil.copyfile, dirs_exist_ok=True)
            for part in (place, *(path for path in place.rglob("*") if path.is_dir())):
                part.chmod(part.stat().st_mode | 0o700)  # the original may be one that cannot be written
        return Run.open(place, self._models)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run as one HTML page that needs nothing else; None: ``report.html`` in its folder."""
        from chosen_one_nb.report import page

        place = Path(path) if path else self.folder / "report.html"
        store.write_bytes(place, page(self).encode())
        return place

    def export(
        self,
        folder: str | Path | None = None,
        node: Node | str | None = None,
        *,
        formats: Sequence[str] = ("diffusers", "kohya", "comfyui"),
        name: str | None = None,
    ) -> Path:
        """Write a Θ as files that other programs load, with the best images it has drawn; see `export.write`.

        Parameters
        ----------
        folder : str or Path, optional
            None: ``exports/<prompt>-<node>`` in the run's folder.
        node : Node or str, optional
            Whose Θ: its own, else the one its gallery was drawn with. None: the Θ of `character`.
        formats, name
            As of `export.write`.

        Raises
        ------
        RunError
            There is no Θ yet.
        CharacterError
            A bad name or format, or a folder that cannot be written.
        """
        source = self._source(self.current) if node is None else self._theta_node(self.node(node))
        if source is None:
            raise RunError("There is no Θ to export yet: it comes with the first refinement, run.next_iteration().")
        place = Path(folder).expanduser() if folder else opening.export_folder(self.folder, self.prompt, source.id)
        return export.write(source.theta, place, formats, typical(source), name)

    def step(
        self,
        *,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
        on_images: Callable[[list[tuple[int, Image.Image]]], None] | None = None,
        on_step: Callable[[dict[str, Any]], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        crew: Crew | None = None,
    ) -> str:
        """Do the next stage of the present branch and put it on disk.

        Parameters
        ----------
        on_progress, on_images, on_step, cancelled : callable, optional
            See `chosen_one_nb.steps.Callbacks`.
        crew : Crew, optional
            Workers to draw the images that are missing, see `chosen_one_nb.sweep.worker_pool`.

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
            ``cancelled`` said so; nothing but whole images was kept.
        """
        self._check_writable()
        calls = Callbacks(on_progress, on_images, on_step, cancelled)
        with self._working(self._advance) as (node, stage):
            if stage == "choose":
                self._choose_by_rule(node)
            elif stage == "cluster":
                self._cluster(node, calls)
            else:
                self._compute(node, stage, calls, crew)
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

        Whole images are kept. What came after stands when the new files equal the old ones; otherwise it is
        dropped, unless other nodes were made from it: then it stands too, and the log says so.

        Raises
        ------
        RunError
            The stage is unknown, or has not been done.
        """
        self._check_writable()
        node = self.node(node)
        if stage not in (*DO, "cluster") or not (stage in ASIDE or node.done(stage)):
            raise RunError(f"Expected a finished stage of node {node.id}, got {stage!r}: {node.stages_done}.")
        keeper = node.home if stage in (*SHARED, *ASIDE) else node
        with self._working(lambda: (keeper, stage)):
            if stage == "cluster":
                self._recluster(keeper)
            else:
                self._compute(keeper, stage, Callbacks())

    def _cluster(self, node: Node, calls: Callbacks) -> None:
        from chosen_one_nb.steps.cluster import cluster

        begun = time.monotonic()
        self._segment_if_needed(node, "cluster", calls)
        clusters = cluster(node.clustered_on, node.settings)
        with self.lock:
            choosing.apply(node, Change("cluster", clusters=clusters))
            node.commit("cluster", {}, time.monotonic() - begun)
            self._changed("stage", node, stage="cluster")

    def _recluster(self, node: Node) -> None:
        from chosen_one_nb.steps.cluster import cluster

        clusters = cluster(node.clustered_on, node.settings)
        with self.lock:
            node.mend_clusters(clusters)
            self._changed("stage", node, stage="cluster")

    def _advance(self) -> tuple[Node, str]:
        """Make the node that is to be worked on the current one, adding it to the tree if need be."""
        node, stage = self._next()
        if stage is None:
            raise RunError(f"Finished, {self._outcome(node)} To go on all the same: run.go_on(), then run.step().")
        if node.refined:
            node = self._add_node(node)
        elif node.id != self._current:
            self._set_current(node)
        return node, stage

    def _add_node(self, parent: Node | None) -> Node:
        from chosen_one_nb.steps.gallery import image_seeds

        settings = parent.settings if parent else Settings(**self._tree.manifest["settings"])
        node = self._tree.add(parent, settings, image_seeds(settings, parent.iteration + 1 if parent else 0))
        self._set_current(node)
        return node
