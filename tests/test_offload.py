"""Memory that runs short, and models that are on the device only while they work."""

from __future__ import annotations

import copy
import dataclasses
import gc
import importlib.machinery
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from chosen_one_nb.models.load import settle
from chosen_one_nb.models.memory import OutOfMemory, batches, on_device
from chosen_one_nb.steps import generate as generating
from chosen_one_nb.steps.embed import embed
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.latents import decode
from chosen_one_nb.steps.refine import _optimizer, refine
from chosen_one_nb.steps.training_set import TrainingSet


def short(limit: int, inner: Any, sizes: list[int]) -> Any:
    """A forward that has room for `limit` images."""

    def forward(first: Any, *args: Any, **more: Any) -> Any:
        sizes.append(len(first))
        if len(first) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inner(first, *args, **more)

    return forward


def test_batches_shrink_and_nothing_is_done_twice() -> None:
    done: list[int] = []

    def do(indices: range) -> int:
        if len(indices) > 2:
            raise MemoryError
        done.extend(indices)
        return len(indices)

    assert [n for _, n in batches(range(7), 5, do, "")] == [2, 2, 2, 1]
    assert done == list(range(7))


def test_embedding_goes_on_in_smaller_batches(models: Any, images: Any, quick: Any, monkeypatch: Any) -> None:
    whole, sizes = embed(models, images, quick).cls, []
    model = models.extractor.model
    monkeypatch.setattr(model, "forward", short(2, model.forward, sizes))
    np.testing.assert_allclose(embed(models, images, quick.replace(batch_size=8)).cls, whole, atol=1e-5)
    assert sizes == [8, 4, 2, 2, 2, 2]
    monkeypatch.setattr(model, "forward", short(0, model.forward, sizes))
    with pytest.raises(OutOfMemory, match=r"take a smaller extractor, or load_models\(..., low_memory=True\)"):
        embed(models, images, quick)


def test_decoding_ends_in_tiles(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, tiled = models.pipeline.vae, []
    inner = vae.decode

    def small(z: torch.Tensor, **more: Any) -> Any:
        tiled.append(vae.use_tiling)
        if not vae.use_tiling:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return inner(z, **more)

    monkeypatch.setattr(vae, "decode", small)
    assert len(decode(models, torch.randn(2, 4, 8, 8))) == 2
    assert tiled == [False, False, True, True]
    assert not vae.use_tiling


def test_drawing_and_learning_say_what_to_lower(models: Any, quick: Any, images: Any, monkeypatch: Any) -> None:
    unet = models.pipeline.unet
    monkeypatch.setattr(unet, "forward", short(0, unet.forward, []))
    with pytest.raises(OutOfMemory, match=r"lower image_size, or load_models\(..., low_memory=True\)"):
        generate(models, SamplingRequest("a fox", [1, 2], quick))
    with pytest.raises(OutOfMemory, match=r"Not even one image .* set gradient_checkpointing"):
        refine(models, TrainingSet("a fox", images[:2]), quick)


class Part:
    """What `on_device` needs of a module, remembering where it has been."""

    def __init__(self) -> None:
        self.been = [torch.device("cpu")]

    @property
    def device(self) -> torch.device:
        return self.been[-1]

    def to(self, device: torch.device) -> None:
        self.been.append(device)


def test_parts_are_lent_and_come_back_whatever_happens() -> None:
    there, away, home = torch.device("meta"), Part(), Part()
    home.been = [there]
    with pytest.raises(ZeroDivisionError), on_device(there, away, None, home):
        print(1 / (away.device != there))
    assert [str(place) for place in away.been] == ["cpu", "meta", "cpu"]
    assert home.been == [there]


def test_each_stage_has_its_own_parts_only(models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    names = {id(part): name for name, part in models.pipeline.components.items() if isinstance(part, nn.Module)}

    def lent(device: Any, *parts: Any) -> Any:
        seen.append([names[id(part)] for part in parts])
        return on_device(device, *parts)

    monkeypatch.setattr(generating, "on_device", lent)
    monkeypatch.setattr("chosen_one_nb.steps.latents.on_device", lent)
    generate(models, SamplingRequest("a fox", [1, 2, 3], quick.replace(batch_size=2)))
    assert seen == [["text_encoder", "text_encoder_2"], ["unet"], ["vae"], ["unet"], ["vae"]]


def test_low_memory_draws_and_learns_the_same(models: Any, quick: Any) -> None:
    low = dataclasses.replace(models, low_memory=True)
    pairs = [generate(which, SamplingRequest("a fox", [1, 2], quick)) for which in (models, low)]
    np.testing.assert_allclose(pairs[0].latents, pairs[1].latents, atol=1e-5)
    data = TrainingSet("a fox", pairs[0].images)
    learnt = [refine(which, data, quick.replace(refine_steps=2)) for which in (models, low)]
    for key, weight in learnt[0].lora.items():
        torch.testing.assert_close(learnt[1].lora[key], weight, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("low_memory", [False, True])
def test_iterations_leave_nothing_behind(models: Any, quick: Any, low_memory: bool) -> None:
    models = dataclasses.replace(models, low_memory=low_memory)
    s, character, counts = quick.replace(refine_steps=1, sampling_steps=1), None, []
    for _ in range(4):
        prompt = character.prompt() if character else "a fox"
        gallery = generate(models, SamplingRequest(prompt, [1, 2], s, character))
        embed(models, gallery.images, s)
        character = refine(models, TrainingSet("a fox", gallery.images), s, character)
        gc.collect()
        counts.append(sum(1 for thing in gc.get_objects() if isinstance(thing, torch.Tensor)))
    assert counts[1] == counts[2] == counts[3]


def full(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory.")


def test_models_that_do_not_fit_are_told(models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    part = Part()
    monkeypatch.setattr(part, "to", lambda place: full() if place.type == "meta" else None)
    advice = r"close other programs that use the device, .* or load_models\(..., low_memory=True\)"
    with pytest.raises(OutOfMemory, match=advice), on_device(torch.device("meta"), part):
        pass
    monkeypatch.setattr(models.pipeline.vae, "to", full)
    with pytest.raises(OutOfMemory, match=advice):
        settle(torch.device("cpu"), models.pipeline, models.extractor, models.clip, False)
    monkeypatch.setattr(models.pipeline.text_encoder, "forward", full)
    with pytest.raises(OutOfMemory, match="lower image_size"):
        generate(models, SamplingRequest("a fox", [1], quick))


def test_a_gpu_gets_the_layout_it_likes(models: Any) -> None:
    pipeline = copy.deepcopy(models.pipeline)
    settle(torch.device("meta"), pipeline, None, None, low_memory=False)
    for weight in (pipeline.unet.conv_in.weight, pipeline.vae.decoder.conv_in.weight):
        assert weight.device.type == "meta"
        assert weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("device", "low_memory", "eight"), [("cuda", True, True), ("cuda", False, False),
                                                             ("cpu", True, False), ("mps", True, False)])  # fmt: skip
def test_an_optimiser_of_8_bits_only_where_it_can_be(
    device: str, low_memory: bool, eight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bits, optim = types.ModuleType("bitsandbytes"), types.ModuleType("bitsandbytes.optim")
    bits.__spec__ = importlib.machinery.ModuleSpec("bitsandbytes", None)
    optim.AdamW8bit = type("AdamW8bit", (torch.optim.AdamW,), {})
    monkeypatch.setitem(sys.modules, "bitsandbytes", bits)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", optim)
    where = types.SimpleNamespace(device=torch.device(device), low_memory=low_memory)
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5, "weight_decay": 0.0}]
    made = _optimizer(groups, where)
    assert type(made) is (optim.AdamW8bit if eight else torch.optim.AdamW)
    assert made.param_groups[0]["lr"] == 0.5
    monkeypatch.delitem(sys.modules, "bitsandbytes")
    assert type(_optimizer(groups, where)) is torch.optim.AdamW  # not installed here
