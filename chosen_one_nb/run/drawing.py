"""Images drawn into a folder, block by block, so that a kill costs one block and no image is drawn twice.

An image on disk counts as drawn when it is whole and its text chunks name the same recipe (prompt,
settings that bear on drawing, models, Θ) and the same seed; everything else is drawn again. Blocks always
hold the same indices, so a gallery that was interrupted ends with the very images it would have had.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.store import Stamp, StoreError
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run.node import Node
    from chosen_one_nb.steps import CancelledCheck, Progress
    from chosen_one_nb.steps.generate import Gallery
    from chosen_one_nb.sweep.worker_pool import Crew

OnImages = Callable[[list[tuple[int, Image.Image]]], None]

CONTEXTS = (
    "at the beach",
    "in the snow",
    "in the forest",
    "in the city",
    "reading a book",
    "holding an avocado",
    "playing with a ball",
    "eating ice cream",
)
"""Eight places and actions to show a character in, after those on the paper's project page."""

BEARING = (
    "sampler", "sampling_steps", "guidance_scale", "guidance_rescale", "image_size", "batch_size",
)  # fmt: skip
"""The settings that change what a seed draws."""


@dataclass(frozen=True)
class Callbacks:
    """What the one who waits wants to hear and may say; every part may be None.

    Parameters
    ----------
    on_progress : callable
        Called with a dict ``stage``, ``done``, ``total``, ``unit``.
    on_images : callable
        Called with a list of (index, image) as images are finished.
    on_step : callable
        Called with a dict at each refinement step.
    cancelled : callable
        Asked at each sampler or training step; True stops.
    crew : Crew
        Workers to draw the images that are missing, see `chosen_one_nb.sweep.worker_pool`.
    """

    on_progress: Progress | None = None
    on_images: OnImages | None = None
    on_step: Callable[[dict[str, Any]], None] | None = None
    cancelled: CancelledCheck | None = None
    crew: Crew | None = None

    def part(self, i: int, n: int) -> Callbacks:
        """Return the calls for the i-th of n equal parts: progress counts over all of them."""
        tell = self.on_progress
        if tell is None:
            return self

        def on_progress(event: dict[str, Any]) -> None:
            done, total = event["done"] + i * event["total"], n * event["total"]
            tell({**event, "done": done, "total": total})

        return dataclasses.replace(self, on_progress=on_progress)


@dataclass(frozen=True)
class Drawing:
    """What to draw and with what.

    Parameters
    ----------
    text : str
        The prompt as the pipeline gets it, but for the context.
    seeds : (N,) int64
        One per image.
    settings : Settings
    character : Character or None
        Θ to put on; None draws with the base models.
    theta : str
        Checksum of Θ's files; empty without one.
    strength : float
        How much of Θ, in [0, 1].
    context : str
        What follows the prompt and counts ``settings.context_weight`` times.
    """

    text: str
    seeds: np.ndarray
    settings: Settings
    character: Character | None = None
    theta: str = ""
    strength: float = 1.0
    context: str = ""

    @property
    def whole(self) -> str:
        """The prompt with its context."""
        return f"{self.text} {self.context}".strip()

    def recipe(self, fingerprint: str) -> str:
        """Return a checksum of everything that bears on the images besides their seeds."""
        bearing = {name: getattr(self.settings, name) for name in BEARING if hasattr(self.settings, name)}
        parts = [self.whole, bearing, self.theta, self.strength if self.theta else 1.0, fingerprint]
        if self.context and self.settings.context_weight != 1:
            parts += [self.context, self.settings.context_weight]
        return store.digest(json.dumps(parts, sort_keys=True))


@dataclass(frozen=True)
class Album:
    """Where images lie.

    Parameters
    ----------
    folder : Path
        Of ``000.png``, ``001.png``, ...; made when the first is drawn.
    within : Path
        The run's folder, which is there already.
    latents : bool
        Whether each image's latents lie beside it as ``000.npy``.
    keep : bool
        Whether what is drawn is written.
    about : dict of str
        More for the images' text chunks.
    """

    folder: Path
    within: Path
    latents: bool = False
    keep: bool = True
    about: dict[str, str] = field(default_factory=dict)


def draw(
    drawing: Drawing,
    album: Album,
    models: Callable[[], Models],
    fingerprint: str,
    calls: Callbacks,
    *,
    stage: str = "generate",
) -> tuple[list[Image.Image], dict[str, Stamp]]:
    """Draw images into an album, taking those that are there already.

    Those that are missing are drawn by one call: the prompt is encoded once and Θ put on once.

    Parameters
    ----------
    drawing : Drawing
    album : Album
    models : callable
        Gives the models; called only when something must be drawn.
    fingerprint : str
        Of these models.
    calls : Callbacks
    stage : str
        What progress is reported as.

    Returns
    -------
    images : list of PIL.Image
    stamps : dict
        File name in the folder -> stamp; those drawn without keeping them have none.
    """
    if calls.crew and album.keep:
        calls.crew.draw(drawing, album, models, fingerprint, calls)
    desk = _Desk(drawing, album, models, fingerprint, calls, stage)
    done: Done = {}
    for block in blocks(drawing):
        if (found := desk.found(block)) is not None:
            done |= found
            desk.report(len(done))
    done |= desk.drawn([index for index in range(len(drawing.seeds)) if index not in done])
    images = [done[index][0] for index in sorted(done)]
    stamps = {name: stamp for index in sorted(done) for name, stamp in done[index][1].items()}
    if album.keep:
        store.flush_all(album.folder, stamps)
    return images, stamps


def typical(node: Node, n: int = 4) -> list[Image.Image]:
    """Return the n most typical images drawn with a node's Θ: those nearest to the mean of their gallery.

    None where no gallery has been drawn with it; the first n where it has not been embedded.
    """
    child = next((child for child in reversed(node.children) if len(child.images)), None)
    if child is None:
        return []
    order = list(range(len(child.images)))
    if child.features is not None:
        from chosen_one_nb.steps.embed import in_space

        points = in_space(child.features, child.settings)
        order.sort(key=lambda i: float(np.linalg.norm(points[i] - points.mean(0))))
    return [child.image(i) for i in order[:n]]


def blocks(drawing: Drawing) -> list[range]:
    """Part a gallery's indices at the borders of its batches: any of them draws the same images alone."""
    n, size = len(drawing.seeds), drawing.settings.batch_size
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def draw_block(drawing: Drawing, album: Album, models: Callable[[], Models], fingerprint: str, block: range) -> None:
    """Draw one block into an album, unless it is there already; what `draw` finds later."""
    desk = _Desk(drawing, album, models, fingerprint, Callbacks(), "generate")
    done = desk.found(block) or desk.drawn(list(block))
    store.flush_all(album.folder, [name for _, files in done.values() for name in files])


def missing(drawing: Drawing, album: Album, fingerprint: str) -> list[range]:
    """Return the blocks that are not on disk, or not as they should be."""
    desk = _Desk(drawing, album, _no_models, fingerprint, Callbacks(), "generate")
    return [block for block in blocks(drawing) if desk.found(block) is None]


def _no_models() -> Models:
    raise AssertionError("nothing is to be drawn here")


Done = dict[int, tuple[Image.Image, dict[str, Stamp]]]
"""Images by index, with the stamps of their files."""


@dataclass(frozen=True)
class _Desk:
    """One call of `draw`."""

    drawing: Drawing
    album: Album
    models: Callable[[], Models]
    fingerprint: str
    calls: Callbacks
    stage: str

    def found(self, block: range) -> Done | None:
        """Read a block if all its images are there; None where one is missing, damaged or another."""
        try:
            done = {index: self._read(index) for index in block}
        except StoreError:
            return None
        if self.calls.on_images:
            self.calls.on_images([(index, image) for index, (image, _) in done.items()])
        return done

    def _read(self, index: int) -> tuple[Image.Image, dict[str, Stamp]]:
        path = self.album.folder / f"{index:03d}.png"
        data = store.read_bytes(path)
        image = store.read_image(path)
        expected = {"recipe": self.drawing.recipe(self.fingerprint), "seed": str(self.drawing.seeds[index])}
        if any(image.info.get(key) != value for key, value in expected.items()):
            raise StoreError(f"{path} is another image.", path)
        files = {path.name: store.stamp(data)}
        if self.album.latents:
            files |= self._check_latents(index, image.info.get("latents", ""))
        return image, files

    def _check_latents(self, index: int, checksum: str) -> dict[str, Stamp]:
        path = self.album.folder / f"{index:03d}.npy"
        stamp = store.stamp(store.read_bytes(path))
        if stamp["sha256"] != checksum:
            raise StoreError(f"{path} is damaged.", path)
        return {path.name: stamp}

    def drawn(self, indices: list[int]) -> Done:
        """Draw images by one call of `generate`; each batch is written while the next one is drawn."""
        from chosen_one_nb.steps.generate import generate

        if not indices:
            return {}
        drawing, models, before = self.drawing, self.models(), len(self.drawing.seeds) - len(indices)
        done: Done = {}
        waiting: list[Future[Done]] = []
        with ThreadPoolExecutor(max_workers=1) as writer:

            def keep(places: range, part: Gallery) -> None:
                """Tell of a batch, and write it while the next is drawn; at most one waits to be written."""
                mine = [indices[place] for place in places]
                if self.calls.on_images:
                    self.calls.on_images(list(zip(mine, part.images, strict=True)))
                while waiting:
                    done.update(waiting.pop().result())
                waiting.append(writer.submit(self._kept, mine, part))

            generate(
                models, drawing.text, drawing.seeds[indices], drawing.settings, character=drawing.character,
                strength=drawing.strength, context=drawing.context, cancelled=self.calls.cancelled, on_batch=keep,
                on_progress=lambda event: self.report(before + len(indices) * event["done"] / event["total"]),
            )  # fmt: skip
            while waiting:
                done.update(waiting.pop().result())
        return done

    def _kept(self, indices: list[int], part: Gallery) -> Done:
        """Write a part of the gallery, if it is to be kept."""
        if not self.album.keep:
            return {index: (image, {}) for index, image in zip(indices, part.images, strict=True)}
        store.make_folder(self.album.folder, within=self.album.within)
        return {index: self._write(index, part, i) for i, index in enumerate(indices)}

    def _write(self, index: int, gallery: Gallery, i: int) -> tuple[Image.Image, dict[str, Stamp]]:
        """Write one image after its latents, so that an image there is an image whole."""
        files = {}
        about = self._about(index)
        if self.album.latents:
            name = f"{index:03d}.npy"
            files[name] = store.write_array(self.album.folder / name, gallery.latents[i], flush=False)
            about["latents"] = files[name]["sha256"]
        name = f"{index:03d}.png"
        files[name] = store.write_image(self.album.folder / name, gallery.images[i], about, flush=False)
        return gallery.images[i], files

    def _about(self, index: int) -> dict[str, str]:
        return {
            **self.album.about,
            "prompt": self.drawing.whole,
            "seed": str(self.drawing.seeds[index]),
            "index": str(index),
            "settings": self.drawing.settings.model_dump_json(),
            "theta": self.drawing.theta,
            "strength": str(self.drawing.strength),
            "models": self.fingerprint,
            "recipe": self.drawing.recipe(self.fingerprint),
        }

    def report(self, done: float) -> None:
        """Say how many of all images are done."""
        if self.calls.on_progress:
            total = len(self.drawing.seeds)
            event = {"stage": self.stage, "done": min(done, total), "total": total, "unit": "images"}
            self.calls.on_progress(event)
