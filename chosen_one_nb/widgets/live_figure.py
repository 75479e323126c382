"""A Plotly figure widget that is never stale and shares one copy of Plotly with its siblings.

Three facts about ``plotly.graph_objects.FigureWidget`` (7.1) are worked around here:

- what is edited between a figure's making and the end of its loading in the browser never reaches the screen when the
  figure is nested in another widget; `show_figures` copies the present state just before the screen is shown, and a
  `LiveFigure` asks after its first drawing whether it must be drawn again;
- each figure carries the whole of Plotly (5 MB) as a trait; here it travels once, in `PlotlyBundle`. It is sent with
  the screen, unasked: a kernel that runs the cells below would not hear a figure that asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import Any

import anywidget
import plotly.graph_objects as go
import traitlets

from .cluster_style import INK
from .images import HERE

SLOT = (HERE / "slot.js").read_text("utf-8")


class PlotlyBundle(anywidget.AnyWidget):
    """Plotly's JavaScript, sent to the page once; it has no view."""

    _esm = SLOT + (HERE / "bundle.js").read_text("utf-8")
    source = traitlets.Unicode().tag(sync=True)


@cache
def plotly_bundle() -> PlotlyBundle:
    """Send Plotly to the page, the first time this is called in a kernel."""
    return PlotlyBundle(source=files("plotly").joinpath("package_data/widgetbundle.js").read_text("utf-8"))


class LiveFigure(go.FigureWidget):
    """A figure widget that shows its present state whenever it is drawn, on a ground that suits both themes.

    Parameters
    ----------
    traces : list
        The traces; they stay for the figure's life and are only updated.
    height : int
        Pixels.
    **layout
        What Plotly's layout takes.

    Attributes
    ----------
    alt : str
        What it shows, in words, for those who do not see it.
    """

    _esm = SLOT + (HERE / "figure.js").read_text("utf-8")
    alt = traitlets.Unicode().tag(sync=True)

    def __init__(self, traces: list[Any], *, height: int, **layout: Any) -> None:
        super().__init__(data=traces, layout={**_ground(height), **layout})
        self._config = {
            "displaylogo": False,
            "showSendToCloud": False,  # on by default in Plotly.js 4: images of a run stay on this machine
            "responsive": True,
            "scrollZoom": False,
            "modeBarButtonsToRemove": ["toImage", "autoScale2d", "zoomIn2d", "zoomOut2d"],
        }
        self._copied: tuple[int, int] | None = None
        self.on_msg(self._answer)

    def refresh(self) -> bool:
        """Copy the present state into what a browser reads when it draws the figure; say whether it had changed."""
        now = (self._last_layout_edit_id, self._last_trace_edit_id)
        changed, self._copied = now != self._copied, now
        if changed:
            self._widget_layout = deepcopy(self._layout_obj._props)
            self._widget_data = deepcopy(self._data)
        return changed

    def _answer(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("want") == "plotly":
            plotly_bundle()
        elif content.get("want") == "fresh":
            self.send({"fresh": True, "changed": self.refresh()})
        elif "points" in content:
            self._handler_js2py_pointsCallback({"new": content["points"]})


def show_figures(figures: Iterable[LiveFigure]) -> None:
    """Send what figures need to be drawn: call it when the screen that holds them is about to be shown."""
    plotly_bundle()
    for figure in figures:
        figure.refresh()


def _ground(height: int) -> dict[str, Any]:
    """Layout common to all figures: transparent, mid-grey writing, no titles."""
    axis = {"zeroline": False, "gridcolor": "rgba(127,127,127,0.18)", "linecolor": "rgba(127,127,127,0.5)"}
    return {
        "height": height,
        "autosize": True,
        "showlegend": False,
        "hovermode": "closest",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK, "size": 12},
        "xaxis": axis,
        "yaxis": axis,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": INK, "activecolor": "#0072B2", "orientation": "v"},
    }
