"""Step 4: LoRA and token rows learn, nothing else changes, and every pitfall that applies is watched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.traces import half, trace
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import Callbacks, Cancelled
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.latents import decode, encode
from chosen_one_nb.steps.lora import apply_lora, initial_lora
from chosen_one_nb.steps.loss import Batch, denoising_loss, snr_weights, target
from chosen_one_nb.steps.prompts import PromptError, condition
from chosen_one_nb.steps.refine import RefineError, refine
from chosen_one_nb.steps.tokens import EmbeddingScale, NewRows, add_tokens, initial_rows
from chosen_one_nb.steps.training_set import Batches, EncodedImages, TrainingSet, captions, encode_images, square

PROMPT = "a red fox"


@pytest.fixture(scope="module")
def gallery(models: Any) -> Gallery:
    settings = Settings.preset("quick", sampling_steps=3)
    return generate(models, SamplingRequest(PROMPT, range(6), settings))


@pytest.fixture(scope="module")
def refined(models: Any, gallery: Gallery) -> Character:
    settings = Settings.preset("quick", refine_steps=3, refine_batch_size=2, lora_rank=2)
    return refine(models, TrainingSet(PROMPT, gallery.images, gallery.latents), settings)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def scheduler(kind: str) -> Any:
    from diffusers import DDPMScheduler

    return DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear")


def encoded(models: Any, data: TrainingSet, settings: Any) -> EncodedImages:
    return encode_images(models, data, captions(models.pipeline, data.prompt, data), settings)


def next_batch(images: EncodedImages, settings: Any) -> Batch:
    return Batches([images], settings, 1000, seed=0).next()


# what is learned, and what is not


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


@pytest.mark.parametrize(("floor", "quietest"), [(0.0, 0), (0.4, 400), (0.9, 900)])
def test_noise_floor_leaves_the_quiet_levels_out(floor: float, quietest: int) -> None:
    """Of a thousand levels, every one from the floor on is drawn sooner or later, and none below it."""
    flat = torch.zeros(1, 1, 1, 1)
    images = EncodedImages(flat, flat, torch.zeros(1, 6), flat + 1, [PROMPT])
    seen = next_batch(images, Settings(noise_floor=floor, refine_batch_size=500)).times
    assert quietest <= seen.min() < quietest + 10
    assert seen.max() > 990


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


# callbacks and ends


def test_one_dict_per_step(models: Any, gallery: Gallery, quick: Any) -> None:
    told: list[dict[str, Any]] = []
    refine(models, TrainingSet(PROMPT, gallery.images), quick, callbacks=Callbacks(on_step=told.append))
    assert [event["step"] for event in told] == [1, 2, 3]
    assert set(told[0]) == {"step", "steps", "loss", "ema_loss", "embedding_norms", "seconds"}
    assert told[1]["ema_loss"] == pytest.approx(0.95 * told[0]["loss"] + 0.05 * told[1]["loss"])
    assert set(told[0]["embedding_norms"]) == {"clip_l", "clip_g"}


def test_cancelled_between_steps(models: Any, gallery: Gallery, quick: Any) -> None:
    before, calls = trace(models.pipeline), iter([False, True])
    with pytest.raises(Cancelled):
        refine(models, TrainingSet(PROMPT, gallery.images), quick, callbacks=Callbacks(cancelled=lambda: next(calls)))
    assert trace(models.pipeline) == before


def test_a_loss_that_is_no_number_is_told(models: Any, gallery: Gallery, quick: Any) -> None:
    before = trace(models.pipeline)
    with pytest.raises(RefineError, match=r"the loss became nan at step 1 of 3. Lower lora_learning_rate"):
        refine(models, TrainingSet(PROMPT, gallery.images, np.full((6, 4, 8, 8), np.nan)), quick)
    assert trace(models.pipeline) == before


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


# bad input


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


def test_a_training_set_has_images_and_one_of_everything_for_each(gallery: Gallery) -> None:
    with pytest.raises(ValueError, match="images: expected at least one"):
        TrainingSet(PROMPT, [])
    for name in ("latents", "masks", "descriptions"):
        with pytest.raises(ValueError, match=f"{name}: expected one for each of 6 images, got 2"):
            TrainingSet(PROMPT, gallery.images, **{name: gallery.latents[:2]})


# the loss


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


def test_captions_take_as_many_descriptions_as_the_tokenizers_do(models: Any) -> None:
    tokenizer = models.pipeline.tokenizer
    room = tokenizer.model_max_length - len(tokenizer(PROMPT).input_ids)
    each = len(tokenizer(f"{PROMPT} snow").input_ids) - len(tokenizer(PROMPT).input_ids)
    image = Image.new("RGB", (8, 8))
    data = TrainingSet(PROMPT, [image] * 3, descriptions=[(), ["snow"], ["snow"] * 99])
    assert captions(models.pipeline, PROMPT, data) == [PROMPT, f"{PROMPT} snow", PROMPT + " snow" * (room // each)]


def test_each_caption_of_a_batch_is_encoded_once_and_in_its_place(models: Any) -> None:
    three = ["a red fox", "a red fox snow", "a red fox"]
    together = condition(models.pipeline, three)
    for row, caption in enumerate(three):
        alone = condition(models.pipeline, caption)
        torch.testing.assert_close(together.embeds[row], alone.embeds[0])
        torch.testing.assert_close(together.pooled[row], alone.pooled[0])


def test_descriptions_go_into_the_captions_of_their_images(models: Any, gallery: Gallery, quick: Any) -> None:
    words = [["snow"], ["snow"], [], [], [], []]
    plain, empty, told = (
        refine(models, TrainingSet(PROMPT, gallery.images, gallery.latents, descriptions=given), quick)
        for given in (None, [[]] * 6, words)
    )
    assert same(plain.lora, empty.lora)
    assert not same(plain.lora, told.lora)
    assert told.provenance["captions"] == ["a red fox <v> snow"] * 2 + ["a red fox <v>"] * 4
    assert told.caption == "a red fox <v>"


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


def test_every_image_comes_before_any_comes_again(models: Any, images: list[Image.Image], quick: Any) -> None:
    five = EncodedImages(*(torch.zeros(5, 1, 1, 1),) * 4, [str(i) for i in range(5)])
    batches = Batches([five], quick.replace(refine_batch_size=5), 1000, seed=0)
    for _ in range(3):
        assert sorted(batches.next().captions) == list("01234")


# the pitfalls, by number


def test_pitfall_2_only_the_new_rows_change(models: Any) -> None:
    pipeline = models.pipeline
    rows = {key: torch.nn.Parameter(row) for key, row in initial_rows(pipeline, Settings(), PROMPT).items()}
    tables = {name: getattr(pipeline, name).get_input_embeddings() for name in ("text_encoder", "text_encoder_2")}
    before = {name: table.weight.clone() for name, table in tables.items()}
    with add_tokens(pipeline, "<v>", rows):
        found = condition(pipeline, "a fox <v>")
        (found.embeds.square().sum() + found.pooled.square().sum()).backward()
    assert all(row.grad is not None and row.grad.any() for row in rows.values())
    assert all(table.weight.grad is None and torch.equal(table.weight, before[name]) for name, table in tables.items())


def test_pitfall_2_other_words_look_up_the_table() -> None:
    table = torch.nn.Embedding(5, 3)
    wrapped = NewRows(table, 5, torch.full((2, 3), 9.0))
    ids = torch.tensor([[0, 5, 4, 6]])
    assert torch.equal(wrapped(ids)[0, [0, 2]], table(torch.tensor([0, 4])))
    assert wrapped(ids)[0, [1, 3]].eq(9).all()


def test_pitfall_3_rows_without_gradient_are_not_decayed(models: Any, gallery: Gallery, quick: Any) -> None:
    settings = quick.replace(weight_decay=0.5, token_learning_rate=0.0)
    character = refine(models, TrainingSet(PROMPT, gallery.images), settings)
    assert same(character.tokens, character.initial)


@pytest.mark.parametrize("rule", ["std", "norm"])
def test_pitfall_4_a_rule_pulls_the_rows_towards_the_vocabulary(models: Any, rule: str) -> None:
    vocabulary = EmbeddingScale(models.pipeline)
    rows = {"clip_l": torch.randn(1, 16) / 9, "clip_g": torch.randn(1, 24) / 9}
    far = vocabulary.norms(rows)
    for _ in range(30):
        vocabulary.pull(rows, Settings(embedding_rule=rule, token_learning_rate=1e-3))
    near = vocabulary.norms(rows)
    assert all(abs(near[key] - 1) < abs(far[key] - 1) for key in rows)
    assert all(0.7 < near[key] < 1.4 for key in rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pitfall_5_and_7_half_precision_base_float32_trainables(
    models: Any, gallery: Gallery, quick: Any, dtype: torch.dtype
) -> None:
    """A rate too small for half precision still moves them."""
    lent = half(models, dtype)
    character = refine(
        lent, TrainingSet(PROMPT, gallery.images, gallery.latents), quick.replace(lora_learning_rate=1e-6)
    )
    assert {weight.dtype for weight in [*character.lora.values(), *character.tokens.values()]} == {torch.float32}
    assert all(weight.any() and weight.abs().max() < 1e-5 for key, weight in character.lora.items() if "lora_B" in key)
    assert lent.pipeline.unet.dtype == dtype


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


def test_pitfall_6_nothing_casts_the_unet(
    models: Any, gallery: Gallery, quick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*args: Any, **more: Any) -> None:
        raise AssertionError("the UNet was moved or cast")

    for name in ("to", "half", "float", "bfloat16"):
        monkeypatch.setattr(models.pipeline.unet, name, forbidden)
    refine(models, TrainingSet(PROMPT, gallery.images), quick)


def test_pitfall_9_each_latent_keeps_its_image_and_crop(models: Any, quick: Any) -> None:
    sizes = [(32, 32), (64, 32), (32, 48), (40, 40)]
    images = [Image.new("RGB", size, (60 * i, 0, 0)) for i, size in enumerate(sizes)]
    data = TrainingSet(PROMPT, images, descriptions=[["snow"], [], [], []])
    together = encoded(models, data, quick)
    for i, image in enumerate(images):
        alone = encoded(models, TrainingSet(PROMPT, [image]), quick)
        torch.testing.assert_close(together.mean[i], alone.mean[0], atol=1e-4, rtol=1e-3)
        latent, ids, _, caption = together.draw(i, torch.Generator().manual_seed(0))
        torch.testing.assert_close(latent, alone.draw(0, torch.Generator().manual_seed(0))[0], atol=1e-4, rtol=1e-3)
        assert torch.equal(ids, alone.time_ids)
        assert caption == (PROMPT if i else f"{PROMPT} snow")
    assert together.time_ids.tolist() == [
        [32, 32, 0, 0, 32, 32],
        [32, 64, 0, 16, 32, 32],
        [48, 32, 8, 0, 32, 32],
        [40, 40, 0, 0, 32, 32],
    ]


def test_pitfall_9_mean_and_spread_are_kept_and_drawn_anew(models: Any, images: list[Image.Image], quick: Any) -> None:
    one = encoded(models, TrainingSet(PROMPT, images[:1]), quick)
    g = torch.Generator().manual_seed(0)
    first, second = one.draw(0, g)[0], one.draw(0, g)[0]
    assert one.spread.min() > 0
    assert not torch.equal(first, second)
    assert ((first - one.mean).abs() < 6 * one.spread).all()


def test_pitfall_8_coding_in_float32(models: Any, images: list[Image.Image]) -> None:
    lent = half(models, torch.float16)
    mean, _ = encode(lent, images[:1], 32)
    assert mean.dtype == torch.float32
    assert lent.pipeline.vae.dtype == torch.float16
    torch.testing.assert_close(mean, encode(models, images[:1], 32)[0], atol=2e-2, rtol=2e-2)


def test_latents_from_images_and_from_the_gallery_are_scaled_alike(models: Any) -> None:
    """A VAE with given mean and spread of its code, as some models have: decode undoes encode's scaling."""
    pipeline = models.pipeline
    latents = torch.randn(2, 4, 8, 8)
    plain = decode(models, latents)
    vae = pipeline.vae
    own = dict(vae.config)
    try:
        vae.register_to_config(latents_mean=[0.5] * 4, latents_std=[2.0] * 4)
        shifted = (latents / own["scaling_factor"] - 0.5) * own["scaling_factor"] / 2.0
        for a, b in zip(decode(models, shifted), plain, strict=True):
            assert np.abs(np.asarray(a, int) - np.asarray(b, int)).max() <= 1
        code = encode(models, plain, 32)[0]
    finally:
        vae.register_to_config(latents_mean=None, latents_std=None)
    unscaled = encode(models, plain, 32)[0]
    torch.testing.assert_close(code, (unscaled / own["scaling_factor"] - 0.5) * own["scaling_factor"] / 2.0)


def test_pitfall_20_no_flip_and_a_caption_made_of_the_prompt(models: Any, quick: Any) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))
    assert square(image, 32)[0].tobytes() == image.tobytes()
    templated = quick.replace(caption_template="a photo of {token}, {prompt}")
    assert refine(models, TrainingSet("a fox", [image]), templated).caption == "a photo of <v>, a fox"


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


def test_the_initial_word(models: Any) -> None:
    pipeline = models.pipeline
    table, tokenizer = pipeline.text_encoder.get_input_embeddings().weight, pipeline.tokenizer
    fox, cat = (tokenizer(word, add_special_tokens=False).input_ids for word in ("fox", "cat"))
    torch.testing.assert_close(initial_rows(pipeline, Settings(), PROMPT)["clip_l"], table[fox])
    torch.testing.assert_close(initial_rows(pipeline, Settings(initial_word="cat"), PROMPT)["clip_l"], table[cat])
    spelled = tokenizer("zebra", add_special_tokens=False).input_ids
    assert len(spelled) == 5
    torch.testing.assert_close(initial_rows(pipeline, Settings(), "a zebra")["clip_l"], table[spelled].mean(0)[None])
    torch.testing.assert_close(initial_rows(pipeline, Settings(), "🦊")["clip_l"], table.mean(0)[None])
