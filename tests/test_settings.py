"""Settings: every number explained, checked on construction, and back from JSON as it was."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chosen_one_nb.settings import PRESETS, Settings, SettingsError, settings_help

TAGS = {"C", "S", "T", "R", "X", "-"}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_survive_json(name: str) -> None:
    settings = Settings.preset(name)
    assert Settings.from_json(settings.to_json()) == settings


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
    assert Settings.from_json(settings.to_json()) == settings


def test_paper_preset_has_the_published_numbers() -> None:
    paper = Settings.preset("paper")
    assert (paper.n_images, paper.convergence, paper.convergence_mode, paper.carry_over) == (
        128,
        0.8,
        "relative",
        "warm",
    )


def test_preset_with_changes() -> None:
    assert Settings.preset("quick", seed=7).seed == 7


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().seed = 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images": -1}, "n_images: expected 2 or more, got -1"),
        ({"n_images": 2.5}, r"n_images: expected int \(finite\), got 2.5"),
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
        ({"n_images": 5}, "n_images: no such setting; expected one of seed, n_images"),
    ],
)
def test_bad_values_say_expected_got_and_why(change: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings().replace(**change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[]", "expected a JSON object, got list"),
        ('{"seeds": 1}', "seeds: no such setting"),
        ('{"n_images": NaN}', "n_images: expected int"),
    ],
)
def test_bad_json(text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.from_json(text)


def test_unknown_preset() -> None:
    with pytest.raises(SettingsError, match="preset: expected one of menagerie, paper, quick, got 'fast'"):
        Settings.preset("fast")


def test_json_is_readable() -> None:
    text = Settings().to_json()
    assert json.loads(text)["n_images"] == 64
    assert text.count("\n") > 20


def test_every_setting_is_explained() -> None:
    rows = settings_help()
    assert [row["name"] for row in rows] == [field.name for field in dataclasses.fields(Settings)]
    for row in rows:
        assert row["help"].endswith("."), row
        assert row["source"], row
        assert row["certainty"] in TAGS, row
    symbols = {row["symbol"] for row in rows}
    assert {"N", "d_size-c", "d_min-c", "d_conv", "d_iter", "theta", "tau"} <= symbols
    sampler = next(row for row in rows if row["name"] == "sampler")
    assert (sampler["type"], sampler["allowed"]) == ("choice", ("dpm++", "ddim", "euler", "euler trailing"))


def test_clusters_and_caption() -> None:
    settings = Settings(n_images=64, target_cluster_size=20, caption_template="{token}, {prompt}")
    assert settings.n_clusters == 3
    assert settings.caption("a fox") == "<v>, a fox"
    assert Settings(n_images=7, target_cluster_size=7).n_clusters == 1


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
