"""One training loop for every model of the miniature: a time budget, an average of the weights, checkpoints.

And what goes with it: the seed of a stage that goes on, and lines that say how far something is.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

Part = TypeVar("Part")


def learning_rate(peak: float, progress: float, step: int, *, warmup: int = 100) -> float:
    """Linear warm-up over ``warmup`` steps, then a half cosine down to 2 % of ``peak`` at progress 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * min(1.0, (step + 1) / warmup) * max(0.02, cosine)


class WeightAverage:
    """Exponential moving average of a model's weights; the averaged copy is what gets saved."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards ``model``, faster during the first steps so that the random start is forgotten."""
        decay = min(self.decay, (step + 1) / (step + 10))
        for mine, theirs in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def seed_at(seed: int, name: str, work: Path) -> int:
    """A seed for a stage's batches that differs with the step at which its checkpoint ``work/name.pt`` stands.

    Were it the same each time, a stage that goes on would see again the batches it began with.
    """
    path = work / f"{name}.pt"
    step = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["step"] if path.exists() else 0
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def with_progress(name: str, parts: Iterable[Part], n: int) -> Iterator[Part]:
    """Yield ``parts``, ``n`` of them; as each arrives print how many are there and how long the others will take."""
    start = time.monotonic()
    for i, part in enumerate(parts, 1):
        left = (time.monotonic() - start) / i * (n - i)
        print(f"{name}: {i} of {n} parts, {_duration(left)} left", flush=True)
        yield part


def share_gradients(model: nn.Module) -> None:
    """Replace every gradient by its mean over all processes."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(mean.view(gradient.shape))


def _together() -> bool:
    """Whether this is one of several processes that ``torchrun`` started."""
    return distributed.is_initialized()


def _same_for_all(seconds: float) -> float:
    """The first process's clock, so that all of them stop at the same step."""
    if not _together():
        return seconds
    shared = torch.tensor([seconds], dtype=torch.float64)
    distributed.broadcast(shared, 0)
    return shared.item()


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class TrainingCheckpoint:
    """The file that a stage goes on from.

    Parameters
    ----------
    path : Path
    model, average : nn.Module
        What is trained, and the average of its weights.
    optimizer : torch.optim.Optimizer
    also : dict of str to Tensor
        What else is kept; given its saved values in place.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        average: nn.Module,
        optimizer: torch.optim.Optimizer,
        also: dict[str, Tensor],
    ) -> None:
        self.path, self.also = path, also
        self.parts = {"model": model, "average": average, "optimizer": optimizer}

    def load(self) -> tuple[int, float]:
        """Put everything back as it was, if there is a file; the step it was at and the seconds spent so far.

        Raises
        ------
        ValueError
            If it belongs to a model of other sizes.
        """
        if not self.path.exists():
            return 0, 0.0
        model = self.parts["model"]
        state = torch.load(self.path, weights_only=True, map_location=next(model.parameters()).device)
        sizes = {key: value.shape for key, value in state["model"].items()}
        if sizes != {key: value.shape for key, value in model.state_dict().items()}:
            raise ValueError(
                f"{self.path}: expected a checkpoint of this model, got one of another recipe; move it away."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        for key, value in state["also"].items():
            self.also[key].copy_(value)
        return state["step"], state["seconds"]

    def save(self, step: int, seconds: float) -> None:
        """Write the file, whole or not at all."""
        state = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({**state, "also": self.also, "step": step, "seconds": seconds}, self.path.with_suffix(".tmp"))
        self.path.with_suffix(".tmp").replace(self.path)


class TrainingLog:
    """A line every ``pause`` seconds: the step, every value smoothed over about fifty steps, and the time left."""

    def __init__(self, name: str, pause: float = 20.0) -> None:
        self.name, self.pause, self.said = name, pause, time.monotonic()
        self.smooth: dict[str, float] = {}

    def add(self, step: int, values: dict[str, Tensor], left: float) -> None:
        """Take in what a step gave, with ``left`` seconds to go, and print a line if it is time for one."""
        for key, value in values.items():
            self.smooth[key] = 0.98 * self.smooth.get(key, now := value.detach().item()) + 0.02 * now
        if time.monotonic() - self.said > self.pause:
            self.said = time.monotonic()
            shown = " ".join(f"{key} {value:.4f}" for key, value in self.smooth.items())
            print(f"{self.name}: step {step} {shown}, {_duration(left)} left", flush=True)


def _descend(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """One step down the loss; with other processes, down the mean of all losses."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if _together():
        share_gradients(model)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def fit(
    name: str,
    model: nn.Module,
    loss: Callable[[int, float], dict[str, torch.Tensor]],
    *,
    minutes: float,
    work: Path,
    rate: float,
    parameters: Iterable[nn.Parameter] | None = None,
    decay: float = 0.999,
    weight_decay: float = 0.01,
    after_step: Callable[[int, float], None] | None = None,
    also: dict[str, Tensor] | None = None,
    save_every: float = 120.0,
) -> nn.Module:
    """Train ``model`` for a budget of ``minutes`` and return the average of its weights.

    The schedule follows time spent, not steps, so that a budget means the same thing on every machine. The
    state is saved to ``work/name.pt`` every ``save_every`` seconds; a later call goes on from there, and with a
    larger budget it trains longer.

    Under ``torchrun`` every process draws its own batches and they share their gradients; the first one saves.

    Parameters
    ----------
    loss : callable (step, progress) -> dict
        Draws its own batch; ``dict["loss"]`` is minimised, the other entries are only printed.
    after_step : callable (step, progress), optional
        Called after each optimiser step (a teacher's update, for example).
    also : dict of str to Tensor, optional
        What else the checkpoint keeps (a teacher's centre, for example); given its saved values in place.

    Raises
    ------
    ValueError
        If the checkpoint in ``work`` belongs to a model of other sizes.
    """
    optimizer = torch.optim.AdamW(
        parameters or model.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=weight_decay
    )
    average = WeightAverage(model, decay)
    checkpoint = TrainingCheckpoint(work / f"{name}.pt", model, average.model, optimizer, also or {})
    step, before = checkpoint.load()
    if _together():
        for values in model.state_dict().values():
            distributed.broadcast(values, 0)
    first = not _together() or distributed.get_rank() == 0
    log, budget = TrainingLog(name), minutes * 60
    start = saved = time.monotonic()
    while (spent := _same_for_all(before + time.monotonic() - start)) < budget:
        progress = spent / budget
        values = loss(step, progress)
        _descend(model, optimizer, values["loss"], learning_rate(rate, progress, step))
        average.update(model, step)
        if after_step is not None:
            after_step(step, progress)
        step += 1
        if first:
            log.add(step, values, budget - spent)
        if first and time.monotonic() - saved > save_every:
            saved = time.monotonic()
            checkpoint.save(step, before + saved - start)
    if first:
        checkpoint.save(step, before + time.monotonic() - start)
    return average.model
