"""Images on the screen: each travels to the browser once, as WebP, and all views refer to it by number."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import anywidget
import traitlets
from PIL import Image

HERE = Path(__file__).parent
SIDE = 96
"""Longest side of a thumbnail in pixels; smaller images are sent as they are."""


def script(name: str) -> str:
    """Read a view's JavaScript, with the helpers of images.js in front of it."""
    return (HERE / "images.js").read_text("utf-8") + (HERE / name).read_text("utf-8")


def webp(image: Image.Image, side: int | None = SIDE, quality: int = 85) -> bytes:
    """Encode an image as WebP.

    Parameters
    ----------
    image : PIL.Image.Image
        Any mode; drawn as RGB.
    side : int or None
        Longest side in pixels; a larger image is reduced to it, None keeps the size.
    quality : int
        WebP quality in [0, 100].
    """
    small = image.convert("RGB")
    if side is not None and max(small.size) > side:
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


class Album(anywidget.AnyWidget):
    """A batch of thumbnails, put into the page's store of images when it arrives; it has no view.

    Parameters
    ----------
    album : str
        The album's name; views ask for ``album/index``.
    start : int
        Index of the first image of this batch.
    thumbs : list of bytes
        WebP data, in order.
    """

    _esm = script("album.js")
    album = traitlets.Unicode().tag(sync=True)
    start = traitlets.Int(0).tag(sync=True)
    thumbs = traitlets.List(traitlets.Bytes()).tag(sync=True)


class NodeLike(Protocol):
    """What the albums need of an iteration: whose gallery it shows, and the images."""

    gallery_of: str
    images: Sequence[Image.Image]


class Albums:
    """Send the images of a run's galleries, each of them once, in batches as they are made.

    Parameters
    ----------
    name : str
        Prefix of the album names, so that two runs on one page do not mix.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._sent: dict[str, dict[int, int]] = {}
        self._batches: list[Album] = []
        self._lock = threading.RLock()

    def key(self, gallery: str) -> str:
        """Name of a gallery's album; branches that share a gallery share the album."""
        return f"{self.name}/{gallery}"

    def show_gallery(self, node: NodeLike, indices: Iterable[int] | None = None) -> str:
        """Send images of an iteration that have not been sent yet, all by default; return the album's name."""
        wanted = range(len(node.images)) if indices is None else indices
        with self._lock:
            missing = [i for i in wanted if i not in self._sent.get(node.gallery_of, {})]
            return self.add(node.gallery_of, ((i, node.images[i]) for i in missing))

    def add(self, gallery: str, images: Iterable[tuple[int, Image.Image]]) -> str:
        """Send images as they are made, pairs of index and image, each once; return the album's name."""
        with self._lock:
            sent = self._sent.setdefault(gallery, {})
            fresh = [(i, webp(image)) for i, image in sorted(images, key=lambda pair: pair[0]) if i not in sent]
            for batch in _consecutive(fresh):
                self._batches.append(
                    Album(album=self.key(gallery), start=batch[0][0], thumbs=[data for _, data in batch])
                )
                sent.update((index, len(data)) for index, data in batch)
        return self.key(gallery)

    def bytes_sent(self) -> int:
        """How many bytes of images have travelled so far."""
        return sum(size for sent in self._sent.values() for size in sent.values())

    def close(self) -> None:
        """Take all images off the page."""
        for batch in self._batches:
            batch.close()
        self._batches.clear()
        self._sent.clear()


def _consecutive(pairs: list[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    """Cut into runs of consecutive indices."""
    runs: list[list[tuple[int, bytes]]] = []
    for pair in pairs:
        if runs and pair[0] == runs[-1][-1][0] + 1:
            runs[-1].append(pair)
        else:
            runs.append([pair])
    return runs
