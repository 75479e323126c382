"""Settings: every number explained, checked on construction, and back from JSON as it was."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chosen_one_nb.settings import PRESETS, SAMPLING, Settings, SettingsError, settings_help

HEALTH_LIMITS = ("statistic_limit", "prompt_limit", "drift_limit", "variety_floor")
TAGS = {"C", "S", "T", "R", "X", "-"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: str) -> None:
    settings = Settings.preset(name)
    assert Settings(**json.loads(settings.model_dump_json())) == settings


@given(
    st.integers(0, 2**40),
    st.integers(6, 500),
    st.floats(0, 20),
    st.sampled_from(["unit", "raw"]),
    st.none() | st.floats(0.1, 20),
)
def test_json_round_trip(seed: int, n: int, guidance: float, space: str, gamma: float | None) -> None:
    settings = Settings(
        seed=seed,
        n_images=n,
        target_cluster_size=4,
        guidance_scale=guidance,
        feature_space=space,
        snr_gamma=gamma,
    )
    assert Settings(**json.loads(json.dumps(settings.model_dump()))) == settings


def test_paper_preset_has_the_published_numbers() -> None:
    paper = Settings.preset("paper")
    assert (paper.n_images, paper.convergence, paper.convergence_mode, paper.carry_over) == (
        128,
        0.8,
        "relative",
        "warm",
    )


def test_no_preset_and_way_of_sampling_are_both_called_the_papers() -> None:
    """Its sampler is not known: one would be taken for the other."""
    assert not set(PRESETS) & set(SAMPLING)


def test_only_presets_of_the_miniature_judge_health() -> None:
    limits = {name: [getattr(Settings.preset(name), limit) for limit in HEALTH_LIMITS] for name in PRESETS}
    assert limits["paper"] == [None] * 4
    assert None not in limits["menagerie"] + limits["quick"]


def test_numbers_of_numpy_count_as_numbers() -> None:
    settings = Settings(n_images=np.int64(32), guidance_scale=np.float32(2.5))
    assert (settings.n_images, settings.guidance_scale) == (32, 2.5)
    assert type(settings.n_images) is int
    assert json.loads(settings.model_dump_json())["guidance_scale"] == 2.5


def test_equal_settings_serve_as_one_key() -> None:
    assert {Settings(seed=1): "a", Settings(seed=1, guidance_scale=3): "b"} == {Settings(seed=1): "b"}


def test_preset_with_changes() -> None:
    assert Settings.preset("quick", seed=7).seed == 7


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().seed = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images": -1}, "n_images: expected 2 or more and at most 16384, got -1"),
        ({"n_images": 5_000_000}, "at most 16384, got 5000000"),
        ({"sampling_steps": 10**8}, "sampling_steps: expected 1 or more and at most 1000"),
        ({"token_vectors": 10**7}, "token_vectors: expected 1 or more and at most 64"),
        ({"guidance_scale": 1e308}, r"guidance_scale: expected 0 or more and at most 100, got 1e\+308"),
        ({"guidance_scale": np.True_}, "guidance_scale: expected float"),
        ({"token": "\ud800"}, "token: expected text, .* UTF-8"),
        ({"initial_word": "\udc00"}, "initial_word: expected text, .* UTF-8"),
        ({"n_images": 2.5}, "n_images: expected int, got 2.5"),
        ({"n_images": 64.0}, "n_images: expected int, got 64.0"),
        ({"n_images": "64"}, "n_images: expected int, got '64'"),
        ({"image_size": "big"}, "image_size: expected int or None, got 'big'"),
        ({"describe_scene": 1}, "describe_scene: expected bool, got 1"),
        ({"guidance_scale": True}, "guidance_scale: expected float"),
        ({"guidance_scale": 10**400}, r"guidance_scale: expected float \(finite\), got 10{10,30}\.\.\.0+\. "),
        ({"scene_weight": 2}, "scene_weight: expected 0 or more and at most 1, got 2"),
        ({"n_images": True}, "n_images: expected int"),
        ({"guidance_scale": float("nan")}, r"guidance_scale: expected float \(finite\), got nan"),
        ({"lora_learning_rate": float("inf")}, "lora_learning_rate: expected float"),
        ({"convergence": 0}, "convergence: expected a number above 0, got 0"),
        ({"caption_dropout": 1.0}, "caption_dropout: expected 0 or more and below 1, got 1.0"),
        ({"sampler": "ancestral"}, "sampler: expected one of 'dpm\\+\\+', 'ddim', .*, got 'ancestral'"),
        ({"feature_space": None}, "feature_space: expected one of 'unit', 'raw', got None"),
        ({"snr_gamma": -5.0}, "snr_gamma: expected a number above 0, got -5.0"),
        ({"caption_template": "{prompt}"}, "caption_template: .* Without {token}"),
        ({"token": "two words"}, "token: expected one word without spaces"),
        ({"token": ""}, "token: expected one word"),
        ({"n_images": 5}, "n_images: expected more than min_cluster_size = 5, got 5"),
        ({"target_cluster_size": 99}, "target_cluster_size: expected at most n_images = 64, got 99"),
        ({"n_pictures": 5}, "n_pictures: no such setting; expected one of seed, n_images"),
    ],
)
def test_bad_values_say_expected_got_and_why(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings().replace(**change)


def test_unknown_preset() -> None:
    with pytest.raises(SettingsError, match="preset: expected one of menagerie, paper, quick, got 'fast'"):
        Settings.preset("fast")


def test_every_setting_is_explained() -> None:
    rows = settings_help()
    assert [row["name"] for row in rows] == list(Settings.model_fields)
    for row in rows:
        assert row["help"].endswith("."), row
        assert row["source"], row
        assert row["certainty"] in TAGS, row
    symbols = {row["symbol"] for row in rows}
    assert {"N", "d_size-c", "d_min-c", "d_conv", "d_iter", "theta", "tau"} <= symbols
    sampler = next(row for row in rows if row["name"] == "sampler")
    assert (sampler["type"], sampler["allowed"]) == ("choice", ("dpm++", "ddim", "euler", "euler trailing"))


def test_caption() -> None:
    settings = Settings(n_images=64, target_cluster_size=20, caption_template="{token}, {prompt}")
    assert settings.caption("a fox") == "<v>, a fox"


def test_importing_the_package_and_its_settings_loads_no_torch() -> None:
    code = (
        "import sys, chosen_one_nb; chosen_one_nb.Settings.preset('paper'); "
        "print([name for name in ('torch', 'plotly', 'diffusers', 'sklearn') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_package_names_its_parts() -> None:
    import chosen_one_nb

    assert "Run" in dir(chosen_one_nb)
    with pytest.raises(AttributeError, match="no attribute 'Runn'; it has Character"):
        chosen_one_nb.Runn  # noqa: B018


def test_sampling_presets() -> None:
    assert [Settings().sampled(name).sampling_steps for name in SAMPLING] == [50, 30, 8, 4]
    assert Settings().sampled("flash").guidance_scale == 0
    assert all("distribution" in way["note"] or "sampler" in way["note"] for way in SAMPLING.values())
    with pytest.raises(SettingsError, match="sampling: expected one of full, standard, fast, flash, got 'slow'"):
        Settings().sampled("slow")
