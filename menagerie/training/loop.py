"""One training loop for every model of the miniature: a time budget, an average of the weights, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from menagerie.training.context import TrainingContext, TrainingError

Part = TypeVar("Part")
Losses = dict[str, Tensor]
SETTLED = 200  # steps after which a model's values tell how it is going


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast a model learns.

    Attributes
    ----------
    minutes : float
        Time budget.
    rate : float
        Highest learning rate.
    average : float
        Decay of the moving average of the weights.
    weight_decay : float
    warmup : int
        Steps until the rate is reached.
    """

    minutes: float
    rate: float
    average: float = 0.999
    weight_decay: float = 0.01
    warmup: int = 100

    def learning_rate(self, progress: float, step: int) -> float:
        """Linear warm-up, then a half cosine over the budget down to 2 % of the rate at progress 1.

        Time and not steps are what is known beforehand, which is why no stock schedule fits.
        """
        cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return self.rate * min(1.0, (step + 1) / self.warmup) * max(0.02, cosine)

    def optimizer(self, weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        """Return AdamW over weights."""
        return torch.optim.AdamW(weights, lr=self.rate, betas=(0.9, 0.99), weight_decay=self.weight_decay, fused=True)


def with_progress(name: str, parts: Iterable[Part], n: int) -> Iterator[Part]:
    """Yield ``parts``, ``n`` of them; as each arrives print how many are there and how long the others will take."""
    start = time.monotonic()
    for i, part in enumerate(parts, 1):
        left = (time.monotonic() - start) / i * (n - i)
        print(f"{name}: {i} of {n} parts, {_duration(left)} left", flush=True)
        yield part


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class TrainingCheckpoint:
    """The file that a stage goes on from.

    Parameters
    ----------
    path : Path
    parts : dict
        Model, average and optimiser by name: whatever has a ``state_dict``.
    pause : float
        Seconds from one saving to the next.
    """

    def __init__(
        self, path: Path, parts: dict[str, nn.Module | EMAModel | torch.optim.Optimizer], pause: float
    ) -> None:
        self.path, self.parts, self.pause, self.saved = path, parts, pause, time.monotonic()

    def load(self, device: torch.device) -> tuple[int, float]:
        """Put everything back as it was, if there is a file; the step it was at and the seconds spent so far.

        Raises
        ------
        TrainingError
            If the file is damaged or belongs to a model of other sizes.
        """
        if not self.path.exists():
            return 0, 0.0
        try:
            state = torch.load(self.path, weights_only=True, map_location=device)
            sizes = {key: value.shape for key, value in state["model"].items()}
        except Exception as error:  # whatever a torn or foreign file makes of torch.load
            raise TrainingError(f"{self.path}: expected a checkpoint, got a damaged file; move it away.") from error
        if sizes != {key: value.shape for key, value in self.parts["model"].state_dict().items()}:
            raise TrainingError(
                f"{self.path}: expected a checkpoint of this model, got one of another recipe; move it away."
            )
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["step"], state["seconds"]

    def save_if_due(self, step: int, seconds: float) -> None:
        """Write the file if the pause since the last time is over."""
        if time.monotonic() - self.saved > self.pause:
            self.saved = time.monotonic()
            self.save(step, seconds)

    def save(self, step: int, seconds: float) -> None:
        """Write the file, whole or not at all.

        Raises
        ------
        TrainingError
            If it cannot be written; the one before stays.
        """
        state = {name: part.state_dict() for name, part in self.parts.items()}
        new = self.path.with_suffix(".tmp")
        try:
            torch.save({**state, "step": step, "seconds": seconds}, new)
            new.replace(self.path)
        except (OSError, RuntimeError) as error:  # PyTorch's writer makes a RuntimeError of a full disk
            new.unlink(missing_ok=True)
            raise TrainingError(
                f"{self.path}: the checkpoint of step {step} could not be written, is the disk full? "
                "The one before it is kept: make room and give the same command again."
            ) from error


class TrainingLog:
    """A line every ``pause`` seconds: the step, every value smoothed over about fifty steps, and the time left."""

    def __init__(self, name: str, check: Callable[[dict[str, float]], None] | None, pause: float = 20.0) -> None:
        self.name, self.check, self.pause, self.printed = name, check, pause, time.monotonic()
        self.smooth: Losses = {}

    def add(self, step: int, values: Losses, left: float) -> None:
        """Take in what a step gave, with ``left`` seconds to go; print a line if it is time for one."""
        for key, value in values.items():  # stays on the device: only a line that is printed waits for it
            value = value.detach().float()
            self.smooth[key] = self.smooth[key].lerp(value, 0.02) if key in self.smooth else value
        if time.monotonic() - self.printed > self.pause:
            self.printed = time.monotonic()
            self.line(step, left)

    def line(self, step: int, left: float) -> None:
        """Print, and have the values checked."""
        values = {key: value.item() for key, value in self.smooth.items()}
        shown = " ".join(f"{key} {value:.4f}" for key, value in values.items())
        print(f"{self.name}: step {step} {shown}, {_duration(left)} left", flush=True)
        if self.check and step >= SETTLED:
            self.check(values)


def fit(
    name: str,
    objective: nn.Module,
    batch: Callable[[float], tuple],
    schedule: Schedule,
    context: TrainingContext,
    *,
    after_step: Callable[[float], None] = lambda progress: None,
    check: Callable[[dict[str, float]], None] | None = None,
    save_every: float = 120.0,
) -> None:
    """Train ``objective`` for its budget; in the end its weights are the average of those on the way.

    The schedule follows time spent, not steps, so that a budget means the same thing on every machine. The
    state is saved to ``work/name.pt`` every ``save_every`` seconds; a later call goes on from there, and with a
    larger budget it trains longer.

    Under ``torchrun`` every process draws its own batches and they share their gradients; the first one saves.

    Parameters
    ----------
    objective : nn.Module
        Called with a batch it returns a dict of values: ``"loss"`` is minimised, the others are only printed.
        Weights that do not require gradients are left to ``after_step``.
    batch : callable (progress) -> tuple
        Draws a batch, progress in [0, 1].
    after_step : callable (progress)
        Called after each optimiser step (a teacher's update, for example).
    check : callable (dict of float), optional
        Gets the smoothed values with every printed line, and raises `TrainingError` if they are hopeless.

    Raises
    ------
    TrainingError
        If the checkpoint belongs to a model of other sizes or cannot be written, or ``check`` raises it.
    """
    accelerator = context.accelerator
    objective.to(accelerator.device)
    learning = [p for p in objective.parameters() if p.requires_grad]
    optimizer = schedule.optimizer(learning)
    average = EMAModel(learning, decay=schedule.average, foreach=True)
    parts = {"model": objective, "average": average, "optimizer": optimizer}
    checkpoint = TrainingCheckpoint(context.checkpoint(name), parts, save_every)
    step, before = checkpoint.load(accelerator.device)
    model, wrapped = accelerator.prepare(objective, optimizer)
    log, budget = TrainingLog(name, check), schedule.minutes * 60
    start, spent = time.monotonic(), before
    try:
        while (spent := _same_for_all(before + time.monotonic() - start, context)) < budget:
            progress = spent / budget
            values = model(*batch(progress))
            _descend(values["loss"], wrapped, schedule.learning_rate(progress, step), accelerator)
            average.step(learning)
            after_step(progress)
            step += 1
            if accelerator.is_main_process:
                log.add(step, values, budget - spent)
                checkpoint.save_if_due(step, spent)
    except KeyboardInterrupt as stop:
        checkpoint.save(step, spent)
        raise TrainingError(f"{name}: stopped at step {step}; the same command goes on from there.") from stop
    if accelerator.is_main_process:
        checkpoint.save(step, spent)
    average.copy_to(learning)
    objective.eval()


def _descend(loss: Tensor, optimizer: torch.optim.Optimizer, rate: float, accelerator: Accelerator) -> None:
    """One step of the optimiser at a learning rate, its gradient of norm 1 at most."""
    optimizer.zero_grad(set_to_none=True)
    accelerator.backward(loss)
    for group in optimizer.param_groups:
        group["lr"] = rate
        accelerator.clip_grad_norm_(group["params"], 1.0)
    optimizer.step()


def _same_for_all(seconds: float, context: TrainingContext) -> float:
    """The first process's clock, so that all of them stop at the same step."""
    if context.accelerator.num_processes == 1:
        return seconds
    return broadcast(torch.tensor([seconds], device=context.device)).item()
