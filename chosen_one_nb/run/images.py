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
from typing import TYPE_CHECKING, Protocol

from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.store import Stamp, StoreError
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.steps.gallery import Gallery

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


class GalleryWorkers(Protocol):
    """Workers that draw a gallery, block by block, in other processes or on other machines."""

    def draw(
        self, request: SamplingRequest, place: ImageFolder, models: Callable[[], Models], callbacks: Callbacks
    ) -> None:
        """Draw the blocks that `missing` finds."""


def recipe(request: SamplingRequest, fingerprint: str) -> str:
    """Return a checksum of everything that bears on the images besides their seeds."""
    # Only the settings that change an image: a branch with another cluster size finds its gallery drawn already. The
    # batch size is one of them, since kernels for other shapes round differently in the last bit.
    bearing = {name: getattr(request.settings, name) for name in BEARING if hasattr(request.settings, name)}
    theta = request.character_digest
    parts = [request.full_prompt, bearing, theta, request.strength if theta else 1.0, fingerprint]
    # Only where it counts: a prompt that is drawn as it is written is the same image with and without this setting.
    if request.context and request.settings.context_weight != 1:
        parts += [request.context, request.settings.context_weight]
    return store.digest(json.dumps(parts, sort_keys=True))


@dataclass(frozen=True)
class ImageFolder:
    """Where images lie.

    Parameters
    ----------
    folder : Path
        Of ``000.png``, ``001.png``, ...; made when the first is drawn.
    within : Path
        The run's folder, which is there already.
    fingerprint : str
        Of the models; an image of others does not count.
    latents : bool
        Whether each image's latents lie beside it as ``000.npy``.
    keep : bool
        Whether what is drawn is written.
    about : dict of str
        More for the images' text chunks.
    """

    folder: Path
    within: Path
    fingerprint: str
    latents: bool = False
    keep: bool = True
    about: dict[str, str] = field(default_factory=dict)


def draw(
    request: SamplingRequest,
    place: ImageFolder,
    models: Callable[[], Models],
    callbacks: Callbacks = NO_CALLBACKS,
    *,
    stage: str = "generate",
    workers: GalleryWorkers | None = None,
) -> tuple[list[Image.Image], dict[str, Stamp]]:
    """Draw images into a folder, taking those that are there already.

    Those that are missing are drawn by one call: the prompt is encoded once and the character applied once.

    Parameters
    ----------
    request : SamplingRequest
    place : ImageFolder
    models : callable
        Gives the models; called only when something must be drawn.
    callbacks : Callbacks
    stage : str
        What progress is reported as.
    workers : GalleryWorkers, optional
        Who draws the images that are missing; None: this process.

    Returns
    -------
    images : list of PIL.Image
    stamps : dict
        File name in the folder -> stamp; those drawn without keeping them have none.
    """
    # What workers have drawn is on disk by then and found below, and what is not kept they cannot hand over.
    if workers and place.keep:
        workers.draw(request, place, models, callbacks)
    work = _Draw(request, place, models, callbacks, stage)
    done: Done = {}
    for block in blocks(request):
        if (found := _found(request, place, block)) is not None:
            done |= found
            work.show([(index, image) for index, (image, _) in found.items()])
            work.report(len(done))
    done |= work.drawn([index for index in range(len(request.seeds)) if index not in done])
    images = [done[index][0] for index in sorted(done)]
    stamps = {name: stamp for index in sorted(done) for name, stamp in done[index][1].items()}
    if place.keep:
        store.flush_all(place.folder, stamps)
    return images, stamps


def blocks(request: SamplingRequest) -> list[range]:
    """Split a gallery's indices at the borders of its batches: each block alone gives the same images."""
    # Never across batches: a batch of another size rounds differently, and its images would not be the same.
    n, size = len(request.seeds), request.settings.batch_size
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def draw_block(request: SamplingRequest, place: ImageFolder, models: Callable[[], Models], block: range) -> None:
    """Draw one block into a folder, unless it is there already; what `draw` finds later."""
    # A task that is given out again finds what was drawn.
    done = _found(request, place, block) or _Draw(request, place, models).drawn(list(block))
    store.flush_all(place.folder, [name for _, files in done.values() for name in files])


def missing(request: SamplingRequest, place: ImageFolder) -> list[range]:
    """Return the blocks that are not on disk, or not as they should be."""
    return [block for block in blocks(request) if _found(request, place, block) is None]


Done = dict[int, tuple[Image.Image, dict[str, Stamp]]]
"""Images by index, with the stamps of their files."""


def _found(request: SamplingRequest, place: ImageFolder, block: range) -> Done | None:
    """Read a block if all its images are there; None where one is missing, damaged or another."""
    try:
        return {index: _read(request, place, index) for index in block}
    except StoreError:  # whatever is wrong with it, drawing it again gives the same image
        return None


def _read(request: SamplingRequest, place: ImageFolder, index: int) -> tuple[Image.Image, dict[str, Stamp]]:
    path = place.folder / f"{index:03d}.png"
    data, image = store.read_bytes(path), store.read_image(path)
    expected = {"recipe": recipe(request, place.fingerprint), "seed": str(request.seeds[index])}
    if any(image.info.get(key) != value for key, value in expected.items()):
        raise StoreError(f"{path} is another image.", path)
    files = {path.name: store.stamp(data)}
    if place.latents:
        beside = path.with_suffix(".npy")
        files[beside.name] = store.stamp(store.read_bytes(beside))
        if files[beside.name]["sha256"] != image.info.get("latents"):
            raise StoreError(f"{beside} is damaged.", beside)
    return image, files


@dataclass(frozen=True)
class _Draw:
    """One call of `draw`."""

    request: SamplingRequest
    place: ImageFolder
    models: Callable[[], Models]
    callbacks: Callbacks = NO_CALLBACKS
    stage: str = "generate"

    def show(self, images: list[tuple[int, Image.Image]]) -> None:
        """Pass finished images on."""
        if self.callbacks.on_images:
            self.callbacks.on_images(images)

    def drawn(self, indices: list[int]) -> Done:
        """Draw images by one call of `generate`; each batch is written while the next one is drawn."""
        from chosen_one_nb.steps.generate import generate

        if not indices:
            return {}
        request, models, before = self.request, self.models(), len(self.request.seeds) - len(indices)
        done: Done = {}
        waiting: list[Future[Done]] = []
        # Encoding PNGs and waiting for the disk takes about as long as sampling a few images: a thread does it while
        # the device samples the next batch.
        with ThreadPoolExecutor(max_workers=1) as writer:

            def keep(places: range, part: Gallery) -> None:
                """Write a batch while the next is drawn."""
                # At most one batch waits: memory stays bounded, and a full disk stops the run within one batch.
                while waiting:
                    done.update(waiting.pop().result())
                waiting.append(writer.submit(self._kept, [indices[place] for place in places], part))

            generate(
                models,
                dataclasses.replace(request, seeds=request.seeds[indices]),
                Callbacks(
                    lambda event: self.report(before + len(indices) * event["done"] / event["total"]),
                    lambda images: self.show([(indices[place], image) for place, image in images]),
                    cancelled=self.callbacks.cancelled,
                ),
                on_batch=keep,
            )
            while waiting:
                done.update(waiting.pop().result())
        return done

    def _kept(self, indices: list[int], part: Gallery) -> Done:
        """Write a part of the gallery, if it is to be kept."""
        for index, image in zip(indices, part.images, strict=True):
            image.info.update(self._about(index))  # how it was made goes with an image, kept or not
        if not self.place.keep:
            return {index: (image, {}) for index, image in zip(indices, part.images, strict=True)}
        store.make_folder(self.place.folder, within=self.place.within)
        return {index: self._write(index, part, i) for i, index in enumerate(indices)}

    def _write(self, index: int, gallery: Gallery, i: int) -> tuple[Image.Image, dict[str, Stamp]]:
        """Write one image and its latents."""
        # The latents first: an image that is there then stands for a whole pair, and carries their checksum. Not
        # flushed one by one: `draw` waits for the disk once, at the end.
        files = {}
        image, about = gallery.images[i], self._about(index)
        if "broken" in image.info:
            about["broken"] = image.info["broken"]
        if self.place.latents:
            name = f"{index:03d}.npy"
            files[name] = store.write_array(self.place.folder / name, gallery.latents[i], flush=False)
            about["latents"] = files[name]["sha256"]
        name = f"{index:03d}.png"
        files[name] = store.write_image(self.place.folder / name, image, about, flush=False)
        return image, files

    def _about(self, index: int) -> dict[str, str]:
        return {
            **self.place.about,
            "prompt": self.request.full_prompt,
            "seed": str(self.request.seeds[index]),
            "index": str(index),
            "settings": self.request.settings.model_dump_json(),
            "theta": self.request.character_digest,
            "strength": str(self.request.strength),
            "models": self.place.fingerprint,
            "recipe": recipe(self.request, self.place.fingerprint),
        }

    def report(self, done: float) -> None:
        """Report how many of all images are done."""
        total = len(self.request.seeds)  # fractions of an image add up to a little more by rounding
        self.callbacks.report(self.stage, min(done, total), total, "images")
