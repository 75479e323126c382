"""The evaluation's folder: scores are read again only for the same models, prompt and settings."""

import json

import pytest

from menagerie.evaluate import evaluate


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
