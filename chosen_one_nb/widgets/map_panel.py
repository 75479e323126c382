"""The map panel: the features as an image, how far to trust it, and what is behind each point.

All iterations of the branch that is shown are laid out together, so that a position means the same at every node of
the tree. PCA is there at once; UMAP takes its time, in the background, and is swapped in when it is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, Literal

import anywidget
import ipywidgets
import numpy as np
import traitlets
from numpy.typing import NDArray

from chosen_one_nb.plots import projection_plot, to_svg
from chosen_one_nb.run.node import Node, compared, use_foreground

from .attribute_findings import AttributeFindings
from .figures import MapFigure, PointStyle, point_style
from .images import script, style
from .panel import Panel, Switch, control, help_button, menu, offer, on_change, row, text, update
from .session import Session
from .status import guarded
from .tasks import BackgroundCache

if TYPE_CHECKING:
    from chosen_one_nb.analysis.projection import Projection
    from chosen_one_nb.steps.cluster import Clusters

Method = Literal["umap", "pca"]

COLOURS = {
    "cluster": ("cluster", "colour and sign: cluster, numbered at its middle"),
    "distance": ("distance to centroid", "colour: distance to the own centroid · sign: cluster"),
    "order": ("seed order", "colour: order of the seeds · sign: cluster"),
    "kept": ("kept or left out", "blue: kept · light grey: dropped · orange: left out · sign: cluster"),
}
"""Ways to colour: how each is called, and what the legend says of it."""
NEIGHBOURS = 5
GLIDE = 600  # ms
VARIANT_SIDE = 150  # pixels
DISTANCES = "distances on the map are not those that cohesion uses: it is measured in all dimensions"


@dataclass(frozen=True)
class Layout:
    """A map of several galleries, and what it stands for.

    Parameters
    ----------
    projection : Projection
        See `chosen_one_nb.analysis.projection.project`.
    foreground : bool
        Whether it is made of the foregrounds alone, cut out of their images.
    stand_in : str
        Why this is PCA although UMAP was asked for; empty otherwise.
    """

    projection: Projection
    foreground: bool = False
    stand_in: str = ""

    @property
    def galleries(self) -> tuple[str, ...]:
        """Ids of the nodes that own the galleries."""
        return tuple(dict.fromkeys(owner for owner, _ in self.projection.owners))

    def others(self, gallery: str) -> NDArray[np.floating]:
        """Return the positions of all images but one gallery's, shape (M, 2)."""
        return self.projection.positions[[owner != gallery for owner, _ in self.projection.owners]]

    @property
    def words(self) -> str:
        """How far the map can be trusted, as a sentence."""
        said = [self.stand_in, "the foregrounds alone, cut out of their images" * self.foreground, self.projection.note]
        for found in self.projection.quality.itertuples():
            pca = f" (PCA {found.pca_trustworthiness:.2f}, {found.pca_continuity:.2f})"
            said.append(
                f"trustworthiness {found.trustworthiness:.2f}, continuity {found.continuity:.2f} "
                f"among {found.k} neighbours{pca if self.projection.method == 'umap' else ''}"
            )
        return " · ".join(filter(None, said))


class Layouts:
    """Give maps, making each once.

    Parameters
    ----------
    background : BackgroundCache
        Where UMAP is computed.
    """

    def __init__(self, background: BackgroundCache) -> None:
        self._background = background
        self._pca: dict[tuple[bool | str, ...], Projection] = {}
        self._last: Projection | None = None

    def get(self, nodes: Sequence[Node], method: Method) -> Layout:
        """Lay out the galleries of some iterations together.

        Parameters
        ----------
        nodes : sequence of Node
            Embedded ones, in order.
        method : {"umap", "pca"}
            While a UMAP is being computed its PCA stands in for it.
        """
        from chosen_one_nb.analysis.projection import project

        foreground, stand_in = use_foreground(nodes), ""
        key = (foreground, *dict.fromkeys(node.gallery_of for node in nodes))
        if method == "umap":
            umap = self._background.get(("umap", *key), lambda: self._fit_umap(nodes))
            if umap is not None:
                return Layout(umap, foreground)
            error = self._background.error(("umap", *key))
            stand_in = f"PCA, because UMAP failed: {error}" if error else "PCA for now, UMAP is being fitted…"
        # at once; how far to trust it follows from the background
        pca = self._background.get(("pca", *key), lambda: project(compared(nodes), method="pca"))
        if pca is None and key not in self._pca:
            self._pca[key] = project(compared(nodes), method="pca", quality=False)
        return Layout(pca or self._pca[key], foreground, stand_in)

    def _fit_umap(self, nodes: Sequence[Node]) -> Projection:
        """Fit a UMAP, starting from the last one so that old points stay about where they were."""
        from chosen_one_nb.analysis.projection import project

        self._last = project(compared(nodes), method="umap", previous=self._last)
        return self._last


class Preview(anywidget.AnyWidget):
    """A card that floats over the map, in the corner farthest from the pointer; changes after a short dwell.

    Parameters
    ----------
    thumbnails : str
        Where the images are.
    index : int
        The image; -1 for none.
    lines : list of str
        A title and the lines under it.
    neighbours : list of dict
        ``index`` and ``text`` of its nearest images in feature space.
    """

    _esm = script("preview.js")
    _css = style("preview.css")
    thumbnails = traitlets.Unicode().tag(sync=True)
    index = traitlets.Int(-1).tag(sync=True)
    lines = traitlets.List(traitlets.Unicode()).tag(sync=True)
    neighbours = traitlets.List(traitlets.Dict()).tag(sync=True)


class MapPanel(Panel):
    """Map, controls, trust line and preview."""

    def __init__(self, session: Session, findings: AttributeFindings, method: Method) -> None:
        super().__init__(session)
        self.findings, self.layouts = findings, Layouts(session.background)
        self.figure, self.preview = MapFigure(), Preview()
        self.trust, self.variants = text("trust"), text("trust others")
        self._varied = ""  # the gallery whose other maps are shown
        self._make_controls(method)
        tip = "Images are coloured and ordered by this attribute; press to go back to the menu's colours"
        self.chip = self.button("chip", "", tip, Session.put_out)
        more = menu("mapmenu", "⋯", "Images on the points, gliding, other maps", self.thumbs, self.glide, self.vary)
        ask = text("ask", help_button("map", "How to read this map"))
        tools = row(self.method, self.colour, self.chip, ask, *more, kind="tools")
        self.ui = ipywidgets.VBox([tools, self.figure, self.preview, self.variants, self.trust])
        self.ui.add_class("chosen-map")
        self._connect()

    def _make_controls(self, method: Method) -> None:
        self.method = ipywidgets.ToggleButtons(
            options=[("UMAP", "umap"), ("PCA", "pca")],
            value=method,
            tooltips=[
                "Neighbours stay together; gaps and sizes mean little",
                "Straight projection; distances shrink, never tear",
            ],
            style={"button_width": "52px"},
            layout=ipywidgets.Layout(width="auto"),
        )
        ways = [(name, way) for way, (name, _) in COLOURS.items()]
        self.colour = control(ipywidgets.Dropdown, "colour", "What the colours mean", "auto", options=ways)
        self.thumbs = Switch(description="images", tooltip="Stand the images on their points, as many as fit")
        self.glide = Switch(description="glide", tooltip="Let the points glide when the iteration changes")
        tip = "Lay the images out with other seeds and neighbourhoods: what changes is not real"
        self.vary = self.button("vary", "other maps", tip, lambda _session: self._toggle_variants())

    def _connect(self) -> None:
        session, figure = self.session, self.figure
        on_change(self.colour, "value", lambda _way: self.session.put_out())
        for widget in (self.method, self.colour, self.thumbs):
            widget.observe(self.redraw, "value")
        on_change(self.glide, "value", lambda on: figure.set_glide(GLIDE if on else 0))
        on_change(figure, "hovered", session.hover)
        self.listen(figure)
        self.listen(self.preview)
        session.observe(self._point, "hovered")
        session.observe(self.redraw, "isolated")
        session.observe(self._ring_cluster, "pointed_cluster")
        for trait in ("selected", "lasso_mode"):
            traitlets.dlink((session, trait), (figure, trait))

    # --- showing ---------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the gallery of the iteration that is shown, laid out with all others of its branch."""
        self._show_variants()
        tint = self.findings.tint()
        offer(self.chip, tint is not None)
        offer(self.colour, tint is None)
        self.chip.description = f"by {tint[0]} ✕" if tint else ""
        layout = self.layout_now()
        with self.figure.hold_sync():
            if layout is None:
                self._show_before()
            else:
                self._show_gallery(layout)
            self._point()

    def layout_now(self) -> Layout | None:
        """Return the layout that is shown; None before the gallery has been embedded."""
        if self.node.embedding is None:
            return None
        embedded = [node for node in self.session.line(self.node) if node.embedding is not None]
        return self.layouts.get(embedded, self.method.value)

    def _show_before(self) -> None:
        """Before a gallery is embedded: the iterations before it, faintly."""
        before = [node for node in self.run.path(self.node) if node.embedding is not None]
        ghosts = self.layouts.get(before, self.method.value).projection.positions if before else None
        self.figure.show(np.zeros((0, 2)), PointStyle([], []), ghosts=ghosts)
        self.figure.show_thumbnails(())
        self.figure.alt = "Map of the images, empty until they are embedded."
        dots = " Grey dots: the iterations before." if before else ""
        self._explain(f"The map appears once the images have been drawn and embedded.{dots}")

    def _show_gallery(self, layout: Layout) -> None:
        node, clusters, projection = self.node, self.node.clusters, layout.projection
        xy = projection.of(node.gallery_of)
        self.figure.show(
            xy,
            self._style(len(xy)),
            ghosts=layout.others(node.gallery_of),
            numbers={} if clusters is None else _centres(clusters, xy),
            revision=f"{projection.method} {layout.foreground} {len(layout.galleries)} {self.session.isolated}",
            within=self.session.isolated,
        )
        self.figure.show_thumbnails(
            node.images if self.thumbs.value else (), () if clusters is None else clusters.medoids.tolist()
        )
        counted = "" if clusters is None else f", {len(clusters.sizes)} clusters"
        method = projection.method.upper()
        self.figure.alt = (
            f"Map of {len(xy)} images by {method}{counted}; the gallery and the cards hold the same images."
        )
        self._explain(self._legend(layout), f"{layout.words} · {DISTANCES}")

    def _explain(self, *words: str) -> None:
        """Put sentences behind the map's `?`."""
        said = "".join(f"<p>{escape(each)}</p>" for each in words)
        self.trust.value = f'<div popover data-about="map"><strong>Map of the features</strong>{said}</div>'

    def _style(self, n: int) -> PointStyle:
        """Colour and symbol of the points: by the attribute that is lit, if one is."""
        node, tint = self.node, self.findings.tint()
        chosen = node.decision.images if node.decision else ()
        style = point_style(node.clusters, n, self.colour.value, chosen=chosen, excluded=node.excluded)
        if isolated := self.session.isolated:
            style = replace(style, pale=sorted(set(range(n)) - set(isolated)))
        return style if tint is None else replace(style, scale=escape(tint[0]), colour=tint[1])

    def _legend(self, layout: Layout) -> str:
        """Say what the signs on the map mean, those that are there."""
        node, clusters = self.node, self.node.clusters
        signs = {
            COLOURS[self.colour.value][1]: clusters is not None,
            "○ dropped: its cluster is too small": clusters is not None and not clusters.kept.all(),
            "large: chosen": node.decision,
            "× left out": node.excluded,
            "grey dots: the other iterations, on the same map": len(layout.galleries) > 1,
        }
        return " · ".join(sign for sign, there in signs.items() if there) or "a point is an image"

    def _show_variants(self) -> None:
        """Show the other maps, if they were asked for; they are made in the background."""
        node = self.node
        if self._varied != node.gallery_of or node.embedding is None:
            self.variants.value = ""
            return
        from chosen_one_nb.analysis.projection import sensitivity

        features = compared([node])[node.gallery_of]
        key = ("variants", node.gallery_of, node.embedding.uses_foreground)
        variants = self.session.background.get(key, lambda: sensitivity(features))
        self.variants.value = _as_html(variants, node.clusters) if variants else "Laying the images out nine times…"

    # --- pointing --------------------------------------------------------------------------------------------------

    @guarded
    def _point(self, _change: Any = None) -> None:
        """Ring the point of the image pointed at, draw lines to its true neighbours and show it with its numbers."""
        index = self.figure.hovered = self.session.hovered
        if index < 0:
            self.figure.ring(())
            self.preview.index = -1
            return
        near, labels = self.session.neighbours(index, NEIGHBOURS), self.session.labels()
        title, *facts = labels[index].split(", ")
        self.figure.ring([index], [i for i, _ in near])
        update(
            self.preview,
            thumbnails=self.session.gallery_key,
            lines=[title, f"id {self.node.gallery_of}/{index:03d}", *facts],
            neighbours=[{"index": i, "text": f"{labels[i]}, distance {d:.2f}"} for i, d in near],
            index=index,
        )

    @guarded
    def _ring_cluster(self, change: dict[str, Any]) -> None:
        cluster, clusters = change["new"], self.node.clusters
        if clusters is not None and cluster < len(clusters.sizes):
            self.figure.ring(clusters.members(cluster).tolist() if cluster >= 0 else ())

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Look at the image whose point or neighbour was clicked, or select those in a lasso."""
        match content:
            case {"do": "click" | "look", "index": index}:
                self.session.look(int(index))
            case {"do": "select", "indices": indices}:
                self.session.lasso(indices, content.get("how", ""))

    @guarded
    def _toggle_variants(self) -> None:
        self._varied = "" if self._varied == self.node.gallery_of else self.node.gallery_of
        self._show_variants()


def _centres(clusters: Clusters, xy: np.ndarray) -> dict[str, list[float]]:
    """Where the cluster numbers are written: the middle of each kept cluster's points on the map."""
    return {str(c): np.median(xy[clusters.labels == c], axis=0).tolist() for c in np.flatnonzero(clusters.kept)}


def _as_html(variants: list[Projection], clusters: Clusters | None) -> str:
    """Draw small maps, a row per number of neighbours, a column per seed; dropped clusters grey and without a name."""
    labels = None if clusters is None else np.where(clusters.kept[clusters.labels], clusters.labels, -1)
    size = (VARIANT_SIDE, VARIANT_SIDE)
    figures = "".join(
        f"<figure>{to_svg(projection_plot(variant.positions, labels, size=size))}"
        f"<figcaption>{variant.n_neighbors} neighbours, seed {variant.seed}</figcaption></figure>"
        for variant in variants
    )
    columns = len({variant.seed for variant in variants})
    return (
        "What stays from map to map is in the data, what changes is not."
        f'<div class="chosen-variants" style="grid-template-columns: repeat({columns}, {VARIANT_SIDE}px)">'
        f"{figures}</div>"
    )
