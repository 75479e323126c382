"""Step 5: the stop rule, and telling one character from one blot."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageEnhance

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.converge import (
    check,
    health,
    image_statistics,
    mean_pairwise_distance,
    measure,
    thumbnails,
    verdict,
)

RAW = Settings(feature_space="raw")
HEALTH_LIMITS = ("statistic_limit", "prompt_limit", "drift_limit", "variety_floor")
FINITE = st.floats(-100, 100, width=32)


def scenes(n: int, seed: int, *, hue: int | None = None) -> list[Image.Image]:
    """Discs on grounds of many colours; `hue` fixes the disc's: one character in many scenes."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(n):
        ground, disc = (tuple(int(v) for v in rng.integers(50, 200, 3)) for _ in range(2))
        image = Image.new("RGB", (32, 32), ground)
        x, y = (int(v) for v in rng.integers(8, 24, 2))
        ImageDraw.Draw(image).ellipse((x - 7, y - 7, x + 7, y + 7), fill=disc if hue is None else (hue, 90, 60))
        drawn.append(image)
    return drawn


def features(images: list[Image.Image]) -> np.ndarray:
    """A stand-in for DINOv2: thumbnails, centred."""
    return thumbnails(images) - 0.5


def at_health(images: list[Image.Image], first: list[Image.Image], **changes: Any) -> Any:
    return health(measure(images, features(images)), measure(first, features(first)), RAW.replace(**changes))


def test_mean_pairwise_distance_by_hand() -> None:
    assert mean_pairwise_distance(np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0]])) == pytest.approx(10 / 3)
    assert mean_pairwise_distance(np.ones((1, 4))) == 0.0


@given(arrays(np.float64, (6, 3), elements=FINITE), st.floats(0.1, 10))
def test_distance_scales_in_raw_space(points: np.ndarray, factor: float) -> None:
    assert mean_pairwise_distance(points * factor) == pytest.approx(factor * mean_pairwise_distance(points), rel=1e-6)


@given(arrays(np.float64, (6, 3), elements=FINITE), st.permutations(range(6)))
def test_distance_knows_no_order(points: np.ndarray, order: list[int]) -> None:
    assert mean_pairwise_distance(points[order]) == pytest.approx(mean_pairwise_distance(points), abs=1e-9)


@pytest.mark.parametrize(("factor", "converged"), [(1.0, False), (0.81, False), (0.8, True), (0.1, True)])
def test_relative_threshold_is_a_share_of_the_first_gallery(factor: float, converged: bool) -> None:
    first = np.random.default_rng(0).normal(size=(20, 4))
    found = check(first * factor, first, RAW)
    assert found.ratio == pytest.approx(factor)
    assert found.threshold == pytest.approx(0.8 * found.first_distance)
    assert found.converged is converged


def test_absolute_threshold_is_a_distance() -> None:
    points = np.array([[0.0], [1.0]])
    settings = RAW.replace(convergence_mode="absolute", convergence=1.0)
    assert check(points, points * 50, settings).converged
    assert not check(points * 2, points, settings).converged


def test_unit_space_does_not_see_length() -> None:
    points = np.random.default_rng(0).normal(size=(10, 4))
    assert check(points * 7, points, Settings()).ratio == pytest.approx(1)


def test_first_gallery_of_one_point_has_ratio_zero() -> None:
    assert check(np.ones((3, 2)), np.ones((3, 2)), RAW).ratio == 0.0


def test_features_with_nan_are_reported() -> None:
    with pytest.raises(ValueError, match=r"expected a finite array .* 1 NaN"):
        check(np.array([[np.nan, 1.0]]), np.ones((2, 2)), RAW)


def test_statistics_by_eye() -> None:
    black_white = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8)).convert("RGB")
    red, grey = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (128, 128, 128))
    found = image_statistics([black_white, red, grey])
    assert found["brightness"] == pytest.approx([0.5, 0.2126, 128 / 255])
    assert found["contrast"] == pytest.approx([0.5, 0, 0])
    assert found["saturation"] == pytest.approx([0, 1, 0])
    assert found["colourfulness"] == pytest.approx([0, 0.3 * np.hypot(1, 0.5), 0])
    assert found["detail"] == pytest.approx([0.5, 0, 0])
    assert found["clipped"] == pytest.approx([1, 1, 0])


def test_first_gallery_is_sound_against_itself() -> None:
    first = scenes(24, 0)
    found = at_health(first, first)
    assert found.state == "sound"
    assert found.values["drift"] == pytest.approx(1)
    assert found.values["variety"] == pytest.approx(1)


def test_another_gallery_of_the_same_kind_is_sound() -> None:
    assert at_health(scenes(24, 1), scenes(24, 0)).reasons == []


def test_one_character_in_many_scenes_is_sound() -> None:
    assert at_health(scenes(24, 1, hue=180), scenes(24, 0)).reasons == []


def blown_up(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(ImageEnhance.Contrast(image).enhance(4)).enhance(5)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (blown_up, "clipped"),
        (lambda image: Image.new("RGB", (32, 32), (2, 2, 2)), "variety"),
        (lambda image: Image.effect_noise((32, 32), 120).convert("RGB"), "detail"),
    ],
)
def test_collapses_are_recognised_with_a_reason(spoil: Any, word: str) -> None:
    first = scenes(24, 0)
    found = at_health([spoil(image) for image in scenes(24, 1)], first)
    assert found.state == "collapsed"
    assert {check.name for check in found.checks if check.beyond} & {word, "saturation", "contrast", "drift"}
    assert all(reason.endswith(".") for reason in found.reasons)


def test_one_image_again_and_again_is_a_collapse_of_variety() -> None:
    first = scenes(24, 0)
    found = at_health([first[3]] * 24, first)
    assert found.state == "collapsed"
    assert "variety fell to 0% of the first gallery's" in found.reasons[0]


def test_limits_are_settings() -> None:
    first = scenes(24, 0)
    assert at_health([first[3]] * 24, first, variety_floor=0.0, statistic_limit=9.0).state == "sound"


def test_without_limits_values_are_reported_and_end_no_run() -> None:
    """Limits are measured on the bundled miniature: the preset for other models sets none."""
    first = scenes(24, 0)
    none = {name: Settings.preset("paper").model_dump()[name] for name in HEALTH_LIMITS}
    found = at_health([first[3]] * 24, first, **none)
    judged = at_health([first[3]] * 24, first)
    assert (found.state, found.reasons) == ("sound", [])
    assert found.values == judged.values
    assert all("(no limit set)" in check.text for check in found.checks)


def test_fall_of_prompt_similarity() -> None:
    images = scenes(12, 0)
    first = measure(images, features(images), np.linspace(0.25, 0.35, 12))
    now = dataclasses.replace(first, prompt_similarity=np.full(12, 0.1))
    found = health(now, first, RAW)
    assert found.reasons == [
        "Likeness to the prompt fell from 0.30 to 0.10, 6.4 standard deviations of the first gallery (limit 2)."
    ]
    assert health(first, now, RAW).state == "sound"


@pytest.mark.parametrize(
    ("factor", "spoiled", "state"),
    [(1.0, False, "not yet"), (0.7, False, "converged"), (0.7, True, "collapsed")],
)
def test_verdict(factor: float, spoiled: bool, state: str) -> None:
    first = scenes(24, 0)
    images = [first[0]] * 24 if spoiled else first
    points = features(first)
    found = verdict(check(points * factor, points, RAW), at_health(images, first))
    assert found.state == state
    assert f"{factor:.0%} of the first gallery's" in found.reason


def test_results_are_plain_data() -> None:
    first = scenes(6, 0)
    found = at_health(first, first)
    assert json.loads(json.dumps(dataclasses.asdict(found)))["state"] == "sound"
