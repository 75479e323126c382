"""Measuring and evaluating: figures by hand; scores are read again only for the same models, prompt and settings."""

import json

import numpy as np
import pandas as pd
import pytest

from menagerie.evaluate import agreement, context_present, evaluate, interval, table
from menagerie.measure import entropy, prompts


def scored(folder, models, settings, prompt="a fox"):
    return evaluate(prompt, models, None, settings, folder)


def test_scores_of_other_settings_or_another_prompt_are_not_taken_for_these(tmp_path, models, quick, monkeypatch):
    monkeypatch.setattr("menagerie.evaluate.score", lambda run, reader: {"prompt": run.prompt})
    settings = quick.replace(n_images=6, max_iterations=1)
    first = scored(tmp_path, models, settings)
    assert first["seconds"] > 0
    monkeypatch.setattr("menagerie.evaluate.score", lambda run, reader: pytest.fail("scored again"))
    assert scored(tmp_path, models, settings) == first == json.loads((tmp_path / "scores.json").read_text())
    with pytest.raises(SystemExit, match="got those of others"):
        scored(tmp_path, models, settings.replace(seed=5))
    with pytest.raises(SystemExit, match="got those of others"):
        scored(tmp_path, models, settings, "a cat")


def test_agreement_and_entropy_by_hand():
    assert agreement(["red", "red", "blue"]) == pytest.approx(1 / 3)
    assert agreement(["red"] * 4) == 1
    assert entropy(pd.Series(["a", "b"])) == pytest.approx(np.log(2))


def test_context_is_present_when_all_of_it_is():
    read = pd.DataFrame({"place": ["snow", "snow"], "action": ["book", "ball"]})
    asked = [{"place": "snow", "action": "book"}] * 2
    assert context_present(read, asked) == 0.5


def test_interval_holds_the_mean():
    value, low, high = interval([0.0, 1.0] * 20)
    assert low < value == 0.5 < high
    assert interval([2.0] * 5) == (2.0, 2.0, 2.0)


def test_table_of_one_prompt():
    numbers = ["ratio", "seconds", "identity_first", "identity_final"]
    numbers += [f"identity_contexts{base}{way}" for base in ("", "_base") for way in ("", "_plain")]
    row = dict.fromkeys(numbers, 0.5) | {"outcome": "converged", "context_base": 0.8, "context": 0.6}
    row |= {"context_base_plain": 0.5, "context_plain": 0.2}
    row["fell"] = True
    found = table(pd.DataFrame([row])).set_index("figure")["value"]
    assert found["prompts that converged"] == 1
    assert found["galleries that fall to 0.8 of the first distance"] == 1
    assert found["asked context present, relative to the base model"] == pytest.approx(0.75)
    assert found["asked context present, plain, relative to the base model"] == pytest.approx(0.4)


def test_held_out_prompts_ask_for_something():
    assert all(len(caption.named) >= 4 for caption in prompts(20))
