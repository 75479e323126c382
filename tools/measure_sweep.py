"""How well workers share a gallery: ``python tools/measure_sweep.py``. To be read on an otherwise idle machine.

Prints the seconds and the processor seconds of one worker and of several, and, as what the cores allow, of plain
processes that draw the same images with no worker pool, no shards and no files.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from chosen_one_nb.models.load import load_models
from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, blocks
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.sweep import prepare
from chosen_one_nb.sweep.workers import WorkerPool, draw_shard

PROMPT = "a sticker of a fox"


def plain(seeds: np.ndarray, settings: Settings, ready, times) -> None:
    """Draw in a process of its own, once all are ready; put (seconds, processor seconds) into times."""
    torch.set_num_threads(1)
    models = load_models()
    generate(models, SamplingRequest(PROMPT, seeds[:1], settings))
    ready.wait()
    begun, cpu = time.perf_counter(), time.process_time()
    generate(models, SamplingRequest(PROMPT, seeds, settings))
    times.put((time.perf_counter() - begun, time.process_time() - cpu))


def plain_processes(n: int, settings: Settings) -> tuple[float, float]:
    """Seconds until the last of n processes is done, and processor seconds of all."""
    context = multiprocessing.get_context("spawn")
    ready, times = context.Barrier(n), context.Queue()
    parts = np.array_split(np.arange(settings.n_images), n)
    running = [context.Process(target=plain, args=(part, settings, ready, times)) for part in parts]
    for process in running:
        process.start()
    found = np.array([times.get() for _ in running])
    for process in running:
        process.join()
    return float(found[:, 0].max()), float(found[:, 1].sum())


def pool_of(n: int, settings: Settings) -> tuple[float, float]:
    """Draw the same by n workers and their shards: seconds from the first to the last one, models loaded."""
    load = {"name": "menagerie"}
    with tempfile.TemporaryDirectory() as folder, WorkerPool(n) as pool:
        warm = settings.replace(n_images=max(2, n), batch_size=1, min_cluster_size=0, target_cluster_size=1)
        [(_, prepared), *_] = pool.do([partial(prepare, load, ((PROMPT, settings),))])
        for name, chosen in (("warm", warm), ("measured", settings)):
            within = store.make_folder(Path(folder) / name)
            place = ImageFolder(within / "gallery", within, prepared.value[0])
            request = SamplingRequest(PROMPT, np.arange(chosen.n_images), chosen)
            begun = time.perf_counter()
            shards = [partial(draw_shard, request, place, load, part) for part in blocks(request)]
            results = [result for _, result in pool.do(shards)]
            seconds = time.perf_counter() - begun
    return seconds, sum(result.cpu for result in results)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--n", type=int, default=128, help="images")
    parser.add_argument("--batch", type=int, default=8, help="images of a shard")
    parser.add_argument("--steps", type=int, default=15)
    given = parser.parse_args()
    settings = Settings(n_images=given.n, batch_size=given.batch, sampling_steps=given.steps)
    n = given.workers
    found = {}
    for name, measured, k in (("1 worker", pool_of, 1), (f"{n} workers", pool_of, n),
                              (f"{n} plain processes", plain_processes, n)):  # fmt: skip
        found[name] = seconds, cpu = measured(k, settings)
        print(f"{name:<20} {seconds:7.1f} s  {cpu:7.1f} s of processor", flush=True)
    (alone, alone_cpu), (shared, shared_cpu), (bare, _) = found.values()
    print(f"speed-up {alone / shared:.2f}, efficiency {alone / shared / n:.2f}; of what {n} plain processes reach: "
          f"{bare / shared:.2f}; processor time {shared_cpu / alone_cpu:.2f} of one worker's")  # fmt: skip


if __name__ == "__main__":
    main()
