"""Step 1: the same seed is the same image, whatever else is drawn with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chosen_one_nb.settings import SettingsError
from chosen_one_nb.steps import Callbacks, Cancelled
from chosen_one_nb.steps.gallery import SamplingRequest, image_seeds, probe_seeds
from chosen_one_nb.steps.generate import generate, noise, sampler
from chosen_one_nb.steps.prompts import PromptError

SEEDS = [11, 22, 33, 44]


def far(a: Image.Image, b: Image.Image) -> int:
    """Largest difference of two images, in grey levels."""
    return int(np.abs(np.asarray(a, int) - np.asarray(b, int)).max())


def test_seeds_are_distinct_and_repeatable(quick: Any) -> None:
    seeds = image_seeds(quick, 3, n=500)
    assert len(set(seeds.tolist())) == 500
    assert seeds.dtype == np.int64
    assert seeds.tolist() == image_seeds(quick, 3, n=500).tolist()


def test_more_seeds_leave_the_first_as_they_are(quick: Any) -> None:
    assert image_seeds(quick, 0, n=8).tolist() == image_seeds(quick, 0, n=64)[:8].tolist()


def test_iterations_runs_and_probes_have_seeds_of_their_own(quick: Any) -> None:
    several = [
        image_seeds(quick, 0, n=64),
        image_seeds(quick, 1, n=64),
        probe_seeds(quick),
        image_seeds(quick.replace(seed=1), 0, n=64),
    ]
    together = np.concatenate(several)
    assert len(set(together.tolist())) == len(together)


def test_noise_is_that_of_a_stock_pipeline_with_a_generator_per_image() -> None:
    from diffusers.utils.torch_utils import randn_tensor

    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    assert torch.equal(noise(SEEDS, (4, 8, 8)), randn_tensor((4, 4, 8, 8), generator=generators))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_equals_a_stock_pipeline_call(models: Any, quick: Any, guidance: float) -> None:
    settings = quick.replace(guidance_scale=guidance, guidance_rescale=0.3)
    ours = generate(models, SamplingRequest("a red fox", SEEDS, settings))
    pipeline = models.pipeline
    own, pipeline.scheduler = pipeline.scheduler, sampler(pipeline, settings.sampler)
    stock = pipeline(
        "a red fox",
        num_images_per_prompt=4,
        guidance_scale=guidance,
        guidance_rescale=0.3,
        num_inference_steps=3,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    ).images
    pipeline.scheduler = own
    assert all(far(a, b) <= 1 for a, b in zip(ours.images, stock, strict=True))


def test_stable_diffusion_1_takes_the_same_path(sd_models: Any, quick: Any) -> None:
    ours = generate(sd_models, SamplingRequest("a red fox", SEEDS[:2], quick, negative="a hat"))
    pipeline = sd_models.pipeline
    own, pipeline.scheduler = pipeline.scheduler, sampler(pipeline, quick.sampler)
    stock = pipeline(
        "a red fox",
        negative_prompt="a hat",
        num_images_per_prompt=2,
        num_inference_steps=3,
        guidance_scale=quick.guidance_scale,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS[:2]],
    ).images
    pipeline.scheduler = own
    assert all(far(a, b) <= 1 for a, b in zip(ours.images, stock, strict=True))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_pitfall_15_and_16_any_batch_size_draws_the_same_images(models: Any, quick: Any, batch: int) -> None:
    whole = generate(models, SamplingRequest("a fox", SEEDS, quick))
    parts = generate(models, SamplingRequest("a fox", SEEDS, quick.replace(batch_size=batch)))
    np.testing.assert_allclose(parts.latents, whole.latents, atol=1e-4)


def test_pitfall_15_a_image_comes_back_alone(models: Any, quick: Any) -> None:
    whole, alone = (
        generate(models, SamplingRequest("a fox", SEEDS, quick)),
        generate(models, SamplingRequest("a fox", SEEDS[2:3], quick)),
    )
    assert far(whole.images[2], alone.images[0]) <= 1


@pytest.mark.parametrize("name", ["dpm++", "ddim", "euler"])
def test_pitfall_16_samplers_are_deterministic(models: Any, quick: Any, name: str) -> None:
    settings = quick.replace(sampler=name)
    first, second = (generate(models, SamplingRequest("a fox", SEEDS[:2], settings)) for _ in range(2))
    assert np.array_equal(first.latents, second.latents)
    assert sampler(models.pipeline, name).config.prediction_type == "v_prediction"


def test_pitfall_16_a_stochastic_solver_in_the_pipeline_is_not_taken_over(models: Any) -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipeline = SimpleNamespace(scheduler=DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"))
    assert sampler(pipeline, "dpm++").config.algorithm_type == "dpmsolver++"
    assert sampler(pipeline, "ddim").config.clip_sample is False


def test_gallery_says_what_it_is(models: Any, quick: Any) -> None:
    gallery = generate(models, SamplingRequest(" a fox ", SEEDS, quick))
    assert gallery.latents.shape == (4, 4, 8, 8)
    assert gallery.latents.dtype == np.float32
    assert [image.size for image in gallery.images] == [(32, 32)] * 4
    assert (gallery.prompt, gallery.seeds.tolist()) == ("a fox", SEEDS)


def test_progress_per_sampler_step_and_images_per_batch(models: Any, quick: Any) -> None:
    events, given, shown = [], [], []
    request = SamplingRequest("a fox", SEEDS, quick.replace(batch_size=2))
    callbacks = Callbacks(on_progress=events.append, on_images=shown.extend)
    whole = generate(models, request, callbacks, on_batch=lambda *part: given.append(part))
    assert shown == list(enumerate(whole.images))
    assert [event["done"] for event in events] == [2, 4, 6, 8, 10, 12]
    assert {(event["stage"], event["total"], event["unit"]) for event in events} == {("generate", 12, "image steps")}
    assert [list(indices) for indices, _ in given] == [[0, 1], [2, 3]]
    for indices, part in given:
        assert part.seeds.tolist() == [SEEDS[i] for i in indices]
        assert np.array_equal(part.latents, whole.latents[indices.start : indices.stop])
        assert part.images == [whole.images[i] for i in indices]


def test_cancelled_between_steps_and_scheduler_back(models: Any, quick: Any) -> None:
    own, calls = models.pipeline.scheduler, iter([False, False, True])
    with pytest.raises(Cancelled):
        generate(models, SamplingRequest("a fox", SEEDS, quick), Callbacks(cancelled=lambda: next(calls)))
    assert models.pipeline.scheduler is own


def test_out_of_memory_halves_the_batch(models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generate(models, SamplingRequest("a fox", SEEDS, quick))
    unet, sizes = models.pipeline.unet, []
    forward = unet.forward

    def small_memory(sample: torch.Tensor, *args: Any, **more: Any) -> Any:
        sizes.append(len(sample))
        if len(sample) > 4:  # guidance doubles a batch of 4 to 8
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(sample, *args, **more)

    monkeypatch.setattr(unet, "forward", small_memory)
    gallery = generate(models, SamplingRequest("a fox", SEEDS, quick))
    assert sizes == [8, 4, 4, 4, 4, 4, 4]
    np.testing.assert_allclose(gallery.latents, whole.latents, atol=1e-4)


def test_other_errors_are_not_swallowed(models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(models.pipeline.unet, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        generate(models, SamplingRequest("a fox", SEEDS, quick))


def test_image_size(models: Any, quick: Any) -> None:
    assert generate(models, SamplingRequest("a fox", [1], quick.replace(image_size=48))).images[0].size == (48, 48)
    with pytest.raises(SettingsError, match=r"image_size: expected a multiple of 8 .* got 50"):
        generate(models, SamplingRequest("a fox", [1], quick.replace(image_size=50)))


@pytest.mark.parametrize(
    ("prompt", "message"), [(" \n", "expected a description"), ("a fox " * 20, "at most 32 tokens")]
)
def test_prompts_are_checked(models: Any, quick: Any, prompt: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        generate(models, SamplingRequest(prompt, SEEDS, quick))


def test_prompt_with_the_placeholder(models: Any, quick: Any) -> None:
    with pytest.raises(PromptError, match=r"without '<v>'.*placeholder"):
        generate(models, SamplingRequest("a fox <v> in snow", SEEDS, quick))


def test_prompt_is_encoded_once(models: Any, quick: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, encode = [], models.pipeline.text_encoder.forward
    monkeypatch.setattr(models.pipeline.text_encoder, "forward", lambda *a, **k: calls.append(1) or encode(*a, **k))
    generate(models, SamplingRequest("a fox", SEEDS, quick.replace(batch_size=1)))
    assert len(calls) == 1


def test_a_context_counts_as_much_as_settings_say(models: Any, quick: Any) -> None:
    plain, whole = "a red fox", "a red fox at the beach"
    written = generate(models, SamplingRequest(whole, SEEDS, quick)).latents
    once, without = (
        generate(
            models, SamplingRequest(plain, SEEDS, quick.replace(context_weight=weight), context="at the beach")
        ).latents
        for weight in (1.0, 1e-6)
    )
    assert np.array_equal(once, written)
    assert np.allclose(without, generate(models, SamplingRequest(plain, SEEDS, quick)).latents, atol=1e-3)
    twice = generate(models, SamplingRequest(plain, SEEDS, quick.replace(context_weight=2.0), context="at the beach"))
    assert not np.allclose(twice.latents, written, atol=1e-3)
    assert twice.prompt == whole
