"""The choice: what was proposed and what was taken; select, leave out, merge, re-cluster, undo, and say why."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import Any

import ipywidgets

from . import actions
from .gallery import GalleryView
from .panel import Panel, control, on_change, row, text, update
from .session import Session
from .status import guarded
from .wording import counted_words


class SelectionPanel(Panel):
    """Everything a person can decide about the iteration that is shown."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.words = text("decision")
        self._make_controls()
        self.strip = GalleryView(
            partial(actions.press_key, session),
            name="The chosen images",
            click="exclude",
            size=56,
            empty="Nothing is chosen yet.",
        ).add_class("chosen-choice")
        pick = row(self.proposal, self.use, self.out, self.back, self.clear)
        regroup = row(self.merge, self.k, self.recluster, self.undo, self.redo, self.note)
        self.ui = ipywidgets.VBox([self.words, pick, regroup, self.strip]).add_class("chosen-decide")
        on_change(self.note, "value", self._write_note)
        on_change(self.strip, "excluded", partial(actions.set_excluded, session))
        on_change(self.strip, "hovered", session.hover)
        session.observe(self._show_selection, "selected")

    def _make_controls(self) -> None:
        button = self.button
        self.proposal = button("proposal", "Take the proposal", "Choose what the paper's rule proposes", actions.choose)
        self.use = button(
            "use", "Choose selection", "Refine on the selected images instead of a cluster",
            lambda session: actions.choose(session, images=session.selected),
        )  # fmt: skip
        self.out = button(
            "out", "Leave out", "Leave the selected images out of the choice",
            lambda session: actions.leave_out(session, session.selected),
        )  # fmt: skip
        self.back = button(
            "back", "Put back", "Put the selected images back (with none selected: all)",
            lambda session: actions.put_back(session, session.selected or None),
        )  # fmt: skip
        self.clear = button("clear", "Clear", "Clear the selection", lambda session: session.select([]))
        tip = "Make one cluster of the clusters ticked on their cards"
        self.merge = button("merge", "Merge ticked", tip, actions.merge_ticked)
        self.k = control(ipywidgets.BoundedIntText, "k", "Number of clusters", "90px", value=2, min=1, max=2)
        tip = "Cluster the same images again into k clusters; nothing is drawn"
        self.recluster = button("recluster", "Re-cluster", tip, lambda s: actions.recluster(s, self.k.value))
        tip = "Take back the last decision, exclusion, merge or re-clustering (z)"
        self.undo = button("undo", "Undo", tip, actions.undo, icon="undo")
        self.redo = button("redo", "Redo", "Make it again (y)", actions.redo, icon="repeat")
        tip = "A note that is kept with the next decision, or with this one when you press Enter"
        self.note = control(
            ipywidgets.Text, "note", tip, "340px", placeholder="Why? Kept with the decision", continuous_update=False
        )
        self.note.layout.flex = "1 1 340px"

    def show(self) -> None:
        """Show what has been decided and what can be."""
        session, node, decision = self.session, self.node, self.node.decision
        can_decide = self._can_decide()
        for part in (self.merge, self.recluster, self.k, self.note):
            part.disabled = not can_decide
        self.proposal.disabled = not can_decide or node.clusters.proposed is None
        self.undo.disabled = not (can_decide and node.can_undo)
        self.redo.disabled = not (can_decide and node.can_redo)
        self._show_selection()
        self.words.value = self._sentence()
        if node.clusters is not None:
            self.k.max = max(2, len(node.seeds))
            self.k.value = len(node.clusters.sizes)
        self.note.value = decision.note if decision else ""
        chosen = sorted({*decision.images, *decision.excluded}) if decision else []
        update(
            self.strip,
            thumbnails=session.gallery_key,
            labels=session.labels(),
            sections=[{"ids": chosen}] if chosen else [],
            excluded=list(node.excluded),
            can_exclude=session.can_edit,
        )

    def _can_decide(self) -> bool:
        return self.node.clusters is not None and self.session.can_edit

    @guarded
    def _show_selection(self, _change: Any = None) -> None:
        """Name the number of selected images on the buttons that use them."""
        n, can_decide = len(self.session.selected), self._can_decide()
        self.use.description = f"Choose selection ({n})" if n else "Choose selection"
        self.use.disabled = self.out.disabled = not (can_decide and n)
        self.clear.disabled = not n
        self.back.disabled = not (can_decide and self.node.excluded)

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
        branch = " Changing it begins a branch: this node has its Θ already." if node.refined else ""
        return (
            f"<span>{rule} <strong>Taken: {counted_words(decision)}</strong> (by {escape(decision.by)}).{branch}</span>"
            + (f'<span class="chosen-warning">⚠ {escape(risk)}</span>' if risk else "")
        )

    @guarded
    def _write_note(self, note: str) -> None:
        self.session.note = note
        actions.write_note(self.session, note)
