"""The image behind the point that is hovered, with its numbers and its true neighbours."""

from __future__ import annotations

import anywidget
import traitlets

from .images import HERE, script


class Preview(anywidget.AnyWidget):
    """A card in a fixed place beside the map; changes after a short dwell.

    Parameters
    ----------
    thumbnails : str
        Where the images are.
    index : int
        The image; -1 for none.
    lines : list of str
        A title and the lines under it.
    neighbours : list of dict
        ``index`` and ``text`` of its nearest images in feature space.
    empty : str
        What is written when nothing is hovered.
    """

    _esm = script("preview.js")
    _css = HERE / "preview.css"
    thumbnails = traitlets.Unicode().tag(sync=True)
    index = traitlets.Int(-1).tag(sync=True)
    lines = traitlets.List(traitlets.Unicode()).tag(sync=True)
    neighbours = traitlets.List(traitlets.Dict()).tag(sync=True)
    empty = traitlets.Unicode("Point at the map to see the image behind a point.").tag(sync=True)
