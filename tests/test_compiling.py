"""Compiled blocks: the same images, compiled once for all characters."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import made_for
from torch._dynamo.testing import CompileCounterWithBackend

from chosen_one_nb.models.load import ModelError, load_models
from chosen_one_nb.models.pipelines import compile_blocks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.refine import refine
from chosen_one_nb.steps.training_set import TrainingSet

CPU = torch.device("cpu")


@pytest.fixture
def compiled(models: Any) -> tuple[Any, CompileCounterWithBackend]:
    """A copy of the models with compiled blocks, and what counts compilations; nothing is left over from others."""
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    lent = dataclasses.replace(models, pipeline=copy.deepcopy(models.pipeline))
    compile_blocks(lent.pipeline.unet, CPU, counter)
    return lent, counter


def test_swapping_characters_draws_the_same_and_compiles_nothing_anew(models: Any, compiled: Any, quick: Any) -> None:
    lent, counter = compiled
    fox = made_for(models.pipeline)
    cat = dataclasses.replace(fox, lora={key: -0.7 * weight for key, weight in fox.lora.items()})
    counts, drawn = [], {}
    for name, character in [("none", None), ("fox", fox), ("cat", cat), ("none", None), ("fox", fox), ("cat", cat)]:
        prompt = character.prompt() if character else "a red fox"
        plain, ours = (
            generate(which, SamplingRequest(prompt, [1, 2], quick, character)).latents for which in (models, lent)
        )
        np.testing.assert_allclose(ours, plain, atol=1e-5)
        drawn[name] = ours
        counts.append(counter.frame_count)
    assert counts == [1, 2, 2, 2, 2, 2]  # the base once, with Θ once
    assert all(np.abs(drawn[a] - drawn[b]).max() > 0.01 for a, b in [("none", "fox"), ("fox", "cat")])


def test_training_runs_uncompiled_and_learns_the_same(models: Any, compiled: Any, quick: Any, images: Any) -> None:
    lent, counter = compiled
    plain, ours = (refine(which, TrainingSet("a red fox", images[:2]), quick) for which in (models, lent))
    assert all(torch.equal(plain.lora[key], ours.lora[key]) for key in plain.lora)
    assert counter.frame_count == 0


def test_one_switch(model_folder: Path, models: Any) -> None:
    loaded = load_models(model_folder, compile="eager")
    blocks = [m for m in loaded.pipeline.unet.modules() if type(m).__name__ == "BasicTransformerBlock"]
    assert blocks
    assert all(block._compiled_call_impl is not None for block in blocks)
    assert (loaded.fingerprint, loaded.recipe) == (models.fingerprint, models.recipe)


def test_what_cannot_compile_is_told(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    unet = models.pipeline.unet
    with pytest.raises(ModelError, match=r"compile: expected True or a backend of torch.compile \(.*inductor.*'fast'"):
        compile_blocks(unet, CPU, "fast")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ModelError, match=r"expected a C\+\+ compiler \(g\+\+ or clang\+\+\), found none"):
        compile_blocks(unet, CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"expected Triton \(pip install triton\)"):
        compile_blocks(unet, torch.device("cuda"))
    compile_blocks(unet, CPU, False)
    assert not any(module._compiled_call_impl for module in unet.modules())
