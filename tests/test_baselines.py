"""The methods that ours is compared with: what each learns from, what it draws, and that it leaves the models alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from chosen_one_nb.baselines import BaselineTask
from chosen_one_nb.baselines.training_free import ANCHORS, TRAINING_FREE, SharedAttention, word_place
from chosen_one_nb.baselines.tuned import CURVE, TUNED
from chosen_one_nb.models.hub import ModelError
from chosen_one_nb.models.load import load_models
from chosen_one_nb.run.run import Run
from chosen_one_nb.steps.gallery import SamplingRequest, image_seeds
from chosen_one_nb.steps.generate import Steering, generate
from menagerie.training import ip_adapter as stage

CONTEXTS = ["on the beach", "in the snow"]


@pytest.fixture
def task(models: Any, quick: Any, tmp_path: Any) -> BaselineTask:
    return BaselineTask(models, "a red fox", quick.replace(refine_steps=4), tmp_path)


def same(first: Any, second: Any) -> bool:
    return len(first) == len(second) and all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_may_hold_several_contexts_each_as_if_alone(models, quick):
    request = SamplingRequest("a red fox", [1, 2], quick)
    together = generate(models, request, steering=Steering(contexts=CONTEXTS)).images
    apart = [
        generate(models, SamplingRequest("a red fox", [seed], quick, context=context)).images[0]
        for seed, context in zip([1, 2], CONTEXTS, strict=True)
    ]
    for image, other in zip(together, apart, strict=True):
        assert np.abs(np.asarray(image, int) - np.asarray(other, int)).max() <= 1, "up to rounding"


def test_the_reference_is_the_first_image_of_the_first_gallery(task):
    first = generate(task.models, SamplingRequest(task.prompt, image_seeds(task.settings, 0), task.settings)).images
    assert np.abs(np.asarray(task.references()[0], int) - np.asarray(first[0], int)).max() <= 1


@pytest.mark.parametrize("name", ["textual_inversion", "lora_dreambooth", "naive_textual_inversion"])
def test_a_rival_gives_a_curve_over_steps_and_trains_its_own_part_alone(task, name):
    before = {key: value.clone() for key, value in task.models.pipeline.unet.state_dict().items()}
    drawers = dict(TUNED[name](task))
    assert list(drawers) == [f"{round(4 * share)} steps" for share in CURVE]
    character = drawers["4 steps"].args[0]
    up = torch.cat([weight.flatten() for key, weight in character.lora.items() if "lora_B" in key])
    moved = any((character.tokens[key] != character.initial[key]).any() for key in character.tokens)
    assert (bool(up.any()), moved) == ((False, True) if "inversion" in name else (True, False))
    assert len(drawers["4 steps"](CONTEXTS, [0, 1])) == 4
    after = task.models.pipeline.unet.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_what_is_learned_depends_on_how_many_images_are_given(task):
    one, five = (dict(TUNED[name](task))["4 steps"](["on the beach"], [0])
                 for name in ("textual_inversion", "naive_textual_inversion"))  # fmt: skip
    assert not same(one, five)


def test_ours_goes_on_from_its_folder_and_ablations_are_one_change_each(task):
    ((_, drawer),) = TUNED["single_iteration"](task)
    with Run.open(task.folder / "run", read_only=True) as run:
        assert run.root.settings == task.settings.replace(max_iterations=1)
    ((_, again),) = TUNED["single_iteration"](task)
    assert same(drawer(CONTEXTS, [3]), again(CONTEXTS, [3]))


def test_without_clustering_as_many_images_are_chosen_but_any(task):
    list(TUNED["without_clustering"](task))
    with Run.open(task.folder / "run", read_only=True) as run:
        decision, clusters = run.root.decision, run.root.clusters
        size = task.settings.target_cluster_size if clusters.proposed is None else clusters.sizes[clusters.proposed]
        assert len(decision.images) == size
        assert decision.note == "at random"


def test_another_extractor_is_another_model_set(task):
    list(TUNED["extractor_clip"](task))
    with Run.open(task.folder / "run", read_only=True) as run:
        assert run.manifest["models"]["fingerprint"] != task.models.fingerprint


# --- nothing learned


@pytest.fixture
def with_adapter(model_folder: Any, tmp_path: Any) -> Any:
    """The tiny model set with an untrained IP-Adapter of its own."""
    folder = tmp_path / "set"
    folder.mkdir()
    for part in ("pipeline", "dinov2", "clip"):
        (folder / part).symlink_to(model_folder / part)
    (folder / "ip_adapter").mkdir()
    unet = UNet2DConditionModel.from_pretrained(folder / "pipeline" / "unet")
    models = load_models(folder)
    weights = stage.build(unet, models.clip.width)
    for weight in weights.values():
        torch.nn.init.normal_(weight, std=0.3)
    save_file({name: weight.detach() for name, weight in weights.items()}, folder / "ip_adapter/ip-adapter.safetensors")
    return models


def test_ip_adapter_draws_by_the_reference_and_leaves_the_models_as_they_were(with_adapter, quick, tmp_path):
    task = BaselineTask(with_adapter, "a red fox", quick, tmp_path)
    pipeline = with_adapter.pipeline
    plain, before = task.drawer()(CONTEXTS, [0]), (list(pipeline.unet.state_dict()), pipeline.components.keys())
    half, whole = (drawer(CONTEXTS, [0]) for _, drawer in TRAINING_FREE["ip_adapter"](task))
    assert not same(plain, half)
    assert not same(half, whole)
    assert same(task.drawer()(CONTEXTS, [0]), plain)
    assert (list(pipeline.unet.state_dict()), pipeline.components.keys()) == before


def test_models_without_an_adapter_of_their_own_say_so(task, monkeypatch):
    def nothing(*args: Any, **more: Any) -> None:
        raise OSError("out of reach")

    monkeypatch.setattr(type(task.models.pipeline), "load_ip_adapter", nothing)
    (_, drawer), *_ = TRAINING_FREE["ip_adapter"](task)
    with pytest.raises(ModelError, match="h94/IP-Adapter: expected an IP-Adapter of these models"):
        drawer(CONTEXTS, [0])


@pytest.mark.parametrize("name", ["consistent_self_attention", "shared_attention"])
def test_shared_attention_couples_the_images_of_a_seed_and_is_taken_off(task, name):
    plain = task.drawer()(CONTEXTS, [0])
    ((_, drawer),) = TRAINING_FREE[name](task)
    coupled = drawer(CONTEXTS, [0])
    assert same(coupled, drawer(CONTEXTS, [0])), "what is seen comes from a seed"
    assert not same(coupled, plain)
    assert same(task.drawer()(CONTEXTS, [0]), plain)
    assert same(drawer(CONTEXTS, [0, 1])[::2], coupled), "seeds do not see each other"


class EvenAttention(torch.nn.Module):
    """An attention of one head that attends to all alike: the mean of what is seen."""

    heads, rescale_output_factor = 1, 1.0

    def __init__(self) -> None:
        super().__init__()
        self.to_q = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
        torch.nn.init.zeros_(self.to_q.weight)
        self.to_k = self.to_v = torch.nn.Identity()
        self.to_out = [torch.nn.Identity(), torch.nn.Identity()]


def test_an_image_sees_itself_once_and_of_the_others_what_is_seen():
    shared, images = SharedAttention(1, 0, {2: torch.tensor([[0.0, 1.0]] * 3)}), torch.zeros(3, 2, 1)
    images[:, 1, 0] = torch.tensor([3.0, 6.0, 9.0])
    attn = EvenAttention()
    first = shared(attn, images)
    assert first[:, 0, 0].tolist() == [1.5, 3.0, 4.5], "step 0: each its own"
    shared.step = 1
    # own tokens 0 and 3, 6 or 9, and the second token of each other image
    assert shared(attn, images)[:, 0, 0].tolist() == pytest.approx([(3 + 6 + 9) / 4] * 3)
    assert ANCHORS >= 3


def test_the_subject_s_word_is_found_in_the_prompt(models):
    ids = models.pipeline.tokenizer("a red fox on the beach").input_ids
    place = word_place(models.pipeline, "a red fox on the beach")
    assert models.pipeline.tokenizer.decode([ids[place]]).strip() == "fox"
