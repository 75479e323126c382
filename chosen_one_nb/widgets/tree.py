"""The run as a small tree of iterations and branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anywidget
import traitlets

from chosen_one_nb.run.node import Node

from .images import HERE, script
from .panel import Panel
from .session import Session
from .status import chosen_words, guarded

WORDS = {
    "converged": "★ converged",
    "collapsed": "✕ collapsed",
    "new": "new",
    "generate": "drawn",
    "embed": "embedded",
    "check": "checked",
    "cluster": "clustered",
    "choose": "chosen",
    "refine": "refined",
}


class TreeView(anywidget.AnyWidget):
    """The tree in the browser.

    Parameters
    ----------
    nodes : list of dict
        ``id``, ``from`` (the node it hangs on, or ""), ``column``, ``row``, ``face`` (index of an image, -1 for none),
        ``thumbnails``, ``sign`` (a word on its state), ``title``, ``shown``.
    """

    _esm = script("tree.js")
    _css = HERE / "tree.css"
    nodes = traitlets.List(traitlets.Dict()).tag(sync=True)


def places(nodes: Sequence[Node]) -> dict[str, tuple[int, int]]:
    """Place each node: its iteration as column, its line of descent as row.

    Parameters
    ----------
    nodes : sequence of Node
        All nodes, oldest first.

    Returns
    -------
    dict
        Node id to (column, row). A first child stays on its parent's row; every other node opens a new one.
    """
    found: dict[str, tuple[int, int]] = {}
    for node in nodes:
        on_row = found[node.parent.id][1] if node.parent else 0
        if (node.iteration, on_row) in found.values():
            on_row = 1 + max(row for _, row in found.values())
        found[node.id] = (node.iteration, on_row)
    return found


class TreePanel(Panel):
    """The tree of the run; a click looks at that iteration."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.ui = self.view = TreeView()
        self.listen(self.view)

    def show(self) -> None:
        """Draw the tree as it is now."""
        nodes = list(self.run.nodes.values())
        self.view.nodes = [self._entry(node, *place) for node, place in zip(nodes, places(nodes).values(), strict=True)]

    def _entry(self, node: Node, column: int, row: int) -> dict[str, Any]:
        word, face, shown = WORDS.get(node.state, node.state), _face(node), node.id == self.node.id
        branch = node.gallery_of != node.id
        origin = node.gallery_of if branch else node.parent.id if node.parent else ""
        decision, said = node.decision, f"Iteration {node.id}: {word}"
        said += f", {chosen_words(decision)} chosen by {decision.by}" if decision else ""
        said += f", a branch of {node.gallery_of}" if branch else ""
        key = self.session.thumbnails.send(node.gallery_of, node.images, [face] if face >= 0 else [])
        return {
            "id": node.id, "from": origin, "column": column, "row": row, "face": face, "thumbnails": key,
            "sign": word, "title": f"{said}{' (shown)' if shown else ''}", "shown": shown,
        }  # fmt: skip

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Do what was pressed: ``{"do": "select", "node": "1b"}``."""
        if content.get("do") == "select":
            self.session.show_node(str(content["node"]))


def _face(node: Node) -> int:
    """The image that stands for an iteration: the medoid of what was chosen or proposed, else the first."""
    if not len(node.images):
        return -1
    clusters, decision = node.clusters, node.decision
    if decision is not None and decision.cluster is None:
        return decision.images[0]
    cluster = decision.cluster if decision else clusters.proposed if clusters else None
    return 0 if cluster is None else int(clusters.medoids[cluster])
