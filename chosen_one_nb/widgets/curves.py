"""Two small figures: the distance of each iteration against d_conv, and the loss of a refinement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from .live_figure import LiveFigure

EDGES, NODES, LIMIT, RING = range(4)
CLOSE = 0.15
"""Share of the first distance below which two names on the curve would cover each other."""
STATE_SYMBOLS = {"converged": "star", "collapsed": "x", "not yet": "circle"}
STATE_COLOURS = {"converged": "#009E73", "collapsed": "#D55E00", "not yet": "#0072B2"}


class CurveFigure:
    """Mean pairwise distance of every iteration's gallery, branches joined to where they left, with d_conv.

    Attributes
    ----------
    widget : LiveFigure
    """

    def __init__(self, height: int = 150) -> None:
        self.widget = LiveFigure(
            _curve_traces(),
            height=height,
            margin={"l": 46, "r": 10, "t": 8, "b": 30},
            dragmode=False,
            xaxis={
                "title": {"text": "iteration", "standoff": 4},
                "dtick": 1,
                "zeroline": False,
                "range": [-0.3, 3.3],
                "gridcolor": "rgba(127,127,127,0.18)",
            },
            yaxis={
                "title": {"text": "distance", "standoff": 4},
                "nticks": 4,
                "zeroline": False,
                "gridcolor": "rgba(127,127,127,0.18)",
            },
        )
        self._ids: list[str] = []

    def show(self, rows: Sequence[Mapping[str, Any]], here: str, last: int) -> None:
        """Show the curve.

        Parameters
        ----------
        rows : sequence of mapping
            One per node: ``node``, ``parent`` (None at the root), ``iteration``, ``distance``, ``ratio``,
            ``threshold``, ``state``; as `chosen_one_nb.Run.curve` gives them.
        here : str
            Id of the node that is shown.
        last : int
            Iterations at most, for the axis.
        """
        known = {row["node"]: row for row in rows}
        self._ids = list(known)
        joined = [(known[row["parent"]], row) for row in rows if row["parent"] in known]
        shown = [known[here]] if here in known else []
        with self.widget.batch_update():
            edges, nodes, limit, ring = self.widget.data
            edges.x = [x for a, b in joined for x in (a["iteration"], b["iteration"], None)]
            edges.y = [y for a, b in joined for y in (a["distance"], b["distance"], None)]
            nodes.x, nodes.y = [row["iteration"] for row in rows], [row["distance"] for row in rows]
            nodes.text, nodes.textposition = _names(rows)
            nodes.hovertext = [_words(row) for row in rows]
            self.widget.layout.yaxis.range = [0, 1.35 * max((row["distance"] for row in rows), default=1)]
            nodes.marker.symbol = [STATE_SYMBOLS.get(row["state"], "circle") for row in rows]
            nodes.marker.color = [STATE_COLOURS.get(row["state"], "#0072B2") for row in rows]
            limit.x = [-0.3, last + 0.3] if rows else []
            limit.y = [rows[0]["threshold"]] * 2 if rows else []
            ring.x, ring.y = [row["iteration"] for row in shown], [row["distance"] for row in shown]
            self.widget.layout.xaxis.range = [-0.3, last + 0.3]
        self.widget.alt = _said(rows)

    def on_click(self, handler: Callable[[str], None]) -> None:
        """Call ``handler(node_id)`` when an iteration is clicked."""
        self.widget.data[NODES].on_click(
            lambda trace, points, state: handler(self._ids[points.point_inds[0]]) if points.point_inds else None
        )


def _curve_traces() -> list[go.Scatter]:
    quiet: dict[str, Any] = {"x": [], "y": [], "hoverinfo": "skip"}
    return [
        go.Scatter(mode="lines", line={"color": "#8A8A8A", "width": 1.5}, name="branches", **quiet),
        go.Scatter(
            mode="markers+text",
            x=[],
            y=[],
            text=[],
            textposition="middle right",
            textfont={"size": 11},
            hovertemplate="%{hovertext}<extra></extra>",
            marker={"size": 10},
            name="iterations",
        ),
        go.Scatter(mode="lines", line={"color": "#D55E00", "width": 1.5, "dash": "dash"}, name="d_conv", **quiet),
        go.Scatter(
            mode="markers",
            marker={"size": 17, "color": "rgba(0,0,0,0)", "line": {"width": 2, "color": "#7F7F7F"}},
            name="shown",
            **quiet,
        ),
    ]


def _names(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[str]]:
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


def _words(row: Mapping[str, Any]) -> str:
    return f"{row['node']}: {row['distance']:.3f}, {row['ratio']:.0%} of the first, {row['state']}"


def _said(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say the whole curve in words."""
    limit = f" d_conv is {rows[0]['threshold']:.3f}." if rows else ""
    return f"Mean pairwise distance by iteration. {'; '.join(map(_words, rows)) or 'None yet'}.{limit}"


class LossFigure:
    """The loss while a character is refined, each step faint and smoothed.

    Attributes
    ----------
    widget : LiveFigure
    """

    def __init__(self, height: int = 150) -> None:
        grid = {"gridcolor": "rgba(127,127,127,0.18)", "zeroline": False}
        self.widget = LiveFigure(
            [
                go.Scatter(
                    mode="lines",
                    x=[],
                    y=[],
                    line={"color": "#8A8A8A", "width": 1},
                    opacity=0.5,
                    name="loss",
                    hoverinfo="skip",
                ),
                go.Scatter(
                    mode="lines",
                    x=[],
                    y=[],
                    line={"color": "#0072B2", "width": 2},
                    name="smoothed",
                    hovertemplate="step %{x}: %{y:.3f}<extra></extra>",
                ),
            ],
            height=height,
            margin={"l": 46, "r": 10, "t": 8, "b": 30},
            dragmode=False,
            xaxis={"title": {"text": "refinement step", "standoff": 4}, **grid},
            yaxis={"title": {"text": "loss", "standoff": 4}, "nticks": 4, **grid},
        )

    def show(self, losses: Sequence[Mapping[str, Any]]) -> None:
        """Show the losses so far: mappings with ``step``, ``loss`` and ``ema_loss``."""
        steps = [row["step"] for row in losses]
        with self.widget.batch_update():
            raw, smooth = self.widget.data
            raw.x, raw.y = steps, [row["loss"] for row in losses]
            smooth.x, smooth.y = steps, [row.get("ema_loss", row["loss"]) for row in losses]
        ends = f", from {smooth.y[0]:.3f} to {smooth.y[-1]:.3f}" if losses else ""
        self.widget.alt = f"Smoothed loss over {len(losses)} refinement steps{ends}."
