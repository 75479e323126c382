"""What the parts of the screen have in common: they show one iteration of a run and pass on what is clicked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets

from .session import Session
from .status import guarded

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node, Run


class Panel:
    """A part of the screen.

    Parameters
    ----------
    session : Session
        What is shown; the panel shows itself anew whenever the session's `version` grows.

    Attributes
    ----------
    ui : ipywidgets.Widget
        What is put on the screen; made once.
    """

    ui: ipywidgets.Widget

    def __init__(self, session: Session) -> None:
        self.session = session
        self._here = threading.local()
        session.observe(self._changed, "version")

    @property
    def run(self) -> Run:
        """The run that is explored."""
        return self.session.run

    @property
    def node(self) -> Node:
        """The iteration that is shown."""
        return self.session.node

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Set widgets without taking it for something the person did (on this thread only)."""
        self._here.filling = True
        try:
            yield
        finally:
            self._here.filling = False

    @property
    def is_filling(self) -> bool:
        """Whether this thread is inside `filling`."""
        return getattr(self._here, "filling", False)

    def show(self) -> None:
        """Bring the panel up to the run's present state; called after every change."""
        raise NotImplementedError

    @guarded
    def _changed(self, _change: Any) -> None:
        self.show()


def button(label: str, tip: str, *, style: str = "", icon: str = "", kind: str = "") -> ipywidgets.Button:
    """Make a button as wide as its label, with a tooltip.

    Parameters
    ----------
    label, tip : str
        What it says, and what it does in a sentence.
    style : {"", "primary", "success", "warning", "danger"}
        ipywidgets' button style.
    icon : str
        A Font Awesome name.
    kind : str
        A class for the style sheet and for tests, for example ``"next"`` gives ``chosen-next``.
    """
    made = ipywidgets.Button(
        description=label, tooltip=tip, button_style=style, icon=icon, layout=ipywidgets.Layout(width="auto")
    )
    made.add_class("chosen-button")
    if kind:
        made.add_class(f"chosen-{kind}")
    return made


def row(*children: ipywidgets.Widget, kind: str = "", **layout: Any) -> ipywidgets.HBox:
    """Put widgets side by side, wrapping where the screen is narrow."""
    box = ipywidgets.HBox(children, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center", **layout))
    box.add_class("chosen-row")
    if kind:
        box.add_class(f"chosen-{kind}")
    return box


def framed(title: str, content: ipywidgets.Widget) -> ipywidgets.VBox:
    """Put a panel in a frame with a heading; markup in the heading is shown as text."""
    head = ipywidgets.HTML(f"<h3>{escape(title)}</h3>")
    box = ipywidgets.VBox([head, content])
    box.add_class("chosen-frame")
    return box
