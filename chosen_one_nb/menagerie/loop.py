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


class Average:
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


def start_from(model: nn.Module, folder: Path) -> None:
    """Give ``model`` the weights that ``save_pretrained`` left in ``folder``, in the model's own precision."""
    saved = type(model).from_pretrained(folder, torch_dtype=torch.float32)  # knows the names of the file's version
    model.load_state_dict(saved.state_dict())


def seed_at(seed: int, name: str, work: Path) -> int:
    """A seed for a stage's batches that differs with the step at which its checkpoint ``work/name.pt`` stands.

    Were it the same each time, a stage that goes on would see again the batches it began with.
    """
    path = work / f"{name}.pt"
    step = torch.load(path, weights_only=True, mmap=True, map_location="cpu")["step"] if path.exists() else 0
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def told(name: str, parts: Iterable[Part], n: int) -> Iterator[Part]:
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


def _same_for_all(seconds: float) -> float:
    """The first process's clock, so that all of them stop at the same step."""
    shared = torch.tensor([seconds], dtype=torch.float64)
    distributed.broadcast(shared, 0)
    return shared.item()


def _duration(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


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
    average = Average(model, decay)
    path, step, before = work / f"{name}.pt", 0, 0.0
    also = also or {}
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=next(model.parameters()).device)
        if {k: v.shape for k, v in state["model"].items()} != {k: v.shape for k, v in model.state_dict().items()}:
            raise ValueError(f"{path}: expected a checkpoint of this model, got one of another recipe; move it away.")
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        for key, value in state.get("also", {}).items():  # older checkpoints have none
            also[key].copy_(value)
        step, before = state["step"], state["seconds"]

    def save() -> None:
        state = {"model": model.state_dict(), "average": average.model.state_dict(), "also": also, "step": step,
                 "optimizer": optimizer.state_dict(), "seconds": before + time.monotonic() - start}  # fmt: skip
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    budget, start = minutes * 60, time.monotonic()
    together = distributed.is_initialized()
    if together:
        for values in model.state_dict().values():
            distributed.broadcast(values, 0)
    first = not together or distributed.get_rank() == 0
    saved = said = start
    smooth: dict[str, float] = {}
    while True:
        spent = before + time.monotonic() - start
        spent = _same_for_all(spent) if together else spent
        if spent >= budget:
            break
        progress = spent / budget
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(rate, progress, step)
        values = loss(step, progress)
        optimizer.zero_grad(set_to_none=True)
        values["loss"].backward()
        if together:
            share_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        average.update(model, step)
        if after_step is not None:
            after_step(step, progress)
        step += 1
        for key, value in values.items():
            smooth[key] = 0.98 * smooth.get(key, now := value.detach().item()) + 0.02 * now
        if first and time.monotonic() - said > 20:
            said = time.monotonic()
            shown = " ".join(f"{key} {value:.4f}" for key, value in smooth.items())
            print(f"{name}: step {step} {shown}, {_duration(budget - spent)} left", flush=True)
        if first and time.monotonic() - saved > save_every:
            saved = time.monotonic()
            save()
    if first:
        save()
    return average.model
