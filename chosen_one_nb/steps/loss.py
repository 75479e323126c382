"""The denoising loss: how noisy, what to predict, what it weighs."""

from __future__ import annotations

from typing import Any

import torch

from chosen_one_nb.steps.prompts import Condition

__all__ = ["denoising_loss", "snr_weights", "target"]


def target(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Return what the UNet was trained to predict, by the scheduler's `prediction_type`; all (B, C, h, w)."""
    kind = scheduler.config.prediction_type
    if kind == "epsilon":
        return noise
    if kind == "v_prediction":
        return scheduler.get_velocity(latents, noise, times)
    if kind == "sample":
        return latents
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


def denoising_loss(
    unet: Any,
    scheduler: Any,
    latents: torch.Tensor,
    text: Condition,
    ids: torch.Tensor,
    *,
    generator: torch.Generator,
    gamma: float | None = None,
    floor: float = 0.0,
    weights: torch.Tensor | float = 1.0,
) -> torch.Tensor:
    """Return the loss of one batch: E || target - unet(z_t, t, text) ||^2 (L_rec of section 3.2).

    Parameters
    ----------
    unet : UNet2DConditionModel
    scheduler : DDPMScheduler
        The noise schedule the model was trained with.
    latents : Tensor of shape (B, C, h, w)
    text : Condition of B texts
    ids : Tensor of shape (B, 6)
        Micro-conditioning; used by SDXL only.
    generator : torch.Generator
        On the CPU.
    gamma : float, optional
        Of min-SNR.
    floor : float in [0, 1)
        Noise levels are drawn from all but this share of the schedule, the quietest ones.
    weights : Tensor of shape (B, 1, h, w), or 1
        How much each place counts; see `place_weights`.

    Returns
    -------
    Tensor, a float32 scalar
    """
    steps = scheduler.config.num_train_timesteps
    times = torch.randint(int(floor * steps), steps, (len(latents),), generator=generator).to(latents.device)
    noise = torch.randn(latents.shape, generator=generator).to(latents.device)
    noisy = scheduler.add_noise(latents, noise, times).to(unet.dtype)
    added = (
        {}
        if text.pooled is None
        else {"added_cond_kwargs": {"text_embeds": text.pooled, "time_ids": ids.to(text.embeds.dtype)}}
    )
    guess = unet(noisy, times, encoder_hidden_states=text.embeds, return_dict=False, **added)[0]
    squared = (guess.float() - target(scheduler, latents, noise, times)).square()
    error = (squared * weights).mean(dim=(1, 2, 3))  # (B,)
    return (error * snr_weights(scheduler, times, gamma)).mean()
