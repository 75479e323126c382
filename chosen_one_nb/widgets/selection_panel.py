"""The choice: what was proposed and what was taken; select, leave out, merge, re-cluster, undo, and say why."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets

from . import actions
from .gallery import GalleryView, connect
from .panel import Panel, control, line, menu, offer, on_change, row, text
from .session import Session
from .status import counted_words, guarded


class SelectionPanel(Panel):
    """Everything a person can decide about the iteration that is shown."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.words = text("decision")
        self._make_controls()
        self.strip = GalleryView(name="The chosen images", click="exclude", size=40, empty="Nothing is chosen yet.")
        self.strip.add_class("chosen-choice")
        connect(self.strip, session)
        self.regroup, more = menu(
            "regroup", "Regroup…", "Merge clusters, or cluster anew", self.merge, self.k, self.recluster
        )
        acts = (self.proposal, self.use, self.out, self.clear, self.back, self.undo, self.redo, self.note)
        self.ui = ipywidgets.VBox([self.words, row(*acts, self.regroup, more, kind="acts"), self.strip]).add_class(
            "chosen-decide"
        )
        on_change(self.note, "value", lambda said: self.is_filling or actions.write_note(session, said))
        session.observe(self._show_selection, "selected")

    def _make_controls(self) -> None:
        button = self.button
        self.proposal = button("proposal", "Take the proposal", "Choose what the paper's rule proposes", actions.choose)
        tip = "Refine on the selected images instead of a cluster"
        self.use = button("use", "Choose selection", tip, lambda s: actions.choose(s, images=s.selected))
        tip = "Leave the selected images out of the choice"
        self.out = button("out", "Leave out", tip, lambda s: actions.leave_out(s, s.selected))
        tip = "Put the selected images back (with none selected: all)"
        self.back = button("back", "Put back", tip, lambda s: actions.put_back(s, s.selected or None))
        self.clear = button("clear", "Clear", "Clear the selection", lambda s: s.select([]))
        tip = "Make one cluster of the clusters ticked on their cards"
        self.merge = button("merge", "Merge ticked", tip, actions.merge_ticked)
        self.k = control(ipywidgets.BoundedIntText, "k", "Number of clusters", "90px", value=2, min=1, max=2)
        tip = "Cluster the same images again into k clusters; nothing is drawn"
        self.recluster = button("recluster", "Re-cluster", tip, lambda s: actions.recluster(s, self.k.value))
        tip = "Take back the last decision, exclusion, merge or re-clustering (z)"
        self.undo = button("undo", "Undo", tip, actions.undo, icon="undo")
        self.redo = button("redo", "Redo", "Make it again (y)", actions.redo, icon="repeat")
        tip = "A note that is kept with the next decision, or with this one when you press Enter"
        self.note = line("note", tip, "auto", placeholder="Why? Kept with the decision")
        self.note.layout.flex = "1 1 120px"

    def show(self) -> None:
        """Show what has been decided and what can be."""
        session, node, decision = self.session, self.node, self.node.decision
        can_decide = self._can_decide()
        for part in (self.merge, self.recluster, self.k, self.note, self.regroup):
            offer(part, can_decide)
        offer(self.proposal, can_decide and node.clusters.proposed is not None)
        offer(self.undo, can_decide and not node.refined and node.edits.can_undo)
        offer(self.redo, can_decide and not node.refined and node.edits.can_redo)
        self._show_selection()
        self.words.value = self._sentence()
        if node.clusters is not None:
            self.k.max = max(2, len(node.seeds))
            self.k.value = len(node.clusters.sizes)
        with self.filling():
            self.note.value = session.note or (decision.note if decision and not node.refined else "")
        chosen = sorted({*decision.images, *decision.excluded}) if decision else []
        sections, excluded = [{"ids": chosen}] if chosen else [], list(node.excluded)
        self.fill(self.strip, sections=sections, excluded=excluded, can_exclude=session.can_edit)

    def _can_decide(self) -> bool:
        return self.session.screen.decides and self.session.can_edit

    @guarded
    def _show_selection(self, _change: Any = None) -> None:
        """Name the number of selected images on the buttons that use them."""
        n, can_decide = len(self.session.selected), self._can_decide()
        self.use.description = f"Choose selection ({n})" if n else "Choose selection"
        offer(self.use, can_decide and n > 0)
        offer(self.out, can_decide and n > 0)
        offer(self.clear, n > 0)
        offer(self.back, can_decide and len(self.node.excluded) > 0)

    def _sentence(self) -> str:
        node, decision = self.node, self.node.decision
        if node.clusters is None:
            why = "the method stopped at this gallery" if node.stopped else "the features have not been clustered"
            return f"<span>Nothing to decide here: {why}.</span>"
        proposed = node.clusters.proposed
        rule = f"The rule proposes cluster {proposed}." if proposed is not None else escape(node.clusters.reason)
        if decision is None:
            return f"<span>{rule} <strong>Nothing is chosen yet.</strong></span>"
        risk = self.run.selection.risk(decision.images)
        said = f" “{escape(decision.note)}”" if decision.note else ""
        branch = " Changing it begins a branch: this node has its Θ already." if node.refined else ""
        return (
            f"<span>{rule} <strong>Taken: {counted_words(decision)}</strong> "
            f"(by {escape(decision.by)}){said}.{branch}</span>"
            + (f'<span class="chosen-warning">⚠ {escape(risk)}</span>' if risk else "")
        )
