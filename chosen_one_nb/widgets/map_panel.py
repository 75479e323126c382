"""The map panel: the features as an image, how far to trust it, and what is behind each point."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np

from chosen_one_nb.run.node import compared

from .attribute_findings import AttributeFindings
from .cluster_style import Marks, marks, plain_marks, tinted_marks
from .figures import MapFigure
from .layouts import Layout, Layouts, Method
from .panel import Panel, button, row
from .preview import Preview
from .session import Session
from .status import guarded
from .switch import Switch
from .variants import variants_html

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node


COLOUR_BY = [
    ("cluster", "cluster"),
    ("distance to centroid", "distance"),
    ("seed order", "order"),
    ("kept or left out", "kept"),
]
COLOURS = {
    "cluster": "colour and sign: cluster, numbered at its middle",
    "distance": "colour: distance to the own centroid · sign: cluster",
    "order": "colour: order of the seeds · sign: cluster",
    "kept": "blue: kept · light grey: dropped · orange: left out · sign: cluster",
}
"""What the legend says of each way to colour."""
NEIGHBOURS = 5


class MapPanel(Panel):
    """Map, controls, trust line and preview."""

    def __init__(self, session: Session, findings: AttributeFindings, method: Method) -> None:
        super().__init__(session)
        self.findings = findings
        self.layouts = Layouts(session.background)
        self.figure = MapFigure()
        self.preview = Preview()
        self._make_controls(method)
        self.trust, self.variants = ipywidgets.HTML(), ipywidgets.HTML()
        for text in (self.trust, self.variants):
            text.add_class("chosen-trust")
        self.ui = ipywidgets.VBox(
            [
                row(self.method, self.colour, self.thumbs),
                self.figure.widget,
                self.preview,
                row(self.steps, self.glide, self.doubt),
                self.trust,
                self.variants,
            ]
        )
        self.ui.add_class("chosen-map")
        self._listen()
        self._drawn: tuple[Any, ...] = ()
        self._varied = self._previewed = ""

    def _make_controls(self, method: Method) -> None:
        self.method = ipywidgets.ToggleButtons(
            options=[("UMAP", "umap"), ("PCA", "pca")],
            value=method,
            tooltips=[
                "Neighbours stay together; gaps and sizes mean little",
                "Straight projection; distances shrink, never tear",
            ],
            style={"button_width": "58px"},
            layout=ipywidgets.Layout(width="auto"),
        )
        self.colour = ipywidgets.Dropdown(
            options=COLOUR_BY,
            value="cluster",
            description="colour",
            tooltip="What the colours mean",
            style={"description_width": "auto"},
            layout=ipywidgets.Layout(width="200px"),
        )
        self.thumbs = Switch(description="images", tooltip="Stand the images on their points, as many as fit")
        self.glide = Switch(description="glide", tooltip="Let the points glide when the iteration changes")
        self.steps = ipywidgets.SelectionSlider(
            options=["0"],
            description="iteration",
            continuous_update=False,
            tooltip="Look at another iteration of this branch",
            style={"description_width": "auto"},
            layout=ipywidgets.Layout(width="230px"),
        )
        self.doubt = button(
            "other maps", "Lay the images out with other seeds and neighbourhoods: what changes is not real"
        )

    def _listen(self) -> None:
        for control in (self.method, self.colour, self.thumbs):
            control.observe(self._redraw, "value")
        self.steps.observe(self._step, "value")
        self.doubt.on_click(lambda _button: self._vary())
        self.figure.on_hover(self._hover)
        self.figure.on_click(self._click)
        self.figure.on_select(self._lasso)
        self.preview.on_msg(self._hear)
        self.session.observe(self._hovered, "hovered")
        self.session.observe(self._cluster_pointed, "pointed_cluster")
        self.session.observe(self._selected, "selected")

    # --- showing ---------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the gallery of the iteration that is shown, laid out with all others of its branch."""
        node = self.node
        self._fill_slider()
        self._show_variants()
        if node.gallery_of != self._previewed:
            self._previewed, self.preview.index = node.gallery_of, -1
        layout = self.layout_now()
        if layout is None:
            self._show_nothing()
            return
        key = (
            node.id,
            layout.basis,
            node.edit.clusters if node.edit else None,
            node.decision,
            node.excluded,
            self.colour.value,
            self.thumbs.value,
            self.session.lit,
        )
        if key != self._drawn:
            self._draw(layout, key)
        self._tell(layout)

    def layout_now(self) -> Layout | None:
        """Give the layout that is shown; None before the gallery has been embedded."""
        if self.node.features is None:
            return None
        embedded = [node for node in self._line() if node.features is not None]
        return self.layouts.get(embedded, self.method.value)

    def _line(self) -> list[Node]:
        """Give the iterations the slider steps through: from the root over the one shown to the newest after it."""
        line = list(self.run.path(self.node))
        while line[-1].children:
            line.append(line[-1].children[-1])
        return line

    def _draw(self, layout: Layout, key: tuple[Any, ...]) -> None:
        node, clusters = self.node, self.node.clusters
        xy = layout.of(node.gallery_of)
        moved = self.glide.value and self._drawn[:1] != key[:1] and self._drawn[1:2] == key[1:2]
        self.figure.show(
            xy,
            self._marks(len(xy)),
            [str(i) for i in range(len(xy))],
            chosen=node.decision.images if node.decision else (),
            excluded=node.excluded,
            ghosts=layout.others(node.gallery_of),
            numbers=_centres(clusters, xy),
            move=moved,
            revision=f"{layout.method} {layout.foreground} {len(layout.galleries)}",
        )
        first = [] if clusters is None else [int(m) for m in clusters.medoids]
        self.figure.thumbnails(node.images if self.thumbs.value else (), first)
        self.figure.select(self.session.selected)
        self.figure.widget.alt = (
            f"Map of {len(xy)} images by {layout.method.upper()}"
            + (f", {len(clusters.sizes)} clusters" if clusters is not None else "")
            + "; the gallery and the cards hold the same images."
        )
        self._drawn = key
        self.point(self.preview.index)  # its cluster may be another one now

    def _marks(self, n: int) -> Marks:
        """Colour and symbol of the points: by the attribute that is lit, if one is."""
        clusters, tint = self.node.clusters, self.findings.tint()
        plain = plain_marks(n) if clusters is None else marks(clusters, self.colour.value, self.node.excluded)
        return plain if tint is None else tinted_marks(plain, *tint)

    def _show_nothing(self) -> None:
        """Before a gallery is embedded: the iterations before it, faintly."""
        before = [node for node in self.run.path(self.node) if node.features is not None]
        key = (self.node.id, len(before))
        if key != self._drawn:
            ghosts = self.layouts.get(before, self.method.value).map.positions if before else None
            self.figure.show(np.zeros((0, 2)), plain_marks(0), [], ghosts=ghosts)
            self.figure.thumbnails(())
            self.figure.widget.alt = "Map of the images, empty until they are embedded."
            self._drawn = key
        self.preview.index = -1
        self.trust.value = "The map appears once the images have been drawn and embedded." + (
            " Grey dots: the iterations before." if before else ""
        )

    def _tell(self, layout: Layout) -> None:
        said = [
            layout.words,
            "distances on the map are not those that cohesion uses: it is measured in all dimensions",
        ]
        self.trust.value = f"<p>{escape(' · '.join(self._legend(layout)))}</p><p>{escape(' · '.join(said))}</p>"

    def _legend(self, layout: Layout) -> list[str]:
        """Say what the signs on the map mean, those that are there."""
        node, clusters = self.node, self.node.clusters
        said = [] if clusters is None else [COLOURS[self.colour.value]]
        if clusters is not None and not clusters.kept.all():
            said.append("○ dropped: its cluster is too small")
        said += ["large: chosen"] if node.decision else []
        said += ["× left out"] if node.excluded else []
        said += ["grey dots: the other iterations, on the same map"] if len(layout.galleries) > 1 else []
        return said or ["a point is an image"]

    def _fill_slider(self) -> None:
        path = [node.id for node in self._line()]
        with self.filling():
            if tuple(self.steps.options) != tuple(path):
                self.steps.options = path
            self.steps.value = self.node.id
            self.steps.disabled = len(path) < 2

    # --- pointing --------------------------------------------------------------------------------------------------

    def point(self, index: int) -> None:
        """Ring a point, draw lines to its true neighbours and show its image and numbers."""
        if not 0 <= index < self.figure.shown:
            return
        near = self.session.neighbours(index, NEIGHBOURS)
        self.figure.ring([index], [i for i, _ in near])
        labels = self.session.labels()
        with self.preview.hold_sync():
            self.preview.thumbnails = self.session.gallery_key
            title, *facts = labels[index].split(", ")
            self.preview.lines = [title, f"id {self.node.gallery_of}/{index:03d}", *facts]
            self.preview.neighbours = [{"index": i, "text": f"{labels[i]}, distance {d:.2f}"} for i, d in near]
            self.preview.index = index

    @guarded
    def _hovered(self, change: dict[str, Any]) -> None:
        self.point(change["new"])

    @guarded
    def _cluster_pointed(self, change: dict[str, Any]) -> None:
        cluster, clusters = change["new"], self.node.clusters
        known = clusters is not None and 0 <= cluster < len(clusters.sizes)
        if known or cluster < 0:
            self.figure.ring([int(i) for i in clusters.members(cluster)] if known else [])

    @guarded
    def _selected(self, change: dict[str, Any]) -> None:
        self.figure.select(change["new"])

    @guarded
    def _hover(self, index: int) -> None:
        self.session.hover(index)

    @guarded
    def _click(self, index: int) -> None:
        self.session.look(index)

    @guarded
    def _lasso(self, indices: list[int]) -> None:
        self.session.select(indices)

    @guarded
    def _hear(self, _view: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("do") == "look":
            self.session.look(int(content["index"]))

    @guarded
    def _redraw(self, _change: Any) -> None:
        self.show()

    @guarded
    def _step(self, change: dict[str, Any]) -> None:
        if not self.is_filling:
            self.session.show_node(change["new"])

    @guarded
    def _vary(self) -> None:
        self._varied = "" if self._varied == self.node.gallery_of else self.node.gallery_of
        self._show_variants()

    def _show_variants(self) -> None:
        """Show the other maps, if they were asked for; they are made in the background."""
        node = self.node
        if self._varied != node.gallery_of or node.features is None:
            self.variants.value = ""
            return
        from chosen_one_nb.analysis.projection import sensitivity

        features = compared([node])[node.gallery_of]
        key = ("variants", node.gallery_of, node.uses_foreground)
        maps = self.session.background.get(key, lambda: sensitivity(features))
        if maps is None:
            self.variants.value = "Laying the images out nine times…"
            return
        self.variants.value = "What stays from map to map is in the data, what changes is not." + variants_html(
            maps, node.clusters
        )


def _centres(clusters: Any, xy: np.ndarray) -> dict[str, tuple[float, float]]:
    """Where the cluster numbers are written: the middle of each kept cluster's points on the map."""
    if clusters is None:
        return {}
    kept = [c for c in range(len(clusters.sizes)) if clusters.kept[c]]
    middles = {str(c): np.median(xy[clusters.labels == c], axis=0) for c in kept}
    return {name: (float(x), float(y)) for name, (x, y) in middles.items()}
