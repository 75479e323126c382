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
from chosen_one_nb.run.decision import RunError

from . import actions
from .attribute_findings import NOT_ASKED, AttributeFindings
from .attribute_rows import notes_of, phrase_strip, proof_strips, rows, strips, words_of
from .images import HERE, script
from .judge import ranked_members
from .panel import Panel, button, row
from .session import Session
from .status import guarded
from .tasks import Task

if TYPE_CHECKING:
    from chosen_one_nb.analysis.inquiry import Inquiry


PROVE = (
    "Ask for the opposite of the lit attribute on the same seeds, with the base model and with Θ: what only Θ still "
    "shows is baked in. Images are kept"
)


class Attributes(anywidget.AnyWidget):
    """The table of attributes in the browser.

    Parameters
    ----------
    thumbnails, labels : str, list of str
        Where the images are, and their alt texts.
    words : list of (str, str)
        Sentences above the table: kind ("plain", "quiet", "warning") and text.
    rows : list of dict
        What `chosen_one_nb.widgets.attribute_rows.rows` gives.
    strips : list of dict
        Images with something laid over them: ``title``, ``note``, ``images`` (``data`` as WebP, ``text``).
    lit : int
        Column of the attribute that map and gallery follow; -1 for none.
    can_choose, can_answer : bool
        Whether the choice, or the answers, can be changed.
    """

    _esm = script("attributes.js")
    _css = HERE / "attributes.css"
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
        self.cluster = ipywidgets.Dropdown(
            options=[("–", -1)], value=-1, description="cluster", tooltip="Whose attributes are shown",
            style={"description_width": "auto"}, layout=ipywidgets.Layout(width="220px"),
        )  # fmt: skip
        tip = "Find foregrounds and scenes, and ask CLIP about every phrase of the vocabulary"
        self.ask = button("Ask", tip, kind="ask")
        self.prove = button("Prove it", "", kind="prove")
        self.about = ipywidgets.HTML()
        self.about.add_class("chosen-trust")
        self.view = Attributes()
        traitlets.link((session, "lit"), (self.view, "lit"))
        self.drift = ipywidgets.HTML()
        self.drift.add_class("chosen-drift")
        self.ui = ipywidgets.VBox([row(self.cluster, self.ask, self.prove, self.about), self.view, self.drift])
        self._shown: tuple[Any, ...] = ()
        self._proofs: dict[Any, list[dict[str, Any]]] = {}
        self.cluster.observe(self._turn, "value")
        self.ask.on_click(lambda _button: self.inquire())
        self.prove.on_click(lambda _button: self.prove_lit())
        self.view.on_msg(lambda _view, content, _buffers: self.act(content))

    # --- showing ---------------------------------------------------------------------------------------------------

    def show(self) -> None:
        """Show the attributes of a cluster of the iteration shown."""
        node = self.node
        self.ask.disabled = node.clip is None or self.session.busy
        self._fill_clusters()
        inquiry, shared, cluster = self.findings.inquiry(), self.findings.shared(), self.cluster.value
        self.prove.tooltip = self._why_not_prove(inquiry) or PROVE
        self.prove.disabled = self.session.busy or self.prove.tooltip != PROVE
        if inquiry is not None:
            self.ask.description = "Ask again"
            self._tell(inquiry)
        if inquiry is None or cluster not in shared:
            self._show_nothing(inquiry)
            return
        with self.view.hold_sync():
            self.view.thumbnails, self.view.labels = self.session.gallery_key, self.session.labels()
            self.view.can_choose = self.session.can_edit
            self.view.can_answer = not self.run.read_only
            self.view.words = words_of(inquiry, shared[cluster])
            self.view.rows = rows(inquiry, shared[cluster], ranked_members(node.clusters, cluster))
            self.view.strips = self._strips(inquiry, cluster)

    def _show_nothing(self, inquiry: Inquiry | None) -> None:
        """Say why there is no table: not asked, not there yet, no clusters, or something went wrong."""
        key = self.findings.key(self.node)
        error = self.session.background.error(key)
        text = "Asking…" if self.session.background.asked(key) else NOT_ASKED
        if inquiry is not None and self.node.clusters is None:
            text = "This gallery has no clusters to compare. How often attributes occur in it stands below."
        with self.view.hold_sync():
            self.view.words = [["warning", str(error)]] if error else [["quiet", text]]
            self.view.rows, self.view.strips = [], self._proof()
        if inquiry is None:
            self.drift.value = self.about.value = ""

    def _fill_clusters(self) -> None:
        clusters, decision = self.node.clusters, self.node.decision
        with self.filling():
            if clusters is None:
                self.cluster.options, self.cluster.value = [("–", -1)], -1
                return
            marks = {clusters.proposed: ", proposed"} | ({decision.cluster: ", chosen"} if decision else {})
            options = [(f"{c} ({clusters.sizes[c]} images{marks.get(int(c), '')})", int(c)) for c in clusters.order]
            first = decision.cluster if decision and decision.cluster is not None else clusters.proposed
            now = (self.node.id, self.node.edit.clusters, first)
            before = self.cluster.value
            if self.cluster.options != tuple(options):
                self.cluster.options = options
            fresh = now != self._shown or before not in range(len(clusters.sizes))
            self.cluster.value = (options[0][1] if first is None else int(first)) if fresh else before
            self._shown = now

    def _tell(self, inquiry: Inquiry) -> None:
        from chosen_one_nb.plots import drift_plot, to_svg

        groups, notes = len({attribute.group for attribute in inquiry.attributes}), notes_of(self.findings.vocabulary())
        self.about.value = escape(
            f"{len(inquiry.attributes)} attributes in {groups} groups, "
            f"from {self.run.attributes.vocabulary_file.name}: edit it, "
            f"or put a vocabulary.json into the run's folder, and ask again{notes and f'. {notes}'}"
        )
        figure = drift_plot(inquiry.drift(self._drawn(inquiry)))
        said = f"<h3>Drift over the iterations</h3><p>{escape(inquiry.headline)}</p>"
        self.drift.value = said + (to_svg(figure) if figure.axes else "")

    def _drawn(self, inquiry: Inquiry) -> list[int]:
        """Attributes whose drift is drawn: those that rose most, and the lit one."""
        lit = [self.session.lit] if len(inquiry.galleries) > 1 and self.findings.lit(inquiry) else []
        return list(dict.fromkeys([*inquiry.risen(), *lit]))

    def _strips(self, inquiry: Inquiry, cluster: int) -> list[dict[str, Any]]:
        """Where in the images: what the lit attribute shows in, what makes the cluster cohesive, common parts."""
        node, column = self.node, self.session.lit
        members = ranked_members(node.clusters, cluster)
        look = self.session.background.get(
            (*self.findings.key_of_clusters("strips", inquiry), cluster, node.patches is not None),
            lambda: strips(node, inquiry, members), [])  # fmt: skip
        if column < 0:
            return look
        key = (*self.findings.key_of_clusters("heat", inquiry), cluster, column)
        heat = self.session.background.get(key, lambda: self._phrase_strip(inquiry, column, members), None)
        if (error := self.session.background.error(key)) is not None:
            heat = {"title": "Where it shows:", "note": str(error), "images": []}
        return [*self._proof(), *([heat] if heat else []), *look]

    def _why_not_prove(self, inquiry: Inquiry | None) -> str:
        """Say what the lit attribute lacks to be proved, "" if nothing."""
        lit = self.findings.lit(inquiry)
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
        """What came of asking for the opposite of the lit attribute; empty before somebody has."""
        return self._proofs.get(self._proof_key(), [])

    def _phrase_strip(self, inquiry: Inquiry, column: int, members: list[int]) -> dict[str, Any]:
        return phrase_strip(self.run, self.node, inquiry, column, members)

    # --- doing -----------------------------------------------------------------------------------------------------

    @guarded
    def inquire(self) -> None:
        """Segment the gallery and ask about every phrase, in the background."""
        node = self.node

        def work(task: Task) -> None:
            words = load_vocabulary(self.run.attributes.vocabulary_file)
            if not self.run.read_only:
                with suppress(RunError):  # an extractor without patches: the rest is shown, and says so
                    self.run.attributes.patch_tokens(node, on_progress=task.report, cancelled=task.cancelled)
            found = self.run.attributes.inquiry(
                node, vocabulary=words, on_progress=task.report, cancelled=task.cancelled
            )
            with self.run.lock:  # no screen is filled between the new phrases and their answers
                self.findings.take(node, words, found)
            task.message = "Asked: see what it shares below, and on the cards."

        self.session.tasks.start(work, name="asking what the images share")

    @guarded
    def prove_lit(self) -> None:
        """Ask for the opposite of the lit attribute, with the base models and with Θ, in the background."""
        inquiry = self.findings.inquiry()
        if (missing := self._why_not_prove(inquiry)) != "":
            self.session.status.say(f"{missing}.", "warning")
            return
        lit, key, source, words = (
            self.findings.lit(inquiry),
            self._proof_key(),
            self.session.theta_node,
            self.findings.vocabulary(),
        )

        def work(task: Task) -> None:
            found = self.run.attributes.counterfactual(
                [lit], source, vocabulary=words, on_progress=task.report, cancelled=task.cancelled
            )
            self._proofs[key] = proof_strips(found)
            persists = "still shows" if found.table.persists[0] else "does not show beyond doubt"
            task.message = f"Asked “{lit.opposite}”: “{lit.name}” {persists} with Θ; see the images below."

        self.session.tasks.start(work, name=f"asking “{lit.opposite}” instead of “{lit.name}”")

    @guarded
    def act(self, content: dict[str, Any]) -> None:
        """Do what was pressed: ``{"do": "light" | "answer" | "leave_out" | "prefer_least" | "look", ...}``."""
        do, column = content.get("do"), int(content.get("column", -1))
        if do == "look":
            self.session.look(int(content["index"]))
        elif do == "light":
            self.light(column)
        elif do == "answer":
            self.run.attributes.correct(self.findings.inquiry().attributes[column], content["answer"])
        elif do == "leave_out":
            self.leave_out(column)
        elif do == "prefer_least":
            self.prefer_least(column)

    @guarded
    def light(self, column: int) -> None:
        """Colour the map by an attribute and sort the gallery by it; -1 goes back to clusters."""
        self.session.lit = column
        self.session.refresh()

    @guarded
    def leave_out(self, column: int) -> None:
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

    @guarded
    def prefer_least(self, column: int) -> None:
        """Choose the cluster that has an attribute least."""
        clusters = self.node.clusters
        found = self.findings.inquiry().prefer_least(column, clusters.labels, clusters.kept, self.cluster.value)
        actions.choose(self.session, found.cluster, note=found.reason)

    @guarded
    def _turn(self, _change: Any) -> None:
        if not self.is_filling:
            self.show()
