"""What is checked before a run begins."""

import pytest
import torch

from chosen_one_nb.run.run import Run, check_prompt
from chosen_one_nb.run.state import load_recorded, new_manifest
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps.prompts import PromptError
from chosen_one_nb.steps.prompts import check_prompt as check_text
from chosen_one_nb.steps.tokens import add_tokens


@pytest.mark.parametrize("vectors", [1, 4])
def test_a_prompt_is_refused_at_the_start_if_its_caption_will_be_too_long(models, vectors):
    """The longest prompt that is accepted is the one whose caption just fits once the token is there."""
    settings = Settings(token_vectors=vectors)
    limit = models.pipeline.tokenizer.model_max_length
    fits = "fox " * (limit - 2 - vectors)  # start, end and the token
    assert check_prompt(models, fits, settings) == fits.strip()
    with pytest.raises(PromptError, match=f"expected at most {limit} tokens .* got {limit + 1}"):
        check_prompt(models, fits + "fox", settings)

    rows = {"clip_l": torch.zeros(vectors, 16), "clip_g": torch.zeros(vectors, 24)}
    with add_tokens(models.pipeline, settings.token, rows):  # as when the token is learnt
        check_text(models.pipeline, settings.caption(fits.strip()))
        with pytest.raises(PromptError, match=f"got {limit + 1}"):
            check_text(models.pipeline, settings.caption(fits + "fox"))


def test_settings_that_do_not_fit_the_models_are_told_before_the_folder_is_made(models, tmp_path):
    """Not at refine, after a whole gallery; and the corrected command finds no folder with other settings."""
    known = next(word for word in models.pipeline.tokenizer.get_vocab() if word.isalpha())
    for name, value in {"token": known, "image_size": 63}.items():
        with pytest.raises(SettingsError, match=f"^{name}: expected"):
            Run.start("!", models, Settings(**{name: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_reopened_on_such_a_device_works_in_the_precision_it_was_made_in(monkeypatch):
    asked = []
    monkeypatch.setattr("chosen_one_nb.models.load.load_models", lambda **given: asked.append(given))
    recorded = {"name": "sdxl", "load": {"name": "sdxl"}, "machine": {"device": "cuda", "dtype": "float16"}}
    for device in ("cuda", "cpu"):
        monkeypatch.setattr("chosen_one_nb.models.memory.best_device", lambda device=device: torch.device(device))
        load_recorded(recorded)
    load_recorded({"name": "menagerie", "load": {}})  # as a run of earlier says it
    assert asked == [{"name": "sdxl", "dtype": "float16"}, {"name": "sdxl"}, {"name": "menagerie"}]


def test_a_run_records_where_and_in_what_precision_it_is_made(models):
    assert new_manifest("a fox", models, Settings())["models"]["machine"] == {
        key: models.machine[key] for key in ("device", "dtype") if key in models.machine
    }
