"""Images on the screen: each travels to the browser once, as WebP, and all views refer to it by number."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import anywidget
import traitlets
from PIL import Image

from chosen_one_nb.models.images import as_rgb

HERE = Path(__file__).parent
SIDE = 96
"""Longest side of a thumbnail in pixels; smaller images are sent as they are."""


def script(name: str) -> str:
    """Read a view's JavaScript, with the helpers of page.js in front of it."""
    return (HERE / "page.js").read_text("utf-8") + (HERE / name).read_text("utf-8")


def style(name: str) -> str:
    """Read a view's style sheet."""
    # Why not its path: anywidget would watch the file, and the watch keeps every view ever made, with its whole screen.
    return (HERE / name).read_text("utf-8")


def webp(image: Image.Image, side: int = SIDE, quality: int = 85) -> bytes:
    """Encode an image as WebP.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; drawn as RGB.
    side : int
        Longest side in pixels; a larger image is reduced to it.
    quality : int
        WebP quality in [0, 100].
    """
    small = as_rgb(image)
    if max(small.size) > side:
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


class ThumbnailBatch(anywidget.AnyWidget):
    """Thumbnails sent together, put into the page's store of images when they arrive; it has no view.

    Parameters
    ----------
    key : str
        Whose thumbnails they are; views ask for ``key/index``.
    indices : list of int
        Index of each.
    data : list of bytes
        WebP, in the same order.
    """

    _esm = script("thumbnails.js")
    key = traitlets.Unicode().tag(sync=True)
    indices = traitlets.List(traitlets.Int()).tag(sync=True)
    data = traitlets.List(traitlets.Bytes()).tag(sync=True)


class Thumbnails:
    """The images of a run's galleries on the page, each of them sent once, in batches as they are made.

    Parameters
    ----------
    name : str
        Prefix of the keys, so that two runs on one page do not mix.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.batches: list[ThumbnailBatch] = []
        self._sent: dict[str, set[int]] = {}
        self._lock = threading.RLock()

    def key(self, gallery: str) -> str:
        """Return what views call a gallery's thumbnails; branches that share a gallery share them."""
        return f"{self.name}/{gallery}"

    def send(
        self,
        gallery: str,
        images: Sequence[Image.Image] | Mapping[int, Image.Image],
        indices: Iterable[int] | None = None,
    ) -> str:
        """Send the images of a gallery that have not been sent yet.

        Parameters
        ----------
        gallery : str
            Id of the node that owns it.
        images : sequence or mapping of int to PIL.Image
            By index; only those that are sent are read.
        indices : iterable of int, optional
            Which of them; None sends all.

        Returns
        -------
        str
            What views call the gallery's thumbnails.
        """
        with self._lock:
            sent = self._sent.setdefault(gallery, set())
            fresh = sorted({*(range(len(images)) if indices is None else indices)} - sent)
            if fresh:
                data = [webp(images[i]) for i in fresh]
                self.batches.append(ThumbnailBatch(key=self.key(gallery), indices=fresh, data=data))
                sent.update(fresh)
        return self.key(gallery)

    def bytes_sent(self) -> int:
        """Return how many bytes of images are on the page."""
        return sum(len(data) for batch in self.batches for data in batch.data)

    def close(self) -> None:
        """Take all images off the page."""
        for batch in self.batches:
            batch.layout.close()
            batch.close()
        self.batches.clear()
        self._sent.clear()
