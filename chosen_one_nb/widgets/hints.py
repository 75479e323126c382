"""Tooltips where ipywidgets (8.1) shows none, on the control beside a label and on tabs; and a calm keyboard."""

from __future__ import annotations

import anywidget
import traitlets
from ipywidgets import Widget
from ipywidgets.widgets.widget_description import DescriptionWidget

from .images import script
from .panel import walk


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

    def __init__(self, screen: Widget, tips: dict[str, str]) -> None:
        super().__init__(tips=described(screen) | tips)
        self._screen = screen
        self.on_msg(self._hear)

    def _hear(self, _widget: Widget, content: dict, _buffers: object) -> None:
        if content.get("want") == "fresh" and content.get("beat") != self.beat:
            for widget in walk(self._screen):
                widget.send_state()


def described(screen: Widget) -> dict[str, str]:
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
