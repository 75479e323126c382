"""What every stage of the recipe is given, and the one kind of error that stops a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from menagerie.training.recipe import Recipe


class TrainingError(RuntimeError):
    """Why a training cannot go on, in one sentence; what it had reached lies in its checkpoint."""


@dataclass(frozen=True)
class TrainingContext:
    """What every stage is given.

    Attributes
    ----------
    recipe : Recipe
    work : Path
        Renders, latents and checkpoints.
    out : Path
        Where the models are saved, and read by later stages.
    device : str
        "cpu" or "cuda"; on the latter, images stay there and matrices are multiplied in bfloat16.
    from_saved : bool
        Go on from the models in `out` where there is no checkpoint.
    """

    recipe: Recipe
    work: Path
    out: Path
    device: str = "cpu"
    from_saved: bool = False

    @cached_property
    def accelerator(self) -> Accelerator:
        """Shares gradients under ``torchrun``; autocasts on a card."""
        cpu = self.device == "cpu"
        return Accelerator(cpu=cpu, mixed_precision="no" if cpu else "bf16")

    def checkpoint(self, stage: str) -> Path:
        """The file that a stage goes on from."""
        return self.work / f"{stage}.pt"

    def seed(self, stage: str) -> int:
        """A seed for a stage's batches that differs with the step at which its checkpoint stands.

        Were it the same each time, a stage that goes on would see again the batches it began with.
        """
        path = self.checkpoint(stage)
        step = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["step"] if path.exists() else 0
        return int(np.random.SeedSequence((self.recipe.seed, step)).generate_state(1)[0])

    def start(self, stage: str) -> int:
        """Print the stage's name, seed PyTorch for it and return the seed."""
        print(f"stage {stage}", flush=True)
        seed = self.seed(stage)
        torch.manual_seed(seed)
        return seed

    def indices(self, n: int, batch: int) -> Callable[[], Tensor]:
        """What draws ``batch`` different numbers below ``n`` on the device, in PyTorch's random order."""
        return lambda: torch.randperm(n, device=self.device)[:batch]
