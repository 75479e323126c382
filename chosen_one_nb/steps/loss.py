"""The denoising loss: what the UNet should predict, and what each error weighs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from chosen_one_nb.steps.prompts import Condition

__all__ = ["Batch", "denoising_loss", "snr_weights", "target"]


@dataclass(frozen=True)
class Batch:
    """B training images with their noise.

    Attributes
    ----------
    latents, noise : Tensor of shape (B, C, h, w), float32
    times : Tensor of shape (B,), int
        Noise levels, as steps of the model's schedule.
    time_ids : Tensor of shape (B, 6)
        SDXL's micro-conditioning.
    weights : Tensor of shape (B, 1, h, w)
        How much each place counts.
    captions : list of str, length B
    uncaptioned : Tensor of shape (B,), bool
        Whether the image goes without its caption.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    times: torch.Tensor
    time_ids: torch.Tensor
    weights: torch.Tensor
    captions: list[str]
    uncaptioned: torch.Tensor

    def __len__(self) -> int:
        return len(self.captions)

    def split(self, size: int) -> Iterator[Batch]:
        """Yield parts of at most `size` images."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            yield Batch(*(getattr(self, field.name)[part] for field in dataclasses.fields(self)))


def denoising_loss(
    unet: Any, scheduler: Any, batch: Batch, text: Condition, *, gamma: float | None = None
) -> torch.Tensor:
    """Return the loss of one batch: E || target - unet(z_t, t, text) ||^2 (L_rec of section 3.2).

    Parameters
    ----------
    unet : UNet2DConditionModel
    scheduler : DDPMScheduler
        The noise schedule the model was trained with.
    batch : Batch
    text : Condition of B texts
    gamma : float, optional
        Of min-SNR.

    Returns
    -------
    Tensor, a float32 scalar
    """
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.times).to(unet.dtype)  # (B, C, h, w)
    added = None
    if text.pooled is not None:
        added = {"text_embeds": text.pooled, "time_ids": batch.time_ids.to(text.embeds.dtype)}
    predicted = unet(noisy, batch.times, encoder_hidden_states=text.embeds, added_cond_kwargs=added, return_dict=False)[
        0
    ]
    # In float32: small errors squared underflow in half precision.
    squared = (predicted.float() - target(scheduler, batch)).square()
    error = (squared * batch.weights).mean(dim=(1, 2, 3))  # (B,)
    return (error * snr_weights(scheduler, batch.times, gamma)).mean()


def target(scheduler: Any, batch: Batch) -> torch.Tensor:
    """Return what the UNet was trained to predict (B, C, h, w), by the scheduler's `prediction_type`."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return batch.noise
    if kind == "v_prediction":
        return scheduler.get_velocity(batch.latents, batch.noise, batch.times)
    if kind == "sample":
        return batch.latents
    raise ValueError(f"prediction_type: expected epsilon, v_prediction or sample, got {kind!r}.")


def snr_weights(scheduler: Any, times: torch.Tensor, gamma: float | None) -> torch.Tensor | float:
    """Return min-SNR weights (B,) of noise levels (arXiv 2303.09556), or 1 without gamma.

    min(snr, gamma) weighs an error of the clean latent; divided by snr it weighs one of the noise, by snr +
    1 one of v.
    """
    if gamma is None:
        return 1.0
    alphas = scheduler.alphas_cumprod.to(times.device)[times]
    snr = alphas / (1 - alphas)
    by = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}[scheduler.config.prediction_type]
    return snr.clamp(max=gamma) / by.clamp(min=1e-8)
