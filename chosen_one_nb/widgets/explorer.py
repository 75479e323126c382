"""The one screen: step through a run, look at its clusters, disagree, compare.

The screen shows a `Run` and calls its methods; nothing that a person did lives only here. Whatever changes the run,
on this screen, on another one or in a cell, is heard and shown.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable
from hashlib import sha1
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from chosen_one_nb.run.node import compared

from .actions import Actions
from .attribute_panel import AttributePanel
from .background import Later
from .cards import ClusterPanel
from .compare import ComparePanel
from .curve_panel import CurvePanel
from .export_panel import Selection, TakeawayPanel
from .gallery_panel import GalleryPanel
from .hints import Hints
from .images import HERE, Thumbnails
from .live_figure import show_figures
from .map_panel import MapPanel
from .panel import Panel, framed
from .selection_panel import DecidePanel
from .settings_panel import SettingsPanel
from .stages import ABOUT, StageBar, Stepper
from .status import Status, guarded
from .strength import StrengthPanel
from .tasks import Desk, Job
from .tree import TreePanel

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.run.run import Node, Run

    from .layouts import Method

_desks: weakref.WeakKeyDictionary[Any, Desk] = weakref.WeakKeyDictionary()
TABS = {
    "Gallery": "All images of the iteration: select, leave out, look closer",
    "What it shares": "What a cluster has in common that the prompt did not ask for",
    "Compare": "Two iterations or branches side by side, on the same seeds",
    "Strength of Θ": "The same eight seeds with more or less of what was learnt",
    "Settings": "Every number of the method, its symbol and its source",
    "Take away": "Tables, a report and files for other programs",
}
"""Titles of the tabs and what each holds."""
LOSS_EVERY = 0.3
"""Seconds between two drawings of the loss."""


class Explorer(Actions):
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
    ui : ipywidgets.VBox
        The screen.
    selected : list of int
        Indices of the selected images of the iteration that is shown; see `selection`.

    Examples
    --------
    ``Explorer(Run.example())`` at the end of a cell shows the screen with the bundled run. ``explorer.selection.table``
    gives what is selected, ``explorer.snapshot()`` an image of the present state.
    """

    def __init__(self, run: Run, *, method: Method = "umap", raise_errors: bool = False) -> None:
        self.run, self.raise_errors = run, raise_errors
        self.desk = _desks.setdefault(run, Desk())
        self.status, self.later = Status(), Later(self._computed)
        self.thumbnails = Thumbnails(sha1(f"{run.folder} {run.manifest['made']}".encode()).hexdigest()[:8])
        self.selected: list[int] = []
        self.failed = False
        self._pinned: str | None = None
        self._hovered = -1
        self._live: dict[str, set[int]] = {}
        self._shown = ""
        self._loss_drawn = 0.0
        self._make_panels(method)
        self._make_screen()
        run.listeners.append(self._heard)
        self.desk.watchers.append(self._watch)
        self.status.say(self._where())
        with self.later.held():
            self.refresh()

    def _make_panels(self, method: Method) -> None:
        self.bar, self.stepper, self.tree, self.curves = (
            StageBar(self),
            Stepper(self),
            TreePanel(self),
            CurvePanel(self),
        )
        self.map, self.clusters, self.decide = MapPanel(self, method), ClusterPanel(self), DecidePanel(self)
        self.attributes = AttributePanel(self)
        self.gallery, self.compare, self.strength = (
            GalleryPanel(self),
            ComparePanel(self),
            StrengthPanel(self),
        )
        self.settings, self.takeaway = SettingsPanel(self), TakeawayPanel(self)
        self.panels: list[Panel] = [
            self.bar,
            self.stepper,
            self.tree,
            self.curves,
            self.map,
            self.clusters,
            self.decide,
            self.gallery,
            self.attributes,
            self.compare,
            self.strength,
            self.settings,
            self.takeaway,
        ]

    def _make_screen(self) -> None:
        self.tabs = ipywidgets.Tab(
            [p.ui for p in (self.gallery, self.attributes, self.compare, self.strength, self.settings, self.takeaway)]
        )
        self.tabs.titles = tuple(TABS)
        self.ui = ipywidgets.VBox(
            [
                ipywidgets.HTML(f"<style>{(HERE / 'explorer.css').read_text('utf-8')}</style>"),
                self.bar.ui,
                self.stepper.ui,
                self.status,
                _side_by_side(framed("Iterations and branches", self.tree.ui), self.curves.ui, kind="top"),
                _side_by_side(
                    framed("Map of the features", self.map.ui),
                    framed("Clusters, most cohesive first", self.clusters.ui),
                    kind="main",
                ),
                framed("The choice", self.decide.ui),
                self.tabs,
            ]
        )
        self.ui.add_class("chosen-explorer")
        self.hints = Hints(self.ui, TABS)
        self.ui.children += (self.hints,)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        show_figures([self.map.figure.widget, self.curves.distance.widget, self.curves.loss.widget])
        return self.ui._repr_mimebundle_(**options)

    def __repr__(self) -> str:
        return f"<Explorer of {self.run!r}>"

    def close(self) -> None:
        """Take the screen away and stop listening; the run is untouched."""
        self.run.listeners[:] = [heard for heard in self.run.listeners if heard != self._heard]
        self.desk.watchers[:] = [watch for watch in self.desk.watchers if watch != self._watch]
        self.thumbnails.close()
        self.ui.close()

    # --- what is shown ---------------------------------------------------------------------------------------------

    @property
    def node(self) -> Node:
        """The iteration that is shown: the run's current one, unless another is looked at during work."""
        return self.run.nodes[self._pinned] if self._pinned else self.run.current

    @property
    def busy(self) -> bool:
        """Whether the run is at work, here or elsewhere in this process."""
        return self.desk.busy or self.run.busy is not None

    @property
    def asks(self) -> bool:
        """Whether “ask me each time” is on."""
        return self.stepper.ask.value

    @property
    def stage(self) -> str | None:
        """The stage being done, or the one that comes next; None when the run is finished."""
        working = self.run.busy
        name = working.split()[0] if working else self.run.next_stage
        return name if name in ABOUT else self.run.next_stage

    def labels(self) -> list[str]:
        """Alt text of every image of the iteration that is shown."""
        node, clusters = self.node, self.node.clusters
        named = [f"Image {i}, seed {seed}" for i, seed in enumerate(node.seeds)]
        if clusters is None:
            return named
        dropped = ["" if kept else " (dropped)" for kept in clusters.kept]
        pairs = zip(named, clusters.labels, clusters.distances, strict=True)
        return [f"{name}, cluster {c}{dropped[c]}, {d:.2f} from its centroid" for name, c, d in pairs]

    def drawn(self) -> list[int]:
        """Images of the iteration shown that have been drawn so far in the stage under way."""
        return sorted(self._live.get(self.node.gallery_of, ()))

    def neighbours(self, index: int, n: int = 5) -> list[tuple[int, float]]:
        """The n images nearest to one, as the clustering sees them, with their distances, nearest first."""
        points = compared([self.node])[self.node.gallery_of]
        distances = np.linalg.norm(points - points[index], axis=1)
        order = [int(i) for i in np.argsort(distances, kind="stable") if i != index]
        return [(i, float(distances[i])) for i in order[:n]]

    @guarded
    def refresh(self) -> None:
        """Bring every panel up to the run's state."""
        with self.run.lock:
            if self.node.gallery_of != self._shown:
                self._shown, self.selected, self._hovered = self.node.gallery_of, [], -1
            if len(self.node.images):
                self.thumbnails.send(self.node.gallery_of, self.node.images)
            troubles = [trouble for panel in self.panels if (trouble := _trouble(panel)) is not None]
            self.hints.beat += 1
        if troubles:
            raise troubles[0]

    # --- looking ---------------------------------------------------------------------------------------------------

    @guarded
    def hover(self, index: int) -> None:
        """Point at an image: ring it on the map, show it and its neighbours, mark it in the gallery."""
        if index == self._hovered or self.node.features is None or not 0 <= index < len(self.node.seeds):
            return
        self._hovered = index
        self.map.point(index)
        self.gallery.mark(hovered=index)

    @guarded
    def look(self, index: int) -> None:
        """Point at an image and scroll the gallery to it."""
        self.hover(index)
        self.tabs.selected_index = 0
        self.gallery.mark(focused=-1)
        self.gallery.mark(focused=index)

    @guarded
    def light_cluster(self, cluster: int) -> None:
        """Ring the points of a cluster; -1 of none."""
        if cluster < 0 or self.node.clusters is None:
            self.map.light([])
        elif cluster < len(self.node.clusters.sizes):
            self.map.light([int(i) for i in self.node.clusters.members(cluster)])

    @guarded
    def select(self, indices: Iterable[int]) -> None:
        """Make a selection of images; what a lasso does."""
        wanted = sorted({int(i) for i in indices})
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.node.seeds):
            raise ValueError(f"Expected image numbers from 0 to {len(self.node.seeds) - 1}, got {wanted}.")
        if wanted == self.selected:
            return
        self.selected = wanted
        self.map.figure.select(wanted)
        self.gallery.mark(selected=wanted)
        self.decide.show_selection()
        self.takeaway.show()
        self.status.say(self._about_selection())

    def _about_selection(self) -> str:
        risk = self.run.risk(self.selected) if self.selected else ""
        return f"{len(self.selected)} images selected." + (f" If chosen: {risk}" if risk else "")

    @property
    def selection(self) -> Selection:
        """The selected images: ``.ids``, ``.table`` (a DataFrame), ``list(...)`` of their numbers; can be set."""
        return Selection(self.run, self.node, self.selected)

    @selection.setter
    def selection(self, indices: Iterable[int]) -> None:
        self.select(indices)

    @guarded
    def show_node(self, node_id: str) -> None:
        """Look at another iteration; it becomes the run's current one unless the run is at work."""
        if self.busy:
            self._pinned = self.run.node(node_id).id
            self.refresh()
        else:
            self._pinned = None
            self.run.select(node_id)

    def snapshot(self) -> Image.Image:
        """Draw the present state as one image, for a saved notebook: it needs no widgets to be seen."""
        from .snapshot import snapshot

        return snapshot(self)

    # --- hearing ---------------------------------------------------------------------------------------------------

    def settle(self, timeout: float | None = 600.0) -> None:
        """Wait until what is computed in the background (UMAP, resampling) is there and shown."""
        self.later.settle(timeout)

    def _heard(self, _event: dict[str, Any]) -> None:
        """The run has changed, on whatever thread."""
        self.refresh()

    def _computed(self) -> None:
        """Something in the background has become ready."""
        self.refresh()

    @guarded
    def _watch(self, kind: str, what: Any) -> None:
        """Work is going on, on the job's thread."""
        if kind == "images":
            self._show_live(what)
        elif kind == "step":
            self._show_loss(what)
        elif kind == "job" and what.running and what.progress is not None:
            self.stepper.progress(what)
        else:
            self._begun_or_ended(what)

    def _show_live(self, pairs: list[tuple[int, Image.Image]]) -> None:
        gallery = self.run.current.gallery_of
        self._live.setdefault(gallery, set()).update(index for index, _ in pairs)
        images = dict(pairs)
        self.thumbnails.send(gallery, images, images)
        if self.node.gallery_of == gallery:
            self.gallery.show()

    def _show_loss(self, event: dict[str, Any]) -> None:
        self.curves.step(event)
        if time.monotonic() - self._loss_drawn > LOSS_EVERY or event["step"] == event.get("steps"):
            self._loss_drawn = time.monotonic()
            self.curves.draw_loss()

    def _begun_or_ended(self, job: Job) -> None:
        if job.running:
            self.failed, self._pinned = False, None
            self.status.say(f"At work: {job.name}…")
        elif job.state == "done":
            self.status.say(job.came_of_it or self._where(), "good")
        elif job.state == "cancelled":
            self.status.say("Cancelled. Finished stages and whole images are kept; Next goes on from there.", "warning")
        else:
            self.failed = True
            self.status.fail(job.error)
        self.refresh()

    def _where(self) -> str:
        outcome, stage = self.run.outcome, self.run.next_stage
        if outcome.state == "no cluster":
            return f"{outcome.reason} Choose images yourself, merge clusters or change k."
        if stage is None:
            return (
                f"Finished, {outcome.state}. Choose otherwise at an earlier iteration to begin a branch, compare "
                "branches below, or go on all the same."
            )
        if stage == "choose":
            return "Your turn: choose a cluster or images, or press Next to take the proposal."
        return f"Done. Next comes {ABOUT[stage][0]}."


def _side_by_side(*widgets: ipywidgets.Widget, kind: str) -> ipywidgets.HBox:
    box = ipywidgets.HBox(widgets)
    box.add_class(f"chosen-{kind}")
    return box


def _trouble(panel: Panel) -> Exception | None:
    """Bring a panel up to date; what goes wrong in one must not keep the others from showing."""
    try:
        panel.show()
    except Exception as error:  # raised again when all panels have been shown
        return error
    return None
