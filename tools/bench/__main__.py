"""``python tools/bench``: measure speed and memory on this machine, or only count what a run will take.

Examples
--------
python tools/bench                                      (how fast, against straight use)
python tools/bench --random sdxl --preset paper --plan  (what SDXL takes, without its weights)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if not __package__:  # run as a folder: the project's root is not on the path
    sys.path.insert(0, str(Path(__file__).parents[2]))

from chosen_one_nb.cli import add_changes, add_common, add_machine, call, models_of, note_on

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run.cost_estimate import Plan
    from chosen_one_nb.settings import Settings

PATIENCE = 600.0
"""Seconds: what is expected to take longer is only counted, unless asked for with --anyway."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure or count as the command line says; return the exit code, as `chosen_one_nb.cli.main` does."""
    parser = argparse.ArgumentParser(
        prog="python tools/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_common(parser)
    add_bench(parser)
    return call(bench_command, parser.parse_args(arguments))


def add_bench(command: argparse.ArgumentParser) -> None:
    """Say what ``bench`` takes."""
    add = command.add_argument
    add_machine(command)
    add("--random", metavar="NAME", help="random weights of full size, without a download: sdxl or sd15")
    add("--preset", help="settings: menagerie, paper or quick (default: the one that the models go with)")
    add("--sampling", help="sampling on top of the preset: full, standard, fast or flash")
    add_changes(command)
    add("--straight", type=int, default=4, metavar="N", help="images and steps of straight use measured (default: 4)")
    add("--threads", type=int, metavar="N", help="processor threads of PyTorch (default: its own choice)")
    add("--workers", type=int, metavar="N", help="also draw the gallery by N processes of one thread each")
    add("--plan", action="store_true", help="only count: operations and memory, without running anything")
    add("--anyway", action="store_true", help=f"run even what is expected to take over {PATIENCE / 60:.0f} minutes")
    add("--tflops", type=float, action="append", default=[], metavar="N", help="say what it takes at this many TFLOP/s")


def bench_command(given: argparse.Namespace) -> int:
    """Print the memory plan, what was measured, and the arithmetic."""
    import torch

    from chosen_one_nb.models.files import ModelError
    from chosen_one_nb.run.cost_estimate import plan
    from tools.bench.measure import arithmetic, bench, matmul_speed

    if given.workers and given.random:
        raise ModelError("--workers: processes load models by name, and random ones have none. Leave one of them out.")
    if given.threads:
        torch.set_num_threads(given.threads)
    settings = _settings(given)
    costs = plan(_counted(given, settings), settings)
    print(costs, end="\n\n")
    if given.sampling:
        print(note_on(given.sampling), end="\n\n")
    speeds = {f"{n:g} asked for": n * 1e12 for n in given.tflops}
    if given.plan:
        print(arithmetic(costs, speeds) if speeds else "", end="\n" if speeds else "")
        return 0
    device, dtype = _place(given)
    here = matmul_speed(device, dtype) * (torch.get_num_threads() if device.type == "cpu" else 1)
    expected = _work(costs) / here
    if expected > PATIENCE and not given.anyway:
        print(f"Not run: at this machine's best, {here / 1e12:.3g} TFLOP/s, it would take {expected / 60:,.0f} minutes "
              f"at least (--anyway runs it, --set n_images=N makes it smaller). By arithmetic:")  # fmt: skip
        print(arithmetic(costs, {"a matrix product here": here, **speeds}))
        return 0
    print(bench(_whole(given), settings, straight=given.straight, workers=given.workers, say=_say))
    if speeds:
        print(arithmetic(costs, speeds))
    return 0


def _say(text: str) -> None:
    print(f"... {text}", file=sys.stderr, flush=True)


def _work(costs: Plan) -> float:
    return costs.gallery + costs["embed"].flops + costs["refine"].flops


def _settings(given: argparse.Namespace) -> Settings:
    from chosen_one_nb.settings import Settings

    settings = Settings.preset(given.preset or Settings.preset_for(given.random or given.models or "menagerie"))
    settings = settings.sampled(given.sampling) if given.sampling else settings
    return settings.replace(**dict(given.set))


def _place(given: argparse.Namespace) -> tuple[Any, Any]:
    import torch

    from chosen_one_nb.models.offload import best_device, best_dtype

    device = torch.device(given.device) if given.device else best_device()
    return device, getattr(torch, given.dtype) if given.dtype else best_dtype(device)


def _counted(given: argparse.Namespace, settings: Settings) -> Models:
    """Models to count with; of random ones not even the weights are made."""
    import dataclasses

    if not given.random:
        return _whole(given)
    from tools.bench.random_models import random_models

    device, dtype = _place(given)
    bare = random_models(given.random, extractor=given.extractor or "dinov2-large", device="meta", dtype=dtype)
    return dataclasses.replace(bare, device=device, low_memory=bool(given.low_memory))


def _whole(given: argparse.Namespace) -> Models:
    from chosen_one_nb.models.load import load_models

    if given.random:
        from tools.bench.random_models import random_models

        device, dtype = _place(given)
        eyes, low = given.extractor or "dinov2-large", bool(given.low_memory)
        return random_models(
            given.random, extractor=eyes, device=device, dtype=dtype, low_memory=low, compile=given.compile
        )
    models = models_of(given)
    return load_models(models) if isinstance(models, str) else models


if __name__ == "__main__":
    sys.exit(main())
