"""``python -m chosen_one_nb sweep plan.json``: arguments, progress, table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

__all__ = ["add_arguments", "sweep_command"]

BACKENDS = ("own", "dask", "ray", "loky", "threading")
MISSING = "{} is not installed. It comes with: pip install 'chosen_one_nb[sweep]', or leave --backend out."


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Say what the command takes."""
    add = command.add_argument
    add("plan", type=Path, help="JSON: prompts, seeds, vary, settings, preset, sampling, do, models, load")
    add("--folder", type=Path, help="where everything lies (default: runs/sweep-<plan>)")
    add("--workers", type=int, metavar="N", help="processes (default: one per GPU, or one per core)")
    add("--threads", type=int, default=1, metavar="N", help="of PyTorch in each worker (default: 1)")
    add("--backend", choices=BACKENDS, default="own", help="who provides the workers (default: own)")
    add("--address", help="of a running Dask scheduler or Ray cluster (default: a local one is started)")
    add("--check", action="store_true", help="only check the plan and say what it would do")
    add("--quiet", action="store_true", help="say nothing but the table")


def sweep_command(given: argparse.Namespace) -> int:
    """Carry a plan out, or go on with it; 1 where a job failed."""
    from chosen_one_nb.sweep.plan import Plan
    from chosen_one_nb.sweep.sweep import sweep

    plan = Plan.read(given.plan)
    if given.models:
        plan = Plan(**{**plan.to_dict(), "models": given.models})
    folder = given.folder or Path("runs") / f"sweep-{given.plan.stem}"
    if not given.quiet:
        print(_told(plan, folder))
    if given.check:
        return 0
    with workers_of(given.backend, given.workers, given.address), _Progress(given.quiet) as on_progress:
        say = None if given.quiet else partial(print, file=sys.stderr, flush=True)
        table = sweep(plan, folder, workers=given.workers, threads=given.threads, on_progress=on_progress, say=say)
    print(table.drop(columns="folder").to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    print(folder / "table.csv")
    return 1 if (table["error"] != "").any() else 0


def _told(plan: Any, folder: Path) -> str:
    from chosen_one_nb.cli import note_on

    jobs = plan.jobs()
    images = sum(job.settings.n_images for job in jobs)
    what = "whole runs" if plan.do == "run" else f"galleries, {images} images"
    note = f"\n{note_on(plan.sampling)}" if plan.sampling else ""
    return (f"{len(plan.prompts)} prompts x {len(plan.combinations())} settings x {len(plan.seeds)} seeds: "
            f"{len(jobs)} {what}, in {folder}{note}")  # fmt: skip


@contextmanager
def workers_of(backend: str, n: int | None, address: str | None = None) -> Iterator[None]:
    """Make a joblib backend the active one, with a local cluster of its own where no address is given."""
    from joblib import parallel_config

    if backend == "own":
        yield
    elif backend == "dask":
        with _dask(n, address), parallel_config(backend="dask"):
            yield
    elif backend == "ray":
        with _ray(n, address), parallel_config(backend="ray", n_jobs=n or -1):
            yield
    else:
        with parallel_config(backend=backend, n_jobs=n or -1):
            yield


@contextmanager
def _dask(n: int | None, address: str | None) -> Iterator[None]:
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise ModuleNotFoundError(MISSING.format("Dask (dask[distributed])")) from error
    if address:
        with Client(address):
            yield
    else:
        with LocalCluster(n_workers=n, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster):
            yield


@contextmanager
def _ray(n: int | None, address: str | None) -> Iterator[None]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise ModuleNotFoundError(MISSING.format("Ray")) from error
    ray.init(address=address, **({} if address else {"num_cpus": n, "include_dashboard": False}))
    try:
        register_ray()
        yield
    finally:
        ray.shutdown()


class _Progress:
    """A bar with the time left on a terminal, a line per finished stage elsewhere, nothing if quiet."""

    def __init__(self, quiet: bool) -> None:
        self._quiet, self._bar, self._stage = quiet, None, ""

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, event: dict[str, Any]) -> None:
        """Take an event of `chosen_one_nb.sweep.sweep.sweep`."""
        done, total = event["done"], event["total"]
        if self._quiet:
            return
        if sys.stderr.isatty():
            self._draw(event, done, total)
        elif done == total:
            print(f"{event['stage']}: {total} {event['unit']}", flush=True)

    def _draw(self, event: dict[str, Any], done: int, total: int) -> None:
        from tqdm import tqdm

        if event["stage"] != self._stage:
            self.__exit__()
            form = "{desc} {percentage:3.0f}%|{bar}| {n:.0f}/{total} {unit} · {remaining} left"
            self._stage, name = event["stage"], f"  {event['stage']:<9}"
            self._bar = tqdm(total=total, initial=done, desc=name, unit=event["unit"], bar_format=form)
        self._bar.update(done - self._bar.n)
