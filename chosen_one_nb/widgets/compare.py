"""Comparisons on the same seeds: two branches side by side, and more or less of Θ."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets
import pandas as pd
from PIL import Image

from chosen_one_nb.plots import distance_plot, to_svg
from chosen_one_nb.run.node import Node, image_label

from .gallery import GalleryView
from .panel import Panel, control, on_change, row, text, update
from .session import Session
from .status import chosen_words, guarded
from .tasks import Task


class ComparePanel(Panel):
    """Choose two nodes; see their decisions, their figures and the galleries that followed."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        tip = "Which iteration to show as {}"
        self.picks = [control(ipywidgets.Dropdown, side, tip.format(side), "140px", options=[]) for side in "AB"]
        self.table, self.heads = text("table compared"), [text(), text()]
        self.views = [
            GalleryView(name=f"Gallery {side}", can_exclude=False, size=56, empty="Nothing drawn from it yet.")
            for side in "AB"
        ]
        sides = [
            ipywidgets.VBox([head, view], layout=ipywidgets.Layout(flex="1 1 320px", min_width="0"))
            for head, view in zip(self.heads, self.views, strict=True)
        ]
        self.ui = ipywidgets.VBox([row(*self.picks), ipywidgets.HBox(sides), self.table])
        self._picked = False
        for pick in self.picks:
            pick.observe(self._pick_changed, "value")
        for view, other in zip(self.views, self.views[::-1], strict=True):
            on_change(view, "hovered", lambda index, other=other: update(other, hovered=index, focused=index))

    def show(self) -> None:
        """Offer all nodes and show the two that are picked."""
        ids = tuple(self.run.nodes)
        with self.filling():
            for pick, default in zip(self.picks, self._defaults(), strict=True):
                if pick.options != ids:
                    kept = pick.value if self._picked and pick.value in ids else default
                    pick.options = ids
                    pick.value = kept
        self._show_pair()

    def _defaults(self) -> tuple[str, str]:
        """The latest branch and what it branched from; without branches the shown node and its parent."""
        branches = [node for node in self.run.nodes.values() if node.gallery_of != node.id]
        if branches:
            return branches[-1].gallery_of, branches[-1].id
        return (self.node.parent or self.node).id, self.node.id

    def _show_pair(self) -> None:
        pair = [self.run.nodes[pick.value] for pick in self.picks]
        for node, head, view in zip(pair, self.heads, self.views, strict=True):
            self._show_side(node, head, view)
        if pair[0].id == pair[1].id:
            self.table.value = "Take two different nodes to see their decisions and figures side by side."
        else:
            self.table.value = _as_html(self.run.tables.compare(*pair)) + self._curve(pair)

    def _show_side(self, node: Node, head: ipywidgets.HTML, view: GalleryView) -> None:
        shown = next((child for child in reversed(node.children) if len(child.images)), None)
        what = f"what followed: gallery {shown.id}" if shown else "its own gallery, nothing followed yet"
        shown = shown or node
        head.value = f"<strong>{escape(node.id)}</strong> · {escape(_describe(node))} · {escape(what)}"
        ids = list(range(len(shown.images)))
        update(
            view,
            thumbnails=self.session.thumbnails.send(shown.gallery_of, shown.images),
            labels=[f"{shown.id} {image_label(i, seed)}" for i, seed in enumerate(shown.seeds)],
            sections=[{"ids": ids}] if ids else [],
        )

    def _curve(self, pair: list[Node]) -> str:
        """Draw the mean pairwise distances on the ways of two nodes; empty where nothing has been checked."""
        curve = self.run.tables.curve()
        checked = [[each.id for each in self.session.line(node) if each.check] for node in pair]
        if not all(checked):
            return ""
        shown = curve[curve["node"].isin(checked[0] + checked[1])]
        drawn = to_svg(distance_plot(shown, dict(zip("AB", checked, strict=True)), size=(420, 190)))
        return f"<figure><figcaption>Mean pairwise distance against d_conv</figcaption>{drawn}</figure>"

    @guarded
    def _pick_changed(self, _change: Any) -> None:
        if not self.is_filling:
            self._picked = True
            self._show_pair()


def _describe(node: Node) -> str:
    decision = node.decision
    if decision is None:
        return "nothing chosen"
    note = f", “{decision.note}”" if decision.note else ""
    return f"{chosen_words(decision, 'by hand')}, {len(decision.images)} images, by {decision.by}{note}"


def _as_html(table: pd.DataFrame) -> str:
    """Write a comparison as two tables side by side, the choice and what followed, everything in them as text."""
    after = table.index.str.startswith(("next ", "last "))
    parts = {"The choice": table[~after], "What followed": table[after]}
    tables = "".join(_part_as_html(title, part) for title, part in parts.items() if len(part))
    return f"{tables}<p>Bold: the two differ there. That says nothing of how sure the difference is.</p>"


def _part_as_html(title: str, table: pd.DataFrame) -> str:
    head = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in table.columns)
    body = ""
    for fact, values in zip(table.index, table.itertuples(index=False), strict=True):
        cells = [_cell(value) for value in values]
        differ = " class='is-changed'" if len(set(cells)) > 1 else ""
        name = fact.removeprefix("next ").replace("last ", "in the end: ")
        body += f"<tr><th scope='row'>{escape(name)}</th>"
        body += "".join(f"<td{differ}>{escape(cell)}</td>" for cell in cells) + "</tr>"
    return f"<table><thead><tr><th>{escape(title)}</th>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


class StrengthPanel(Panel):
    """A slider from the base model (0) to the character as learnt (1), on fixed seeds."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        tip = "0 is the base model, 1 the character as learnt"
        self.slider = control(
            ipywidgets.FloatSlider, "strength of Θ", tip, "340px",
            value=1.0, min=0.0, max=1.0, step=0.125, continuous_update=False, readout_format=".3f",
        )  # fmt: skip
        tip = "Draw eight fixed seeds at this strength; kept, so that the slider is quick afterwards"
        self.draw = self.button("draw", "Draw", tip, self._draw, icon="paint-brush")
        self.words = text()
        self.view = GalleryView(name="Eight fixed seeds", can_exclude=False, size=96)
        self.ui = ipywidgets.VBox([row(self.slider, self.draw), self.words, self.view])
        self._counts: dict[str, int] = {}
        self.slider.observe(self.redraw, "value")

    def show(self) -> None:
        """Show the images of this strength, if they have been drawn."""
        session, source, strength = self.session, self.session.theta_node, self.slider.value
        key = f"{source}@{strength:g}"
        if source is not None and key not in self._counts:
            self._keep(key, self.run.samples.drawn_probe(source, strength=strength))
        n = self._counts.get(key, 0)
        self.draw.disabled = source is None or session.busy or n > 0
        self.words.value = (
            f"Θ of node {source}; the same eight seeds at every strength, 0 is the model without it."
            if source
            else "There is no Θ yet: it comes with the first refinement."
        )
        update(
            self.view,
            thumbnails=session.thumbnails.key(key),
            labels=[f"seed {i} at strength {strength:g}" for i in range(n)],
            sections=[{"ids": list(range(n))}] if n else [],
            empty="Not drawn at this strength yet: press Draw." if source else "",
        )

    def _keep(self, key: str, images: list[Image.Image]) -> None:
        if images:
            self.session.thumbnails.send(key, images)
            self._counts[key] = len(images)

    @guarded
    def _draw(self, session: Session) -> None:
        source, strength = session.theta_node, self.slider.value

        def work(task: Task) -> None:
            self._keep(f"{source}@{strength:g}", self.run.samples.probe(source, strength=strength, **task.callbacks))

        session.tasks.start(work, name=f"strength {strength:g}")
