"""What a cluster shares that nobody asked for: seen before it is learnt, while one can still choose otherwise."""

from __future__ import annotations

from contextlib import suppress
from html import escape
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets
import numpy as np
import traitlets

from chosen_one_nb.analysis.vocabulary import load_vocabulary
from chosen_one_nb.plots import drift_plot, to_svg
from chosen_one_nb.run.decision import RunError

from . import actions
from .attribute_findings import (
    NOT_ASKED,
    AttributeFindings,
    cohesion_strips,
    counterfactual_strips,
    has_clip,
    phrase_strip,
    rows,
    sentences,
    vocabulary_notes,
)
from .figures import ranked_members
from .images import script, style
from .panel import Panel, control, row, text, update
from .session import Session
from .status import guarded
from .tasks import Task

if TYPE_CHECKING:
    from chosen_one_nb.analysis.inquiry import Inquiry

NO_CLUSTER = ("–", -1)
PROVE = (
    "Ask for the opposite of the lit attribute on the same seeds, with the base model and with Θ: what only Θ still "
    "shows is baked in. Images are kept"
)


class AttributesView(anywidget.AnyWidget):
    """The table of attributes in the browser.

    Parameters
    ----------
    thumbnails, labels : str, list of str
        Where the images are, and their alt texts.
    words : list of (str, str)
        Sentences above the table: kind ("plain", "quiet", "warning") and text.
    rows : list of dict
        What `chosen_one_nb.widgets.attribute_findings.rows` gives.
    strips : list of dict
        Images with something laid over them: ``title``, ``note``, ``images`` (``data`` as WebP, ``text``).
    lit : int
        Column of the attribute that map and gallery follow; -1 for none.
    can_choose, can_answer : bool
        Whether the choice, or the answers, can be changed.
    """

    _esm = script("attributes.js")
    _css = style("attributes.css")
    thumbnails = traitlets.Unicode().tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    words = traitlets.List().tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    strips = traitlets.List(traitlets.Dict()).tag(sync=True)
    lit = traitlets.Int(-1).tag(sync=True)
    can_choose = traitlets.Bool(True).tag(sync=True)
    can_answer = traitlets.Bool(True).tag(sync=True)


class AttributePanel(Panel):
    """The attributes of one cluster, and what is done about them."""

    def __init__(self, session: Session, findings: AttributeFindings) -> None:
        super().__init__(session)
        self.findings = findings
        tip = "Whose attributes are shown"
        self.cluster = control(ipywidgets.Dropdown, "cluster", tip, "220px", options=[NO_CLUSTER], value=-1)
        tip = "Find foregrounds and scenes, and ask CLIP about every phrase of the vocabulary"
        self.ask = self.button("ask", "Ask", tip, self._inquire)
        self.prove = self.button("prove", "Prove it", "", lambda _session: self.prove_lit())
        self.about, self.why, self.drift = text("trust"), text("trust"), text("drift")
        self.view = AttributesView()
        self.ui = ipywidgets.VBox(
            [row(self.cluster, self.ask, self.prove, self.why), self.about, self.view, self.drift]
        )
        self._shown: tuple[Any, ...] = ()
        self._drifted: tuple[Inquiry | None, int] = (None, -1)  # what the drift was drawn for
        self._proofs: dict[Any, list[dict[str, Any]]] = {}
        traitlets.link((session, "lit"), (self.view, "lit"))
        self.cluster.observe(self.redraw, "value")
        self.listen(self.view)

    # --- showing ---------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the attributes of a cluster of the iteration shown."""
        session, node = self.session, self.node
        self.ask.disabled = not has_clip(node) or session.busy
        self._fill_clusters()
        inquiry, found = self.findings.inquiry(), self.findings.shared().get(self.cluster.value)
        missing = self._why_not_prove()
        self.prove.tooltip, self.prove.disabled = missing or PROVE, session.busy or bool(missing)
        self.why.value = f"Prove it: {escape(missing[0].lower() + missing[1:])}." if missing else ""
        if inquiry is not None:
            self.ask.description = "Ask again"
            self._show_drift(inquiry)
        if inquiry is None or found is None:
            self._show_nothing(inquiry)
            return
        members = ranked_members(node.clusters, self.cluster.value)
        self.fill(
            self.view,
            can_choose=session.can_edit,
            can_answer=not self.run.read_only,
            words=sentences(inquiry, found),
            rows=rows(inquiry, found, members),
            strips=self._strips(inquiry, members),
        )

    def _show_nothing(self, inquiry: Inquiry | None) -> None:
        """Say why there is no table: not asked, not there yet, no clusters, or something went wrong."""
        background, key = self.session.background, self.findings.key(self.node)
        said = ["quiet", "Asking…" if background.asked(key) else NOT_ASKED]
        if inquiry is not None and self.node.clusters is None:
            said[1] = "This gallery has no clusters to compare. How often attributes occur in it stands below."
        if (error := background.error(key)) is not None:
            said = ["warning", str(error)]
        update(self.view, words=[said], rows=[], strips=self._proof())
        if inquiry is None:
            self.drift.value = self.about.value = ""
            self._drifted = (None, -1)

    def _fill_clusters(self) -> None:
        """Offer the clusters; turn to the chosen or proposed one whenever it, or the grouping, has changed."""
        node, clusters, decision = self.node, self.node.clusters, self.node.decision
        options, first = [NO_CLUSTER], -1
        if clusters is not None:
            marks = {clusters.proposed: ", proposed"} | ({decision.cluster: ", chosen"} if decision else {})
            options = [(f"{c} ({clusters.sizes[c]} images{marks.get(int(c), '')})", int(c)) for c in clusters.order]
            taken = decision.cluster if decision and decision.cluster is not None else clusters.proposed
            first = options[0][1] if taken is None else int(taken)
        now, before = (node.id, node.edits.current.clusters if node.edits.current else None, first), self.cluster.value
        with self.filling():
            self.cluster.options = options
            self.cluster.value = before if now == self._shown and before in dict(options).values() else first
        self._shown = now

    def _show_drift(self, inquiry: Inquiry) -> None:
        groups, file = {attribute.group for attribute in inquiry.attributes}, self.run.attributes.vocabulary_file.name
        self.about.value = escape(
            f"{len(inquiry.attributes)} attributes in {len(groups)} groups, from {file}: edit it, or put a "
            f"vocabulary.json into the run's folder, and ask again{vocabulary_notes(self.findings.vocabulary())}"
        )
        lit = self.session.lit if len(inquiry.galleries) > 1 and self.findings.lit() else -1
        before, lit_before = self._drifted
        if inquiry is not before or lit != lit_before:  # drawing takes a while, and most refreshes change neither
            columns = dict.fromkeys([*inquiry.risen(), *([lit] if lit >= 0 else [])])
            figure = drift_plot(inquiry.drift(list(columns)))
            said = f"<h3>Drift over the iterations</h3><p>{escape(inquiry.headline)}</p>"
            self.drift.value = said + (to_svg(figure) if figure.axes else "")
            self._drifted = (inquiry, lit)

    def _strips(self, inquiry: Inquiry, members: list[int]) -> list[dict[str, Any]]:
        """Where in the images: what the lit attribute shows in, what makes the cluster cohesive, common parts."""
        node, column, background = self.node, self.session.lit, self.session.background
        cluster, key = self.cluster.value, self.findings.key_of_clusters
        key_of_strips = (*key("strips", inquiry), cluster, node.embedding.patches is not None)
        strips = background.get(key_of_strips, lambda: cohesion_strips(node, inquiry, members), [])
        if column < 0:
            return strips
        key_of_heat = (*key("heat", inquiry), cluster, column)
        heat = background.get(key_of_heat, lambda: phrase_strip(self.run, node, inquiry, column, members))
        if (error := background.error(key_of_heat)) is not None:
            heat = {"title": "Where it shows:", "note": str(error), "images": []}
        return [*self._proof(), *([heat] if heat else []), *strips]

    def _why_not_prove(self) -> str:
        """Say what the lit attribute lacks to be proved, "" if nothing."""
        lit = self.findings.lit()
        if lit is None:
            return "Press the name of an attribute first: it is what will be proved"
        if self.session.theta_node is None:
            return "There is no Θ to test yet: it comes with the first refinement"
        return "" if lit.opposite else f"The vocabulary knows no opposite of “{lit.name}” to ask for"

    def _proof_key(self) -> tuple[Any, ...]:
        source, words = self.session.theta_node, self.findings.vocabulary()
        theta = self.run.node(source).theta_digest if source else ""
        return (source, theta, words.digest if words else "", self.session.lit)

    def _proof(self) -> list[dict[str, Any]]:
        """Result of asking for the opposite of the lit attribute; empty before somebody has."""
        return self._proofs.get(self._proof_key(), [])

    # --- doing -----------------------------------------------------------------------------------------------------

    @guarded
    def _inquire(self, session: Session) -> None:
        """Segment the gallery and ask about every phrase, in the background."""
        node, run = self.node, self.run

        def work(task: Task) -> None:
            words = load_vocabulary(run.attributes.vocabulary_file)
            if not run.read_only:
                with suppress(RunError):  # an extractor without patches: the rest is shown, and says so
                    run.attributes.patch_tokens(node, **task.callbacks)
            found = run.attributes.inquiry(node, vocabulary=words, **task.callbacks)
            with run.lock:  # no screen is filled between the new phrases and their answers
                self.findings.take(node, words, found)
            task.message = "Asked: see what it shares below, and on the cards."

        session.tasks.start(work, name="asking what the images share")

    @guarded
    def prove_lit(self) -> None:
        """Ask for the opposite of the lit attribute, with the base models and with Θ, in the background."""
        if missing := self._why_not_prove():
            self.session.status.say(f"{missing}.", "warning")
            return
        lit, key = self.findings.lit(), self._proof_key()
        source, words = self.session.theta_node, self.findings.vocabulary()

        def work(task: Task) -> None:
            found = self.run.attributes.counterfactual([lit], source, vocabulary=words, **task.callbacks)
            self._proofs[key] = counterfactual_strips(found)
            persists = "still shows" if found.table.persists[0] else "does not show beyond doubt"
            task.message = f"Asked “{lit.opposite}”: “{lit.name}” {persists} with Θ; see the images below."

        self.session.tasks.start(work, name=f"asking “{lit.opposite}” instead of “{lit.name}”")

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Do what was pressed: ``{"do": "light" | "answer" | "leave_out" | "prefer_least" | "look", ...}``."""
        match content:
            case {"do": "look", "index": index}:
                self.session.look(int(index))
            case {"do": "light", "column": column}:
                self.session.lit = int(column)
                self.session.refresh()
            case {"do": "answer", "column": column, "answer": answer}:
                self.run.attributes.correct(self.findings.inquiry().attributes[int(column)], answer)
            case {"do": "leave_out", "column": column}:
                self._leave_out(int(column))
            case {"do": "prefer_least", "column": column}:
                clusters = self.node.clusters
                found = self.findings.inquiry().prefer_least(
                    int(column), clusters.labels, clusters.kept, self.cluster.value
                )
                actions.choose(self.session, found.cluster, note=found.reason)

    def _leave_out(self, column: int) -> None:
        """Choose the cluster shown without its images that have an attribute, and without those left out before."""
        cluster, node = self.cluster.value, self.node
        left = np.setdiff1d(node.clusters.members(cluster), node.excluded).astype(int)
        found = self.findings.inquiry().leave_out(column, left)
        if not found.exclude:
            self.session.status.say(f"{found.reason[0].upper()}{found.reason[1:]}.", "warning")
            return
        before = node.decision.note if node.decision and node.decision.cluster == cluster else ""
        reasons = "; ".join(filter(None, (before, found.reason)))
        actions.choose(self.session, cluster, note=reasons, exclude=found.exclude)
        if "must stay" in found.reason:
            self.session.status.say(f"{found.reason[0].upper()}{found.reason[1:]}.", "warning")
