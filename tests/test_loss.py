"""The denoising loss: its target, its weights, its mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.training import PROMPT, scheduler

from chosen_one_nb.steps.loss import Batch, denoising_loss, snr_weights, target
from chosen_one_nb.steps.prompts import condition


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_target_is_what_the_model_predicts(kind: str) -> None:
    own, times = scheduler(kind), torch.tensor([10, 900])
    clean, noise = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    batch = Batch(
        clean, noise, times, torch.zeros(2, 6), torch.ones(2, 1, 2, 2), [PROMPT] * 2, torch.zeros(2, dtype=bool)
    )
    a = own.alphas_cumprod[times].view(2, 1, 1, 1)
    by_hand = {"epsilon": noise, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean, "sample": clean}
    torch.testing.assert_close(target(own, batch), by_hand[kind])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_min_snr_weights_by_hand(kind: str) -> None:
    own, times = scheduler(kind), torch.tensor([1, 500, 999])
    snr = own.alphas_cumprod[times] / (1 - own.alphas_cumprod[times])
    by = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones(3)}[kind]
    torch.testing.assert_close(snr_weights(own, times, 5.0), torch.minimum(snr, torch.tensor(5.0)) / by)
    assert snr_weights(own, times, None) == 1.0


def test_what_is_masked_out_does_not_count(models: Any) -> None:
    text = condition(models.pipeline, PROMPT)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    inside = torch.zeros(1, 1, 8, 8)
    inside[..., :4] = 2.0

    def loss(weights: torch.Tensor) -> torch.Tensor:
        ids, times = torch.tensor([[32, 32, 0, 0, 32, 32]]), torch.tensor([500])
        batch = Batch(latents, noise, times, ids, weights, [PROMPT], torch.tensor([False]))
        return denoising_loss(models.pipeline.unet, scheduler("v_prediction"), batch, text)

    with torch.no_grad():
        whole, foreground, scene = loss(torch.ones_like(inside)), loss(inside), loss(2.0 - inside)
    assert whole.item() == pytest.approx((foreground.item() + scene.item()) / 2)
    assert foreground.item() != pytest.approx(scene.item(), rel=1e-3)
