"""What the parts of the screen have in common: they show one iteration of a run and pass on what is clicked.

Besides `Panel` the controls that panels are built of, with what ipywidgets (8.1) leaves out: tooltips beside a label
and on tabs, a tick box with one, and a calm keyboard.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, TypeVar

import anywidget
import ipywidgets
import traitlets
from ipywidgets.widgets.widget_description import DescriptionWidget

from chosen_one_nb.run.node import Node

from .images import script
from .session import Session
from .status import guarded

Control = TypeVar("Control", bound=ipywidgets.DOMWidget)


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
        self.session, self.run = session, session.run
        self._thread = threading.local()
        session.observe(self.redraw, "version")

    @property
    def node(self) -> Node:
        """The iteration that is shown."""
        return self.session.node

    def show(self) -> None:
        """Bring the panel up to the run's present state; called after every change."""
        raise NotImplementedError

    @guarded
    def redraw(self, _change: Any = None) -> None:
        """Show the panel anew: what its controls' values and the session's traits call."""
        if not self.is_filling:
            self.show()

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Set widgets without taking it for something the person did (on this thread only)."""
        self._thread.filling = True
        try:
            yield
        finally:
            self._thread.filling = False

    @property
    def is_filling(self) -> bool:
        """Whether this thread is inside `filling`."""
        return getattr(self._thread, "filling", False)

    def listen(self, view: ipywidgets.Widget) -> None:
        """Hand on to `act` what is pressed in a view: each message in its order, where a trait keeps only the last."""
        view.on_msg(lambda _view, content, _buffers: self.act(content))

    def act(self, content: dict[str, Any]) -> None:
        """Do what was pressed in a view that the panel listens to: ``{"do": ..., ...}``."""
        raise NotImplementedError

    def fill(self, view: ipywidgets.Widget, **traits: Any) -> None:
        """Set traits of a view of the iteration's images, and send them together."""
        update(view, thumbnails=self.session.gallery_key, labels=self.session.labels(), **traits)

    def button(
        self, kind: str, label: str, tip: str, act: Callable[[Session], Any], *, style: str = "", icon: str = ""
    ) -> ipywidgets.Button:
        """Make a button as wide as its label, with a tooltip.

        Parameters
        ----------
        kind : str
            A class for the style sheet and for tests, for example ``"next"`` gives ``chosen-next``.
        label, tip : str
            What it says, and what it does in a sentence.
        act : callable
            What it does, called with the session.
        style : {"", "primary", "success", "warning", "danger"}
            ipywidgets' button style.
        icon : str
            A Font Awesome name.
        """
        layout = ipywidgets.Layout(width="auto")
        made = ipywidgets.Button(description=label, tooltip=tip, button_style=style, icon=icon, layout=layout)
        made.add_class("chosen-button").add_class(f"chosen-{kind}")
        made.on_click(lambda _button: act(self.session))
        return made


def control(kind: type[Control], label: str, tip: str, width: str, **traits: Any) -> Control:
    """Make a control with a tooltip whose label is as wide as its words."""
    layout = ipywidgets.Layout(width=width, max_width="100%")
    return kind(description=label, tooltip=tip, style={"description_width": "auto"}, layout=layout, **traits)


def line(label: str, tip: str, width: str, **traits: Any) -> ipywidgets.Text:
    """Make a field for a line of text; it is sent as a whole.

    Letter by letter, the last ones would be overtaken by a click on a button.
    """
    return control(ipywidgets.Text, label, tip, width, continuous_update=False, **traits)


def text(kind: str = "", value: str = "") -> ipywidgets.HTML:
    """Make a place for HTML, with classes ``chosen-…`` for the style sheet."""
    made = ipywidgets.HTML(value)
    for name in kind.split():
        made.add_class(f"chosen-{name}")
    return made


def row(*children: ipywidgets.Widget, kind: str = "row") -> ipywidgets.HBox:
    """Put widgets side by side, wrapping where the screen is narrow."""
    box = ipywidgets.HBox(children, layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
    return box.add_class("chosen-row").add_class(f"chosen-{kind}")


def framed(title: str, content: ipywidgets.Widget) -> ipywidgets.VBox:
    """Put a panel in a frame with a heading; markup in the heading is shown as text."""
    return ipywidgets.VBox([ipywidgets.HTML(f"<h3>{escape(title)}</h3>"), content]).add_class("chosen-frame")


def help_button(about: str, tip: str) -> str:
    """Write a `?` that opens the popover marked ``data-about`` with the same word (see hints.js)."""
    said = escape(tip)
    return f'<button class="chosen-help" data-help="{escape(about)}" title="{said}" aria-label="{said}">?</button>'


def menu(kind: str, label: str, tip: str, *children: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    """Make a button and the box that it opens: what is needed seldom."""
    layout = ipywidgets.Layout(width="auto")
    button = ipywidgets.ToggleButton(description=label, tooltip=tip, layout=layout)
    button.add_class("chosen-button").add_class("chosen-menu").add_class(f"chosen-{kind}")
    return [button, row(*children, kind="more")]


def offer(part: ipywidgets.DOMWidget, works: bool) -> None:
    """Show a control while it works; one that can do nothing now is not on the screen."""
    part.disabled = not works
    part.layout.display = None if works else "none"


def update(widget: ipywidgets.Widget, **traits: Any) -> None:
    """Set several traits of a widget and send them together."""
    with widget.hold_sync():
        for name, value in traits.items():
            setattr(widget, name, value)


def on_change(widget: ipywidgets.Widget, trait: str, act: Callable[[Any], Any]) -> None:
    """Call `act` with the new value whenever a trait of a widget changes."""
    widget.observe(lambda change: act(change["new"]), trait)


def walk(widget: ipywidgets.Widget) -> Iterator[ipywidgets.Widget]:
    """Give a widget and all those in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


class Switch(anywidget.AnyWidget):
    """Something that is on or off: a tick box whose tooltip shows, which that of ``ipywidgets.Checkbox`` does not.

    Parameters
    ----------
    description : str
        What it is called.
    tooltip : str
        What it does, in a sentence.
    value : bool
        Whether it is on.
    disabled : bool
        Whether it cannot be changed.
    """

    _esm = script("switch.js")

    description = traitlets.Unicode().tag(sync=True)
    tooltip = traitlets.Unicode().tag(sync=True)
    value = traitlets.Bool(False).tag(sync=True)
    disabled = traitlets.Bool(False).tag(sync=True)


class Hints(anywidget.AnyWidget):
    """Gives the controls of the explorer it stands in their tooltips, and keeps its keys; shows nothing itself.

    Parameters
    ----------
    tips : dict of str to str
        What to say of each tab and described control, by its title or description.
    beat : int
        Counts what has been shown. A page that is opened again while work goes on reads the state of all widgets, then
        sets them up, and misses what changes meanwhile: it tells the count it has read, and gets all states again
        where that is not the last.
    """

    _esm = script("hints.js")
    tips = traitlets.Dict().tag(sync=True)
    beat = traitlets.Int().tag(sync=True)

    def __init__(self, screen: ipywidgets.Widget, tips: dict[str, str]) -> None:
        super().__init__(tips=described(screen) | tips)
        self._screen = screen
        self.on_msg(self._hear)

    def _hear(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("want") == "fresh" and content.get("beat") != self.beat:
            for widget in walk(self._screen):
                widget.send_state()


def described(screen: ipywidgets.Widget) -> dict[str, str]:
    """Collect the tooltips of all controls in a widget by their descriptions.

    Raises
    ------
    ValueError
        Two controls have one description and different tooltips.
    """
    found: dict[str, str] = {}
    for each in walk(screen):
        if isinstance(each, DescriptionWidget) and each.description and each.tooltip:
            known = found.setdefault(each.description, each.tooltip)
            if known != each.tooltip:
                raise ValueError(
                    f"Expected one tooltip for “{each.description}”, got {known!r} and {each.tooltip!r}. Rename one."
                )
    return found
