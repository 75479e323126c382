"""What a worker does: check a plan's prompts, draw a shard, score a gallery, carry out a whole run.

A task is plain data that any backend can send, and doing it twice does no harm: what lies on disk already is
taken from there. Models are loaded once per process and kept.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, draw, draw_block, recipe
from chosen_one_nb.steps.gallery import SamplingRequest

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.settings import Settings

__all__ = ["Done", "Load", "Prepare", "Score", "Shard", "WholeRun", "attempt", "load_of"]

Load = str | Mapping[str, Any]
"""What workers load: a name, or the arguments of `load_models` as plain data."""


@dataclass(frozen=True)
class Done:
    """What came of a task.

    Attributes
    ----------
    value : object
        What it returned; None where it failed.
    error : str
        Why it failed, as a sentence; empty where it did not.
    seconds, cpu : float
        It took, by the clock and of the processor.
    pid : int
        Of the process that did it.
    """

    value: Any
    error: str
    seconds: float
    cpu: float
    pid: int


def attempt(task: Any, threads: int | None = None) -> Done:
    """Do a task in a worker; an error becomes part of the answer, so that other tasks go on.

    Parameters
    ----------
    task : callable
    threads : int, optional
        Of PyTorch meanwhile; None leaves them as they are.
    """
    begun, cpu, value, error = time.monotonic(), time.process_time(), None, ""
    with _threads(threads):
        try:
            value = task()
        except Exception as caught:
            ours = type(caught).__module__.startswith("chosen_one_nb")
            error = str(caught) if ours else f"{type(caught).__name__}: {caught}"
    return Done(value, error, time.monotonic() - begun, time.process_time() - cpu, os.getpid())


@contextmanager
def _threads(n: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(n or before)
        yield
    finally:
        torch.set_num_threads(before)


def load_of(models: Models) -> dict[str, Any]:
    """Return what a worker must be told to load these very models: sources, precision, device, and the switches."""
    return {"name": models.name, **models.recipe, **models.machine}


def models_of(load: Load) -> Models:
    """Load models once per process."""
    return _loaded(json.dumps({"name": load} if isinstance(load, str) else dict(load), sort_keys=True))


@lru_cache(maxsize=1)
def _loaded(load: str) -> Models:
    from chosen_one_nb.models.load import load_models

    return load_models(**json.loads(load))


def same_models(load: Load, fingerprint: str) -> Models:
    """Load models and see that they are those that were meant."""
    models = models_of(load)
    if models.fingerprint != fingerprint:
        from chosen_one_nb.run.state import ModelsDiffer

        name = load if isinstance(load, str) else load["name"]
        raise ModelsDiffer(
            f"Expected the models {fingerprint[:8]}, but a worker that loads {name!r} gets "
            f"{models.fingerprint[:8]}. Workers load models by name: put the same files where each finds them."
        )
    return models


@dataclass(frozen=True)
class Prepare:
    """Load the models and check every prompt with its caption; returns their fingerprint, and what it will take."""

    models: Load
    asked: tuple[tuple[str, Settings], ...]

    def __call__(self) -> tuple[str, str]:
        """Do it."""
        from chosen_one_nb.run.cost_estimate import estimate_cost
        from chosen_one_nb.run.opening import check_prompt

        models = models_of(self.models)
        for prompt, settings in self.asked:
            check_prompt(models, prompt, settings)
        largest = max((settings for _, settings in self.asked), key=_room)
        return models.fingerprint, str(estimate_cost(models, largest))


def _room(settings: Settings) -> tuple[int, int, int]:
    """What decides how much memory a job needs, as far as settings do."""
    return settings.image_size or 0, settings.batch_size, settings.refine_batch_size


@dataclass(frozen=True)
class Shard:
    """One block of a gallery; returns how many images it holds."""

    request: SamplingRequest
    place: ImageFolder
    models: Load
    block: range

    def __call__(self) -> int:
        """Draw it, unless it is there."""
        models = partial(same_models, self.models, self.place.fingerprint)  # loaded only if need be
        draw_block(self.request, self.place, models, self.block)
        return len(self.block)


@dataclass(frozen=True)
class Score:
    """See a finished gallery and measure it; returns the table's figures, kept beside it."""

    request: SamplingRequest
    place: ImageFolder
    models: Load
    prompt: str

    @property
    def path(self) -> Path:
        """Where the figures are kept."""
        return self.place.within / "scores.json"

    def kept(self) -> dict[str, Any] | None:
        """Return figures made before of the very same gallery, or None."""
        try:
            found = store.read_json(self.path)
        except store.StoreError:
            return None
        return found["figures"] if found.get("gallery") == self._gallery() else None

    def _gallery(self) -> str:
        settings = store.plain(self.request.settings)
        return store.digest(f"{recipe(self.request, self.place.fingerprint)} {self.request.seeds.tolist()} {settings}")

    def __call__(self) -> dict[str, Any]:
        """Measure it, unless that is done."""
        if (found := self.kept()) is not None:
            return found
        models = same_models(self.models, self.place.fingerprint)
        images, _ = draw(self.request, self.place, lambda: models)
        features, figures = gallery_figures(models, images, self.prompt, self.request.settings)
        store.write_array(self.place.within / "features.npy", features)
        store.write_json(self.path, {"gallery": self._gallery(), "figures": figures})
        return figures


def gallery_figures(
    models: Models, images: list[Any], prompt: str, settings: Settings
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a gallery's features (N, D) and its figures.

    `distance` is the mean pairwise distance that d_conv is set against, `similarity` the mean cosine with the
    prompt; `cluster` and `cohesion` are size and cohesion of the cluster that the rule proposes.
    """
    from chosen_one_nb.steps.cluster import cluster
    from chosen_one_nb.steps.converge import mean_pairwise_distance
    from chosen_one_nb.steps.embed import embed, in_space

    features = embed(models, images, settings).cls
    found = cluster(features, settings)
    pick = found.proposed
    similarity = None if models.clip is None else models.clip.images(images) @ models.clip.texts([prompt])[0]
    return features, store.plain({
        "images": len(images),
        "distance": mean_pairwise_distance(in_space(features, settings)),
        "similarity": None if similarity is None else similarity.mean(),
        "cluster": 0 if pick is None else found.sizes[pick],
        "cohesion": None if pick is None else found.cohesion[pick],
    })  # fmt: skip


@dataclass(frozen=True)
class WholeRun:
    """Begin a run or go on with it, to its end; returns the table's figures."""

    prompt: str
    settings: Settings
    folder: Path
    models: Load
    fingerprint: str

    def __call__(self) -> dict[str, Any]:
        """Go to the end."""
        from chosen_one_nb.run.run import Run

        models = same_models(self.models, self.fingerprint)
        there = (self.folder / "run.json").exists()
        run = Run.open(self.folder, models) if there else Run.start(self.prompt, models, self.settings, self.folder)
        with run:
            if run.root.settings != self.settings:
                raise store.StoreError(
                    f"{self.folder} holds a run with other settings. Give another --folder.", self.folder
                )
            outcome = run.until_converged()
            curve = run.tables.curve(outcome.node).iloc[-1]
            similarity = run.node(outcome.node).measures.prompt_similarity
            return store.plain({
                "outcome": outcome.state,
                "iterations": int(curve["iteration"]),
                "ratio": float(curve["ratio"]),
                "distance": float(curve["distance"]),
                "similarity": None if similarity is None else float(similarity.mean()),
                "sound": outcome.sound_node or "",
            })  # fmt: skip
