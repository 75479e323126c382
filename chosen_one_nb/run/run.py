"""A run: from a prompt to one consistent character, stage by stage, as a tree of iterations on disk.

`Run` knows what has been done, what comes next and where it lies; the steps it calls know nothing of it.
Whatever a person can click in the explorer is a method here, and leaves the same record.
"""

from __future__ import annotations

import re
import shutil
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chosen_one_nb.models.hub import bundled
from chosen_one_nb.run import arguments, selection, store
from chosen_one_nb.run.attributes import RunAttributes
from chosen_one_nb.run.decision import ChoiceError, Decision, Outcome, RunError, last_sound
from chosen_one_nb.run.images import CONTEXTS
from chosen_one_nb.run.node import ASIDE, SHARED, STAGES, START, Node, Tree
from chosen_one_nb.run.own import OwnImages, begin_from
from chosen_one_nb.run.samples import RunSamples, typical
from chosen_one_nb.run.selection import RunSelection
from chosen_one_nb.run.stages import COMPUTED, compute, weights_digest
from chosen_one_nb.run.state import ModelsDiffer, RunState, new_manifest
from chosen_one_nb.run.store import Lock, StoreError
from chosen_one_nb.run.tables import RunTables
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run.cost_estimate import CostEstimate
    from chosen_one_nb.run.images import GalleryWorkers

__all__ = ["CONTEXTS", "STAGES", "ChoiceError", "Decision", "ModelsDiffer", "Node", "Outcome", "Run", "RunError"]


EXAMPLE = bundled("runs", "fox")
"""The bundled finished run, made by ``python tools/bundled_run.py``."""

OWN = (".lock", "lock.json", "nodes", START)
"""What a start that was cut short may have left in a folder."""

# Two `Run` of one folder would overwrite each other's changes. Weak, so that a run nobody uses any more is freed.
_open_runs: weakref.WeakValueDictionary[Path, Run] = weakref.WeakValueDictionary()


class Run:
    """A run of the method; made by `Run.start`, `Run.open` or `Run.example`, never directly.

    Attributes
    ----------
    folder : Path
        Where everything lies.
    prompt : str
    manifest : dict
        What ``run.json`` says: prompt, models, settings, versions, when.
    root : Node
        The node of the first gallery, drawn without a character.
    selection : RunSelection
        What a person decides: choose, exclude, include, merge, recluster, undo, redo.
    samples : RunSamples
        Images to look at a character: probe, contexts.
    attributes : RunAttributes
        What images share: inquiry, correct, counterfactual, heat, patch_tokens, segment.
    tables : RunTables
        The run as DataFrames: gallery, curve, compare, scores, history.
    lock : threading.RLock
        Held while the run's state changes (never during long work); take it to read several things at once.
    listeners : list of callable
        Called after each change with a dict: ``kind``, ``node``, ``version`` (counts the changes), and what the kind
        adds.
    """

    def __init__(self, tree: Tree, lock: Lock | None) -> None:
        self._state = RunState(tree, read_only=lock is None)
        # A run that is dropped without `close`, as in a notebook, frees its folder all the same.
        self._unlock = weakref.finalize(self, lock.release) if lock else None
        if not tree.nodes:  # new, or cut short right after it was begun
            if lock is None:
                raise StoreError(f"{tree.folder} holds a run without a node. Begin its first: Run.open(folder).step().")
            self._state.add_child(None)
        self.folder, self.prompt, self.root = tree.folder, self._state.prompt, tree.root
        # A copy: what is recorded of a run does not change, and nobody changes it by accident.
        self.manifest: Mapping[str, Any] = dict(tree.manifest)
        self.lock, self.listeners = self._state.lock, self._state.listeners
        self.selection, self.samples, self.tables = RunSelection(self._state), RunSamples(self._state), RunTables(tree)
        self.attributes = RunAttributes(self._state, self.samples)

    @classmethod
    def start(
        cls,
        prompt: str,
        models: Models | str | Path = "menagerie",
        settings: Settings | None = None,
        folder: str | Path | None = None,
        *,
        images: str | Path | Sequence[Image.Image | str | Path] | None = None,
        character: Character | str | Path | None = None,
        **unknown: Any,
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
        images : str or Path of a folder, or sequence of PIL.Image or path, optional
            Your own images as the first gallery, in place of one that is drawn: cut to squares and encoded, seeds
            unknown, everything else the same. `selection.choose(images=range(n))` then learns from all of them.
            `selection.choose(images=FOLDER)` learns from your own beside a first gallery that is drawn.
        character : Character, or str or Path of one or of another trainer's LoRA, optional
            What the first gallery is drawn with, and refined further: `export.read` says what is read. The settings
            take over its rank and token; a LoRA without token rows gets those of the initial word. What it has beside
            the UNet's attention stays as it is, in every character of the run.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            The prompt is empty, too long, or holds the placeholder token; the folder holds something else; images and
            a character are both given; a setting is given outside of `settings`.
        ImageError, CharacterError
            An image or a character that cannot be read, or a character that does not fit the models.
        StoreError
            The folder cannot be written.

        Warns
        -----
        RuntimeWarning
            Settings for distilled models ("flash"), and models that were loaded without distilled weights.
        """
        from chosen_one_nb.models.load import warn_unless_distilled

        # Everything that can be refused is checked before the first file is written.
        _refuse_unknown(unknown, settings)
        place = None if folder is None else _empty(folder)
        models = _loaded(models)
        settings = settings or Settings.preset(Settings.preset_for(models.name))
        warn_unless_distilled(models, settings)
        if images is not None and character is not None:
            raise RunError("Expected images or a character to begin with, got both. Give the one you mean.")
        own = None if images is None else OwnImages.read(images, models, settings)
        begin = (None, settings) if character is None else begin_from(character, models, settings, prompt)
        theta, settings = begin
        prompt = check_prompt(models, prompt, settings)
        manifest = new_manifest(prompt, models, settings) | ({"images": own.names} if own else {})
        manifest |= {"start": weights_digest(theta)} if theta else {}

        def prepare(place: Path) -> None:
            if own:
                own.write(place / "nodes" / "0")
            if theta:
                theta.save(place / START)

        run = cls._opened(_new_folder(prompt) if place is None else store.make_folder(place), manifest, prepare)
        run._state.loaded = models
        about: dict[str, Any] = {"frozen_modules": len(theta.frozen) // 2} if theta else {}
        run._state.changed("start", run.root, prompt=prompt, **about)
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
        place = arguments.place("folder", folder)
        run = None if read_only else _open_runs.get(place)
        # A run that was closed in this process stays readable there; whoever opens it again gets a new one.
        if run is None or run.read_only:
            # Where there is no run, none is locked: loading says so.
            only_look = read_only or not (place / "run.json").exists()
            run = cls(Tree.load(place), None) if only_look else cls._opened(place)
        if models is not None:
            run._state.loaded = _loaded(models)
        run._state.others_allowed |= allow_other_models
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
            return cls.open(EXAMPLE, read_only=True)
        if (arguments.place("folder", folder) / "run.json").exists():
            return cls.open(folder)
        return cls.open(EXAMPLE, read_only=True).copy(folder)

    @classmethod
    def _opened(
        cls, place: Path, manifest: Mapping[str, Any] | None = None, prepare: Callable[[Path], None] | None = None
    ) -> Run:
        """Open a run for writing; with a manifest, begin it, once `prepare` has put there what it begins from."""
        store.check_links(place)
        lock = Lock(place)
        lock.acquire()
        try:
            store.sweep(place)  # only by the owner: in a run in use the half-written files are being written
            if manifest:
                _check_empty(place)  # again: while the models were loaded another process may have begun here
                store.make_folder(place / "nodes")
                if prepare:
                    prepare(place)
                store.write_json(place / "run.json", manifest)
            run = _open_runs[place] = cls(Tree.load(place), lock)
        except BaseException:
            lock.release()
            raise
        return run

    def close(self) -> None:
        """Give the folder back to other processes; the run can still be looked at."""
        with self.lock:
            if self._unlock:
                self._unlock()
            # Read-only rather than unusable: tables and figures of a notebook outlive the run that they show.
            self._state.read_only, self._unlock = True, None
            _open_runs.pop(self.folder, None)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Run {self.prompt!r} in {self.folder}: at {self.current.id}, {self.outcome}>"

    @property
    def read_only(self) -> bool:
        """Whether it can only be looked at: opened so, or closed."""
        return self._state.read_only

    @property
    def busy(self) -> str | None:
        """What is being worked on, as ``"refine at 1b"``; None when nothing is."""
        return self._state.busy

    @property
    def models(self) -> Models:
        """The models, loaded as the run records them when first asked for."""
        return self._state.models

    def copy(self, folder: str | Path) -> Run:
        """Copy the whole run to a new folder and open it there, for example to change a bundled one."""
        place = _empty(folder)
        # Half-written files belong to the process that writes them; run.json last, so that half a copy is no run.
        leave = shutil.ignore_patterns(".lock", "lock.json", "run.json", f"*{store.TEMPORARY}")
        with store.reported(place):
            shutil.copytree(self.folder, place, ignore=leave, copy_function=shutil.copyfile, dirs_exist_ok=True)
            for part in (place, *(path for path in place.rglob("*") if path.is_dir())):
                part.chmod(part.stat().st_mode | 0o700)  # the original may be one that cannot be written
        store.write_bytes(place / "run.json", store.read_bytes(self.folder / "run.json"))
        return Run.open(place, self._state.loaded)

    def plan(self, node: Node | str | None = None) -> CostEstimate:
        """Count what an iteration with a node's settings takes: operations, weights, memory of each stage.

        Nothing is drawn; the models are loaded if they are not yet. `print` it before a long run.
        """
        from chosen_one_nb.run.cost_estimate import estimate_cost  # needs torch, which looking at a run does not

        return estimate_cost(self.models, self.node(node).settings)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the run as one HTML page that needs nothing else; None: ``report.html`` in its folder."""
        from chosen_one_nb.report import page

        place = self.folder / "report.html" if path is None else arguments.place("path", path)
        html = page(self)  # before a folder is made: a run that is gone is not to be begun again by its report
        if path is not None:
            store.make_folder(place.parent)
        store.write_bytes(place, html.encode())
        return place

    def export(
        self,
        folder: str | Path | None = None,
        node: Node | str | None = None,
        *,
        formats: Sequence[str] = ("diffusers", "kohya", "comfyui"),
        name: str | None = None,
    ) -> Path:
        """Write a character as files that other programs load, with its best images and its uses; see `export.write`.

        Parameters
        ----------
        folder : str or Path, optional
            None: ``exports/<prompt>-<node>`` in the run's folder.
        node : Node or str, optional
            Whose character: its own, else the one its gallery was drawn with. None: that of `character`.
        formats, name
            As of `export.write`.

        Raises
        ------
        RunError
            There is no character yet.
        CharacterError
            A bad name or format, or a folder that cannot be written.
        """
        from chosen_one_nb import export
        from chosen_one_nb.applications.kept import kept

        source = self._state.tree.theta_node(node)
        if source is None or source.theta is None:
            raise RunError("There is no character to export yet: run.next_iteration() refines the first one.")
        place = arguments.place("folder", folder) if folder else export_folder(self.folder, self.prompt, source.id)
        uses = [each.image() for each in kept(self.folder) if each.use.node == source.id]
        return export.write(source.theta, place, formats, [*typical(source), *uses], name)

    # where it stands

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes by id, oldest first."""
        # A copy: a stage that runs in another thread may add a node while one looks through them.
        return dict(self._state.tree.nodes)

    @property
    def current(self) -> Node:
        """The node that is looked at and worked on."""
        return self._state.tree.current

    def node(self, node: Node | str | None = None) -> Node:
        """Return a node by id (None: the current one); a `RunError` names those there are."""
        return self._state.tree.node(node)

    def path(self, node: Node | str | None = None) -> list[Node]:
        """Return the nodes from the root to a node (None: the current one), both included."""
        return self._state.tree.path(self.node(node))

    @property
    def next_stage(self) -> str | None:
        """The stage that `step` would do; None when the present branch is finished (see `outcome`)."""
        return self._next()[1]

    @property
    def outcome(self) -> Outcome:
        """Where the present branch stands."""
        return self._outcome(self._frontier())

    @property
    def character(self) -> Character | None:
        """The character to use: the newest up to the current node whose gallery has not collapsed.

        Without one, what the run began from, or None.
        """
        source = self._state.tree.theta_node()
        return source.theta if source else self._state.tree.start

    def _next(self) -> tuple[Node, str | None]:
        """The node and stage that come next; a refined node stands for the child to be made."""
        node = self._frontier()
        return node, None if self._outcome(node).finished else _open_stage(node)

    def _frontier(self) -> Node:
        """The newest node on the line of the current one."""
        node = self.current
        # Branches of the next gallery are children of the same node: the newest is the one to go on with.
        while node.refined and node.children:
            node = node.children[-1]
        return node

    def _outcome(self, node: Node) -> Outcome:
        path = self.path(node)
        last = last_sound([n.judged for n in path])
        sound, clusters = None if last is None else path[last].id, node.clusters
        if node.stopped and node.check:
            # The check knows nothing of how many iterations there were.
            limit = f"all {node.settings.max_iterations} iterations (d_iter) are used up."
            reason = limit if node.stopped == "limit" else node.check.verdict.reason
            return Outcome(node.stopped, reason, node.id, sound)
        if clusters is not None and node.decision is None and clusters.proposed is None:
            return Outcome("no cluster", clusters.reason, node.id, sound)
        return Outcome("unfinished", f"next comes {_open_stage(node)}.", node.id, sound)

    def select(self, node: Node | str) -> Node:
        """Make a node the current one."""
        with self.lock:
            node = self.node(node)
            self._state.set_current(node)
            self._state.changed("select", node, log=False)
            return node

    def branch(self, node: Node | str | None = None, **changes: Any) -> Node:
        """Begin a sibling of a clustered node that shares its gallery and goes on from choosing.

        Parameters
        ----------
        node : Node or str, optional
            None: the current one.
        **changes
            Settings to change on the branch; it then goes on from the check.

        Returns
        -------
        Node
            The sibling, now the current node.

        Raises
        ------
        RunError
            The node has no clusters yet.
        SettingsError
            A change that a shared gallery cannot follow, or a bad value.
        """
        self._state.check_writable()
        with self.lock:
            node = self.node(node)
            begin = selection.sibling(self._state, node, changes) if changes else selection.branch(self._state, node)
            self._state.changed("branch", begin, of=node.id, changes=changes)
            return begin

    # going on

    def step(self, *, workers: GalleryWorkers | None = None, **callbacks: Any) -> str:
        """Do the next stage of the present branch and put it on disk.

        Parameters
        ----------
        workers : GalleryWorkers, optional
            Who draws the images that are missing, such as `chosen_one_nb.sweep.workers.WorkerPool`; None: this process.
        **callbacks
            ``on_progress``, ``on_images``, ``on_step``, ``cancelled``: see `chosen_one_nb.steps.Callbacks`.

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
        self._state.check_writable()
        during = Callbacks(**callbacks)
        # The next node is found, and made if need be, in one go with taking the place: two clicks do one stage.
        with self._state.working(self._advance) as (node, stage):
            if stage == "choose":
                with self.lock:
                    selection.record(self._state, node, selection.choose(node))
            elif stage == "cluster":
                selection.cluster_gallery(self._state, node, during)
            else:
                compute(self._state, node, stage, during, workers)
        return stage

    def next_iteration(self, *, ask: bool = False, **callbacks: Any) -> Outcome:
        """Go on until the present iteration has its character, or the branch is finished; takes what `step` takes.

        Parameters
        ----------
        ask : bool
            Stop before choosing, so that a person can.
        """
        return self._go(ask, lambda stage: stage == "refine", callbacks)

    def until_converged(self, *, ask: bool = False, **callbacks: Any) -> Outcome:
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
        return self._go(ask, lambda stage: False, callbacks)

    def _go(self, ask: bool, enough: Callable[[str], bool], callbacks: Mapping[str, Any]) -> Outcome:
        while (stage := self.next_stage) is not None:
            # The rule has nothing to choose where no cluster is large enough; a person may still pick images.
            if stage == "choose" and (ask or self.outcome.state == "no cluster"):
                break
            if enough(self.step(**callbacks)):
                break
        return self.outcome

    def go_on(self) -> None:
        """Go on past the stop rule at a finished node (recorded); `step` then clusters and refines again."""
        self._state.check_writable()
        with self.lock:
            node = self._frontier()
            if not self._outcome(node).finished:
                raise RunError(f"Node {node.id} is not finished: run.step() goes on.")
            node.write(beyond=True)
            self._state.changed("go_on", node)

    def redo_stage(self, stage: str, node: Node | str | None = None) -> None:
        """Do a stage of a node again, for example because a file of it was damaged.

        Whole images are kept. What came after stands when the new files equal the old ones; otherwise it is
        dropped, unless other nodes were made from it: then it stands too, and the log says so.

        Raises
        ------
        RunError
            The stage is unknown, or has not been done.
        """
        self._state.check_writable()
        node = self.node(node)
        # Patch tokens and segmentations may be missing altogether: they are made only when asked for.
        if stage not in (*COMPUTED, "cluster") or not (stage in ASIDE or node.done(stage)):
            raise RunError(f"Expected a finished stage of node {node.id}, got {stage!r}: {node.stages_done}.")
        owner = node.home if stage in (*SHARED, *ASIDE) else node
        with self._state.working(lambda: (owner, stage)):
            if stage == "cluster":
                selection.cluster_gallery(self._state, owner, NO_CALLBACKS, again=True)
            else:
                compute(self._state, owner, stage, NO_CALLBACKS)

    def _advance(self) -> tuple[Node, str]:
        """Make the node that is to be worked on the current one, adding it to the tree if need be."""
        node, stage = self._next()
        if stage is None:
            raise RunError(f"Finished, {self._outcome(node)} To go on all the same: run.go_on(), then run.step().")
        if node.refined:
            node = self._state.add_child(node)
        elif node is not self.current:
            self._state.set_current(node)
        return node, stage


def _open_stage(node: Node) -> str:
    """The first stage that is not done; a refined node stands for the child to be made of it."""
    return STAGES[0] if node.refined else next(stage for stage in STAGES if not node.done(stage))


def check_prompt(models: Models, prompt: str, settings: Settings) -> str:
    """Return the prompt stripped; an error where it, the caption made of it, or a setting does not fit the models.

    The token is not known to the tokenizers yet. Short words stand for it, as many as it will have vectors, so that
    the caption is as long as it will be while it is learned.
    """
    from chosen_one_nb.steps.latents import latent_size
    from chosen_one_nb.steps.prompts import check_prompt as checked
    from chosen_one_nb.steps.tokens import check_words

    # Before anything is drawn: a caption that is cut off would lose its token only at the first refinement.
    prompt = checked(models.pipeline, prompt, forbidden=settings.token)
    check_words(models.pipeline, settings)
    if settings.image_size is not None:
        latent_size(models.pipeline, settings.image_size)
    token = " ".join(["a"] * settings.token_vectors)
    checked(models.pipeline, settings.caption(prompt).replace(settings.token, token))
    return prompt


def _refuse_unknown(given: Mapping[str, Any], settings: Any) -> None:
    """Raise a `RunError` that says where settings belong which `Run.start` was given by themselves, or are none."""
    for name in given:
        known = "prompt, models, settings, folder, images or character"
        raise RunError(f"{name}: expected {known}. A setting goes into settings=, such as Settings(n_images=24).")
    if not isinstance(settings, Settings | None):
        raise RunError(f"settings: expected Settings, such as Settings(n_images=24), got {settings!r}.")


def _empty(folder: str | Path) -> Path:
    """Return the place of a folder that a run may begin in."""
    place = arguments.place("folder", folder)
    _check_empty(place)
    return place


def _check_empty(folder: Path) -> None:
    """Raise a `RunError` unless a folder is missing or empty."""
    if (folder / "run.json").exists():
        raise RunError(f"{folder} holds a run already. Go on with it: Run.open(...), or give another folder.")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"Expected a folder, got the file {folder}.")
    # What a start that was cut short left behind does not stand in the way of the next.
    if folder.exists() and any(path.name not in OWN and not path.name.endswith(".part") for path in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run. Give a new or empty folder.")


def _words(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "run"


def _new_folder(prompt: str) -> Path:
    """Make a folder for a prompt's run under ``runs/``; of two starts at once each gets its own."""
    runs, name, n = store.make_folder(Path("runs").resolve()), _words(prompt), 1
    while True:
        # The same prompt again is another run, never the old one gone on with by accident.
        place = runs / (name if n == 1 else f"{name}-{n}")
        with store.reported(place), suppress(FileExistsError):
            place.mkdir()  # looks whether it is free, and takes it, in one step
            return place
        n += 1


def export_folder(folder: Path, prompt: str, node: str) -> Path:
    """Return the folder that a run's character is exported to by default."""
    return folder / "exports" / f"{_words(prompt)}-{node}"


def _loaded(models: Models | str | Path) -> Models:
    if isinstance(models, str | Path):
        from chosen_one_nb.models.load import load_models

        return load_models(models)
    if not hasattr(models, "pipeline"):
        raise RunError(f"models: expected Models, or a name or folder to load them from, got {models!r}.")
    return models
