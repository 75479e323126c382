"""LoRA layers hold the weights they were given, in the precision asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.traces import half, trace
from helpers.training import same

from chosen_one_nb.steps.lora import apply_lora, initial_lora


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_pitfall_7_trainables_are_exact_in_float32_over_any_base(models: Any, dtype: torch.dtype) -> None:
    unet = half(models, dtype).pipeline.unet
    weights = initial_lora(unet, 2, torch.Generator().manual_seed(0))
    with apply_lora(unet, weights, rank=2, alpha=2, dtype=torch.float32) as parameters:
        assert {(p.dtype, p.requires_grad) for p in parameters.values()} == {(torch.float32, True)}
        assert same(parameters, weights)
        assert {id(p) for p in parameters.values()} <= {id(p) for p in unet.parameters()}
    with apply_lora(unet, weights, rank=2, alpha=2) as parameters:
        assert {p.dtype for p in parameters.values()} == {dtype}


def test_what_other_trainers_leave_out_adds_nothing(models: Any) -> None:
    unet = models.pipeline.unet
    before, weights = trace(models.pipeline), initial_lora(unet, 2, torch.Generator().manual_seed(0))
    some = {key: weight for key, weight in weights.items() if "attn1" in key}
    with apply_lora(unet, some, rank=2, alpha=2) as parameters:
        assert parameters.keys() == weights.keys()
        assert not any(p.any() for key, p in parameters.items() if key not in some)
    assert trace(models.pipeline) == before
