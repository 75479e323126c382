"""Where the run stands: the tree of iterations and branches, the distance of each against d_conv, and the loss."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import anywidget
import ipywidgets
import traitlets

from chosen_one_nb.plots import ALARM, PALETTE
from chosen_one_nb.run.node import Node

from .figures import GRID, LINE, PlotlyFigure, trace
from .images import script, style
from .panel import Panel, text
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
    _css = style("tree.css")
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


CLOSE = 0.15
"""Share of the first distance below which two names on the curve would cover each other."""
STATES = {"converged": ("star", PALETTE[2]), "collapsed": ("x", ALARM), "not yet": ("circle", PALETTE[0])}
"""Symbol and colour of an iteration by the state of its check."""

LOSS_EVERY = 0.3
"""Seconds between two drawings of the loss."""

Row = Mapping[str, Any]

_CURVE: dict[str, Any] = {"type": "scatter", "mode": "lines", "x": [], "y": [], "hoverinfo": "skip"}
_EDGES = _CURVE | {"line": {"color": LINE, "width": 1.5}}
_LIMIT = _CURVE | {"line": {"color": ALARM, "width": 1.5, "dash": "dash"}}
_RING = _CURVE | {
    "mode": "markers",
    "marker": {"size": 17, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": LINE}},
}
_NODES = {"type": "scatter", "mode": "markers+text", "textfont": {"size": 11},
          "hovertemplate": "%{hovertext}<extra></extra>"}  # fmt: skip
_RAW = _CURVE | {"line": {"color": LINE, "width": 1}, "opacity": 0.5}
_SMOOTHED = {"type": "scatter", "mode": "lines", "line": {"color": PALETTE[0], "width": 2},
             "hovertemplate": "step %{x}: %{y:.3f}<extra></extra>"}  # fmt: skip


def _axes(x: str, y: str) -> dict[str, Any]:
    axis = {"zeroline": False, "gridcolor": GRID, "linecolor": "rgba(127,127,127,0.5)"}
    return {
        "margin": {"l": 38, "r": 4, "t": 6, "b": 28},
        "dragmode": False,
        "xaxis": axis | {"title": {"text": x, "standoff": 4}},
        "yaxis": axis | {"title": {"text": y, "standoff": 4}, "nticks": 4},
    }


class CurveFigure(PlotlyFigure):
    """Mean pairwise distance of every iteration's gallery, branches joined to where they left, with d_conv."""

    edges, nodes, limit, ring = trace(), trace(), trace(), trace()
    traces = traitlets.List(["edges", "nodes", "limit", "ring"]).tag(sync=True)
    active = traitlets.Unicode("nodes").tag(sync=True)

    def __init__(self) -> None:
        super().__init__(120, **_axes("iteration", "distance"))
        self.ids: list[str] = []

    def show(self, rows: Sequence[Row], here: str, last: int) -> None:
        """Show the curve.

        Parameters
        ----------
        rows : sequence of mapping
            One per node: ``node``, ``parent`` (None at the root), ``iteration``, ``distance``, ``ratio``,
            ``threshold``, ``state``; as `chosen_one_nb.RunTables.curve` gives them.
        here : str
            Id of the node that is shown.
        last : int
            Iterations at most, for the axis.
        """
        known = {row["node"]: row for row in rows}
        self.ids = list(known)
        joined = [end for row in rows if row["parent"] in known for end in (known[row["parent"]], row, None)]
        names, places = _names(rows)
        looks = [STATES.get(row["state"], STATES["not yet"]) for row in rows]
        marker = {"size": 10, "symbol": [symbol for symbol, _ in looks], "color": [colour for _, colour in looks]}
        said, ends = [_describe(row) for row in rows], [-0.3, last + 0.3]
        highest = max((row["distance"] for row in rows), default=1)
        with self.hold_sync():
            self.edges = _EDGES | _spots(joined)
            labels = {"text": names, "textposition": places, "hovertext": said, "marker": marker}
            self.nodes = _NODES | _spots(rows) | labels
            self.limit = _LIMIT | ({"x": ends, "y": [rows[0]["threshold"]] * 2} if rows else {})
            self.ring = _RING | _spots([known[here]] if here in known else [])
            self.chart = self.chart | {
                "xaxis": self.chart["xaxis"] | {"dtick": 1, "range": ends},
                "yaxis": self.chart["yaxis"] | {"range": [0, 1.35 * highest]},
            }
            limit = f" d_conv is {rows[0]['threshold']:.3f}." if rows else ""
            self.alt = f"Mean pairwise distance by iteration. {'; '.join(said) or 'None yet'}.{limit}"


def _spots(rows: Sequence[Row | None]) -> dict[str, Any]:
    """Positions of rows on the curve; None parts two lines."""
    return {
        "x": [row and row["iteration"] for row in rows],
        "y": [row and row["distance"] for row in rows],
    }


def _names(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """Name each point, once where branches share a gallery; of two that lie close the lower is named below."""
    names, places = [], []
    for row in rows:
        beside = [other for other in rows if other["iteration"] == row["iteration"]]
        same = [other["node"] for other in beside if other["distance"] == row["distance"]]
        close = CLOSE * rows[0]["distance"]
        above = any(0 < other["distance"] - row["distance"] < close for other in beside)
        names.append(f" {', '.join(same)}" if same[0] == row["node"] else "")
        places.append("bottom right" if above else "top right")
    return names, places


def _describe(row: Row) -> str:
    return f"{row['node']}: {row['distance']:.3f}, {row['ratio']:.0%} of the first, {row['state']}"


class LossFigure(PlotlyFigure):
    """The loss while a character is refined, each step faint and smoothed."""

    raw, smoothed = trace(), trace()
    traces = traitlets.List(["raw", "smoothed"]).tag(sync=True)

    def __init__(self) -> None:
        super().__init__(100, **_axes("refinement step", "loss"))

    def show(self, losses: Sequence[Row]) -> None:
        """Show the losses so far: mappings with ``step``, ``loss`` and ``ema_loss``."""
        steps = [row["step"] for row in losses]
        smoothed = [row.get("ema_loss", row["loss"]) for row in losses]
        ends = f", from {smoothed[0]:.3f} to {smoothed[-1]:.3f}" if losses else ""
        with self.hold_sync():
            self.raw = _RAW | {"x": steps, "y": [row["loss"] for row in losses]}
            self.smoothed = _SMOOTHED | {"x": steps, "y": smoothed}
            self.alt = f"Smoothed loss over {len(losses)} refinement steps{ends}."


class CurvePanel(Panel):
    """Distance of every iteration, and the loss of the one that is shown (or of the work under way)."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.distance, self.loss = CurveFigure(), LossFigure()
        self.verdict, self.about = text("trust"), text("trust")
        self.ui = ipywidgets.VBox([self.distance, self.verdict, self.loss, self.about]).add_class("chosen-curves")
        self.listen(self.distance)
        session.observe(self._step, "training_step")
        self._losses: list[Row] = []
        self._loss_drawn = 0.0

    def show(self) -> None:
        """Show the curve as it is now, and the losses of the iteration that is shown."""
        node = self.node
        self.distance.show(self.run.tables.curve().to_dict("records"), node.id, max(3, node.settings.max_iterations))
        verdict = node.check.verdict if node.check else None
        self.verdict.value = f"<strong>{escape(verdict.state)}</strong>: {escape(verdict.reason)}" if verdict else ""
        if node.refined:
            self._losses = list(node.losses)
        elif not self.session.busy:
            self._losses = []
        self._draw_loss()

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Show the iteration whose point was clicked."""
        if content.get("do") == "click":
            self.session.show_node(self.distance.ids[content["index"]])

    @guarded
    def _step(self, change: dict[str, Any]) -> None:
        """Take one training step's report; the drawing follows not too often."""
        event = change["new"]
        self._losses = [*(self._losses if event["step"] > 1 else []), event]
        if time.monotonic() - self._loss_drawn > LOSS_EVERY or event["step"] == event.get("steps"):
            self._loss_drawn = time.monotonic()
            self._draw_loss()

    def _draw_loss(self) -> None:
        self.loss.show(self._losses)
        self.about.value = (
            "Grey: each step. Blue: smoothed. It tells that learning runs, not how good Θ is."
            if self._losses
            else "Nothing has been learnt from this gallery yet."
        )
