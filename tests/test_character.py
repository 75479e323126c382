"""A character goes on a pipeline, comes off without a trace, and survives its folder."""

from __future__ import annotations

import errno
import gc
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import made_for
from helpers.traces import trace
from peft.tuners.lora import Linear as LoraLinear

from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.steps.prompts import check_prompt, condition
from chosen_one_nb.steps.tokens import NewRows


@pytest.fixture(scope="module")
def character(models: Any) -> Character:
    return made_for(models.pipeline)


def draw(pipeline: Any, prompt: str = "a red fox") -> np.ndarray:
    generator = torch.Generator().manual_seed(1)
    return pipeline(prompt, num_inference_steps=2, generator=generator, output_type="np").images


def test_a_stock_call_draws_the_character_and_afterwards_the_base(models: Any, character: Character) -> None:
    base, before = draw(models.pipeline), trace(models.pipeline)
    with character.on(models.pipeline) as adapted:
        assert adapted is models.pipeline
        other = draw(models.pipeline, character.prompt("on the beach"))
        assert np.abs(other - base).max() > 0.05
    assert trace(models.pipeline) == before
    assert np.array_equal(draw(models.pipeline), base)


def test_on_stable_diffusion_1(sd_models: Any) -> None:
    before = trace(sd_models.pipeline)
    character = made_for(sd_models.pipeline)
    with character.on(sd_models.pipeline):
        draw(sd_models.pipeline, character.prompt())
    assert trace(sd_models.pipeline) == before


def test_taken_off_after_an_error_too(models: Any, character: Character) -> None:
    before = trace(models.pipeline)
    with pytest.raises(KeyboardInterrupt), character.on(models.pipeline):
        raise KeyboardInterrupt
    assert trace(models.pipeline) == before


def test_pitfall_12_and_13_swapping_leaves_nothing_behind(models: Any, character: Character) -> None:
    before = trace(models.pipeline)
    for _ in range(8):
        with character.on(models.pipeline):
            pass
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing) in (NewRows, LoraLinear)]
    assert trace(models.pipeline) == before


def test_pitfall_14_the_base_weights_are_not_touched_while_it_is_on(models: Any, character: Character) -> None:
    weight = models.pipeline.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q.weight
    copy, place = weight.clone(), weight.data_ptr()
    with character.on(models.pipeline):
        layer = models.pipeline.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q
        assert layer.get_base_layer().weight.data_ptr() == place
        assert not layer.merged
    assert torch.equal(weight, copy)


def test_pitfall_1_pooled_at_the_end_although_the_token_has_a_higher_id(models: Any, character: Character) -> None:
    pipeline = models.pipeline
    text = "a <v> fox on the beach"
    with torch.no_grad(), character.on(pipeline):
        ids = pipeline.tokenizer_2(text, padding="max_length", return_tensors="pt").input_ids
        end = int((ids[0] == pipeline.tokenizer_2.eos_token_id).int().argmax())
        token = int(ids[0].argmax())
        out = pipeline.text_encoder_2(ids, output_hidden_states=True)
        expected = pipeline.text_encoder_2.text_projection(out.last_hidden_state)[0]
        pooled = condition(pipeline, text).pooled[0]
        assert token < end
        torch.testing.assert_close(pooled, expected[end])
        assert not torch.allclose(pooled, expected[token])


def test_strength_zero_is_the_initial_word_and_one_what_was_learned(models: Any, character: Character) -> None:
    pipeline = models.pipeline
    base = draw(pipeline)
    seen = {}
    for strength in (0.0, 0.5, 1.0):
        with character.on(pipeline, strength):
            seen[strength] = pipeline.text_encoder.get_input_embeddings().rows.clone()
            if strength == 0:
                assert np.array_equal(draw(pipeline), base)
    assert torch.equal(seen[0.0], character.initial["clip_l"])
    assert torch.equal(seen[1.0], character.tokens["clip_l"])
    torch.testing.assert_close(seen[0.5], (character.initial["clip_l"] + character.tokens["clip_l"]) / 2)


def test_strength_changes_images_by_degrees(models: Any, character: Character) -> None:
    base = draw(models.pipeline)
    far = []
    for strength in (0.1, 1.0):
        with character.on(models.pipeline, strength):
            far.append(np.abs(draw(models.pipeline) - base).mean())
    assert 0 < far[0] < far[1]


@pytest.mark.parametrize("strength", [-0.1, 1.5, float("nan")])
def test_bad_strength(models: Any, character: Character, strength: float) -> None:
    with (
        pytest.raises(CharacterError, match="strength: expected a number from 0"),
        character.on(models.pipeline, strength),
    ):
        pass


def test_several_rows_behind_one_word(models: Any) -> None:
    character = made_for(models.pipeline, vectors=3)
    with torch.no_grad(), character.on(models.pipeline):
        tokenizer = models.pipeline.tokenizer
        expanded = models.pipeline.maybe_convert_prompt("a <v> fox", tokenizer)
        assert expanded == "a <v> <v>_1 <v>_2 fox"
        ids = tokenizer(expanded).input_ids[2:5]
        vectors = models.pipeline.text_encoder.get_input_embeddings()(torch.tensor([ids]))
        assert torch.equal(vectors[0], character.tokens["clip_l"])
        condition(models.pipeline, "a <v> fox")
        with pytest.raises(Exception, match="got 34"):
            check_prompt(models.pipeline, "fox " * 29 + "<v>")


def test_a_capital_token_is_one_token(models: Any) -> None:
    with made_for(models.pipeline, token="<Jasper>").on(models.pipeline):
        assert len(models.pipeline.tokenizer("a <Jasper>").input_ids) == 4


def test_two_characters_at_once_are_refused(models: Any, character: Character) -> None:
    before = trace(models.pipeline)
    with character.on(models.pipeline):
        with pytest.raises(CharacterError, match="knows this word already"), character.on(models.pipeline):
            pass
        other = made_for(models.pipeline, token="<w>")
        with pytest.raises(CharacterError, match="has an adapter already"), other.on(models.pipeline):
            pass
        draw(models.pipeline, "a <v>")
    assert trace(models.pipeline) == before


def test_a_character_of_another_model_is_refused(models: Any, sd_models: Any, character: Character) -> None:
    for pipeline, wrong, message in [
        (sd_models.pipeline, character, "expected one entry for each of"),
        (models.pipeline, made_for(sd_models.pipeline), "expected one entry for each of"),
        (models.pipeline, Character({}, character.tokens, "<v>", "", 2, 2.0), "do not fit this UNet"),
        (
            models.pipeline,
            Character(
                character.lora,
                {key: rows[:, :3] for key, rows in character.tokens.items()},
                "<v>",
                "",
                2,
                2.0,
            ),
            "expected width 16 .* got 3",
        ),
    ]:
        before = trace(pipeline)
        with pytest.raises(CharacterError, match=message), wrong.on(pipeline):
            pass
        assert trace(pipeline) == before


def test_prompt() -> None:
    character = Character({}, {}, "<v>", "a sticker of a fox <v>", 4, 4.0)
    assert character.prompt() == "a sticker of a fox <v>"
    assert character.prompt("on the beach") == "a sticker of a fox <v> on the beach"


def test_save_and_load(models: Any, character: Character, tmp_path: Path) -> None:
    loaded = Character.load(character.save(tmp_path / "fox"))
    for ours, theirs in [
        (character.lora, loaded.lora),
        (character.tokens, loaded.tokens),
        (character.initial, loaded.initial),
    ]:
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert (loaded.token, loaded.caption, loaded.rank, loaded.alpha, loaded.provenance) == (
        "<v>",
        "a red fox <v>",
        2,
        2.0,
        {"prompt": "a red fox"},
    )
    assert sorted(file.name for file in (tmp_path / "fox").iterdir()) == [
        "character.json",
        "embeddings.safetensors",
        "initial_embeddings.safetensors",
        "pytorch_lora_weights.safetensors",
    ]


@pytest.mark.parametrize("alpha", [2.0, 0.5])
def test_the_saved_lora_loads_in_a_stock_pipeline(models: Any, tmp_path: Path, alpha: float) -> None:
    """Also with an alpha that is not the rank, which a file without it would lose."""
    character = made_for(models.pipeline, alpha=alpha)
    with character.on(models.pipeline):
        ours = draw(models.pipeline)
    try:
        models.pipeline.load_lora_weights(character.save(tmp_path))
        np.testing.assert_allclose(draw(models.pipeline), ours, atol=1e-5)
    finally:
        models.pipeline.unload_lora_weights()
        del models.pipeline.unet._hf_peft_config_loaded


def test_the_saved_rows_load_as_textual_inversion(models: Any, model_folder: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionXLPipeline
    from safetensors.torch import load_file

    character = made_for(models.pipeline)
    rows = load_file(character.save(tmp_path) / "embeddings.safetensors")
    stock = StableDiffusionXLPipeline.from_pretrained(model_folder / "pipeline", use_safetensors=True)
    stock.load_textual_inversion(
        {"<v>": rows["clip_l"][0]}, token="<v>", text_encoder=stock.text_encoder, tokenizer=stock.tokenizer
    )
    ids = torch.tensor([stock.tokenizer("a <v> fox").input_ids])
    theirs = stock.text_encoder(ids).last_hidden_state
    with torch.no_grad(), character.on(models.pipeline):
        ids = torch.tensor([models.pipeline.tokenizer("a <v> fox").input_ids])
        torch.testing.assert_close(models.pipeline.text_encoder(ids).last_hidden_state, theirs)


def test_a_full_disk_is_reported_and_leaves_what_was_there(
    character: Character, models: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    character.save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    flushed: list[int] = []

    def flush(stream: int) -> None:
        flushed.append(stream)
        if len(flushed) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", flush)
    other = made_for(models.pipeline, alpha=7.0, token="<w>")
    with pytest.raises(CharacterError, match="got: No space left on device") as caught:
        other.save(tmp_path)
    assert "Free space there or choose another folder" in str(caught.value)
    assert caught.value.errno == errno.ENOSPC, "for a run, which has words of its own"
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_place_that_is_no_folder_is_reported(character: Character, tmp_path: Path) -> None:
    (tmp_path / "fox").write_text("a file")
    with pytest.raises(CharacterError, match="fox: expected a folder that a character can be saved to, got: "):
        character.save(tmp_path / "fox")


def damage_nothing(folder: Path) -> None:
    (folder / "character.json").unlink()


def damage_notes(folder: Path) -> None:
    (folder / "character.json").write_text("{")


def damage_format(folder: Path) -> None:
    (folder / "character.json").write_text(json.dumps({"format": 99}))


def damage_entry(folder: Path) -> None:
    (folder / "character.json").write_text(json.dumps({"format": 1, "token": "<v>"}))


def damage_weights(folder: Path) -> None:
    file = folder / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nothing, "character.json: expected a character's notes"),
        (damage_notes, "character.json: expected a"),
        (damage_format, "expected format 1, got 99"),
        (damage_entry, "caption: expected an entry of this name, got none"),
        (damage_weights, "pytorch_lora_weights.safetensors: expected a safetensors file"),
    ],
)
def test_damaged_folders_are_reported(character: Character, tmp_path: Path, damage: Any, message: str) -> None:
    damage(character.save(tmp_path))
    with pytest.raises(CharacterError, match=message):
        Character.load(tmp_path)


def test_pitfall_11_encoders_of_either_build_take_the_rows_and_no_lora(models: Any, character: Character) -> None:
    """One class keeps its layers under `.text_model`, the other one no longer does; nothing may depend on it."""
    encoders = models.pipeline.text_encoder, models.pipeline.text_encoder_2
    assert [hasattr(encoder, "text_model") for encoder in encoders] == [False, True]
    before = [[name for name, _ in encoder.named_parameters()] for encoder in encoders]
    with character.on(models.pipeline):
        for encoder in encoders:
            assert encoder.get_input_embeddings().rows.shape == (1, encoder.config.hidden_size)
            assert not [name for name, _ in encoder.named_parameters() if "lora" in name]
    assert [[name for name, _ in encoder.named_parameters()] for encoder in encoders] == before
