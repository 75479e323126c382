"""What can be read of a run: its tree, where it stands, which Θ to use, and tables. Nothing changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.drawing import CONTEXTS
from chosen_one_nb.run.node import STAGES, Node
from chosen_one_nb.run.tree import Tree
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from chosen_one_nb.character import Character


@dataclass(frozen=True)
class Outcome:
    """Where the present branch stands.

    Parameters
    ----------
    state : {"unfinished", "converged", "collapsed", "limit", "no cluster"}
        ``limit``: the iterations are used up; ``no cluster``: none was large enough, a person may choose.
    reason : str
        Why, as a sentence.
    node : str
        Id of the node it is about.
    sound_node : str or None
        The last node whose gallery is sound and drawn with a Θ: its ``theta_in`` is the Θ to use.
    """

    state: str
    reason: str
    node: str
    sound_node: str | None

    @property
    def finished(self) -> bool:
        """Whether the method has come to its end here (a person may still `Run.go_on`)."""
        return self.state in ("converged", "collapsed", "limit")

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


class View:
    """The readable side of a `chosen_one_nb.run.run.Run`.

    Parameters
    ----------
    tree : Tree
    """

    def __init__(self, tree: Tree) -> None:
        self.folder = tree.folder
        self._tree = tree
        self._current = self._stored_current()

    @property
    def prompt(self) -> str:
        """The prompt."""
        return self._tree.manifest["prompt"]

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What ``run.json`` says: prompt, models, settings, versions, when."""
        return dict(self._tree.manifest)

    @property
    def model_name(self) -> str:
        """The models the run was made with, by name."""
        return self._tree.manifest["models"]["name"]

    @property
    def settings(self) -> Settings:
        """The settings of the current node (branches may differ)."""
        return self.current.settings

    @property
    def nodes(self) -> Mapping[str, Node]:
        """All nodes by id, oldest first."""
        return dict(self._tree.nodes)

    @property
    def root(self) -> Node:
        """The node of the first gallery, drawn without a Θ."""
        return next(iter(self._tree.nodes.values()))

    @property
    def current(self) -> Node:
        """The node that is looked at and worked on."""
        return self._tree.nodes[self._current]

    def node(self, node: Node | str | None = None) -> Node:
        """Return a node by id (None: the current one).

        Raises
        ------
        RunError
            There is no such node.
        """
        if isinstance(node, Node):
            return node
        if node is None:
            return self.current
        if str(node) not in self._tree.nodes:
            raise RunError(f"Expected one of the nodes {', '.join(self._tree.nodes)}, got {node!r}.")
        return self._tree.nodes[str(node)]

    def path(self, node: Node | str | None = None) -> list[Node]:
        """Return the nodes from the root to a node (None: the current one), both included."""
        return self._tree.path(self.node(node))

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
        """The Θ to use: the newest up to the current node whose gallery has not collapsed; None if none."""
        source = self._source(self.current)
        return source.theta if source else None

    def table(self, node: Node | str | None = None) -> pd.DataFrame:
        """Return a node's gallery as a table, a row per image.

        Returns
        -------
        DataFrame
            Columns ``image_id`` (iteration, index), ``iteration``, ``index``, ``seed``, ``cluster``,
            ``distance`` (to the own centroid), ``kept``, ``chosen``, ``excluded``; empty (NA) where not
            known yet.
        """
        from chosen_one_nb.run import tables

        return tables.table(self.node(node))

    def curve(self, node: Node | str | None = None) -> pd.DataFrame:
        """Return the distance of each checked node, of all nodes or of those on the way to one.

        Returns
        -------
        DataFrame
            Columns ``node``, ``parent``, ``iteration``, ``distance``, ``ratio``, ``threshold``,
            ``state``, ``seconds``.
        """
        from chosen_one_nb.run import tables

        return tables.curve(self.path(node) if node is not None else list(self.nodes.values()))

    def compare(self, a: Node | str, b: Node | str) -> pd.DataFrame:
        """Set two nodes side by side, choices and what followed: a row per fact, a column per node."""
        from chosen_one_nb.run import tables

        return tables.compare(self.node(a), self.node(b))

    def scores(self, node: Node | str | None = None) -> pd.DataFrame:
        """Score a gallery: prompt similarity and identity, with 95 % bootstrap intervals over images."""
        from chosen_one_nb.run import tables

        return tables.scores(self.node(node))

    def drawn_contexts(self, node: Node | str | None = None) -> dict[str, list[Image.Image]]:
        """Return the images in contexts that are on disk already, by context; see `Run.contexts`."""
        source = self._source(self.current) if node is None else self._theta_node(self.node(node))
        drawn: dict[str, list[Image.Image]] = {context: [] for context in CONTEXTS}
        for path in sorted((self.folder / "contexts" / (source.id if source else "base")).glob("*/*.png")):
            image = store.read_image(path)
            if image.info.get("theta") == (source.theta_digest if source else ""):
                drawn.setdefault(image.info.get("context", ""), []).append(image)
        return {context: images for context, images in drawn.items() if images}

    def history(self) -> pd.DataFrame:
        """Return the log: a row per action with ``time``, ``action``, ``node`` and its particulars."""
        from chosen_one_nb.run import tables

        return tables.history(store.read_lines(self.folder / "log.jsonl"))

    def _next(self) -> tuple[Node, str | None]:
        """The node and stage that come next; a refined node stands for the child to be made."""
        node = self._frontier()
        if self._outcome(node).finished:
            return node, None
        return node, STAGES[0] if node.refined else self._first_open(node)

    @staticmethod
    def _first_open(node: Node) -> str:
        return next((stage for stage in STAGES if not node.done(stage)), STAGES[0])

    def _frontier(self) -> Node:
        """The newest node on the line of the current one."""
        node = self.current
        while node.refined and node.children:
            node = node.children[-1]
        return node

    def _outcome(self, node: Node) -> Outcome:
        sound = next(
            (n.id for n in reversed(self._tree.path(node)) if n.parent and n.verdict and not n.collapsed),
            None,
        )
        if node.stopped:
            return Outcome(node.stopped, self._why(node), node.id, sound)
        if node.done("cluster") and node.decision is None and node.clusters.proposed is None:
            return Outcome("no cluster", node.clusters.reason, node.id, sound)
        stage = STAGES[0] if node.refined else self._first_open(node)
        return Outcome("unfinished", f"next comes {stage}.", node.id, sound)

    def _why(self, node: Node) -> str:
        if node.stopped == "limit":
            return f"all {node.settings.max_iterations} iterations (d_iter) are used up."
        return node.verdict.reason

    def _source(self, node: Node) -> Node | None:
        """The node whose Θ to use, looking back from ``node``."""
        judged = [child.collapsed for child in node.children if child.verdict]
        if node.refined and not node.collapsed and not (judged and all(judged)):
            return node
        while node.parent is not None:
            if not node.collapsed:
                return node.parent
            node = node.parent
        return None

    @staticmethod
    def _theta_node(node: Node) -> Node | None:
        return node if node.refined else node.parent

    def _stored_current(self) -> str:
        names = list(self._tree.nodes)
        try:
            name = store.read_json(self.folder / "state.json")["current"]
        except (store.StoreError, KeyError, TypeError):
            name = None
        return name if name in names else names[-1] if names else ""
