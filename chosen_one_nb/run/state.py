"""What the parts of a run share: the tree on disk, who may write, what is under way, which models."""

from __future__ import annotations

import platform
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.node import UNKNOWN_SEED, Node, Tree
from chosen_one_nb.run.records import FORMAT
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.gallery import image_seeds

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models

RECORDED = ("chosen_one_nb", "torch", "diffusers", "transformers", "peft", "scikit-learn", "numpy", "pillow")
"""Packages whose versions are kept with a run."""

Listener = Callable[[dict[str, Any]], None]


class ModelsDiffer(RunError):
    """The run was made with other models than those at hand."""


class RunState:
    """One open run, as its parts see it.

    Parameters
    ----------
    tree : Tree
    read_only : bool
        Whether it can only be looked at.

    Attributes
    ----------
    lock : threading.RLock
        Held while the state changes, never during long work.
    listeners : list of callable
        Called after each change; see `Run`.
    version : int
        Counts the changes.
    loaded : Models or None
        The models, once they are given or loaded.
    others_allowed : bool
        Whether models other than those the run was made with may go on with it.
    """

    def __init__(self, tree: Tree, *, read_only: bool) -> None:
        self.tree, self.folder, self.read_only = tree, tree.folder, read_only
        self.prompt: str = tree.manifest["prompt"]
        self.lock = threading.RLock()
        self.listeners: list[Listener] = []
        self.version = 0
        self.others_allowed = self._others_logged = False
        self._at: tuple[str, str, object] | None = None
        self.loaded: Models | None = None
        # The explorer estimates costs and asks CLIP in the background while a stage begins: only one of them loads.
        self._loading = threading.Lock()

    # models

    @property
    def models(self) -> Models:
        """The models, loaded as ``run.json`` records them when first asked for."""
        with self._loading:
            if self.loaded is None:
                self.loaded = load_recorded(self.tree.manifest["models"])
            return self.loaded

    @property
    def fingerprint(self) -> str:
        """Of the models that draw now, known without loading them."""
        if self.others_allowed and self.loaded is not None:
            return self.loaded.fingerprint
        return self.tree.manifest["models"]["fingerprint"]

    def checked_models(self) -> Models:
        """Return the models if they are those the run was made with, or others are allowed."""
        made, now = self.tree.manifest["models"], self.models
        # By contents, not by name: the same name may stand for newer weights, another folder for the same ones.
        if now.fingerprint == made["fingerprint"]:
            return now
        if not self.others_allowed:
            raise ModelsDiffer(
                f"This run was made with {made['name']} ({made['fingerprint'][:8]}), at hand is {now.name} "
                f"({now.fingerprint[:8]}). Looking works; to go on, give the same models, or say that "
                "others are meant: Run.open(folder, models, allow_other_models=True)."
            )
        if not self._others_logged:  # once for each time the run is opened, not for each image
            self.log("models", self.tree.current, name=now.name, fingerprint=now.fingerprint)
            self._others_logged = True
        return now

    # work, one piece at a time

    @property
    def busy(self) -> str | None:
        """What is being worked on, as ``"refine at 1b"``; None when nothing is."""
        at = self._at
        return f"{at[0]} at {at[1]}" if at else None

    @contextmanager
    def working(self, find: Callable[[], tuple[Node, str]]) -> Iterator[tuple[Node, str]]:
        """Work alone on the node and stage that ``find`` gives; a `RunError` says what is under way otherwise."""
        # The lock is held only while the place is taken, never during the work itself: a screen that shows the run
        # reads it meanwhile.
        mine = object()
        try:
            with self.lock:
                if self._at is not None:
                    raise RunError(f"The run is at work ({self.busy}). Wait until it is done, or cancel it.")
                node, stage = find()
                self._at = (stage, node.id, mine)
            yield node, stage
        finally:
            # Ctrl-C may come between the two lines above, so only what this call has set is taken back.
            if self._at is not None and self._at[2] is mine:
                self._at = None

    def check_idle(self, node: Node) -> None:
        """Raise a `RunError` while a node is being worked on."""
        if self._at is not None and self._at[1] == node.id:
            raise RunError(f"The run is at work ({self.busy}). Wait until it is done, or cancel it, then choose.")

    # changes

    def check_writable(self) -> None:
        """Raise a `RunError` where the run is only looked at."""
        if self.read_only:
            raise RunError(
                f"{self.folder} is open for looking only. Run.open(folder) to go on with it, or "
                "run.copy(folder) to change a copy."
            )

    def set_current(self, node: Node) -> None:
        """Make a node the current one, also for the next time the run is opened."""
        self.tree.current = node
        # Whoever only looks may look at any node; where the run stands is for its owner to say.
        if not self.read_only:
            store.write_json(self.folder / "state.json", {"current": node.id})

    def add_child(self, parent: Node | None) -> Node:
        """Begin the next iteration (None: the first) and make it the current node."""
        settings = parent.settings if parent else Settings(**self.tree.manifest["settings"])
        seeds = image_seeds(settings, parent.iteration + 1 if parent else 0)
        if parent is None and (own := self.tree.manifest.get("images")):
            seeds = np.full(len(own), UNKNOWN_SEED)
        node = self.tree.add(parent, settings, seeds)
        self.set_current(node)
        return node

    def changed(self, kind: str, node: Node, *, log: bool = True, **about: Any) -> None:
        """Count a change, log it, call the listeners; what a listener raises is a warning, no failure."""
        self.version += 1
        try:
            if log:
                self.log(kind, node, **about)
        finally:  # the change stands even where the log cannot be written, so whoever shows the run needs the event
            event = {"kind": kind, "node": node.id, "version": self.version, **about}
            for listener in list(self.listeners):  # a copy, since a screen that closes takes its own away
                try:
                    listener(event)
                except Exception as error:  # a broken screen must not cost a refinement
                    warnings.warn(f"A listener of the run failed: {error!r}", RuntimeWarning, stacklevel=3)

    def log(self, action: str, node: Node, **about: Any) -> None:
        """Append a line to ``log.jsonl``."""
        line = {"time": store.now(), "action": action, "node": node.id, **store.plain(about)}
        store.append_line(self.folder / "log.jsonl", line)


def load_recorded(recorded: dict[str, Any]) -> Models:
    """Load the models that a manifest records, Hub ids at the commit they were loaded at.

    In the precision recorded, where the device is of the same kind: what a GPU computes in half precision, a processor
    hardly can.
    """
    from chosen_one_nb.models.load import load_models
    from chosen_one_nb.models.memory import best_device

    machine = recorded.get("machine") or {}
    again = {"dtype": machine["dtype"]} if machine.get("device") == best_device().type else {}
    return load_models(**(recorded.get("load") or {"name": recorded["name"]}), **again)


def new_manifest(prompt: str, models: Models, settings: Settings) -> dict[str, Any]:
    """Return the contents of ``run.json``: what the run is and with what it is made."""
    return {
        "format": FORMAT,
        "prompt": prompt,
        "models": {
            "name": str(models.name),
            "fingerprint": models.fingerprint,
            "load": models.recipe,
            # Not low_memory, compile and offline: those are for the machine at hand, and no part of what was made.
            "machine": {key: value for key, value in models.machine.items() if key in ("device", "dtype")},
        },
        "settings": settings.model_dump(),
        "versions": {"python": platform.python_version(), "system": platform.platform()}
        | {name: _version(name) for name in RECORDED},
        "made": store.now(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # the kit itself may run from a folder
        return "not installed"
