"""A tick box whose tooltip shows; that of ``ipywidgets.Checkbox`` (8.1) does not where there is a description."""

from __future__ import annotations

import anywidget
import traitlets

from .images import script


class Switch(anywidget.AnyWidget):
    """Something that is on or off.

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
