"""The clusters as cards, most cohesive first: judge them, choose one, tick some to merge."""

from __future__ import annotations

from typing import Any

import anywidget
import traitlets

from . import actions
from .attribute_findings import AttributeFindings
from .images import HERE, script
from .judge import Evidence, cards, evidence
from .panel import Panel
from .session import Session
from .status import guarded


class Cards(anywidget.AnyWidget):
    """Cards in the browser.

    Parameters
    ----------
    thumbnails : str
        Where the images are.
    cards : list of dict
        What `chosen_one_nb.widgets.judge.cards` gives.
    labels : list of str
        Alt text of each image.
    excluded : list of int
        Images left out; shown faint.
    hovered, pointed : int
        Cluster and image under the pointer, -1 for none.
    ticked : list of int
        Clusters ticked for merging.
    can_choose : bool
        Whether the Choose buttons work.
    empty : str
        What is written when there are no clusters.
    """

    _esm = script("cards.js")
    _css = HERE / "cards.css"
    thumbnails = traitlets.Unicode().tag(sync=True)
    cards = traitlets.List(traitlets.Dict()).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    excluded = traitlets.List(traitlets.Int()).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    pointed = traitlets.Int(-1).tag(sync=True)
    ticked = traitlets.List(traitlets.Int()).tag(sync=True)
    can_choose = traitlets.Bool(True).tag(sync=True)
    empty = traitlets.Unicode("No clusters yet.").tag(sync=True)


class ClusterPanel(Panel):
    """The cards of the iteration shown, and what is done on them."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        self.ui = self.view = Cards()
        self.view.observe(self._hover, "hovered")
        self.view.observe(self._point, "pointed")
        traitlets.link((self.view, "ticked"), (session, "ticked"))
        self.view.on_msg(lambda _view, content, _buffers: self.act(content))

    def evidence(self) -> Evidence | None:
        """What speaks for the clusters shown; None until it is computed in the background."""
        node, features, clusters = self.node, self.node.clustered_on, self.node.clusters
        key = ("evidence", node.id, node.edit.clusters)
        return self.session.background.get(key, lambda: evidence(features, clusters, node.settings))

    def show(self) -> None:
        """Show the clusters as they are now."""
        node = self.node
        if node.clusters is None:
            with self.view.hold_sync():
                self.view.cards, self.view.ticked = [], []
                self.view.empty = (
                    "This gallery was not clustered: the method stopped here. “Go on all the same” clusters it."
                    if node.stopped
                    else "Clusters appear here once the features have been clustered."
                )
            return
        decision = node.decision
        shown = cards(node.clusters, node.settings, self.evidence(), chosen=decision.cluster if decision else None)
        shown = [card | self.findings.on_card(card["cluster"], card["warning"]) for card in shown]
        with self.view.hold_sync():
            self.view.thumbnails = self.session.gallery_key
            self.view.labels, self.view.excluded = self.session.labels(), list(node.excluded)
            self.view.can_choose = self.session.can_edit
            self.view.ticked = [c for c in self.view.ticked if c < len(shown)]
            self.view.cards = shown

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Do what was pressed on a card.

        ``{"do": "choose", "cluster": 3}``, ``{"do": "look", "index": 7}`` or
        ``{"do": "tick", "cluster": 3, "on": true}``.
        """
        match content.get("do"):
            case "choose":
                actions.choose(self.session, int(content["cluster"]))
            case "look":
                self.session.look(int(content["index"]))
            case "tick":
                others = set(self.view.ticked) - {cluster := int(content["cluster"])}
                self.view.ticked = sorted(others | {cluster} if content["on"] else others)

    @guarded
    def _hover(self, change: dict[str, Any]) -> None:
        self.session.pointed_cluster = change["new"]

    @guarded
    def _point(self, change: dict[str, Any]) -> None:
        if change["new"] >= 0:
            self.session.hover(change["new"])
