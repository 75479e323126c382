"""``python -m chosen_one_nb bench`` and ``export``: arguments, and what they do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run.cost_estimate import Plan
    from chosen_one_nb.settings import Settings

__all__ = ["add_bench", "add_export", "add_machine", "bench_command", "export_command", "models_of", "note_on"]

PATIENCE = 600.0
"""Seconds: what is expected to take longer is only counted, unless asked for with --anyway."""

MACHINE = ("device", "dtype", "low_memory", "compile", "offline", "extractor", "clip", "distilled")
"""Arguments of `load_models` that the command line may say."""

PRECISIONS = ("float32", "bfloat16", "float16")


def add_machine(command: argparse.ArgumentParser) -> None:
    """Add where and how models run."""
    add = command.add_argument
    add("--device", help="cpu, cuda or mps (default: the best there is)")
    add("--dtype", choices=PRECISIONS, help="precision (default: float32 on the CPU, half precision elsewhere)")
    add("--low-memory", action="store_true", default=None, help="one switch: fit into as little memory as possible")
    add("--compile", action="store_true", help="compile the UNet's transformer blocks when they first draw")
    add("--offline", action="store_true", help="take models from folders and the Hub's cache only")
    add("--extractor", help="feature extractor by folder or Hub id; with --random: dinov2-small, -base, -large, -giant")
    add("--clip", help="CLIP by folder or Hub id")
    add("--distilled", help="LoRA or UNet distilled to few steps: folder, file or Hub id (for --sampling flash)")


def add_changes(command: argparse.ArgumentParser) -> None:
    """Add changes of settings: ``set``, a list of (name, value), from several words or the option several times."""
    about = "change settings, such as n_images=32 refine_steps=60"
    command.add_argument(
        "--set", type=assignment, action="extend", nargs="+", default=[], metavar="NAME=VALUE", help=about
    )


def assignment(text: str) -> tuple[str, Any]:
    """Read "name=value"; the value as JSON where it is JSON, else as text.

    Examples
    --------
    >>> assignment("n_images=32"), assignment("sampler=ddim")
    (('n_images', 32), ('sampler', 'ddim'))
    """
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as n_images=32, got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def models_of(given: argparse.Namespace, name: str | None = None) -> Models | str:
    """Return the models asked for: loaded if anything about the machine is said, else by name."""
    from chosen_one_nb.models.load import load_models

    name = name or given.models or "menagerie"
    said = {key: getattr(given, key) for key in MACHINE if getattr(given, key)}
    return load_models(name, **said) if said else name


def note_on(sampling: str) -> str:
    """Say how a sampling preset changes what is drawn."""
    from chosen_one_nb.settings import SAMPLING

    return f"sampling {sampling}: {SAMPLING[sampling]['note']}"


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


def add_export(command: argparse.ArgumentParser) -> None:
    """Say what ``export`` takes."""
    add = command.add_argument
    add("source", type=Path, help="a run's folder, or a character's: what save, export or another trainer wrote")
    add("--to", type=Path, metavar="FOLDER", help="where to write (default: exports/ in the run's folder)")
    add("--formats", type=lambda text: tuple(text.split(",")), default=("diffusers", "kohya", "comfyui"),
        help="with commas: diffusers, kohya (A1111, Forge), comfyui (default: all)")  # fmt: skip
    add("--node", help="with a run: the node whose character is meant (default: the run's)")
    add("--name", help="file name of LoRA and embeddings, and the word in prompts")
    add("--images", type=Path, nargs="*", metavar="PNG", help="previews, the best first (a run takes its own)")
    add("--embeddings", type=Path, help="the embeddings file, where it does not lie beside the LoRA")


def export_command(given: argparse.Namespace) -> int:
    """Write a run's or a folder's character for other programs; needs no models."""
    from chosen_one_nb import export
    from chosen_one_nb.character import CharacterError

    if (given.source / "run.json").exists():
        folder = _export_run(given)
    else:
        if given.to is None:
            raise CharacterError("--to: expected a folder to write to. Only a run has a place of its own for exports.")
        character = export.read(given.source, embeddings=given.embeddings)
        folder = export.write(character, given.to, given.formats, given.images or None, given.name)
    print("\n".join(str(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md"))
    print(folder / "README.md")
    return 0


def _export_run(given: argparse.Namespace) -> Path:
    from chosen_one_nb.run.run import Run

    run = Run.open(given.source, read_only=True)
    return run.export(given.to, given.node, formats=given.formats, name=given.name)
