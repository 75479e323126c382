"""``python tools/bench``: measure speed and memory on this machine, or only count what a run will take.

Examples
--------
python tools/bench                                      (how fast, against straight use)
python tools/bench --random sdxl --preset paper --plan  (what SDXL takes, without its weights)
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

if not __package__:  # run as a folder: the project's root is not on the path
    sys.path.insert(0, str(Path(__file__).parents[2]))

from chosen_one_nb.cli import add_changes, add_common, add_machine, call, models_of, note_on
from chosen_one_nb.models.hub import ModelError
from chosen_one_nb.models.load import Models, load_models
from chosen_one_nb.models.memory import best_device, best_dtype
from chosen_one_nb.run.cost_estimate import estimate_cost
from chosen_one_nb.settings import Settings
from tools.bench.measure import arithmetic, bench, matmul_speed, total_flops
from tools.bench.random_models import EXTRACTORS, random_models

PATIENCE = 600.0
"""Seconds: what is expected to take longer is only counted, unless asked for with --anyway."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = top.add_argument
    add_common(top)
    add_machine(top)
    add("--random", metavar="NAME", help="random weights of full size, without a download: sdxl or sd15; "
        f"--extractor is then one of {', '.join(EXTRACTORS)}")  # fmt: skip
    add("--preset", help="settings: menagerie, paper or quick (default: the one that the models go with)")
    add("--sampling", help="sampling on top of the preset: full, standard, fast or flash")
    add_changes(top)
    add("--straight", type=int, default=4, metavar="N", help="images and steps of straight use measured (default: 4)")
    add("--threads", type=int, metavar="N", help="processor threads of PyTorch (default: its own choice)")
    add("--workers", type=int, metavar="N", help="also draw the gallery by N processes of one thread each")
    add("--plan", action="store_true", help="only count: operations and memory, without running anything")
    add("--anyway", action="store_true", help=f"run even what is expected to take over {PATIENCE / 60:.0f} minutes")
    add("--tflops", type=positive, action="append", default=[], metavar="N", help="what it takes at N TFLOP/s")
    return top


def positive(text: str) -> float:
    """Read a finite number above 0.

    Examples
    --------
    >>> positive("250")
    250.0
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or count as the command line says; return the exit code, as `chosen_one_nb.cli.main` does."""
    return call(_bench, parser().parse_args(arguments))


def _bench(given: argparse.Namespace) -> int:
    """Print the cost estimate, what was measured, and the arithmetic."""
    if given.workers and given.random:
        raise ModelError("--workers: processes load models by name, and random ones have none. Leave one of them out.")
    if given.threads:
        torch.set_num_threads(given.threads)
    device = torch.device(given.device) if given.device else best_device()
    dtype = getattr(torch, given.dtype) if given.dtype else best_dtype(device)
    settings = _settings(given)
    costs = estimate_cost(_models(given, device, dtype, counted=True), settings)
    print(costs, end="\n\n")
    if given.sampling:
        print(note_on(given.sampling), end="\n\n")
    speeds = {f"{n:g} asked for": n * 1e12 for n in given.tflops}
    if not given.plan:
        here = matmul_speed(device, dtype) * (torch.get_num_threads() if device.type == "cpu" else 1)
        expected = total_flops(costs) / here
        if expected > PATIENCE and not given.anyway:
            best = f"at this machine's best, {here / 1e12:.3g} TFLOP/s, it would take {expected / 60:,.0f} minutes"
            print(f"Not run: {best} at least (--anyway runs it, --set n_images=N makes it smaller). By arithmetic:")
            speeds = {"a matrix product here": here, **speeds}
        else:
            models = _models(given, device, dtype)
            print(bench(models, settings, straight=given.straight, workers=given.workers, say=_say))
    if speeds:
        print(arithmetic(costs, speeds))
    return 0


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _settings(given: argparse.Namespace) -> Settings:
    settings = Settings.preset(given.preset or Settings.preset_for(given.random or given.models or "menagerie"))
    settings = settings.sampled(given.sampling) if given.sampling else settings
    return settings.replace(**dict(given.set))


def _models(given: argparse.Namespace, device: torch.device, dtype: torch.dtype, *, counted: bool = False) -> Models:
    """The models asked for; of random ones that are only counted not even the weights are made."""
    if not given.random:
        models = models_of(given)
        return load_models(models) if isinstance(models, str) else models
    made = random_models(
        given.random, extractor=given.extractor or "dinov2-large", device="meta" if counted else device, dtype=dtype,
        low_memory=bool(given.low_memory) and not counted, compile=given.compile and not counted,
    )  # fmt: skip
    return dataclasses.replace(made, device=device, low_memory=bool(given.low_memory))


if __name__ == "__main__":
    sys.exit(main())
