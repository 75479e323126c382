"""Prompts: what is refused and why, and conditions by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from chosen_one_nb.steps.prompts import Condition, PromptError, check_prompt, condition, condition_pair


def test_each_caption_of_a_batch_is_encoded_once_and_in_its_place(models: Any) -> None:
    three = ["a red fox", "a red fox snow", "a red fox"]
    together = condition(models.pipeline, three)
    for row, caption in enumerate(three):
        alone = condition(models.pipeline, caption)
        torch.testing.assert_close(together.embeds[row], alone.embeds[0])
        torch.testing.assert_close(together.pooled[row], alone.pooled[0])


@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_empty_prompt(models: Any, prompt: str) -> None:
    with pytest.raises(PromptError, match="expected a description"):
        check_prompt(models.pipeline, prompt)


def test_over_long_prompt_names_tokens_and_limit(models: Any) -> None:
    with pytest.raises(PromptError, match=r"at most 32 tokens .* got 42"):
        check_prompt(models.pipeline, "a fox " * 20)
    assert check_prompt(models.pipeline, "a fox " * 15)


def test_over_long_prompt_is_reported_once_and_in_short(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.pipeline.tokenizer, "deprecation_warnings", {})
    warned = []
    monkeypatch.setattr("transformers.tokenization_utils_base.logger.warning", warned.append)
    with pytest.raises(PromptError) as refused:
        check_prompt(models.pipeline, "a fox " * 200)
    assert warned == []
    assert len(str(refused.value)) < 250


def test_beyond_a_text_by_hand() -> None:
    this, other = (Condition(torch.full((1, 2, 3), x), torch.full((1, 3), 10 * x)) for x in (3.0, 1.0))
    for weight, value in [(0.0, 1.0), (1.0, 3.0), (1.5, 4.0)]:
        found = this.beyond(other, weight)
        assert found.embeds.unique().tolist() == [value]
        assert found.pooled.unique().tolist() == [10 * value]
    assert Condition(this.embeds, None).beyond(Condition(other.embeds, None), 1.5).pooled is None


def test_unconditional_is_zero_as_in_sdxl(models: Any, sd_models: Any) -> None:
    _, empty = condition_pair(models.pipeline, "a fox")
    assert not empty.embeds.any()
    assert not empty.pooled.any()
    _, empty = condition_pair(sd_models.pipeline, "a fox")
    assert empty.embeds.any()


def test_words_that_the_miniature_can_only_spell_are_named_and_no_known_one_is():
    sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
    from unknown_words import UNKNOWN

    from chosen_one_nb.models.load import load_models
    from chosen_one_nb.steps.prompts import unknown_words
    from menagerie.world.captions import vocabulary

    pipeline = load_models("menagerie").pipeline
    assert [word for word in vocabulary() if unknown_words(pipeline, word)] == []
    assert [word for word in UNKNOWN if not unknown_words(pipeline, word)] == ["knight"]
    assert unknown_words(pipeline, "a sticker of a fox on a Bicycle, at the beach") == ["bicycle"]
