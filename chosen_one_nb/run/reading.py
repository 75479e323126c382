"""Reading what the stages of a node have left on disk, checked, and saying what to do where a file is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
from PIL import Image

from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.store import Stamp, StoreError
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    from chosen_one_nb.steps.converge import GalleryMeasures

T = TypeVar("T")


class StageFiles:
    """The files that the stages of one node have left in its folder.

    Parameters
    ----------
    run : Path
        The run's folder.
    record : dict
        The contents of ``node.json``: which stages are done, with the stamps of their files.
    """

    def __init__(self, run: Path, record: dict[str, Any]) -> None:
        self.run, self.record = run, record
        self.folder = run / "nodes" / record["id"]

    def stamps(self, stage: str) -> Mapping[str, Stamp]:
        """Return the stamps of a stage's files by name; empty where it has not been done."""
        return self.record["stages"].get(stage, {}).get("files", {})

    def read(self, stage: str, name: str, reader: Callable[[Path, Stamp | None], T]) -> T:
        """Read a file of a stage and compare it with its stamp; a `StoreError` says how to make it again."""
        with self.advised(stage):
            return reader(self.folder / name, self.stamps(stage).get(name))

    @contextmanager
    def advised(self, stage: str) -> Iterator[None]:
        """Add to a `StoreError` what makes the damaged file again."""
        try:
            yield
        except StoreError as error:
            # A run that was moved away has no damaged files, and nothing in it can be made again.
            if not self.run.is_dir():
                raise store.gone(self.run) from error
            node = self.record["id"]
            raise StoreError(
                f"{error} run.redo_stage({stage!r}, {node!r}) makes it again, in a shell `python -m chosen_one_nb run "
                f"--folder {quote(str(self.run))} --node {node} --redo {stage}`; everything else is kept.",
                error.path,
            ) from error


class Images(Sequence[Image.Image]):
    """The images of a gallery, read and checked one by one when asked for.

    Parameters
    ----------
    files : StageFiles
    n : int
        How many there are.
    """

    def __init__(self, files: StageFiles, n: int) -> None:
        self._files, self._n = files, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        # One by one: a gallery of 128 images at 1024 pixels would fill 400 MB at once.
        if isinstance(index, slice):
            return [self[i] for i in range(self._n)[index]]
        if not -self._n <= index < self._n:
            raise IndexError(f"expected an image index below {self._n}, got {index}")
        return self._files.read("generate", f"gallery/{index % self._n:03d}.png", store.read_image)

    def latents(self, indices: Sequence[int]) -> np.ndarray:
        """Read the latents that images were decoded from, shape (len(indices), C, h, w) float32."""
        names = [f"gallery/{index:03d}.npy" for index in indices]
        return np.stack([self._files.read("generate", name, store.read_array) for name in names])


class Embedding:
    """Features of a gallery of N images, by the extractor and by CLIP; each part is read when first asked for.

    Parameters
    ----------
    files : StageFiles
        Of the node that keeps the gallery.
    settings : Settings
        Of the node that is looked at: they say what its clusters are made of.
    """

    def __init__(self, files: StageFiles, settings: Settings) -> None:
        self._files, self._settings = files, settings

    @cached_property
    def features(self) -> np.ndarray:
        """Features of whole images, shape (N, D) float32, read-only."""
        return self._files.read("embed", "features.npy", store.read_array)

    @cached_property
    def clip(self) -> np.ndarray | None:
        """CLIP embeddings, unit length, shape (N, D'); None without CLIP."""
        return self._optional("embed", "clip.npy")

    @cached_property
    def patches(self) -> np.ndarray | None:
        """Patch tokens, shape (N, P, D) float16, once `RunAttributes.patch_tokens` has made them; None before."""
        return self._optional("patches", "patches.npy")

    def _optional(self, stage: str, name: str) -> np.ndarray | None:
        return self._files.read(stage, name, store.read_array) if name in self._files.stamps(stage) else None

    @cached_property
    def measures(self) -> GalleryMeasures:
        """What the health check compares of the gallery."""
        from chosen_one_nb.steps.converge import GalleryMeasures

        arrays = self._files.read("embed", "measures.npz", store.read_arrays)
        # The prefix keeps the names of statistics apart from those of the other arrays of the file.
        statistics = {name[2:]: values for name, values in arrays.items() if name.startswith("s_")}
        return GalleryMeasures(self.features, statistics, arrays["thumbnails"], arrays.get("prompt_similarity"))

    @cached_property
    def segmentation(self) -> Segmentation | NotAvailable | None:
        """Foreground and scene of each image, once `RunAttributes.segment` has run; None before.

        NotAvailable, with the reason, where they cannot be told apart.
        """
        if not self._files.stamps("segmentation"):
            return None
        values = self._files.read("segmentation", "segmentation.json", store.read_json)
        if "reason" in values:
            return NotAvailable(values["reason"])
        # The same file holds CLIP's embeddings, see `clip_alone`.
        arrays = {name: self._segmented[name] for name in ("masks", "scores", "foreground", "scene")}
        return Segmentation(**{**values, **arrays})

    @cached_property
    def _segmented(self) -> dict[str, np.ndarray]:
        return self._files.read("segmentation", "segmentation.npz", store.read_arrays)

    @property
    def clip_alone(self) -> tuple[np.ndarray, np.ndarray] | None:
        """CLIP embeddings of foregrounds and of scenes, each (N, D'), beside `segmentation`; None without."""
        if not self.segmentation or "clip_foreground" not in self._segmented:
            return None
        return self._segmented["clip_foreground"], self._segmented["clip_scene"]

    @property
    def clustered_on(self) -> np.ndarray:
        """What clusters are made of, by the setting `cluster_on`: features of images, or of foregrounds (N, D)."""
        found = self.segmentation
        if self._settings.cluster_on == "image" or found is None:
            return self.features
        if isinstance(found, NotAvailable):
            raise RunError(f"cluster_on: foregrounds cannot be compared. {found.reason} Set it to 'image'.")
        return found.foreground

    @property
    def uses_foreground(self) -> bool:
        """Whether it is the foregrounds that are compared here: the settings want it, and they have been found."""
        return self._settings.cluster_on == "foreground" and bool(self.segmentation)
