"""The gallery of all images of an iteration, in the order one likes, linked with the map."""

from __future__ import annotations

from functools import partial
from typing import Any

import ipywidgets
import numpy as np
import traitlets

from . import actions
from .attribute_findings import AttributeFindings
from .cluster_evidence import ranked_clusters, ranked_members
from .cluster_style import marker_of
from .gallery import GalleryView
from .images import webp
from .panel import Panel, control, on_change, row, text, update
from .session import Session
from .status import guarded

LARGE = 768
ORDERS = [("by cluster", "cluster"), ("by seed", "seed"), ("oddest first", "odd")]
KEYS = (
    "<kbd>arrows</kbd> move · <kbd>space</kbd> leave out · <kbd>s</kbd> select · <kbd>f</kbd> look closer · "
    "<kbd>Enter</kbd> choose the cluster · <kbd>z</kbd>/<kbd>y</kbd> undo, redo"
)


class GalleryPanel(Panel):
    """All images: by cluster, by seed or by distance; also while they are being drawn."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        self.order = control(ipywidgets.Dropdown, "order", "How the images are grouped", "190px", options=ORDERS)
        self.size = control(
            ipywidgets.IntSlider,
            "size",
            "Size of the images",
            "200px",
            value=72,
            min=40,
            max=200,
            step=8,
            readout=False,
        )
        self.view = GalleryView(partial(actions.press_key, session), name="Gallery of the iteration")
        self.ui = ipywidgets.VBox([row(self.order, self.size, text("keys", KEYS)), self.view])
        self.link = ipywidgets.jslink((self.size, "value"), (self.view, "size"))
        for trait in ("hovered", "focused", "selected"):
            traitlets.dlink((session, trait), (self.view, trait))
        session.observe(self.redraw, "arrived")
        self.order.observe(self.redraw, "value")
        on_change(self.view, "hovered", session.hover)
        on_change(self.view, "selected", session.select)
        on_change(self.view, "excluded", partial(actions.set_excluded, session))
        on_change(self.view, "zoomed", self._enlarge)

    def show(self) -> None:
        """Show the images there are."""
        session, node = self.session, self.node
        update(
            self.view,
            thumbnails=session.gallery_key,
            labels=session.labels(),
            sections=self._sections(),
            chosen=list(node.decision.images) if node.decision else [],
            excluded=list(node.excluded),
            selected=session.selected,
            can_exclude=node.clusters is not None and session.can_edit,
            empty="No images yet. Press Next to draw them.",
        )

    def _sections(self) -> list[dict[str, Any]]:
        node, clusters, tint = self.node, self.node.clusters, self.findings.tint()
        if not len(node.images):
            drawn = self.session.drawn()
            return [{"title": f"{len(drawn)} of {len(node.seeds)} drawn", "ids": drawn}] if drawn else []
        if tint is not None:
            surest = np.argsort(-np.asarray(tint[1]), kind="stable")
            return [{"title": f"“{tint[0]}”, surest first", "ids": surest.tolist()}]
        if clusters is None or self.order.value == "seed":
            return [{"ids": list(range(len(node.seeds)))}]
        if self.order.value == "odd":
            farthest = np.argsort(-clusters.distances, kind="stable")
            return [{"title": "farthest from their centroids first", "ids": farthest.tolist()}]
        return [self._cluster(c) for c in ranked_clusters(clusters)]

    def _cluster(self, c: int) -> dict[str, Any]:
        clusters, decision = self.node.clusters, self.node.decision
        marker, members = marker_of(clusters, c), ranked_members(clusters, c)
        notes = [f"{len(members)} image{'s' if len(members) > 1 else ''}"]
        notes += ["proposed"] if clusters.proposed == c else []
        notes += ["chosen"] if decision and decision.cluster == c else []
        notes += [] if clusters.kept[c] else ["dropped: too few"]
        return {
            "title": f"Cluster {c}", "sign": marker.glyph, "colour": marker.colour, "note": ", ".join(notes),
            "ids": members, "dropped": not clusters.kept[c],
        }  # fmt: skip

    @guarded
    def _enlarge(self, index: int) -> None:
        if 0 <= index < len(self.node.images):
            self.view.large = {"index": index, "data": webp(self.node.images[index], LARGE, quality=92)}
