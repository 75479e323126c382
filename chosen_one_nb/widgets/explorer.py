"""The one screen: step through a run, look at its clusters, disagree, compare.

The screen shows a `Run` and calls its methods; nothing that a person did lives only here. Whatever changes the run,
on this screen, on another one or in a cell, is heard and shown. `Explorer` only builds the panels and lays them out:
what they share is in `session`, what a click does in `actions`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import ipywidgets
import traitlets
from IPython.display import display

from .actions import next_stage
from .attribute_findings import AttributeFindings
from .attribute_panel import AttributePanel
from .cards import ClusterPanel
from .compare import ComparePanel, StrengthPanel
from .export_panel import ExportPanel
from .figures import send_plotly
from .gallery import GalleryPanel
from .history import CurvePanel, TreePanel
from .images import HERE
from .look import LookPanel
from .map_panel import MapPanel, Method
from .panel import Hints, on_change, walk
from .selection_panel import SelectionPanel
from .session import Session
from .settings_panel import SettingsPanel
from .snapshot import snapshot
from .stages import StageBar, Stepper
from .still import Still
from .use_panel import UsePanel

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from chosen_one_nb.run.run import Node, Run

TABS = {
    "Clusters": "The clusters, most cohesive first: judge them, choose one",
    "Gallery": "All images of the iteration: select, leave out, look closer",
    "Shares": "What a cluster has in common that the prompt did not ask for",
    "Compare": "Two iterations or branches side by side, on the same seeds",
    "Strength": "The same eight seeds with more or less of what was learnt",
    "Settings": "Every number of the method, its symbol and its source",
    "Use it": "Stories, local edits and poses with the character that is shown",
    "Files": "Tables, a report and files for other programs",
}
"""Titles of the tabs and what each holds."""
TABS_IN_ORDER = tuple(TABS)
WIDE = ("Compare", "Strength", "Settings", "Use it", "Files")
"""Tabs that cover the map too: they need its width and do not speak of its points."""


class Explorer:
    """Show a run at the end of a cell and let a person work on it.

    Parameters
    ----------
    run : Run
        New, half done or finished.
    method : {"umap", "pca"}
        The map to begin with.
    raise_errors : bool
        Raise what goes wrong in a handler after showing it in the status line (for tests).

    Attributes
    ----------
    run : Run
        The run that is explored.
    session : Session
        What is shown, selected and under way.
    status : Status
        The status line.
    ui : ipywidgets.VBox
        The screen.

    Examples
    --------
    ``Explorer(Run.example())`` at the end of a cell shows the screen with the bundled run. ``explorer.selection``
    gives what is selected as a table, ``explorer.snapshot()`` an image of the present state.
    """

    def __init__(self, run: Run, *, method: Method = "umap", raise_errors: bool = False) -> None:
        self.run, self.session = run, Session(run, raise_errors=raise_errors)
        session, self.status = self.session, self.session.status
        session.observe(self._to_gallery, "focused")  # before the gallery hears of it: what is hidden cannot scroll
        findings = AttributeFindings(session)
        self.bar, self.stepper = StageBar(session), Stepper(session)
        self.tree, self.curves = TreePanel(session), CurvePanel(session)
        self.map, self.clusters = MapPanel(session, findings, method), ClusterPanel(session, findings)
        self.choice, self.gallery = SelectionPanel(session), GalleryPanel(session, findings)
        self.attributes, self.compare = AttributePanel(session, findings), ComparePanel(session)
        self.strength, self.settings = StrengthPanel(session), SettingsPanel(session)
        self.look = LookPanel(session, findings)
        self.gallery.ui.children = (self.look.ui, *self.gallery.ui.children)
        self.use, self.export = UsePanel(session), ExportPanel(session, self.snapshot)
        self._make_screen()
        self.still = Still(self.snapshot)
        session.observe(self.still.redraw, "version")
        traitlets.dlink((session, "version"), (self.hints, "beat"))  # last, when all panels have been shown
        with session.background.held():
            session.refresh()

    def _make_screen(self) -> None:
        """Lay the panels out as explorer.css says: each is a place of the grid, by its class."""
        tabs = (self.clusters, self.gallery, self.attributes, self.compare, self.strength, self.settings,
                self.use, self.export)  # fmt: skip
        self.tabs = ipywidgets.Tab([panel.ui for panel in tabs], titles=tuple(TABS)).add_class("chosen-side")
        rail = ipywidgets.VBox([self.tree.ui, self.curves.ui]).add_class("chosen-rail")
        places = [self.bar.ui, self.stepper.ui, self.status, rail, self.map.ui, self.tabs, self.choice.ui]
        self.screen = ipywidgets.Box(places).add_class("chosen-screen")
        on_change(self.tabs, "selected_index", self._widen)
        self._led = "Clusters"  # the tab that the screen turned to by itself
        self.session.observe(self._lead, "screen")
        css = ipywidgets.HTML(f"<style>{(HERE / 'explorer.css').read_text('utf-8')}</style>")
        self.ui = ipywidgets.VBox([css, self.screen]).add_class("chosen-explorer")
        self.hints = Hints(self.ui, TABS)
        self.ui.children += (self.hints,)

    def show_tab(self, title: str) -> None:
        """Turn to the tab of that title."""
        self.tabs.selected_index = TABS_IN_ORDER.index(title)

    def _lead(self, change: dict[str, Any]) -> None:
        """When work begins or ends, turn to where something happens, unless the person has gone elsewhere."""
        screen, before = change["new"], change["old"]
        here = TABS_IN_ORDER[self.tabs.selected_index] == self._led
        if screen.tab and (screen.cancels or (before.cancels and here)):
            self._led = screen.tab
            self.show_tab(screen.tab)

    def _widen(self, index: int) -> None:
        (self.screen.add_class if TABS_IN_ORDER[index] in WIDE else self.screen.remove_class)("is-wide")

    def _ipython_display_(self) -> None:
        """Show the screen, and below it a still picture that a saved notebook keeps."""
        send_plotly()
        bundle = self.ui._repr_mimebundle_()
        display(bundle | {"text/plain": f"{self!r}: a still picture follows"}, raw=True)
        self.still.show()

    def __repr__(self) -> str:
        return f"<Explorer of {self.run!r}>"

    def close(self) -> None:
        """Take the screen away and stop listening; the run is untouched."""
        self.still.close()
        self.session.close()
        self.gallery.link.close()
        for widget in list(walk(self.ui)):
            for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
                if isinstance(part, ipywidgets.Widget):
                    part.close()

    @property
    def node(self) -> Node:
        """The iteration that is shown."""
        return self.session.node

    @property
    def selection(self) -> pd.DataFrame:
        """Rows of `RunTables.gallery` of the selected images, by their numbers; can be set to other numbers."""
        return self.run.tables.gallery(self.node).iloc[self.session.selected]

    @selection.setter
    def selection(self, indices: Iterable[int]) -> None:
        self.session.select(indices)

    def snapshot(self) -> Image.Image:
        """Draw the present state as one image, for a saved notebook: it needs no widgets to be seen."""
        return snapshot(self.session, self.map.layout_now())

    def next(self) -> None:
        """Press *Next*: do the next stage, in the background."""
        next_stage(self.session)

    def wait(self, timeout: float | None = 600.0) -> None:
        """Wait until the work under way is done and shown.

        Raises
        ------
        TimeoutError
            When it is not after `timeout` seconds.
        """
        if self.session.tasks.task is not None:
            self.session.tasks.task.wait(timeout)

    def settle(self, timeout: float | None = 600.0) -> None:
        """Wait until what is computed in the background (UMAP, resampling) is there and shown."""
        self.session.background.settle(timeout)

    def _to_gallery(self, change: dict[str, Any]) -> None:
        if change["new"] >= 0:
            self.show_tab("Gallery")
