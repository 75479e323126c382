"""Train the bundled miniature from nothing: ``python -m menagerie.train``.

Each stage reads what the earlier ones left in the output folder, so stages can be run one by one, on two
machines, or again. A stage that was stopped goes on from its checkpoint in the work folder.

Two processes of one thread learn faster than one of two threads (after ``--stages renders``):
``torchrun --nproc-per-node 2 -m menagerie.train --stages unet --threads 1``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
from pathlib import Path

import torch
from torch import distributed

from chosen_one_nb.models.offload import keep_freed_memory
from menagerie.training.data import renders
from menagerie.training.recipe import Recipe

STAGES = ("renders", "text", "vae", "clip", "dino", "reader", "unet")


def parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    arguments = argparse.ArgumentParser(prog="python -m menagerie.train", description=__doc__)
    arguments.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    arguments.add_argument("--preset", choices=("cpu", "gpu"), default="cpu")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--out", type=Path, default=Path("data/menagerie"), help="where the models are saved")
    arguments.add_argument("--work", type=Path, default=Path("work/menagerie"), help="renders and checkpoints")
    arguments.add_argument(
        "--from-saved", action="store_true", help="without a checkpoint, go on from the models in the output folder"
    )
    arguments.add_argument("--threads", type=int, help="processor threads (default: all cores)")
    arguments.add_argument("--set", nargs="+", default=[], metavar="NAME=NUMBER", help="change numbers of the recipe")
    arguments.add_argument("--minutes", type=float, help="time budget of each chosen stage, instead of the preset's")
    return arguments


def join_processes() -> int:
    """Meet the other processes that ``torchrun`` started, if it did; this one's number, 0 for the first."""
    if "WORLD_SIZE" not in os.environ:
        return 0
    distributed.init_process_group("gloo")
    return distributed.get_rank()


def main(argv: list[str] | None = None) -> None:
    """Run the chosen stages in order."""
    given = parser().parse_args(argv)
    keep_freed_memory()
    rank = join_processes()
    recipe = Recipe.preset(given.preset).with_words(given.set)
    recipe = recipe.replace(seed=recipe.seed + rank)
    if given.minutes is not None:
        recipe = recipe.replace(minutes=dict.fromkeys(recipe.minutes, given.minutes))
    if given.threads:
        torch.set_num_threads(given.threads)
    given.work.mkdir(parents=True, exist_ok=True)
    given.out.mkdir(parents=True, exist_ok=True)
    if rank:  # only the first process saves what ships
        given.out = shutil.copytree(given.out, given.work / f"process{rank}", dirs_exist_ok=True)
    recipe.save(given.out / "recipe.json")
    for stage in STAGES:
        if stage not in given.stages:
            continue
        print(f"stage {stage}", flush=True)
        if stage == "renders":
            renders(given.work, recipe.n_renders, recipe.image_size)
        else:
            importlib.import_module(f"menagerie.training.{stage}").train(
                recipe, given.work, given.out, given.device, from_saved=given.from_saved
            )


if __name__ == "__main__":
    main()
