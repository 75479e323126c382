"""The gallery of an iteration: images in groups, to select, leave out, choose and look at closely.

Keyboard, only while the gallery has the focus: arrows move, space leaves an image out or puts it back, ``s``
selects, ``f`` looks closer, Enter chooses the image's cluster, ``z`` undoes, ``Z`` or ``y`` redoes, Escape clears
the selection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anywidget
import traitlets

from .images import HERE, script

Action = Literal["choose", "undo", "redo"]


class GalleryView(anywidget.AnyWidget):
    """A grid of thumbnails (see `chosen_one_nb.widgets.images.Thumbnails`).

    Parameters
    ----------
    press : callable
        Called with an action and the index of an image (-1 where it has no meaning) when Enter, z or y is pressed.
    name : str
        What the gallery is called by screen readers.
    thumbnails : str
        Whose thumbnails are shown.
    sections : list of dict
        Groups in order: ``ids`` (list of int) and, where there is more to say, ``title``, ``sign``, ``colour``,
        ``note``, ``dropped`` (bool).
    labels : list of str
        Alt text of each image, by index.
    hovered, focused, zoomed : int
        Index of the image pointed at, to scroll to, looked at closely; -1 for none.
    selected, excluded, chosen : list of int
        Indices selected on the screen, left out by the person, and part of the decision.
    size : int
        Side of a tile in pixels, 32 to 256.
    click : {"select", "exclude"}
        What a click on an image does.
    can_exclude : bool
        Whether images can be left out here.
    large : dict
        ``{"index", "data"}``: WebP data of the image looked at closely, in full size.
    empty : str
        What is written when there is nothing to show.
    """

    _esm = script("gallery.js")
    _css = HERE / "gallery.css"

    name = traitlets.Unicode("Images").tag(sync=True)
    thumbnails = traitlets.Unicode().tag(sync=True)
    sections = traitlets.List(traitlets.Dict()).tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    hovered = traitlets.Int(-1).tag(sync=True)
    focused = traitlets.Int(-1).tag(sync=True)
    zoomed = traitlets.Int(-1).tag(sync=True)
    selected = traitlets.List(traitlets.Int()).tag(sync=True)
    excluded = traitlets.List(traitlets.Int()).tag(sync=True)
    chosen = traitlets.List(traitlets.Int()).tag(sync=True)
    size = traitlets.Int(72, min=32, max=256).tag(sync=True)
    click = traitlets.Enum(["select", "exclude"], "select").tag(sync=True)
    can_exclude = traitlets.Bool(True).tag(sync=True)
    large = traitlets.Dict().tag(sync=True)
    empty = traitlets.Unicode("No images yet.").tag(sync=True)

    def __init__(self, press: Callable[[Action, int], Any] = lambda action, index: None, **traits: Any) -> None:
        super().__init__(**traits)
        self.press = press
        self.on_msg(self._hear)

    def _hear(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        index = int(content.get("index", -1))
        match content.get("do"):
            case "choose" | "undo" | "redo" as action:
                self.press(action, index)
            case "toggle" if content.get("trait") in ("selected", "excluded"):
                setattr(self, content["trait"], sorted(set(getattr(self, content["trait"])) ^ {index}))
            case "select":
                self.selected = sorted({int(i) for i in content["ids"]})
