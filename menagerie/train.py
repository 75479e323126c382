"""Train the bundled miniature from nothing: ``python -m menagerie.train``.

Each stage reads what the earlier ones left in the output folder, so stages can be run one by one, on two
machines, or again. A stage that was stopped goes on from its checkpoint in the work folder.

On one card, ``--side-by-side`` runs stages that do not wait for each other as processes of their own. On a CPU, two
processes of one thread learn faster than one of two threads (after ``--stages renders``):
``torchrun --nproc-per-node 2 -m menagerie.train --stages unet --threads 1``.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from chosen_one_nb.models.memory import keep_freed_memory
from menagerie.training.context import TrainingContext, TrainingError
from menagerie.training.data import renders_of
from menagerie.training.recipe import Recipe

TOGETHER = (
    ("renders",),
    ("text", "vae", "dino", "dinov1"),
    ("clip", "reader", "unet"),
    ("controlnet", "ip_adapter", "few_steps"),
)
STAGES = tuple(stage for stages in TOGETHER for stage in stages)


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    arguments = argparse.ArgumentParser(prog="python -m menagerie.train", description=__doc__)
    arguments.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    arguments.add_argument("--preset", choices=("cpu", "gpu"), help="default: gpu where there is a card")
    arguments.add_argument("--device", choices=("cpu", "cuda"), help="default: that of the preset")
    arguments.add_argument("--out", type=Path, default=Path("data/menagerie"), help="where the models are saved")
    arguments.add_argument("--work", type=Path, default=Path("work/menagerie"), help="renders and checkpoints")
    arguments.add_argument(
        "--from-saved", action="store_true", help="without a checkpoint, go on from the models in the output folder"
    )
    arguments.add_argument("--side-by-side", action="store_true", help="stages that need not wait as one process each")
    arguments.add_argument("--threads", type=int, help="processor threads (default: all cores)")
    arguments.add_argument("--set", nargs="+", default=[], metavar="NAME=NUMBER", help="change numbers of the recipe")
    arguments.add_argument("--minutes", type=float, help="time budget of each chosen stage, instead of the preset's")
    return arguments


def context_of(given: argparse.Namespace) -> TrainingContext:
    """What the stages are given; under ``torchrun``, that of this process.

    Raises
    ------
    TrainingError
        If a card is asked for and there is none.
    """
    card = torch.cuda.is_available()
    preset = given.preset or ("gpu" if card else "cpu")
    device = given.device or {"cpu": "cpu", "gpu": "cuda"}[preset]
    if device == "cuda" and not card:
        raise TrainingError(
            f"--preset {preset} on a card: PyTorch sees none here; give --preset cpu, or --device cpu to try it anyway."
        )
    try:
        recipe = Recipe.preset(preset).with_words(given.set)
    except ValueError as error:
        raise TrainingError(f"--set: {error}") from error
    if given.minutes is not None:
        recipe = recipe.replace(minutes=dict.fromkeys(recipe.minutes, given.minutes))
    context = TrainingContext(recipe, given.work, given.out, device, given.from_saved)
    rank = context.accelerator.process_index
    if rank:  # draws other batches, and does not save what ships
        out = shutil.copytree(given.out, given.work / f"process{rank}", dirs_exist_ok=True)
        context = dataclasses.replace(context, recipe=recipe.replace(seed=recipe.seed + rank), out=out)
    return context


def run_stage(stage: str, context: TrainingContext) -> None:
    """Run one stage in this process."""
    if stage == "renders":
        renders_of(context)
    else:
        importlib.import_module(f"menagerie.training.{stage}").train(context)


def run_side_by_side(stages: list[str], argv: list[str]) -> None:
    """Run stages as processes of this command, those of a row of `TOGETHER` at once.

    Raises
    ------
    TrainingError
        If one of them fails, once the others of its row have ended.
    """
    words = [word for word in argv if word != "--side-by-side"]
    for row in TOGETHER:
        started = {
            stage: subprocess.Popen([sys.executable, "-m", "menagerie.train", *words, "--stages", stage])
            for stage in row
            if stage in stages
        }
        failed = [stage for stage, process in started.items() if process.wait()]
        if failed:
            raise TrainingError(f"stages that failed, see above: {', '.join(failed)}; the same command goes on.")


def main(argv: list[str] | None = None) -> None:
    """Run the chosen stages in order; an error is one sentence, and checkpoints are kept."""
    argv = sys.argv[1:] if argv is None else argv
    given = parser().parse_args(argv)
    try:
        context = context_of(given)
        keep_freed_memory()
        if given.threads:
            torch.set_num_threads(given.threads)
        given.work.mkdir(parents=True, exist_ok=True)
        context.out.mkdir(parents=True, exist_ok=True)
        context.recipe.save(context.out / "recipe.json")
        if given.side_by_side:
            return run_side_by_side(given.stages, argv)
        for stage in STAGES:
            if stage in given.stages:
                run_stage(stage, context)
    except (TrainingError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
