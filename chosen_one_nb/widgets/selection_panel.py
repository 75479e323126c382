"""Overruling: what was proposed and what was taken; select, leave out, merge, re-cluster, undo, and say why."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets

from . import actions
from .gallery import GalleryView
from .panel import Panel, button, row
from .session import Session
from .status import guarded
from .wording import counted_words


class DecidePanel(Panel):
    """Everything a person can decide about the iteration that is shown."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.words = ipywidgets.HTML()
        self.words.add_class("chosen-decision")
        self._make_buttons()
        self._make_fields()
        self.strip = GalleryView(name="The chosen images", click="exclude", size=56, empty="Nothing is chosen yet.")
        self.strip.add_class("chosen-choice")
        self.ui = ipywidgets.VBox(
            [
                self.words,
                row(self.proposal, self.use, self.out, self.back, self.clear),
                row(self.merge, self.k, self.again, self.undo, self.redo, self.note),
                self.strip,
            ]
        )
        self.ui.add_class("chosen-decide")
        self._listen()

    def _make_buttons(self) -> None:
        self.proposal = button("Take the proposal", "Choose what the paper's rule proposes", kind="proposal")
        self.use = button("Choose selection", "Refine on the selected images instead of a cluster", kind="use")
        self.out = button("Leave out", "Leave the selected images out of the choice", kind="out")
        self.back = button("Put back", "Put the selected images back (with none selected: all)", kind="back")
        self.clear = button("Clear", "Clear the selection", kind="clear")
        self.merge = button("Merge ticked", "Make one cluster of the clusters ticked on their cards", kind="merge")
        self.again = button(
            "Re-cluster",
            "Cluster the same images again into k clusters; nothing is drawn",
            kind="recluster",
        )
        self.undo = button(
            "Undo",
            "Take back the last decision, exclusion, merge or re-clustering (z)",
            icon="undo",
            kind="undo",
        )
        self.redo = button("Redo", "Make it again (y)", icon="repeat", kind="redo")

    def _make_fields(self) -> None:
        self.k = ipywidgets.BoundedIntText(
            2,
            min=1,
            max=2,
            description="k",
            tooltip="Number of clusters",
            style={"description_width": "auto"},
            layout=ipywidgets.Layout(width="90px"),
        )
        self.note = ipywidgets.Text(
            placeholder="Why? Kept with the decision",
            continuous_update=False,
            description="note",
            tooltip="A note that is kept with the next decision, or with this one when you press Enter",
            style={"description_width": "auto"},
            layout=ipywidgets.Layout(width="340px", flex="1 1 340px"),
        )

    def _listen(self) -> None:
        session = self.session
        for control, do in (
            (self.proposal, actions.choose),
            (self.use, lambda session: actions.choose(session, images=session.selected)),
            (self.clear, lambda session: session.select([])),
            (self.out, lambda session: actions.leave_out(session, session.selected)),
            (self.back, lambda session: actions.put_back(session, session.selected or None)),
            (self.merge, actions.merge_ticked),
            (self.again, lambda session: actions.recluster(session, self.k.value)),
            (self.undo, actions.undo),
            (self.redo, actions.redo),
        ):
            control.on_click(lambda _button, do=do: do(session))
        session.observe(self._selected, "selected")
        self.note.observe(self._noted, "value")
        self.strip.observe(self._struck, "excluded")
        self.strip.observe(self._pointed, "hovered")
        self.strip.on_action(lambda action, index: actions.press_key(session, action, index))

    # --- showing ---------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show what has been decided and what can be."""
        node = self.node
        open_ = node.clusters is not None and self.session.can_edit
        for control in (self.proposal, self.merge, self.again, self.k, self.note):
            control.disabled = not open_
        self.proposal.disabled = not open_ or node.clusters.proposed is None
        self.undo.disabled = not (open_ and node.can_undo)
        self.redo.disabled = not (open_ and node.can_redo)
        self.show_selection()
        self.words.value = self._sentence()
        with self.filling():
            self._fill(node)

    def show_selection(self) -> None:
        """Name the number of selected images on the buttons that use them."""
        n, node = len(self.session.selected), self.node
        open_ = node.clusters is not None and self.session.can_edit
        self.use.description = f"Choose selection ({n})" if n else "Choose selection"
        for control in (self.use, self.out):
            control.disabled = not (open_ and n)
        self.clear.disabled = not n
        self.back.disabled = not (open_ and node.excluded)

    def _fill(self, node: Any) -> None:
        if node.clusters is not None:
            self.k.max = max(2, len(node.seeds))
            self.k.value = len(node.clusters.sizes)
        decision = node.decision
        self.note.value = decision.note if decision else ""
        chosen = sorted({*decision.images, *decision.excluded}) if decision else []
        with self.strip.hold_sync():
            self.strip.thumbnails, self.strip.labels = (
                self.session.gallery_key,
                self.session.labels(),
            )
            self.strip.sections = [{"title": "", "sign": "", "colour": "", "note": "", "ids": chosen}] if chosen else []
            self.strip.excluded = list(node.excluded)
            self.strip.can_exclude = self.session.can_edit

    def _sentence(self) -> str:
        node = self.node
        if node.clusters is None:
            why = "the method stopped at this gallery" if node.stopped else "the features have not been clustered"
            return f"<span>Nothing to decide here: {why}.</span>"
        proposed, decision = node.clusters.proposed, node.decision
        rule = f"The rule proposes cluster {proposed}." if proposed is not None else escape(node.clusters.reason)
        if decision is None:
            return f"<span>{rule} <strong>Nothing is chosen yet.</strong></span>"
        risk = self.run.selection.risk(decision.images)
        branch = " Changing it begins a branch: this node has its Θ already." if node.refined else ""
        return (
            f"<span>{rule} <strong>Taken: {counted_words(decision)}</strong> "
            f"(by {escape(decision.by)}).{branch}</span>"
            + (f'<span class="chosen-warning">⚠ {escape(risk)}</span>' if risk else "")
        )

    # --- hearing ---------------------------------------------------------------------------------------------------

    @guarded
    def _struck(self, change: dict[str, Any]) -> None:
        if not self.is_filling:
            actions.set_excluded(self.session, change["new"])

    @guarded
    def _pointed(self, change: dict[str, Any]) -> None:
        if change["new"] >= 0:
            self.session.hover(change["new"])

    @guarded
    def _noted(self, change: dict[str, Any]) -> None:
        self.session.note = change["new"]
        if not self.is_filling:
            actions.write_note(self.session, change["new"])

    @guarded
    def _selected(self, _change: Any) -> None:
        self.show_selection()
