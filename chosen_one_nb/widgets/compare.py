"""Two branches side by side: what was decided, what followed, and images on the same seeds."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets
import pandas as pd

from .compare_curve import curves_svg
from .gallery import GalleryView
from .panel import Panel, row
from .session import Session
from .status import guarded
from .wording import chosen_words

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node


class ComparePanel(Panel):
    """Choose two nodes; see their decisions, their figures and the galleries that came of them."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.picks = [_pick("A"), _pick("B")]
        self.table = ipywidgets.HTML()
        for name in ("chosen-table", "chosen-compared"):
            self.table.add_class(name)
        self.heads = [ipywidgets.HTML(), ipywidgets.HTML()]
        self.views = [
            GalleryView(name=f"Gallery {side}", can_exclude=False, size=56, empty="Nothing drawn from it yet.")
            for side in "AB"
        ]
        sides = [
            ipywidgets.VBox([head, view], layout=ipywidgets.Layout(flex="1 1 320px", min_width="0"))
            for head, view in zip(self.heads, self.views, strict=True)
        ]
        self.ui = ipywidgets.VBox([row(*self.picks), ipywidgets.HBox(sides), self.table])
        for pick in self.picks:
            pick.observe(self._redraw, "value")
        self.views[0].observe(lambda change: self._follow(1, change), "hovered")
        self.views[1].observe(lambda change: self._follow(0, change), "hovered")

    def show(self) -> None:
        """Offer all nodes and show the two that are picked."""
        ids = list(self.run.nodes)
        with self.filling():
            for pick, default in zip(self.picks, self._defaults(), strict=True):
                if tuple(pick.options) != tuple(ids):
                    kept = pick.value if pick.value in ids and self._asked else default
                    pick.options = ids
                    pick.value = kept
        self._show_pair()

    _asked = False

    def _defaults(self) -> tuple[str, str]:
        """The latest branch and what it branched from; without branches the shown node and its parent."""
        nodes = list(self.run.nodes.values())
        branches = [node for node in nodes if node.gallery_of != node.id]
        if branches:
            return branches[-1].gallery_of, branches[-1].id
        return (self.node.parent or self.node).id, self.node.id

    def _show_pair(self) -> None:
        pair = [self.run.nodes[pick.value] for pick in self.picks if pick.value]
        if len(pair) < 2:
            return
        for node, head, view in zip(pair, self.heads, self.views, strict=True):
            self._show_side(node, head, view)
        if pair[0].id == pair[1].id:
            self.table.value = "Take two different nodes to see their decisions and figures side by side."
        else:
            self.table.value = _as_html(self.run.compare(*pair)) + _curves(*pair)

    def _show_side(self, node: Node, head: ipywidgets.HTML, view: GalleryView) -> None:
        shown = next((child for child in reversed(node.children) if len(child.images)), None)
        what = f"what came of it: gallery {shown.id}" if shown else "its own gallery, nothing came of it yet"
        shown = shown or node
        head.value = f"<strong>{escape(node.id)}</strong> · {escape(_said(node))} · {escape(what)}"
        if not len(shown.images):
            view.sections = []
            return
        with view.hold_sync():
            view.thumbnails = self.session.thumbnails.send(shown.gallery_of, shown.images)
            view.labels = [f"{shown.id} image {i}, seed {seed}" for i, seed in enumerate(shown.seeds)]
            view.sections = [{"title": "", "sign": "", "colour": "", "note": "", "ids": list(range(len(shown.images)))}]

    def _follow(self, other: int, change: dict[str, Any]) -> None:
        self.views[other].hovered = change["new"]
        self.views[other].focused = change["new"]

    @guarded
    def _redraw(self, _change: Any) -> None:
        if not self.is_filling:
            self._asked = True
            self._show_pair()


def _pick(side: str) -> ipywidgets.Dropdown:
    return ipywidgets.Dropdown(
        options=[],
        description=side,
        tooltip=f"Which iteration to show as {side}",
        style={"description_width": "auto"},
        layout=ipywidgets.Layout(width="140px"),
    )


def _said(node: Node) -> str:
    decision = node.decision
    if decision is None:
        return "nothing chosen"
    note = f", “{decision.note}”" if decision.note else ""
    return f"{chosen_words(decision, 'by hand')}, {len(decision.images)} images, by {decision.by}{note}"


def _curves(a: Node, b: Node) -> str:
    drawn = curves_svg(a, b)
    return f"<figure><figcaption>Mean pairwise distance against d_conv</figcaption>{drawn}</figure>" if drawn else ""


AFTER = ("next ", "last ")
"""How the facts about what followed begin in `Run.compare`."""


def _as_html(table: pd.DataFrame) -> str:
    """Write a comparison as two tables side by side, the choice and what followed, everything in them as text."""
    after = table.index.str.startswith(AFTER)
    parts = (("The choice", table[~after]), ("What came of it", table[after]))
    return "".join(_part(title, part) for title, part in parts if len(part))


def _part(title: str, table: pd.DataFrame) -> str:
    head = "".join(f"<th scope='col'>{escape(str(name))}</th>" for name in table.columns)
    rows = "".join(
        f"<tr><th scope='row'>{escape(_fact(str(name)))}</th>{_cells([_cell(v) for v in values])}</tr>"
        for name, values in zip(table.index, table.itertuples(index=False), strict=True)
    )
    return f"<table><thead><tr><th>{escape(title)}</th>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _fact(name: str) -> str:
    """Name a fact under its heading, which says already that it followed."""
    return f"in the end: {name.removeprefix('last ')}" if name.startswith("last ") else name.removeprefix("next ")


def _cells(values: list[str]) -> str:
    """Write a row's values; bold where they differ."""
    differ = " class='is-changed'" if len(set(values)) > 1 else ""
    return "".join(f"<td{differ}>{escape(value)}</td>" for value in values)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
