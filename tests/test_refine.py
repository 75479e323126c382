"""Step 4: LoRA and token rows learn, nothing else changes, and every pitfall that applies is watched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.traces import half, trace
from helpers.training import PROMPT, encoded, next_batch, same, scheduler
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import Callbacks, Cancelled
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.loss import denoising_loss
from chosen_one_nb.steps.prompts import PromptError, condition
from chosen_one_nb.steps.refine import RefineError, refine
from chosen_one_nb.steps.training_set import TrainingSet


@pytest.fixture(scope="module")
def gallery(models: Any) -> Gallery:
    settings = Settings.preset("quick", sampling_steps=3)
    return generate(models, SamplingRequest(PROMPT, range(6), settings))


@pytest.fixture(scope="module")
def refined(models: Any, gallery: Gallery) -> Character:
    settings = Settings.preset("quick", refine_steps=3, refine_batch_size=2, lora_rank=2)
    return refine(models, TrainingSet(PROMPT, gallery.images, gallery.latents), settings)


def test_lora_and_rows_of_both_encoders_move(refined: Character) -> None:
    assert all(weight.any() for key, weight in refined.lora.items() if "lora_B" in key)
    assert {key: rows.shape for key, rows in refined.tokens.items()} == {"clip_l": (1, 16), "clip_g": (1, 24)}
    assert not any(torch.equal(refined.tokens[key], refined.initial[key]) for key in refined.tokens)
    assert (refined.token, refined.caption, refined.rank) == ("<v>", "a red fox <v>", 2)


def test_self_and_cross_attention_and_nothing_else_is_adapted(refined: Character) -> None:
    places = {key.split("transformer_blocks.0.")[1].rsplit(".lora_", 1)[0] for key in refined.lora}
    assert places == {f"attn{i}.{part}" for i in (1, 2) for part in ("to_q", "to_k", "to_v", "to_out.0")}


def test_the_pipeline_is_left_bit_identical(models: Any, gallery: Gallery, quick: Any) -> None:
    before = trace(models.pipeline)
    refine(models, TrainingSet(PROMPT, gallery.images, gallery.latents), quick)
    assert trace(models.pipeline) == before


def test_it_learns(models: Any, gallery: Gallery) -> None:
    """On two images, the loss at fixed noise falls."""
    settings = Settings.preset(
        "quick", refine_steps=25, refine_batch_size=4, lora_learning_rate=2e-2, token_learning_rate=2e-2
    )
    data, pipeline = TrainingSet(PROMPT, gallery.images[:2], gallery.latents[:2]), models.pipeline
    character = refine(models, data, settings)
    batch = next_batch(encoded(models, data, settings), settings.replace(refine_batch_size=32))

    def loss(strength: float) -> float:
        with torch.no_grad(), character.on(pipeline, strength):
            text = condition(pipeline, character.caption).expand(32)
            return denoising_loss(pipeline.unet, scheduler("v_prediction"), batch, text).item()

    assert loss(1.0) < loss(0.0) - 0.01


def test_a_refinement_keeps_to_the_noise_floor(models: Any, quick: Any, images: list[Image.Image]) -> None:
    everywhere, noisy = (refine(models, TrainingSet(PROMPT, images), quick.replace(noise_floor=f)) for f in (0.0, 0.4))
    assert not same(everywhere.lora, noisy.lora)


def test_the_same_seed_is_the_same_character(models: Any, gallery: Gallery, quick: Any) -> None:
    first, second = (refine(models, TrainingSet(PROMPT, gallery.images), quick, seed=4) for _ in range(2))
    other = refine(models, TrainingSet(PROMPT, gallery.images), quick, seed=5)
    assert same(first.lora, second.lora)
    assert same(first.tokens, second.tokens)
    assert not same(first.lora, other.lora)


def test_warm_start_goes_on_from_the_last_character(
    models: Any, refined: Character, quick: Any, images: list[Image.Image]
) -> None:
    still = quick.replace(lora_learning_rate=0.0, token_learning_rate=0.0)
    again = refine(models, TrainingSet(PROMPT, images), still, refined)
    assert same(again.lora, refined.lora)
    assert same(again.tokens, refined.tokens)
    assert same(again.initial, refined.initial)


def test_reinit_begins_anew(models: Any, refined: Character, quick: Any, images: list[Image.Image]) -> None:
    anew = quick.replace(carry_over="reinit")
    fresh = refine(models, TrainingSet(PROMPT, images), anew)
    assert same(refine(models, TrainingSet(PROMPT, images), anew, refined).lora, fresh.lora)


def test_stable_diffusion_1_takes_the_same_path(sd_models: Any, quick: Any, images: list[Image.Image]) -> None:
    before = trace(sd_models.pipeline)
    character = refine(sd_models, TrainingSet(PROMPT, images), quick)
    assert list(character.tokens) == ["clip_l"]
    assert trace(sd_models.pipeline) == before


def test_several_rows(models: Any, quick: Any, images: list[Image.Image]) -> None:
    character = refine(models, TrainingSet(PROMPT, images), quick.replace(token_vectors=2))
    assert character.tokens["clip_g"].shape == (2, 24)
    assert not torch.equal(character.tokens["clip_g"][0], character.tokens["clip_g"][1])


def test_one_dict_per_step(models: Any, gallery: Gallery, quick: Any) -> None:
    events: list[dict[str, Any]] = []
    refine(models, TrainingSet(PROMPT, gallery.images), quick, callbacks=Callbacks(on_step=events.append))
    assert [event["step"] for event in events] == [1, 2, 3]
    assert set(events[0]) == {"step", "steps", "loss", "ema_loss", "embedding_norms", "seconds"}
    assert events[1]["ema_loss"] == pytest.approx(0.95 * events[0]["loss"] + 0.05 * events[1]["loss"])
    assert set(events[0]["embedding_norms"]) == {"clip_l", "clip_g"}


def test_cancelled_between_steps(models: Any, gallery: Gallery, quick: Any) -> None:
    before, calls = trace(models.pipeline), iter([False, True])
    with pytest.raises(Cancelled):
        refine(models, TrainingSet(PROMPT, gallery.images), quick, callbacks=Callbacks(cancelled=lambda: next(calls)))
    assert trace(models.pipeline) == before


def test_a_loss_that_is_no_number_is_reported(models: Any, gallery: Gallery, quick: Any) -> None:
    before = trace(models.pipeline)
    with pytest.raises(RefineError, match=r"the loss became nan at step 1 of 3. .*load the models in float32"):
        refine(models, TrainingSet(PROMPT, gallery.images, np.full((6, 4, 8, 8), np.nan)), quick)
    assert trace(models.pipeline) == before


@pytest.mark.parametrize(
    ("steps", "what"), [(3, "the loss became nan at step 2 of 3"), (1, "the last of 1 steps made NaN")]
)
def test_rates_that_spoil_the_weights_are_reported(
    models: Any, gallery: Gallery, quick: Any, monkeypatch: pytest.MonkeyPatch, steps: int, what: str
) -> None:
    """In the last step too, which no loss follows."""

    def spoil(trained: Any, norm: float) -> None:
        for parameter in trained:
            parameter.grad[:] = float("inf")

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoil)
    with pytest.raises(RefineError, match=rf"{what}.* Lower lora_learning_rate"):
        refine(models, TrainingSet(PROMPT, gallery.images), quick.replace(refine_steps=steps))


def test_an_error_in_a_callback_leaves_the_pipeline_alone(models: Any, gallery: Gallery, quick: Any) -> None:
    before = trace(models.pipeline)
    with pytest.raises(ZeroDivisionError):
        refine(models, TrainingSet(PROMPT, gallery.images), quick, callbacks=Callbacks(on_step=lambda event: 1 / 0))
    assert trace(models.pipeline) == before


def test_provenance(models: Any, gallery: Gallery, quick: Any) -> None:
    about = refine(models, TrainingSet(PROMPT, gallery.images), quick).provenance
    assert about["prompt"] == PROMPT
    assert about["fingerprint"] == models.fingerprint
    assert about["load"] == models.recipe == {"name": models.name}
    assert about["settings"]["lora_rank"] == 2
    assert about["n_images"] == 6


@pytest.mark.parametrize(
    ("changes", "prompt", "error", "message"),
    [
        ({}, "a fox <v>", PromptError, "without '<v>'"),
        ({}, "", PromptError, "expected a description"),
        ({}, "a fox " * 15, PromptError, "at most 32 tokens .* got 33"),
        ({"initial_word": "🦊"}, PROMPT, SettingsError, "initial_word: expected a word the model's tokenizers know"),
        ({"prior_share": 0.5}, PROMPT, SettingsError, "prior_share: 0.5 of each batch"),
    ],
)
def test_bad_input(
    models: Any,
    gallery: Gallery,
    quick: Any,
    changes: dict[str, Any],
    prompt: str,
    error: type[Exception],
    message: str,
) -> None:
    before = trace(models.pipeline)
    with pytest.raises(error, match=message):
        refine(models, TrainingSet(prompt, gallery.images), quick.replace(**changes))
    assert trace(models.pipeline) == before


def test_a_warm_start_keeps_rank_and_token(models: Any, gallery: Gallery, refined: Character, quick: Any) -> None:
    with pytest.raises(SettingsError, match=r"expected the character's \(2, '<v>', 1\), got \(3, '<v>', 1\)"):
        refine(models, TrainingSet(PROMPT, gallery.images), quick.replace(lora_rank=3), refined)


@pytest.mark.parametrize(
    "changes",
    [
        {"snr_gamma": 5.0},
        {"caption_dropout": 0.5},
        {"prior_share": 0.5},
        {"embedding_rule": "std"},
        {"embedding_rule": "norm"},
        {"refine_batch_size": 1},
    ],
)
def test_switches_change_what_is_learned(
    models: Any, gallery: Gallery, quick: Any, refined: Character, changes: dict[str, Any]
) -> None:
    prior = TrainingSet(PROMPT, gallery.images, gallery.latents)
    data = TrainingSet(PROMPT, gallery.images, gallery.latents, prior=prior)
    plain, other = refine(models, data, quick), refine(models, data, quick.replace(**changes))
    assert not same(plain.tokens, other.tokens)


def test_prior_images_go_without_the_token(models: Any, gallery: Gallery, quick: Any) -> None:
    """Where every image is of the prior, the token learns nothing, and only the prior's captions matter."""
    alone, snow = quick.replace(prior_share=1 - 1e-9), [["snow"]] * 6

    def learned(chosen: Any = None, prior: Any = None) -> Character:
        first = TrainingSet(PROMPT, gallery.images, gallery.latents, descriptions=prior)
        data = TrainingSet(PROMPT, gallery.images, gallery.latents, descriptions=chosen, prior=first)
        return refine(models, data, alone)

    plain, unheard, described = learned(), learned(chosen=snow), learned(prior=snow)
    assert same(plain.tokens, plain.initial)
    assert same(plain.lora, unheard.lora)
    assert not same(plain.lora, described.lora)


def test_dropped_captions_teach_the_token_nothing(models: Any, gallery: Gallery, quick: Any) -> None:
    dropped = refine(models, TrainingSet(PROMPT, gallery.images), quick.replace(caption_dropout=1 - 1e-9))
    assert same(dropped.tokens, dropped.initial)


def test_descriptions_go_into_the_captions_of_their_images(models: Any, gallery: Gallery, quick: Any) -> None:
    words = [["snow"], ["snow"], [], [], [], []]
    plain, empty, described = (
        refine(models, TrainingSet(PROMPT, gallery.images, gallery.latents, descriptions=given), quick)
        for given in (None, [[]] * 6, words)
    )
    assert same(plain.lora, empty.lora)
    assert not same(plain.lora, described.lora)
    assert described.provenance["captions"] == ["a red fox <v> snow"] * 2 + ["a red fox <v>"] * 4
    assert described.caption == "a red fox <v>"


def test_gradient_checkpointing_changes_nothing_but_memory(models: Any, gallery: Gallery, quick: Any) -> None:
    plain, saving = (
        refine(models, TrainingSet(PROMPT, gallery.images), quick.replace(gradient_checkpointing=wanted))
        for wanted in (False, True)
    )
    for key in plain.lora:
        torch.testing.assert_close(plain.lora[key], saving.lora[key], atol=1e-5, rtol=1e-4)
    assert not models.pipeline.unet.is_gradient_checkpointing


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("kind", ["models", "sd_models"])
def test_a_batch_that_does_not_fit_goes_in_parts_to_the_same_end(
    where: str, kind: str, quick: Any, images: list[Image.Image], request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, settings = request.getfixturevalue(kind), quick.replace(refine_batch_size=5, snr_gamma=5.0)
    whole, parts, sizes = [], [], []
    plain = refine(models, TrainingSet(PROMPT, images), settings, callbacks=Callbacks(on_step=whole.append))
    unet = models.pipeline.unet
    inner = unet.forward

    def out_of_memory(*anything: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    def forward(noisy: torch.Tensor, *args: Any, **more: Any) -> Any:
        sizes.append(len(noisy))
        if len(noisy) > 2 and where == "forward":
            out_of_memory()
        elif len(noisy) > 2:  # its gradient is ready after those of all LoRA layers that read it
            more["encoder_hidden_states"].register_hook(out_of_memory)
        return inner(noisy, *args, **more)

    monkeypatch.setattr(unet, "forward", forward)
    slow = refine(models, TrainingSet(PROMPT, images), settings, callbacks=Callbacks(on_step=parts.append))
    assert sizes[:4] == [5, 2, 2, 1]
    assert max(sizes[1:]) == 2
    assert [event["loss"] for event in parts] == pytest.approx([event["loss"] for event in whole], rel=1e-4)
    for name, weight in plain.lora.items():
        torch.testing.assert_close(slow.lora[name], weight, atol=2e-5, rtol=1e-3)


def test_pitfall_3_rows_without_gradient_are_not_decayed(models: Any, gallery: Gallery, quick: Any) -> None:
    settings = quick.replace(weight_decay=0.5, token_learning_rate=0.0)
    character = refine(models, TrainingSet(PROMPT, gallery.images), settings)
    assert same(character.tokens, character.initial)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pitfall_5_and_7_half_precision_base_float32_trainables(
    models: Any, gallery: Gallery, quick: Any, dtype: torch.dtype
) -> None:
    """A rate too small for half precision still moves them."""
    halved = half(models, dtype)
    character = refine(
        halved, TrainingSet(PROMPT, gallery.images, gallery.latents), quick.replace(lora_learning_rate=1e-6)
    )
    assert {weight.dtype for weight in [*character.lora.values(), *character.tokens.values()]} == {torch.float32}
    assert all(weight.any() and weight.abs().max() < 1e-5 for key, weight in character.lora.items() if "lora_B" in key)
    assert halved.pipeline.unet.dtype == dtype


def test_pitfall_6_nothing_casts_the_unet(
    models: Any, gallery: Gallery, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: Any, **more: Any) -> None:
        raise AssertionError("the UNet was moved or cast")

    for name in ("to", "half", "float", "bfloat16"):
        monkeypatch.setattr(models.pipeline.unet, name, forbidden)
    refine(models, TrainingSet(PROMPT, gallery.images), quick)


def test_pitfall_20_a_caption_made_of_the_prompt(models: Any, quick: Any, images: list[Image.Image]) -> None:
    templated = quick.replace(caption_template="a photo of {token}, {prompt}")
    assert refine(models, TrainingSet("a fox", images[:1]), templated).caption == "a photo of <v>, a fox"


def test_pitfall_21_training_sees_the_ids_that_sampling_sees(
    models: Any, gallery: Gallery, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, seen = models.pipeline, {}
    for name in ("text_encoder", "text_encoder_2"):
        inner = getattr(pipeline, name).forward

        def watched(ids: torch.Tensor, *args: Any, _name: str = name, _inner: Any = inner, **more: Any) -> Any:
            seen.setdefault(_name, []).append(ids.clone())
            return _inner(ids, *args, **more)

        monkeypatch.setattr(getattr(pipeline, name), "forward", watched)
    character = refine(models, TrainingSet(PROMPT, gallery.images), quick)
    trained = {name: ids[-1] for name, ids in seen.items()}
    with character.on(pipeline):
        pipeline(character.prompt(), num_inference_steps=1, output_type="latent", guidance_scale=1.0)
    for name, ids in trained.items():
        assert torch.equal(ids, seen[name][-1])
        assert ids.shape == (1, 32)


def test_a_masked_character_is_another_one_and_a_mask_of_everything_the_same(
    models: Any, images: list[Image.Image], quick: Any
) -> None:
    left = np.zeros((2, 32, 32), bool)
    left[:, :, :16] = True
    masked = quick.replace(scene_weight=0.0)
    plain = refine(models, TrainingSet(PROMPT, images[:2]), quick)
    every = refine(models, TrainingSet(PROMPT, images[:2], masks=np.ones_like(left)), masked)
    half = refine(models, TrainingSet(PROMPT, images[:2], masks=left), masked)
    name = next(name for name in plain.lora if "lora_B" in name)
    assert torch.equal(plain.lora[name], every.lora[name])
    assert not torch.allclose(plain.lora[name], half.lora[name])


def test_a_masked_loss_needs_masks(models: Any, images: list[Image.Image], quick: Any) -> None:
    with pytest.raises(SettingsError, match=r"in each of 2 images, but the training set has no masks"):
        refine(models, TrainingSet(PROMPT, images[:2]), quick.replace(scene_weight=0.5))
