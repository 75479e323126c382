"""Prompts x settings x seeds on several workers: a plan, its shards on disk, the workers, a table.

A shard is a batch of one gallery (or a whole run), and lies on disk once it is done; doing it again does
nothing. Its images depend on their own seeds and on nothing else, so any number of workers, killed or not,
leaves the same files. The workers are joblib's: processes of this machine, or Dask's or Ray's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, draw, missing, recipe
from chosen_one_nb.steps import Callbacks, NumericalError
from chosen_one_nb.steps.gallery import SamplingRequest, broken_images, image_seeds, tell_broken
from chosen_one_nb.sweep.plan import SweepJob, SweepPlan
from chosen_one_nb.sweep.workers import SweepError, TaskResult, WorkerPool, draw_shard, load_same_models

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.settings import Settings

__all__ = ["SweepError", "SweepPlan", "sweep"]


def sweep(
    plan: SweepPlan,
    folder: str | Path,
    *,
    workers: int | None = None,
    threads: int = 1,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Do every job of a plan, or what is left of it, and return the table.

    Parameters
    ----------
    plan : SweepPlan
    folder : str or Path
        Where everything lies; the same folder goes on where it stopped, and takes a longer plan too.
    workers : int, optional
        None is one per GPU, or without any one per core and thread. Inside of
        ``joblib.parallel_config(backend=...)`` that backend's workers do it.
    threads : int
        Of PyTorch in each worker.
    on_progress : callable, optional
        Called after each shard with a dict: `stage`, `done`, `total`, `unit`.
    on_message : callable, optional
        Called with the memory plan of the job that needs most, and with a sentence when a worker died.

    Returns
    -------
    DataFrame
        A row per job, in the plan's order; also ``table.csv`` in the folder. `error` says why a job has no
        figures, `seconds` is what its shards took this time, processor time in `cpu`.

    Raises
    ------
    SweepError
        A prompt that the models cannot take, or models that cannot be loaded (nothing is drawn then); the workers
        cannot go on.
    RunInUse
        Another process is at work in the folder.
    """
    place = store.make_folder(Path(folder).expanduser().resolve())
    lock = store.Lock(place)
    lock.acquire()
    try:
        with WorkerPool(workers, threads=threads, on_message=on_message) as pool:
            work = _Sweep(plan, place, pool, Callbacks(on_progress))
            if on_message is not None:
                on_message(f"Each worker: {work.memory}")
            table = work.runs() if plan.do == "run" else work.galleries()
        store.write_bytes(place / "table.csv", table.to_csv(index=False).encode())
        store.write_json(place / "plan.json", plan.model_dump())
    finally:
        lock.release()
    return table


class _Sweep:
    """One call of `sweep`."""

    def __init__(self, plan: SweepPlan, place: Path, pool: WorkerPool, callbacks: Callbacks) -> None:
        self.plan, self.place, self.pool, self.callbacks = plan, place, pool, callbacks
        self.jobs, self.load = plan.jobs(), {"name": plan.models, **plan.load}
        self.results: dict[Path, list[TaskResult]] = {job.folder: [] for job in self.jobs}
        # one worker loads the models and checks the prompts before anything is drawn
        asked = tuple((job.prompt, job.settings) for job in self.jobs if job.settings.seed == plan.seeds[0])
        [(_, prepared)] = pool.do([partial(prepare, self.load, asked)])
        if prepared.error:
            raise SweepError(prepared.error)
        self.fingerprint, self.memory = prepared.value
        for job in self.jobs:
            store.make_folder(place / job.folder)

    def galleries(self) -> pd.DataFrame:
        """Draw what is missing of all galleries, then measure each."""
        galleries = {job.folder: self._gallery(job) for job in self.jobs}
        left = [(job, block) for job in self.jobs for block in missing(*galleries[job.folder])]
        shards = [(job, partial(draw_shard, *galleries[job.folder], self.load, block)) for job, block in left]
        total = sum(job.settings.n_images for job in self.jobs)
        self._do("draw", shards, total, total - sum(len(block) for _, block in left))
        drawn = [job for job in self.jobs if not self._error(job)]
        scores = [(job, partial(score, *galleries[job.folder], self.load)) for job in drawn]
        return self._table(self._do("score", scores, len(scores)))

    def runs(self) -> pd.DataFrame:
        """Carry every run to its end."""
        models = self.load, self.fingerprint
        runs = [(job, partial(whole_run, job, self.place / job.folder / "run", *models)) for job in self.jobs]
        return self._table(self._do("run", runs, len(runs)))

    def _gallery(self, job: SweepJob) -> tuple[SamplingRequest, ImageFolder]:
        folder = self.place / job.folder
        request = SamplingRequest(job.prompt, image_seeds(job.settings, 0), job.settings)
        return request, ImageFolder(folder / "gallery", folder, self.fingerprint, about={"sweep": self.place.name})

    def _do(self, stage: str, tasks: Sequence[tuple[SweepJob, Any]], total: int, done: int = 0) -> dict[Path, Any]:
        """Do tasks with progress; note their results and return the last value of each job."""
        unit = {"draw": "images", "score": "galleries", "run": "runs"}[stage]
        values: dict[Path, Any] = {}
        self.callbacks.report(stage, done, total, unit)
        for number, result in self.pool.do([task for _, task in tasks]):
            folder = tasks[number][0].folder
            self.results[folder].append(result)
            values[folder] = result.value
            done += 1 if stage != "draw" else result.value or 0
            self.callbacks.report(stage, done, total, unit)
        return values

    def _error(self, job: SweepJob) -> str:
        return next((result.error for result in self.results[job.folder] if result.error), "")

    def _table(self, figures: Mapping[Path, Any]) -> pd.DataFrame:
        rows = []
        for job in self.jobs:
            results = self.results[job.folder]
            took = {name: round(sum(getattr(result, name) for result in results), 2) for name in ("seconds", "cpu")}
            rows.append(
                {"prompt": job.prompt, **job.varied, "seed": job.settings.seed, **(figures.get(job.folder) or {}),
                 **took, "error": self._error(job), "folder": str(job.folder)}
            )  # fmt: skip
        return pd.DataFrame(rows)


# --- what the workers do


def prepare(load: Mapping[str, Any], asked: Sequence[tuple[str, Settings]]) -> tuple[str, str]:
    """Load the models and check every prompt with its caption; returns their fingerprint, and the memory needed."""
    from chosen_one_nb.run.cost_estimate import estimate_cost
    from chosen_one_nb.run.run import check_prompt

    models = load_same_models(load)
    for prompt, settings in asked:
        check_prompt(models, prompt, settings)
    # what decides how much memory a job needs, as far as settings do
    largest = max((s for _, s in asked), key=lambda s: (s.image_size or 0, s.batch_size, s.refine_batch_size))
    return models.fingerprint, str(estimate_cost(models, largest))


def score(request: SamplingRequest, place: ImageFolder, load: Mapping[str, Any]) -> dict[str, Any]:
    """Measure a finished gallery, unless that is done; returns the table's figures, kept beside it."""
    path, settings = place.within / "scores.json", store.plain(request.settings)
    gallery = store.digest(f"{recipe(request, place.fingerprint)} {request.seeds.tolist()} {settings}")
    with suppress(store.StoreError):
        kept = store.read_json(path)
        if isinstance(kept, dict) and kept.get("gallery") == gallery:
            return kept["figures"]
    models = load_same_models(load, place.fingerprint)
    images, _ = draw(request, place, lambda: models)
    features, figures = gallery_figures(models, images, request)
    store.write_array(place.within / "features.npy", features)
    store.write_json(path, {"gallery": gallery, "figures": figures})
    return figures


def gallery_figures(
    models: Models, images: Sequence[Any], request: SamplingRequest
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a gallery's features (N, D) and its figures.

    `distance` is the mean pairwise distance that d_conv is set against, `similarity` the mean cosine with the
    prompt; `cluster` and `cohesion` are size and cohesion of the cluster that the rule proposes. Broken images are left
    out; `broken` counts them, where there are any.
    """
    from chosen_one_nb.steps.cluster import cluster
    from chosen_one_nb.steps.converge import mean_pairwise_distance
    from chosen_one_nb.steps.embed import embed, in_space

    settings, clip, broken = request.settings, models.clip, broken_images(images)
    images = [image for i, image in enumerate(images) if i not in broken]
    if not images:
        raise NumericalError(tell_broken(broken))
    features = embed(models, images, settings).cls
    clusters = cluster(features, settings)
    proposed = clusters.proposed
    similarity = None if clip is None else (clip.images(images) @ clip.texts([request.prompt])[0]).mean()
    figures = {
        "images": len(images),
        "distance": mean_pairwise_distance(in_space(features, settings)),
        "similarity": similarity,
        "cluster": 0 if proposed is None else clusters.sizes[proposed],
        "cohesion": None if proposed is None else clusters.cohesion[proposed],
        **({"broken": len(broken)} if broken else {}),
    }
    return features, store.plain(figures)


def whole_run(job: SweepJob, folder: Path, load: Mapping[str, Any], fingerprint: str) -> dict[str, Any]:
    """Begin a run or go on with it, to its end; returns the table's figures."""
    from chosen_one_nb.run.run import Run

    models = load_same_models(load, fingerprint)
    there = (folder / "run.json").exists()
    run = Run.open(folder, models) if there else Run.start(job.prompt, models, job.settings, folder)
    with run:
        if run.root.settings != job.settings:
            raise store.StoreError(f"{folder} holds a run with other settings. Give another --folder.", folder)
        outcome = run.until_converged()
        curve = run.tables.curve(outcome.node).iloc[-1]
        similarity = run.node(outcome.node).embedding.measures.prompt_similarity
        figures = {
            "outcome": outcome.state,
            "iterations": int(curve["iteration"]),
            "ratio": float(curve["ratio"]),
            "distance": float(curve["distance"]),
            "similarity": None if similarity is None else float(similarity.mean()),
            "sound": outcome.sound_node or "",
        }
        return store.plain(figures)
