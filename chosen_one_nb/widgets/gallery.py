"""The gallery of an iteration: images in groups, to select, leave out, choose and look at closely.

Keyboard, only while the gallery has the focus: arrows move, space leaves an image out or puts it back, ``s``
selects, ``f`` looks closer, Enter chooses the image's cluster, ``z`` undoes, ``Z`` or ``y`` redoes, Escape clears
the selection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import anywidget
import ipywidgets
import numpy as np
import traitlets

from . import actions
from .attribute_findings import AttributeFindings
from .figures import marker_of, ranked_clusters, ranked_members
from .images import script, style, webp
from .panel import Panel, control, on_change, row, text
from .session import Session
from .status import guarded

LARGE = 768
ORDERS = [("by cluster", "cluster"), ("by seed", "seed"), ("oddest first", "odd")]
KEYS = (
    "<kbd>arrows</kbd> move · <kbd>space</kbd> leave out · <kbd>s</kbd> select · <kbd>f</kbd> look closer · "
    "<kbd>Enter</kbd> choose the cluster · <kbd>z</kbd>/<kbd>y</kbd> undo, redo"
)


class GalleryView(anywidget.AnyWidget):
    """A grid of thumbnails (see `chosen_one_nb.widgets.images.Thumbnails`).

    Parameters
    ----------
    name : str
        What the gallery is called by screen readers.
    thumbnails : str
        Whose thumbnails are shown.
    sections : list of dict
        Groups in order: ``ids`` (list of int) and, where there is more to say, ``title``, ``sign``, ``colour``,
        ``note``, ``dropped`` (bool).
    labels : list of str
        Alt text of each image, by index.
    hovered, focused, zoomed : int
        Index of the image pointed at, to scroll to, looked at closely; -1 for none.
    selected, excluded, chosen : list of int
        Indices selected on the screen, left out by the person, and part of the decision.
    size : int
        Side of a tile in pixels, 32 to 256.
    click : {"select", "exclude"}
        What a click on an image does.
    can_exclude : bool
        Whether images can be left out here.
    large : dict
        ``{"index", "data"}``: WebP data of the image looked at closely, in full size.
    empty : str
        What is written when there is nothing to show.

    Attributes
    ----------
    press : callable
        Called with an action and the index of an image (-1 where it has no meaning) when Enter, z or y is pressed.
    """

    _esm = script("gallery.js")
    _css = style("gallery.css")

    name = traitlets.Unicode("Images").tag(sync=True)
    thumbnails = traitlets.Unicode().tag(sync=True)
    sections = traitlets.List(traitlets.Dict()).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    focused = traitlets.Int(-1).tag(sync=True)
    zoomed = traitlets.Int(-1).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    excluded = traitlets.List(traitlets.Int()).tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)
    size = traitlets.Int(72, min=32, max=256).tag(sync=True)
    click = traitlets.Enum(["select", "exclude"], "select").tag(sync=True)
    can_exclude = traitlets.Bool(True).tag(sync=True)
    large = traitlets.Dict().tag(sync=True)
    empty = traitlets.Unicode("No images yet.").tag(sync=True)

    press: Callable[[str, int], Any] = staticmethod(lambda action, index: None)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        self.on_msg(self._hear)

    def _hear(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        index = int(content.get("index", -1))
        match content.get("do"):
            case "choose" | "undo" | "redo" as action:
                self.press(action, index)
            case "toggle" if content.get("trait") in ("selected", "excluded"):
                setattr(self, content["trait"], sorted(set(getattr(self, content["trait"])) ^ {index}))
            case "select":
                self.selected = sorted({int(i) for i in content["ids"]})


def connect(view: GalleryView, session: Session) -> None:
    """Let a gallery point at images, leave them out and obey its keys in a session."""
    view.press = partial(actions.press_key, session)
    on_change(view, "hovered", session.hover)
    on_change(view, "excluded", partial(actions.set_excluded, session))


class GalleryPanel(Panel):
    """All images: by cluster, by seed or by distance; also while they are being drawn."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        self.order = control(ipywidgets.Dropdown, "order", "How the images are grouped", "190px", options=ORDERS)
        sizes = {"value": 72, "min": 40, "max": 200, "step": 8, "readout": False}
        self.size = control(ipywidgets.IntSlider, "size", "Size of the images", "200px", **sizes)
        self.view = GalleryView(name="Gallery of the iteration", empty="No images yet. Press Next to draw them.")
        connect(self.view, session)
        self.ui = ipywidgets.VBox([row(self.order, self.size), self.view, text("keys", KEYS)]).add_class("chosen-all")
        self.link = ipywidgets.jslink((self.size, "value"), (self.view, "size"))
        for trait in ("hovered", "focused", "selected"):
            traitlets.dlink((session, trait), (self.view, trait))
        session.observe(self.redraw, ["arrived", "isolated"])
        self.order.observe(self.redraw, "value")
        on_change(self.order, "value", lambda _order: self.session.put_out())
        on_change(self.view, "selected", session.select)
        on_change(self.view, "zoomed", self._enlarge)

    def show(self) -> None:
        """Show the images there are."""
        session, node = self.session, self.node
        self.fill(
            self.view,
            sections=self._isolated(self._sections()),
            chosen=list(node.decision.images) if node.decision else [],
            excluded=list(node.excluded),
            selected=session.selected,
            can_exclude=node.clusters is not None and session.can_edit,
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

    def _isolated(self, sections: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Leave only what is isolated, if anything is."""
        alone = set(self.session.isolated)
        kept = [section | {"ids": [i for i in section["ids"] if not alone or i in alone]} for section in sections]
        return [section for section in kept if section["ids"]]

    def _cluster(self, c: int) -> dict[str, Any]:
        clusters, decision = self.node.clusters, self.node.decision
        marker, members = marker_of(clusters, c), ranked_members(clusters, c)
        notes = [f"{len(members)} image{'s' if len(members) > 1 else ''}"]
        notes += ["proposed"] if clusters.proposed == c else []
        notes += ["chosen"] if decision and decision.cluster == c else []
        notes += [] if clusters.kept[c] else ["dropped: too few"]
        section = {"title": f"Cluster {c}", "note": ", ".join(notes), "ids": members, "dropped": not clusters.kept[c]}
        return section | {"sign": marker.glyph, "colour": marker.colour}

    @guarded
    def _enlarge(self, index: int) -> None:
        if 0 <= index < len(self.node.images):
            self.view.large = {"index": index, "data": webp(self.node.images[index], LARGE, quality=92)}
