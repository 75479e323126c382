"""Scoring the health check: galleries kept on disk, the judge's figures, limits found between two heaps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.converge import Health, HealthCheck
from menagerie import galleries, world
from menagerie.galleries import RECIPES, GalleryRecipe, GalleryStore, rates, sheet, tiles
from menagerie.health import calibrate, called, crossed, extremes, limits_of, overview, report, share
from menagerie.judge import Verdict, frozen


def rows(sound: list[float], collapsed: list[float]) -> pd.DataFrame:
    """Galleries that differ in one sign only; the others are as sound as can be."""
    found = [
        {"number": i % 4, "recipe": kind, "meant": kind, "is": kind, "strange": 1.0, "lost": 0.0, "frozen": 0.0,
         "statistic_limit": value, "prompt_limit": 0.0, "drift_limit": 1.0, "variety_floor": 1.0}
        for kind, values in (("sound", sound), ("collapsed", collapsed)) for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(found)


def test_limits_lie_halfway_between_sound_and_collapsed():
    table = rows([1.0] * 8, [4.0] * 8)
    limits = calibrate(table[:8], table[8:])
    assert limits["statistic_limit"] == pytest.approx(2.0)  # the geometric mean of 1 and 4
    assert limits["prompt_limit"] == pytest.approx(2 * 0.5)  # as many units, none below its least
    assert called(table, limits).tolist() == [False] * 8 + [True] * 8


def test_heaps_that_overlap_leave_the_sound_ones_be():
    table = rows([1.0, 2.0, 3.0, 4.0], [0.5] * 4)
    assert calibrate(table[:4], table[4:])["statistic_limit"] >= 3


def test_calls_under_limits_of_the_other_half():
    assert crossed(rows([1.0] * 8, [4.0] * 8)).tolist() == [False] * 8 + [True] * 8


def test_share_with_interval():
    assert share(pd.Series([True, False]))[0] == 0.5
    assert share(pd.Series([True, False]))[1] < 0.1
    assert np.isnan(share(pd.Series([], dtype=bool))).all()


def test_extremes_say_what_health_says():
    values = {"contrast": -3.0, "saturation": 1.0, "prompt": 0.5, "drift": 1.2, "variety": 0.5, "image variety": 0.1}
    checks = [HealthCheck(name, value, 0, False, 0, 0, "") for name, value in values.items()]
    assert extremes(Health("sound", [], checks)) == pytest.approx(
        {"statistic_limit": 3, "prompt_limit": 0.5, "drift_limit": 1.2, "variety_floor": 10})  # fmt: skip
    limits = limits_of(Settings(variety_floor=0.125))
    assert limits["variety_floor"] == 8


def test_report_drops_what_came_out_otherwise():
    table = rows([1.0] * 4, [4.0] * 4)
    table.loc[0, "is"] = "collapsed"
    said = report(table, Settings())
    assert "8 galleries, 1 of them dropped" in said
    assert "limits calibrated on all prompts: statistic_limit=2.00" in said
    assert "nan" in report(rows([1.0], []), Settings()).lower()


def test_the_judge_by_hand():
    same = {name: np.eye(len(values))[[0, 0, 0]] for name, values in world.ATTRIBUTES.items()}
    assert frozen(same, {}) == 1
    other = {name: np.eye(len(values))[[0, 1, 2]] for name, values in world.ATTRIBUTES.items()}
    assert frozen(other, {"place": "snow"}) == 0
    assert Verdict(strange=0.2, lost=0.1, frozen=0.3).state == "sound"
    assert {Verdict(*found).state for found in ((3, 0, 0), (0, 0.9, 0), (0, 0, 1.0))} == {"collapsed"}
    assert Verdict(strange=0.8, lost=0.1, frozen=0.3).state == "unclear"


def images(n: int) -> list[Image.Image]:
    return [Image.new("RGB", (8, 8), (i, 2 * i, 3 * i)) for i in range(n)]


def test_a_sheet_is_read_back(tmp_path: Path):
    page = sheet(images(8))
    assert page.size == (48, 16)
    page.info["n"] = "8"
    assert [tile.getpixel((3, 3)) for tile in tiles(page)] == [(i, 2 * i, 3 * i) for i in range(8)]
    assert overview({"a": images(8), "b": images(8)}).width == 4 * 56


def test_a_gallery_is_made_once(models: Any, quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    drawn: list[int] = []
    real = galleries.generate

    def count(*args: Any, **more: Any) -> Any:
        drawn.append(len(args[1].seeds))
        return real(*args, **more)

    monkeypatch.setattr(galleries, "generate", count)
    kept = GalleryStore("a fox", models, quick, tmp_path)
    recipe = GalleryRecipe("rate", "collapsed", "", (rates(2, 2),))
    first, images = kept.first(recipe), kept.gallery(recipe)
    assert drawn == [4, 4]
    again = GalleryStore("a fox", models, quick, tmp_path)
    assert [a.tobytes() for a in again.gallery(recipe)] == [a.tobytes() for a in images]
    assert [a.tobytes() for a in again.first(recipe)] == [a.tobytes() for a in first]
    assert drawn == [4, 4]
    again.gallery(GalleryRecipe("rate", "collapsed", "", (rates(3, 2),)))
    assert len(drawn) == 4  # the first gallery, for its latents, and the changed one


def test_recipes_have_names_of_their_own():
    assert len({recipe.name for recipe in RECIPES}) == len(RECIPES)
    assert {recipe.meant for recipe in RECIPES} == {"sound", "collapsed"}
