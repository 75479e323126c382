"""Carry a plan out: shards to the workers, figures of each job, one table. What is on disk is not done again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, missing
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest, image_seeds
from chosen_one_nb.sweep.plan import Job, Plan
from chosen_one_nb.sweep.tasks import Done, Prepare, Score, Shard, WholeRun
from chosen_one_nb.sweep.worker_pool import Crew, SweepError

__all__ = ["sweep"]


def sweep(
    plan: Plan,
    folder: str | Path,
    *,
    workers: int | None = None,
    threads: int = 1,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> pd.DataFrame:
    """Do every job of a plan, or what is left of it, and return the table.

    Parameters
    ----------
    plan : Plan
    folder : str or Path
        Where everything lies; the same folder goes on where it stopped, and takes a longer plan too.
    workers : int, optional
        None is one per GPU, or without any one per core and thread. Inside of
        ``joblib.parallel_config(backend=...)`` that backend's workers do it.
    threads : int
        Of PyTorch in each worker.
    on_progress : callable, optional
        Told after each shard: `stage`, `done`, `total`, `unit`.
    say : callable, optional
        Told the memory plan of the job that needs most, and when a worker died.

    Returns
    -------
    DataFrame
        A row per job, in the plan's order; also ``table.csv`` in the folder. `error` says why a job has no
        figures, `seconds` is what its shards took this time, processor time in `cpu`.

    Raises
    ------
    PromptError, ModelError
        For a prompt that the models cannot take, or models that cannot be loaded; nothing is drawn then.
    SweepError
        The workers cannot go on.
    RunInUse
        Another process is at work in the folder.
    """
    place = store.make_folder(Path(folder).expanduser().resolve())
    keeper = store.Lock(place)
    keeper.acquire()
    try:
        with Crew(workers, threads=threads, say=say) as crew:
            work = _Work(plan, place, crew, Callbacks(on_progress))
            if say is not None:
                say(f"Each worker: {work.memory}")
            table = work.runs() if plan.do == "run" else work.galleries()
        store.write_bytes(place / "table.csv", table.to_csv(index=False).encode())
        store.write_json(place / "plan.json", plan.to_dict())
    finally:
        keeper.release()
    return table


class _Work:
    """One call of `sweep`."""

    def __init__(self, plan: Plan, place: Path, crew: Crew, callbacks: Callbacks) -> None:
        self.plan, self.place, self.crew, self.callbacks = plan, place, crew, callbacks
        self.jobs = plan.jobs()
        self.took = {job.folder: [0.0, 0.0] for job in self.jobs}
        self.errors: dict[Path, str] = {}
        self.fingerprint, self.memory = self._prepared()
        for job in self.jobs:
            store.make_folder(place / job.folder)

    def _prepared(self) -> tuple[str, str]:
        """Let one worker load the models and check the prompts, before anything is drawn."""
        asked = tuple((job.prompt, job.settings) for job in self.jobs if job.settings.seed == self.plan.seeds[0])
        [(_, done)] = self.crew.do([Prepare(self.plan.loads, asked)])
        if done.error:
            raise SweepError(done.error)
        return done.value

    def galleries(self) -> pd.DataFrame:
        """Draw what is missing of all galleries, then see and measure each."""
        shards = [(job, shard) for job in self.jobs for shard in self._shards(job)]
        every = sum(job.settings.n_images for job in self.jobs)
        there = every - sum(len(shard.block) for _, shard in shards)
        self._do(shards, "draw", "images", every, there)
        scores = [(job, self._score(job)) for job in self.jobs if job.folder not in self.errors]
        return self._table(self._do(scores, "score", "galleries", len(scores), 0))

    def runs(self) -> pd.DataFrame:
        """Carry every run to its end."""
        runs = [(job, WholeRun(job.prompt, job.settings, self.place / job.folder / "run", self.plan.loads,
                               self.fingerprint)) for job in self.jobs]  # fmt: skip
        return self._table(self._do(runs, "run", "runs", len(runs), 0))

    def _gallery(self, job: Job) -> tuple[SamplingRequest, ImageFolder]:
        folder = self.place / job.folder
        request = SamplingRequest(job.prompt, image_seeds(job.settings, 0), job.settings)
        return request, ImageFolder(folder / "gallery", folder, self.fingerprint, about={"sweep": self.place.name})

    def _shards(self, job: Job) -> list[Shard]:
        request, place = self._gallery(job)
        return [Shard(request, place, self.plan.loads, block) for block in missing(request, place)]

    def _score(self, job: Job) -> Score:
        return Score(*self._gallery(job), self.plan.loads, job.prompt)

    def _do(self, tasks: Sequence[tuple[Job, Any]], stage: str, unit: str, total: int, done: int) -> dict[Path, Any]:
        """Do tasks with progress; return what came of each job, and note the errors."""
        found: dict[Path, Any] = {}
        self.callbacks.report(stage, done, total, unit)
        for number, answer in self.crew.do([task for _, task in tasks]):
            job = tasks[number][0]
            self._note(job, answer)
            found[job.folder] = answer.value
            done += answer.value if stage == "draw" and not answer.error else stage != "draw"
            self.callbacks.report(stage, done, total, unit)
        return found

    def _note(self, job: Job, answer: Done) -> None:
        self.took[job.folder][0] += answer.seconds
        self.took[job.folder][1] += answer.cpu
        if answer.error:
            self.errors.setdefault(job.folder, answer.error)

    def _table(self, found: dict[Path, Any]) -> pd.DataFrame:
        rows = []
        for job in self.jobs:
            seconds, cpu = self.took[job.folder]
            figures = found.get(job.folder) or {}
            rows.append({**job.row, **figures, "seconds": round(seconds, 2), "cpu": round(cpu, 2),
                         "error": self.errors.get(job.folder, ""), "folder": str(job.folder)})  # fmt: skip
        return pd.DataFrame(rows)
