"""What of a screen outlives its kernel: a picture in the saved notebook, and files that the browser downloads."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import anywidget
from IPython.display import Image as Shown
from IPython.display import display, update_display
from PIL import Image

from .images import script

REDRAW_AFTER = 2.0
"""Seconds from a change to a new picture; changes in between share it."""
MOST_BYTES = 64 << 20
"""Larger files are too much for the notebook's connection: they lie on disk only."""


class Still:
    """A second output below a widget: a picture of its last state, which a saved notebook shows in its place.

    A style rule hides it while the widget is on the page (explorer.css). JupyterLab shows no picture from the widget's
    own output once the kernel is gone, so it has to be an output of its own.

    Parameters
    ----------
    draw : callable
        Draws the picture; called on a thread of its own after each change.
    """

    def __init__(self, draw: Callable[[], Image.Image]) -> None:
        self._draw, self._id, self._lock = draw, uuid4().hex, threading.Lock()
        self._timer: threading.Timer | None = None
        self._shown = False

    def show(self) -> None:
        """Display the picture; of several displays each is kept up."""
        display(self._picture(), display_id=self._id)
        self._shown = True

    def redraw(self, _change: Any = None) -> None:
        """Put a new picture in the notebook soon."""
        with self._lock:
            if self._shown and self._timer is None:
                self._timer = threading.Timer(REDRAW_AFTER, self._update)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Leave the picture as it is."""
        with self._lock:
            self._shown = False
            if self._timer is not None:
                self._timer.cancel()

    def wait(self) -> None:
        """Wait until a new picture that is due is there."""
        timer = self._timer
        if timer is not None:
            timer.join()

    def _update(self) -> None:
        with self._lock:
            self._timer = None
        with suppress(Exception):  # the run may be changing just now: the picture before stays until the next change
            update_display(self._picture(), display_id=self._id)

    def _picture(self) -> Shown:
        return Shown(data=as_jpeg(self._draw()), format="jpeg")


class Download(anywidget.AnyWidget):
    """Hands files to the browser, which puts them where its downloads go; it has no view."""

    _esm = script("download.js")

    def offer(self, name: str, mime: str, data: bytes) -> bool:
        """Download a file; False where it is too large to be sent."""
        small = len(data) <= MOST_BYTES
        if small:
            self.send({"name": name, "type": mime}, buffers=[data])
        return small


def as_jpeg(image: Image.Image) -> bytes:
    """Encode an image for a notebook: a snapshot takes about 90 kB."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "JPEG", quality=80, optimize=True)
    return file.getvalue()
