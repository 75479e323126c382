"""A new word: its rows alone are trained, and they start from a known one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.training import PROMPT

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.prompts import condition
from chosen_one_nb.steps.tokens import EmbeddingScale, NewRows, add_tokens, initial_rows


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
