"""Plotly figures as widgets of our own: Plotly's JavaScript draws traits, and what a person does comes back.

`MapFigure` is the map of a gallery, one for the explorer's life, whose point number is the image's number.

Not `plotly.graph_objects.FigureWidget`: that loses clicks while the kernel is busy (all events share one trait), shows
what it held when it was made where it stands inside another widget, and sends 5 MB with each figure.

Every colour of a cluster has a second sign, so that no distinction hangs on hue alone. The hues are those of
`chosen_one_nb.plots`, by the cluster's number. Clusters beyond them are grey, told apart by symbol and number; dropped
ones are light and open.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import anywidget
import numpy as np
import traitlets
from numpy.typing import NDArray
from PIL import Image

from chosen_one_nb.plots import ALARM, DROPPED, GLYPHS, PALETTE, colour_of

from .images import script, webp

if TYPE_CHECKING:
    from chosen_one_nb.steps.cluster import Clusters

ColourBy = Literal["cluster", "distance", "order", "kept"]

UNKNOWN, LEFT_OUT = "#7F7F7F", ALARM
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")


@dataclass(frozen=True)
class Marker:
    """How a cluster is drawn: its colour, its Plotly symbol and the same symbol as a letter."""

    colour: str
    symbol: str
    glyph: str


def marker_of(clusters: Clusters, cluster: int) -> Marker:
    """Return how one cluster is drawn.

    Raises
    ------
    ValueError
        When there is no such cluster.
    """
    if not 0 <= cluster < len(clusters.kept):
        raise ValueError(f"Expected a cluster from 0 to {len(clusters.kept) - 1}, got {cluster}.")
    if not clusters.kept[cluster]:
        return Marker(DROPPED, "circle-open", "○")
    return Marker(colour_of(cluster), SYMBOLS[cluster % len(SYMBOLS)], GLYPHS[cluster % len(GLYPHS)])


def ranked_clusters(clusters: Clusters) -> list[int]:
    """Clusters that were kept, most cohesive first, then the dropped ones."""
    return sorted((int(c) for c in clusters.order), key=lambda c: not clusters.kept[c])


def ranked_members(clusters: Clusters, cluster: int) -> list[int]:
    """Members of a cluster, nearest to its centroid first."""
    members = np.flatnonzero(clusters.labels == cluster)
    return members[np.argsort(clusters.distances[members], kind="stable")].tolist()


@dataclass(frozen=True)
class PointStyle:
    """How the N points of a map are drawn.

    Parameters
    ----------
    colour : list of str or list of float
        Hex colours, or numbers for a colour scale, (N,).
    symbol : list of str
        Plotly symbols, (N,); always by cluster.
    scale : str
        Title of the colour scale; empty when `colour` holds hex colours.
    chosen, excluded : sequence of int
        Points drawn larger, and as crosses.
    pale : sequence of int
        Points that stand back, grey.
    """

    colour: list[str] | list[float]
    symbol: list[str]
    scale: str = ""
    chosen: Sequence[int] = ()
    excluded: Sequence[int] = ()
    pale: Sequence[int] = ()


def point_style(
    clusters: Clusters | None, n: int, colour_by: ColourBy = "cluster", *,
    chosen: Sequence[int] = (), excluded: Sequence[int] = (),
) -> PointStyle:  # fmt: skip
    """Return how every image is drawn.

    Parameters
    ----------
    clusters : Clusters or None
        Of the N images; None before there are any.
    n : int
        N.
    colour_by : {"cluster", "distance", "order", "kept"}
        Colour by cluster, by distance to the own centroid, by the order of the seeds, or by whether the image's
        cluster is kept and the image not left out. The symbol stays with the cluster.
    chosen, excluded : sequence of int
        Images that were chosen, and that the person left out.

    Raises
    ------
    ValueError
        For another `colour_by`.
    """
    if clusters is None:
        return PointStyle([UNKNOWN] * n, ["circle"] * n, "", chosen, excluded)
    markers = [marker_of(clusters, c) for c in range(len(clusters.kept))]
    scale = ""
    match colour_by:
        case "cluster":
            colours = [markers[label].colour for label in clusters.labels]
        case "distance":
            colours, scale = clusters.distances.tolist(), "distance to<br>own centroid"
        case "order":
            colours, scale = list(range(n)), "seed order"
        case "kept":
            colours = [PALETTE[0] if clusters.kept[label] else DROPPED for label in clusters.labels]
            colours = [LEFT_OUT if i in excluded else colour for i, colour in enumerate(colours)]
        case _:
            raise ValueError(f"Expected colour_by to be 'cluster', 'distance', 'order' or 'kept', got {colour_by!r}.")
    return PointStyle(colours, [markers[label].symbol for label in clusters.labels], scale, chosen, excluded)


INK, LINE, GRID = "#7F7F7F", "#8A8A8A", "rgba(127,127,127,0.18)"
"""Greys that can be read on a light and on a dark ground."""


def trace() -> Any:
    """Make a trait that holds a trace, as Plotly describes it: each is sent on its own, and only when it changes."""
    return traitlets.Dict().tag(sync=True)


class PlotlyLibrary(anywidget.AnyWidget):
    """Plotly's JavaScript, sent to the page once for all figures; it has no view."""

    _esm = script("plotly.js")
    source = traitlets.Unicode().tag(sync=True)


@cache
def send_plotly() -> PlotlyLibrary:
    """Send Plotly to the page, the first time this is called in a kernel.

    Call it when a screen with figures is about to be shown: a kernel that runs the cells below would not hear a figure
    that asks for it.
    """
    from plotly.offline import get_plotlyjs

    return PlotlyLibrary(source=get_plotlyjs())


class PlotlyFigure(anywidget.AnyWidget):
    """A figure on a ground that suits light and dark themes; a subclass adds its traces as traits.

    It sends ``{"do": "click", "index": 3}`` when a point is clicked, and ``{"do": "select", "indices": [1, 3]}`` when
    a lasso or box has been drawn, with none when it is taken away; see `Panel.listen`.

    Parameters
    ----------
    height : int or None
        Pixels; None fills the place it is given.
    **chart
        What Plotly's layout takes; `layout` is the widget's own.

    Attributes
    ----------
    traces : list of str
        Names of the traits that hold traces, the lowest first.
    active : str
        The trace whose points can be hovered, clicked and selected.
    chart : dict
        Plotly's layout.
    hovered : int
        The point the pointer was on last; -1 for none.
    selected : list of int
        The points that are not faded; none selected shows all alike.
    lasso_mode : {"", "add", "remove"}
        What a lasso's message says as ``how`` where no key is held: shift adds, alt removes.
    alt : str
        What the figure shows, in words, for those who do not see it.
    """

    _esm = script("figure.js")
    traces = traitlets.List(traitlets.Unicode()).tag(sync=True)
    active = traitlets.Unicode().tag(sync=True)
    chart = traitlets.Dict().tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    lasso_mode = traitlets.Unicode().tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, height: int | None, **chart: Any) -> None:
        ground = {
            **({"height": height} if height else {"autosize": True}),
            "showlegend": False,
            "hovermode": "closest",
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "size": 12},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": "#0072B2", "orientation": "v"},
        }
        super().__init__(chart=ground | chart)
        self.on_msg(self._receive)

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content:
            case {"do": "send plotly"}:
                send_plotly()
            case {"do": "select", "indices": indices} if not content.get("how"):
                self.selected = indices


THUMBNAIL_PIXELS = 40
THUMBNAIL_SHARE = 0.075
"""Side of a thumbnail on the map as a share of the map's width."""

_MARKERS: dict[str, Any] = {"type": "scatter", "mode": "markers", "x": [], "y": []}
_QUIET = _MARKERS | {"hoverinfo": "skip", "unselected": {"marker": {"opacity": 1}}}  # a lasso fades the images only
_BARE = {"showgrid": False, "showticklabels": False, "zeroline": False, "showline": False, "ticks": ""}
_GHOSTS = _QUIET | {"marker": {"size": 4, "color": "rgba(127,127,127,0.45)"}}
_LINES = _QUIET | {"mode": "lines", "line": {"color": INK, "width": 1.4}}
_POINTS = _MARKERS | {
    "hovertemplate": "%{pointNumber}<extra></extra>",
    "selected": {"marker": {"opacity": 1}},
    "unselected": {"marker": {"opacity": 0.18}},
}
_RINGS = _QUIET | {"marker": {"size": 19, "color": "rgba(0,0,0,0)", "line": {"width": 2.5, "color": "#E6007E"}}}
_NUMBERS = _QUIET | {
    "mode": "markers+text",
    "marker": {"size": 17, "opacity": 1, "color": "rgba(255,255,255,0.8)", "line": {"color": "#444", "width": 1}},
    "textfont": {"color": "#111", "size": 11},
    "unselected": {"marker": {"opacity": 1}, "textfont": {"color": "#111"}},
}


class MapFigure(PlotlyFigure):
    """The images of a gallery as points; see `show`."""

    ghosts, lines, points, rings, numbers = trace(), trace(), trace(), trace(), trace()
    traces = traitlets.List(["ghosts", "lines", "points", "rings", "numbers"]).tag(sync=True)
    active = traitlets.Unicode("points").tag(sync=True)

    def __init__(self) -> None:
        super().__init__(
            None,
            dragmode="lasso",
            clickmode="event",
            xaxis=_BARE,
            yaxis=_BARE | {"scaleanchor": "x", "scaleratio": 1},
            newselection={"line": {"color": INK, "width": 1, "dash": "dot"}},
            hoverdistance=14,
        )
        self._xy: NDArray[np.floating] = np.zeros((0, 2))
        self.show(self._xy, PointStyle([], []))
        self.ring(())

    def show(
        self,
        xy: NDArray[np.floating],
        style: PointStyle,
        *,
        ghosts: NDArray[np.floating] | None = None,
        numbers: Mapping[str, tuple[float, float]] | None = None,
        revision: str = "",
        within: Sequence[int] = (),
    ) -> None:
        """Show a gallery.

        Parameters
        ----------
        xy : ndarray of shape (N, 2)
            Positions.
        style : PointStyle
            How the N points are drawn.
        ghosts : ndarray of shape (M, 2), optional
            Images of other iterations, drawn faintly behind.
        numbers : mapping of str to (x, y), optional
            Cluster numbers and where they are written.
        revision : str
            The zoom is kept, and points may glide, as long as this stays the same.
        within : sequence of int
            Points that the map is zoomed to; none shows all.
        """
        self._xy, ghosts, numbers = xy, np.zeros((0, 2)) if ghosts is None else ghosts, numbers or {}
        shown = xy[list(within)] if within else np.concatenate([xy, ghosts])
        with self.hold_sync():
            self.ghosts = _GHOSTS | _places(ghosts.tolist())
            self.points = _POINTS | _places(xy.tolist()) | {"marker": _marker(style)}
            self.numbers = _NUMBERS | _places(numbers.values()) | {"text": list(numbers)}
            self.chart = _fit_ranges(self.chart, shown) | {"uirevision": revision}

    def set_glide(self, duration: int) -> None:
        """Let the points glide to new places for as many milliseconds; 0 lets them jump."""
        self.chart = self.chart | {"transition": {"duration": duration, "easing": "cubic-in-out"}}

    def ring(self, indices: Sequence[int], neighbours: Sequence[int] = ()) -> None:
        """Put rings around points, and lines from the first of them to its neighbours."""
        at = self._xy.tolist()
        rings = [at[i] for i in indices if 0 <= i < len(at)]
        spokes = [end for i in neighbours for end in (rings[0], at[i], (None, None))] if rings else []
        with self.hold_sync():
            self.rings, self.lines = _RINGS | _places(rings), _LINES | _places(spokes)

    def show_thumbnails(self, images: Sequence[Image.Image], first: Sequence[int] = ()) -> int:
        """Stand images on their points, those that do not cover each other, `first` before the rest.

        Returns
        -------
        int
            How many are shown; no `images` takes all away.
        """
        shown: list[dict[str, Any]] = []
        if len(images):
            side = THUMBNAIL_SHARE * float(np.ptp(self._xy, axis=0).max() or 1.0)
            order = dict.fromkeys([*first, *range(len(self._xy))])
            shown = [_thumbnail(images[i], self._xy[i], side) for i in _uncovered(self._xy, order, 0.8 * side)]
        self.chart = self.chart | {"images": shown}
        return len(shown)


def _places(points: Iterable[Sequence[float | None]]) -> dict[str, list[float | None]]:
    points = list(points)
    return {"x": [x for x, _ in points], "y": [y for _, y in points]}


def _marker(style: PointStyle) -> dict[str, Any]:
    marked, pale = set(style.chosen) | set(style.excluded), set(style.pale)
    colours = [UNKNOWN if i in pale and isinstance(colour, str) else colour for i, colour in enumerate(style.colour)]
    scale = {"title": {"text": style.scale, "font": {"size": 11}}, "thickness": 10, "len": 0.5, "x": 1,
             "xanchor": "right", "outlinewidth": 0}  # fmt: skip
    n = len(style.symbol)
    return {
        "opacity": [0.25 if i in pale else 1 for i in range(n)],
        "color": colours,
        "symbol": ["x-thin-open" if i in style.excluded else symbol for i, symbol in enumerate(style.symbol)],
        "size": [13 if i in style.chosen else 9 for i in range(n)],
        "line": {"color": "rgba(60,60,60,0.7)", "width": [2.0 if i in marked else 0.8 for i in range(n)]},
        "showscale": bool(style.scale),
        "colorscale": "Cividis",
        "colorbar": scale,
    }


def _fit_ranges(chart: dict[str, Any], xy: NDArray[np.floating]) -> dict[str, Any]:
    """Fit the axes to all positions, ghosts included, so that nothing jumps from one iteration to the next."""
    if not len(xy):
        return chart
    low, high = xy.min(0), xy.max(0)
    margin = 0.08 * np.maximum(high - low, 1e-6) + 1e-9
    ranges = np.stack([low - margin, high + margin], 1).tolist()
    return chart | {axis: chart[axis] | {"range": ends} for axis, ends in zip(("xaxis", "yaxis"), ranges, strict=True)}


def _uncovered(xy: NDArray[np.floating], order: Iterable[int], gap: float) -> list[int]:
    """Pick points, in order, that are at least a gap from those picked before, along one axis or the other."""
    picked: list[int] = []
    for index in order:
        if not picked or np.abs(xy[picked] - xy[index]).max(1).min() > gap:
            picked.append(index)
    return picked


def _thumbnail(image: Image.Image, xy: NDArray[np.floating], side: float) -> dict[str, Any]:
    """Describe an image standing on its point for Plotly's ``layout.images``."""
    source = "data:image/webp;base64," + b64encode(webp(image, THUMBNAIL_PIXELS)).decode()
    x, y = xy.tolist()
    return {"source": source, "xref": "x", "yref": "y", "x": x, "y": y, "sizex": side, "sizey": side,
            "xanchor": "center", "yanchor": "bottom", "layer": "above", "opacity": 0.96}  # fmt: skip
