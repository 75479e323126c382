"""Plotly figures as widgets of our own: Plotly's JavaScript draws traits, and what a person does comes back.

Not `plotly.graph_objects.FigureWidget`: that loses clicks while the kernel is busy (all events share one trait), shows
what it held when it was made where it stands inside another widget, and sends 5 MB with each figure.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import anywidget
import traitlets

from .images import script

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

    Parameters
    ----------
    height : int
        Pixels.
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
    alt : str
        What the figure shows, in words, for those who do not see it.
    """

    _esm = script("figure.js")
    traces = traitlets.List(traitlets.Unicode()).tag(sync=True)
    active = traitlets.Unicode().tag(sync=True)
    chart = traitlets.Dict().tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, height: int, **chart: Any) -> None:
        ground = {
            "height": height,
            "showlegend": False,
            "hovermode": "closest",
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"color": INK, "size": 12},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": "#0072B2", "orientation": "v"},
        }
        super().__init__(chart=ground | chart)
        self._handlers: dict[str, list[Callable[[Any], Any]]] = {"click": [], "select": []}
        self.on_msg(self._receive)

    def on_click(self, handler: Callable[[int], Any]) -> None:
        """Call ``handler(index)`` when a point is clicked."""
        self._handlers["click"].append(handler)

    def on_select(self, handler: Callable[[list[int]], Any]) -> None:
        """Call ``handler(indices)`` when a lasso or box has been drawn, with none when it is taken away."""
        self._handlers["select"].append(handler)

    def _receive(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        match content:
            case {"do": "send plotly"}:
                send_plotly()
            case {"do": "click", "index": index}:
                self._tell("click", index)
            case {"do": "select", "indices": indices}:
                self.selected = indices
                self._tell("select", indices)

    def _tell(self, event: str, what: Any) -> None:
        for handler in self._handlers[event]:
            handler(what)
