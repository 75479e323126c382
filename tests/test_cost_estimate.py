"""What an iteration will take, counted without doing it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from chosen_one_nb.run.cost_estimate import Meter, estimate_cost
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.embed import embed
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from tools.bench.measure import arithmetic
from tools.bench.random_models import random_models


def test_a_product_by_hand() -> None:
    a, b = torch.empty(2, 3, device="meta"), torch.empty(3, 4, device="meta")
    with Meter() as meter:
        c = a @ b
        d = c + 1
        del d
        kept = c.view(8)  # no new memory
    assert meter.flops == 2 * 2 * 3 * 4
    assert meter.peak == 2 * 4 * 2 * 4
    assert kept.shape == (8,)


def test_counts_are_those_of_the_real_thing(models: Any, quick: Any) -> None:
    s = quick.replace(n_images=2, batch_size=2, sampling_steps=2, target_cluster_size=1)
    with FlopCounterMode(display=False) as real, sdpa_kernel(SDPBackend.MATH):
        gallery = generate(models, SamplingRequest("a fox", [1, 2], s))
    costs = estimate_cost(models, s)
    ours = costs["denoise"].flops + costs["decode"].flops
    assert 0 <= real.get_total_flops() - ours < 0.2 * ours  # the prompt is longer or shorter
    with FlopCounterMode(display=False) as real, sdpa_kernel(SDPBackend.MATH):
        embed(models, gallery.images, s)
    assert real.get_total_flops() == costs["embed"].flops


@pytest.fixture(scope="module")
def full_size() -> Any:
    """SDXL without weights, and what the paper's gallery takes."""
    models = random_models("sdxl", device="meta", dtype=torch.bfloat16)
    return models, estimate_cost(models, Settings.preset("paper").sampled("full"))


def test_a_controlnet_counts_beside_the_models(full_size: Any) -> None:
    """SDXL's is 1.25 billion parameters, 2.5 GB in half precision; the shapes go through both at 1024 x 1024."""
    models, costs = full_size
    with torch.device("meta"):
        controlnet = ControlNetModel.from_unet(models.pipeline.unet, load_weights_from_unet=False)
    with_it = estimate_cost(models, Settings.preset("paper"), controlnet.to(torch.bfloat16))
    assert with_it["pose"].weights - costs["denoise"].weights == pytest.approx(2.5e9, rel=0.02)
    assert with_it["pose"].flops > costs["denoise"].flops / 128
    assert "pose" not in [stage.name for stage in costs.stages]


def test_full_size_counts(full_size: Any) -> None:
    """SDXL at 1024 x 1024, as published or counted elsewhere; fused attention computes its scores again backwards."""
    _, costs = full_size
    assert costs["denoise"].flops / (128 * 50 * 2) == pytest.approx(6.76e12, rel=0.005)
    assert costs["decode"].flops / 128 == pytest.approx(10.47e12, rel=0.01)
    assert costs["refine"].flops / 500 == pytest.approx(14.34e12 + 0.58e12, rel=0.01)
    assert costs["embed"].flops / 128 == pytest.approx(0.162e12, rel=0.01)
    assert costs["denoise"].weights == pytest.approx(8.4e9, rel=0.05)


def test_low_memory_needs_less(full_size: Any) -> None:
    models, costs = full_size
    settings = Settings.preset("paper", batch_size=1).sampled("full")
    low = estimate_cost(dataclasses.replace(models, low_memory=True), settings)
    assert low["embed"].weights < 0.1 * costs["embed"].weights
    assert low["decode"].peak < 12e9
    assert low["denoise"].peak < 12e9
    assert low["refine"].peak < 12e9 < costs["refine"].peak
    assert low["refine"].flops > 1.3 * costs["refine"].flops  # activations are computed twice


def test_an_estimate_says_what_to_lower(full_size: Any) -> None:
    _, costs = full_size
    tight = dataclasses.replace(costs, memory=int(16e9))
    assert "refine needs most. Lower refine_batch_size or image_size, or switch low memory on" in str(tight)
    assert str(dataclasses.replace(costs, memory=int(80e9))).endswith("memory there: 80.00 GB. It fits.")
    assert "at 250 TFLOP/s (half of it): gallery 3" in arithmetic(costs, {"half of it": 250e12})
