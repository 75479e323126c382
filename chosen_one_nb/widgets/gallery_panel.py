"""The gallery of all images of an iteration, in the order one likes, linked with the map."""

from __future__ import annotations

from typing import Any

import ipywidgets
import numpy as np

from . import actions
from .attribute_findings import AttributeFindings
from .cluster_style import marker_of
from .gallery import GalleryView
from .images import webp
from .judge import ranked_members
from .panel import Panel, row
from .session import Session
from .status import guarded

LARGE = 768


class GalleryPanel(Panel):
    """All images: by cluster, by seed or by distance; also while they are being drawn."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        self.order = ipywidgets.Dropdown(
            options=[("by cluster", "cluster"), ("by seed", "seed"), ("oddest first", "odd")],
            value="cluster",
            description="order",
            tooltip="How the images are grouped",
            style={"description_width": "auto"},
            layout=ipywidgets.Layout(width="190px"),
        )
        self.size = ipywidgets.IntSlider(
            72,
            min=40,
            max=200,
            step=8,
            description="size",
            tooltip="Size of the images",
            readout=False,
            style={"description_width": "auto"},
            layout=ipywidgets.Layout(width="200px"),
        )
        keys = ipywidgets.HTML(
            "<kbd>arrows</kbd> move · <kbd>space</kbd> leave out · <kbd>s</kbd> select · <kbd>f</kbd> "
            "look closer · <kbd>Enter</kbd> choose the cluster · <kbd>z</kbd>/<kbd>y</kbd> undo, redo"
        )
        keys.add_class("chosen-keys")
        self.view = GalleryView(name="Gallery of the iteration")
        ipywidgets.jslink((self.size, "value"), (self.view, "size"))
        self.ui = ipywidgets.VBox([row(self.order, self.size, keys), self.view])
        self.order.observe(self._redraw, "value")
        for trait, hear in (
            ("hovered", self._hover),
            ("selected", self._select),
            ("excluded", self._strike),
            ("zoomed", self._zoom),
        ):
            self.view.observe(hear, trait)
        self.view.on_action(lambda action, index: actions.press_key(session, action, index))
        session.observe(self._mark, ("hovered", "focused", "selected"))
        session.observe(self._redraw, "arrived")

    def show(self) -> None:
        """Show the images there are."""
        node = self.node
        decision = node.decision
        with self.filling(), self.view.hold_sync():
            self.view.thumbnails, self.view.labels = (
                self.session.gallery_key,
                self.session.labels(),
            )
            self.view.sections = self._sections()
            self.view.chosen = list(decision.images) if decision else []
            self.view.excluded, self.view.selected = list(node.excluded), list(self.session.selected)
            self.view.can_exclude = node.clusters is not None and self.session.can_edit
            self.view.empty = "No images yet. Press Next to draw them."

    # --- order -----------------------------------------------------------------------------------------------------

    def _sections(self) -> list[dict[str, Any]]:
        node, clusters = self.node, self.node.clusters
        if not len(node.images):
            drawn = self.session.drawn()
            return [_section(f"{len(drawn)} of {len(node.seeds)} drawn", drawn)] if drawn else []
        tint = self.findings.tint()
        if tint is not None:
            return [
                _section(
                    f"“{tint[0]}”, surest first", [int(i) for i in np.argsort(-np.asarray(tint[1]), kind="stable")]
                )
            ]
        if clusters is None or self.order.value == "seed":
            return [_section("", list(range(len(node.seeds))))]
        if self.order.value == "odd":
            farthest = np.argsort(-clusters.distances, kind="stable")
            return [_section("farthest from their centroids first", [int(i) for i in farthest])]
        order = sorted((int(c) for c in clusters.order), key=lambda c: not clusters.kept[c])
        return [self._cluster(c) for c in order]

    def _cluster(self, c: int) -> dict[str, Any]:
        clusters, decision = self.node.clusters, self.node.decision
        sign, members = marker_of(clusters, c), ranked_members(clusters, c)
        notes = [f"{len(members)} image{'s' if len(members) > 1 else ''}"]
        notes += ["proposed"] if clusters.proposed == c else []
        notes += ["chosen"] if decision and decision.cluster == c else []
        notes += [] if clusters.kept[c] else ["dropped: too few"]
        return _section(f"Cluster {c}", members, sign.glyph, sign.colour, ", ".join(notes), not clusters.kept[c])

    # --- hearing ---------------------------------------------------------------------------------------------------

    @guarded
    def _mark(self, change: dict[str, Any]) -> None:
        with self.filling():
            setattr(self.view, change["name"], change["new"])

    @guarded
    def _redraw(self, _change: Any) -> None:
        self.show()

    @guarded
    def _hover(self, change: dict[str, Any]) -> None:
        if not self.is_filling and change["new"] >= 0:
            self.session.hover(change["new"])

    @guarded
    def _select(self, change: dict[str, Any]) -> None:
        if not self.is_filling:
            self.session.select(change["new"])

    @guarded
    def _strike(self, change: dict[str, Any]) -> None:
        if not self.is_filling:
            actions.set_excluded(self.session, change["new"])

    @guarded
    def _zoom(self, change: dict[str, Any]) -> None:
        index = change["new"]
        if 0 <= index < len(self.node.images):
            self.view.large = {"index": index, "data": webp(self.node.images[index], LARGE, quality=92)}


def _section(
    title: str, ids: list[int], sign: str = "", colour: str = "", note: str = "", dropped: bool = False
) -> dict[str, Any]:
    return {"title": title, "sign": sign, "colour": colour, "note": note, "ids": ids, "dropped": dropped}
