"""The map of a gallery: one Plotly figure for the explorer's life, whose point number is the image's number."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from PIL import Image

from .cluster_style import Marks
from .images import webp
from .live_figure import LiveFigure

GHOSTS, LINES, POINTS, RINGS, NUMBERS = range(5)
"""The traces: other iterations, lines to neighbours, the images, rings, cluster numbers at their centres."""

SIZE, CHOSEN_SIZE, RING_SIZE = 9, 13, 19
THUMB_SIDE = 40
THUMB_SHARE = 0.075
"""Side of a thumbnail on the map as a share of the map's width."""

Handler = Callable[[int], None]


class MapFigure:
    """The map and what can be done on it; `widget` is what is shown.

    Parameters
    ----------
    height : int
        Pixels.

    Attributes
    ----------
    widget : LiveFigure
        Made once, updated in batches, never replaced.
    shown : int
        How many images are on the map.
    """

    def __init__(self, height: int = 430) -> None:
        bare = {"showgrid": False, "showticklabels": False, "zeroline": False, "showline": False, "ticks": ""}
        self.widget = LiveFigure(
            _traces(),
            height=height,
            dragmode="lasso",
            clickmode="event",
            xaxis=bare,
            yaxis={**bare, "scaleanchor": "x", "scaleratio": 1},
            uirevision="map",
            selectionrevision=0,
            newselection={"line": {"color": "#7F7F7F", "width": 1, "dash": "dot"}},
            hoverdistance=14,
        )
        self.shown = 0
        self._xy: NDArray[np.floating] = np.zeros((0, 2))
        self._ring: tuple[int, ...] = ()
        self._hovered = -1
        self._selected: tuple[int, ...] = ()
        self._outlined = self._wiped = False

    # --- what is shown ---------------------------------------------------------------------------------------------

    def show(
        self,
        xy: NDArray[np.floating],
        marks: Marks,
        texts: Sequence[str],
        *,
        chosen: Sequence[int] = (),
        excluded: Sequence[int] = (),
        ghosts: NDArray[np.floating] | None = None,
        numbers: Mapping[str, tuple[float, float]] | None = None,
        move: bool = False,
        revision: str = "map",
    ) -> None:
        """Show a gallery.

        Parameters
        ----------
        xy : ndarray of shape (N, 2)
            Positions.
        marks : Marks
            Colours and symbols of the N points.
        texts : sequence of str
            Hover text of each point.
        chosen, excluded : sequence of int
            Points drawn larger, and as crosses.
        ghosts : ndarray of shape (M, 2), optional
            Images of other iterations, drawn faintly behind.
        numbers : mapping of str to (x, y), optional
            Cluster numbers and where they are written.
        move : bool
            Let the points glide to their new places (only when their number stays the same).
        revision : str
            The zoom is kept as long as this stays the same.
        """
        ghosts = np.zeros((0, 2)) if ghosts is None else ghosts
        glide = move and self.shown == len(xy) > 0
        self._xy, self.shown, self._ring, self._hovered = np.asarray(xy), len(xy), (), -1
        figure = self.widget
        if glide:
            with figure.batch_animate(duration=600, easing="cubic-in-out"):
                figure.data[POINTS].x, figure.data[POINTS].y = xy[:, 0], xy[:, 1]
        with figure.batch_update():
            if not glide:
                figure.data[POINTS].x, figure.data[POINTS].y = xy[:, 0], xy[:, 1]
            figure.data[POINTS].text = list(texts)
            _paint(figure.data[POINTS], marks, set(chosen), set(excluded))
            figure.data[GHOSTS].x, figure.data[GHOSTS].y = ghosts[:, 0], ghosts[:, 1]
            for trace in (LINES, RINGS):
                figure.data[trace].x, figure.data[trace].y = [], []
            _write_numbers(figure.data[NUMBERS], numbers or {})
            figure.layout.uirevision = revision
            _set_range(figure.layout, np.concatenate([xy, ghosts]))
        self.select(())

    def ring(self, indices: Sequence[int], neighbours: Sequence[int] = ()) -> None:
        """Put rings around points, and lines from the first of them to its neighbours."""
        rings = tuple(i for i in indices if 0 <= i < self.shown)
        if (rings, tuple(neighbours)) == (self._ring, ()) and not neighbours:
            return
        self._ring = rings
        here = self._xy[list(rings)] if rings else np.zeros((0, 2))
        lines = _spokes(here[0], self._xy[list(neighbours)]) if rings and neighbours else np.zeros((0, 2))
        with self.widget.batch_update():
            self.widget.data[RINGS].x, self.widget.data[RINGS].y = here[:, 0], here[:, 1]
            self.widget.data[LINES].x, self.widget.data[LINES].y = lines[:, 0], lines[:, 1]

    def select(self, indices: Sequence[int]) -> None:
        """Show a selection (fading the other points); none selected shows all alike."""
        if tuple(indices) != self._selected:
            self._selected = tuple(indices)
            self._wipe_outline()
            self._fade()

    def _fade(self) -> None:
        self.widget.data[POINTS].selectedpoints = list(self._selected) or None

    def _wipe_outline(self) -> None:
        """Take the lasso's outline away: only the browser knows of it, so that setting the layout would do nothing.

        The browser answers with an empty selection, which is not the person's; `_heard` knows.
        """
        if self._outlined:
            self._outlined, self._wiped = False, True
            self.widget._send_relayout_msg({"selections": []})

    def _heard(self, indices: list[int]) -> bool:
        """Take note of a selection made in the browser; False where it is only the answer to a wiped outline."""
        if self._wiped and not indices:
            self._wiped = False
            self._fade()
            return False
        self._outlined, self._wiped, self._selected = bool(indices), False, tuple(indices)
        if not indices:
            self._fade()
        return True

    def thumbnails(self, images: Sequence[Image.Image], first: Sequence[int] = ()) -> int:
        """Stand images on their points, those that do not cover each other, `first` before the rest.

        Returns
        -------
        int
            How many are shown; no `images` takes all away.
        """
        if not len(images):
            self.widget.layout.images = ()
            return 0
        side = THUMB_SHARE * float(np.ptp(self._xy, axis=0).max() or 1.0)
        order = [*first, *(i for i in range(self.shown) if i not in set(first))]
        places = _apart(self._xy, order, side)
        self.widget.layout.images = [_thumbnail(images[i], self._xy[i], side) for i in places]
        return len(places)

    # --- what the person does --------------------------------------------------------------------------------------

    def on_hover(self, handler: Handler) -> None:
        """Call ``handler(index)`` when the pointer comes to another point."""

        def hover(_trace: Any, points: Any, _state: Any) -> None:
            index = points.point_inds[0] if points.point_inds else -1
            if index not in (-1, self._hovered):
                self._hovered = index
                handler(index)

        self.widget.data[POINTS].on_hover(hover)

    def on_click(self, handler: Handler) -> None:
        """Call ``handler(index)`` when a point is clicked."""
        self.widget.data[POINTS].on_click(
            lambda trace, points, state: handler(points.point_inds[0]) if points.point_inds else None
        )

    def on_select(self, handler: Callable[[list[int]], None]) -> None:
        """Call ``handler(indices)`` when a lasso or box has been drawn, with none when it is taken away."""

        def select(indices: list[int]) -> None:
            if self._heard(indices):
                handler(indices)

        points = self.widget.data[POINTS]
        points.on_selection(lambda trace, points, selector: select(sorted(points.point_inds)))
        points.on_deselect(lambda trace, points: select([]))


# --- parts ---------------------------------------------------------------------------------------------------------


def _traces() -> list[go.Scatter]:
    """Build the five traces of the map, in the order of their constants."""
    calm = {"marker": {"opacity": 1}}  # a lasso must fade the images only
    quiet: dict[str, Any] = {"hoverinfo": "skip", "x": [], "y": [], "unselected": calm}
    number = {
        "size": 17,
        "opacity": 1,
        "color": "rgba(255,255,255,0.8)",
        "line": {"color": "#444", "width": 1},
    }
    return [
        go.Scatter(
            mode="markers",
            marker={"size": 4, "color": "rgba(127,127,127,0.45)"},
            name="other iterations",
            **quiet,
        ),
        go.Scatter(mode="lines", line={"color": "#7F7F7F", "width": 1.4}, name="true neighbours", **quiet),
        go.Scatter(
            mode="markers",
            x=[],
            y=[],
            text=[],
            hovertemplate="%{text}<extra></extra>",
            name="images",
            marker={"size": SIZE, "opacity": 1, "line": {"width": 0.8, "color": "rgba(60,60,60,0.7)"}},
            selected={"marker": {"opacity": 1}},
            unselected={"marker": {"opacity": 0.18}},
        ),
        go.Scatter(
            mode="markers",
            name="ring",
            marker={"size": RING_SIZE, "color": "rgba(0,0,0,0)", "line": {"width": 2.5, "color": "#E6007E"}},
            **quiet,
        ),
        go.Scatter(
            mode="markers+text",
            marker=number,
            textfont={"color": "#111", "size": 11},
            text=[],
            name="cluster numbers",
            **{**quiet, "unselected": {**calm, "textfont": {"color": "#111"}}},
        ),
    ]


def _paint(trace: Any, marks: Marks, chosen: set[int], excluded: set[int]) -> None:
    """Set colours, symbols and sizes of the points."""
    n = len(marks.symbol)
    trace.marker.color = marks.colour
    trace.marker.symbol = ["x-thin-open" if i in excluded else symbol for i, symbol in enumerate(marks.symbol)]
    trace.marker.size = [CHOSEN_SIZE if i in chosen else SIZE for i in range(n)]
    trace.marker.line.width = [2.0 if i in excluded or i in chosen else 0.8 for i in range(n)]
    trace.marker.showscale = bool(marks.scale)
    if marks.scale:
        trace.marker.colorscale = "Cividis"
        trace.marker.colorbar = {
            "title": {"text": marks.scale, "font": {"size": 11}},
            "thickness": 10,
            "len": 0.5,
            "x": 1,
            "xanchor": "right",
            "outlinewidth": 0,
        }


def _write_numbers(trace: Any, numbers: Mapping[str, tuple[float, float]]) -> None:
    trace.x = [x for x, _ in numbers.values()]
    trace.y = [y for _, y in numbers.values()]
    trace.text = list(numbers)


def _set_range(layout: Any, xy: NDArray[np.floating]) -> None:
    """Fit the axes to all positions, ghosts included, so that nothing jumps from one iteration to the next."""
    if not len(xy):
        return
    low, high = xy.min(0), xy.max(0)
    margin = 0.08 * np.maximum(high - low, 1e-6) + 1e-9
    layout.xaxis.range = [float(low[0] - margin[0]), float(high[0] + margin[0])]
    layout.yaxis.range = [float(low[1] - margin[1]), float(high[1] + margin[1])]


def _spokes(centre: NDArray[np.floating], ends: NDArray[np.floating]) -> NDArray[np.floating]:
    """Lines from a point to others, broken by NaN: shape (3 * len(ends), 2)."""
    gap = np.full(2, np.nan)
    return np.array([point for end in ends for point in (centre, end, gap)]).reshape(-1, 2)


def _apart(xy: NDArray[np.floating], order: Sequence[int], side: float) -> list[int]:
    """Pick points, in order, whose images do not cover one picked before."""
    picked: list[int] = []
    for index in order:
        if not picked or np.abs(xy[picked] - xy[index]).max(1).min() > 0.8 * side:
            picked.append(int(index))
    return picked


def _thumbnail(image: Image.Image, xy: NDArray[np.floating], side: float) -> dict[str, Any]:
    """Describe an image standing on its point for ``layout.images``."""
    source = "data:image/webp;base64," + b64encode(webp(image, THUMB_SIDE)).decode()
    return {
        "source": source,
        "xref": "x",
        "yref": "y",
        "x": float(xy[0]),
        "y": float(xy[1]),
        "sizex": side,
        "sizey": side,
        "xanchor": "center",
        "yanchor": "bottom",
        "layer": "above",
        "opacity": 0.96,
    }
