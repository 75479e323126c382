"""Find and hold on to images: search by a phrase, add to a selection or take from it, isolate it, give it a name."""

from __future__ import annotations

import ipywidgets
import numpy as np

from .attribute_findings import AttributeFindings, has_clip
from .panel import Panel, control, line, on_change, row, text
from .session import Session
from .status import guarded

MODES = [("replaces", ""), ("adds (shift)", "add"), ("takes away (alt)", "remove")]
UNSAVED = "–"


class LookPanel(Panel):
    """A row of controls above the gallery; what they select can be chosen, left out and taken away."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        tip = "Find images by a phrase, such as “a fox at night”: colours the map and orders the gallery"
        self.phrase = line("search", tip, "230px", placeholder="a fox at night")
        tip = "Select the images that fit the phrase at least so well (cosine of CLIP)"
        self.least = control(
            ipywidgets.FloatSlider, "at least", tip, "220px", value=1.0, min=0.0, max=1.0, step=0.005,
            continuous_update=False, readout_format=".3f",
        )  # fmt: skip
        tip = "What a lasso does to the selection"
        self.mode = control(ipywidgets.Dropdown, "a lasso", tip, "170px", options=MODES)
        tip = "Show the selected images alone, as large as the map allows, the others grey; again: all"
        self.isolate = self.button("isolate", "Isolate", tip, lambda _session: self._toggle(), icon="search-plus")
        tip = "Select what was saved under a name"
        self.saved = control(ipywidgets.Dropdown, "saved", tip, "150px", options=[UNSAVED])
        tip = "A name for the selection, kept in the run and in its tables"
        self.name = line("as", tip, "130px", placeholder="a name")
        tip = "Save the selection under this name; with nothing selected, forget the name"
        self.save = self.button("save", "Name it", tip, lambda _session: self._save(), icon="bookmark")
        self.count = text("trust")
        find = row(self.phrase, self.least, self.count)
        self.ui = ipywidgets.VBox([find, row(self.mode, self.isolate, self.saved, self.name, self.save)])
        on_change(self.phrase, "value", self._search)
        on_change(self.least, "value", self._select)
        on_change(self.mode, "value", lambda mode: setattr(session, "lasso_mode", mode))
        on_change(self.saved, "value", self._take)
        session.observe(lambda change: change["new"] >= 0 and setattr(self.phrase, "value", ""), "lit")
        session.observe(self.redraw, ["selected", "isolated"])

    def show(self) -> None:
        """Fit the controls to the iteration, the phrase and the selection."""
        session, node, scores = self.session, self.node, self.findings.searched()
        self.phrase.disabled = not has_clip(node)
        self.least.disabled = scores is None
        n, total = len(session.selected), len(node.seeds)
        self.count.value = f"{n} of {total} selected" + self._waiting(scores)
        self.isolate.disabled = not (session.selected or session.isolated)
        self.isolate.description = "Show all" if session.isolated else "Isolate"
        self.save.disabled = self.name.disabled = not session.can_edit
        with self.filling():
            if scores is not None:
                self._fit(float(scores.min()), float(scores.max()))
            self.saved.options = [UNSAVED, *self.run.selection.saved(node)]

    def _waiting(self, scores: np.ndarray | None) -> str:
        session = self.session
        if not session.phrase or scores is not None:
            return ""
        error = session.background.error(("search", self.node.gallery_of, session.phrase))
        return f" · the search failed: {error}" if error else " · searching…"

    def _fit(self, low: float, high: float) -> None:
        """Give the slider the phrase's own range; a new phrase begins with nothing selected."""
        ends = (round(low - 0.005, 3), round(high + 0.005, 3))
        if (self.least.min, self.least.max) != ends:
            with self.least.hold_sync():
                self.least.min, self.least.max = min(ends[0], self.least.max), ends[1]
                self.least.min = ends[0]
                self.least.value = ends[1]

    @guarded
    def _search(self, phrase: str) -> None:
        self.session.phrase = phrase.strip()
        if self.session.phrase:
            self.session.lit = -1
        self.session.refresh()

    @guarded
    def _select(self, least: float) -> None:
        scores = self.findings.searched()
        if not self.is_filling and scores is not None:
            self.session.select(np.flatnonzero(scores >= least))

    @guarded
    def _toggle(self) -> None:
        self.session.isolated = [] if self.session.isolated else list(self.session.selected)

    @guarded
    def _take(self, name: str) -> None:
        if not self.is_filling and name != UNSAVED:
            self.session.select(self.run.selection.saved(self.node).get(name, ()))

    @guarded
    def _save(self) -> None:
        session, name = self.session, self.name.value
        session.make_current()
        self.run.selection.save(name, session.selected)
        n = len(session.selected)
        session.status.say(f"{n} images saved as “{name}”." if n else f"“{name}” is forgotten.", "good")
