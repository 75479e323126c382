"""What a person decides in a run: choose, leave out, merge, undo, branch; recorded as data."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from chosen_one_nb.run import choosing, store
from chosen_one_nb.run.choosing import Change
from chosen_one_nb.run.decision import Decision, RunError
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.tree import Tree
from chosen_one_nb.run.view import View
from chosen_one_nb.settings import SettingsError

if TYPE_CHECKING:
    from chosen_one_nb.steps.cluster import Clusters


class Editor(View):
    """The side of a `chosen_one_nb.run.run.Run` that a person changes.

    Parameters
    ----------
    tree : Tree
    read_only : bool
        Whether it can only be looked at.
    """

    def __init__(self, tree: Tree, read_only: bool) -> None:
        super().__init__(tree)
        self.lock = threading.RLock()
        self.listeners: list[Callable[[dict[str, Any]], None]] = []
        self.version = 0
        self.read_only = read_only
        self._at: tuple[str, str, object] | None = None

    @property
    def busy(self) -> str | None:
        """What is being worked on, as ``"refine at 1b"``; None when nothing is."""
        at = self._at
        return f"{at[0]} at {at[1]}" if at else None

    def choose(
        self,
        cluster: int | None = None,
        images: Sequence[int] | None = None,
        *,
        exclude: Sequence[int] = (),
        note: str = "",
        by: str | None = None,
    ) -> Decision:
        """Choose what to learn the character from: a cluster, some images, or what the rule proposes.

        At a node that has its Θ already this begins a sibling branch, which becomes the current node.

        Parameters
        ----------
        cluster : int, optional
            A cluster of the current node.
        images : sequence of int, optional
            Indices of images of the current gallery; at most one of the two is given, neither takes the
            proposal.
        exclude : sequence of int
            Images to leave out, besides those left out before.
        note : str
            Why; kept with the decision.
        by : str, optional
            Who; None is ``"person"``, or ``"rule"`` where the proposal is taken.

        Returns
        -------
        Decision
            On disk when this returns.

        Raises
        ------
        ChoiceError
            Both are given, there is no such cluster or image, nothing is left, or the rule proposes nothing.
        RunError
            There are no clusters yet.

        Warns
        -----
        RuntimeWarning
            When fewer images are chosen than a cluster must hold: learnt from few, a character over-fits.
        """
        with self._editing() as node:
            self._edit(node, choosing.choose(node, cluster, images, exclude, note, by))
            decision = self.current.decision
        if risk := self.risk(decision.images):
            warnings.warn(risk, RuntimeWarning, stacklevel=2)
        return decision

    def _choose_by_rule(self, node: Node) -> None:
        with self.lock:
            self._apply(node, choosing.choose(node, None, None, (), "", None))

    def risk(self, images: Sequence[int]) -> str:
        """Say what is risky about learning from these images; empty when nothing is."""
        least = self.settings.min_cluster_size
        if len(images) > least:
            return ""
        return (
            f"{len(images)} images, a cluster must hold more than {least} (d_min-c): learnt from few images, "
            "a character takes over their background and pose. Allowed; look at the next gallery with care."
        )

    def exclude(self, images: Sequence[int], *, note: str = "") -> tuple[int, ...]:
        """Leave images of the current gallery out of what is learnt; returns all that are left out now."""
        with self._editing() as node:
            self._edit(node, choosing.exclude(node, images, note))
            return self.current.excluded

    def include(self, images: Sequence[int], *, note: str = "") -> tuple[int, ...]:
        """Put left-out images back; returns all that are left out now."""
        with self._editing() as node:
            self._edit(node, choosing.include(node, images, note))
            return self.current.excluded

    def recluster(self, k: int | None = None) -> Clusters:
        """Cluster the current gallery again into k clusters (None: N // d_size-c); draws nothing."""
        with self._editing() as node:
            self._edit(node, choosing.recluster(node, k))
            return self.current.clusters

    def merge(self, a: int, b: int) -> Clusters:
        """Make one cluster of two; clusters are numbered anew, most cohesive first."""
        with self._editing() as node:
            self._edit(node, choosing.merge(node, a, b))
            return self.current.clusters

    def undo(self) -> Decision | None:
        """Take back the last choice, exclusion, merge or re-clustering at the current node.

        Returns
        -------
        Decision or None
            The decision that stands now.

        Raises
        ------
        RunError
            There is nothing to take back, or it has been refined (then choose otherwise: that begins a
            branch).
        """
        return self._move(-1, "undo")

    def redo(self) -> Decision | None:
        """Make again what was taken back last; returns the decision that stands now."""
        return self._move(1, "redo")

    def _move(self, by: int, name: str) -> Decision | None:
        with self._editing() as node:
            if node.refined:
                raise RunError(
                    f"Node {node.id} has been refined, so its choice stands. Choose otherwise there: "
                    "that begins a sibling branch and keeps this one."
                )
            if not (node.can_undo if by < 0 else node.can_redo):
                raise RunError(f"There is nothing to {name} at node {node.id}.")
            node.move_edit(by)
            self._changed(name, node)
            return node.decision

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
        self._check_writable()
        with self.lock:
            node = self.node(node)
            new = self._sibling(node, changes) if changes else self._branch(node, None)
            self._changed("branch", new, of=node.id, changes=changes)
            return new

    def _sibling(self, node: Node, changes: Mapping[str, Any]) -> Node:
        """Add a node that shares another's gallery, and make it the current one."""
        if not node.done("cluster"):
            raise RunError(f"Node {node.id} has no clusters yet, so there is nothing to branch from: run.step().")
        if bad := [name for name in changes if name in ("n_images", "seed")]:
            raise SettingsError(f"{', '.join(bad)}: cannot differ on a shared gallery. Start a new run for that.")
        new = self._tree.add(node.parent, node.settings.replace(**changes), node.seeds, like=node)
        self._set_current(new)
        return new

    def _branch(self, node: Node, decision: Decision | None) -> Node:
        """Add a sibling that stands where ``node`` stands, with another decision or none."""
        new = self._sibling(node, {})
        checked = store.read_json(node.folder / "check.json")
        new.commit("check", {"check.json": store.write_json(new.folder / "check.json", checked)}, 0)
        choosing.apply(new, Change("branch", node.excluded, decision, node.clusters))
        return new

    def _edit(self, node: Node, change: Change) -> None:
        """Make a change at a node, or at a new sibling where the node has its Θ already."""
        if node.refined:
            of, node = node, self._branch(node, None if change.action == "choose" else node.decision)
            self._log("branch", node, of=of.id)
        self._apply(node, change)

    def _apply(self, node: Node, change: Change) -> None:
        choosing.apply(node, change)
        about = {
            "clusters": node.edit.clusters,
            "excluded": node.excluded,
            "decision": store.plain(node.decision),
        }
        self._changed(change.action, node, **about)

    def select(self, node: Node | str) -> Node:
        """Make a node the current one."""
        with self.lock:
            node = self.node(node)
            self._set_current(node)
            self._changed("select", node, log=False)
            return node

    def _set_current(self, node: Node) -> None:
        self._current = node.id
        if not self.read_only:
            store.write_json(self.folder / "state.json", {"current": node.id})

    @contextmanager
    def _editing(self) -> Iterator[Node]:
        """Change the choice at the current node, unless it is being worked on."""
        self._check_writable()
        with self.lock:
            node = self.current
            if self._at is not None and self._at[1] == node.id:
                raise RunError(f"The run is at work ({self.busy}). Wait until it is done, or cancel it, then choose.")
            if node.clusters is None:
                go_on = "run.go_on(), then run.step()" if node.stopped else "run.step()"
                raise RunError(f"Node {node.id} has no clusters yet, so there is nothing to choose from: {go_on}.")
            yield node

    def _check_writable(self) -> None:
        if self.read_only:
            raise RunError(
                f"{self.folder} is open for looking only. Run.open(folder) to go on with it, or "
                "run.copy(folder) to change a copy."
            )

    def _changed(self, kind: str, node: Node, *, log: bool = True, **about: Any) -> None:
        """Count a change, log it, tell the listeners; what a listener raises is a warning, no failure."""
        self.version += 1
        try:
            if log:
                self._log(kind, node, **about)
        finally:
            event = {"kind": kind, "node": node.id, "version": self.version, **about}
            for listener in list(self.listeners):
                self._tell(listener, event)

    @staticmethod
    def _tell(listener: Callable[[dict[str, Any]], None], event: dict[str, Any]) -> None:
        try:
            listener(event)
        except Exception as error:
            warnings.warn(f"A listener of the run failed: {error!r}", RuntimeWarning, stacklevel=3)

    def _log(self, action: str, node: Node, **about: Any) -> None:
        line = {"time": store.now(), "action": action, "node": node.id, **store.plain(about)}
        store.append_line(self.folder / "log.jsonl", line)
