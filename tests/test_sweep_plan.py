"""Plans of sweeps are checked before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from chosen_one_nb import cli
from chosen_one_nb.settings import Settings
from chosen_one_nb.sweep.plan import PlanError, SweepPlan

FOX = {"preset": "quick", "prompts": ["a fox", "a cat"], "settings": {"n_images": 8}}
FOX |= {"vary": {"guidance_scale": [2, 4]}}

WRONG = {
    "no prompts": ({}, "prompts: expected an entry of this name, got none"),
    "empty prompts": ({"prompts": []}, "prompts: expected it to have at least 1 item"),
    "one text": ({"prompts": "a fox"}, "prompts: expected a valid list, got 'a fox'"),
    "number": ({"prompts": ["a fox", 3]}, "prompts: 1: expected a valid string, got 3"),
    "blank": ({"prompts": ["a fox", " "]}, "prompts: 1: expected a description, got ' '"),
    "twice": ({"prompts": ["a fox", "a fox"]}, "prompts: expected each value once, got 'a fox' twice"),
    "placeholder": ({"prompts": ["a <v> fox"]}, "holds '<v>', the word that is to stand for the character"),
    "same seeds": ({"prompts": ["a fox"], "seeds": [0, 1, 0]}, "seeds: expected each value once, got 0 twice"),
    "no seeds": ({"prompts": ["a fox"], "seeds": []}, "seeds: expected it to have at least 1 item"),
    "bad seed": ({"prompts": ["a fox"], "seeds": [1.5]}, "seeds: 0: expected a valid integer, got 1.5"),
    "negative": ({"prompts": ["a fox"], "seeds": [-1]}, "seeds: 0: expected greater than or equal to 0, got -1"),
    "unknown entry": ({"prompts": ["a fox"], "colour": 1}, "colour: no such entry."),
    "unknown setting": ({"prompts": ["a fox"], "settings": {"colour": 1}}, "colour: no such setting"),
    "bad value": ({"prompts": ["a fox"], "vary": {"guidance_scale": [-1]}}, "with guidance_scale=-1: guidance_scale:"),
    "no values": ({"prompts": ["a fox"], "vary": {"guidance_scale": []}}, "expected it to have at least 1 item"),
    "no list": ({"prompts": ["a fox"], "vary": {"guidance_scale": 2}}, "guidance_scale: expected a valid list, got 2"),
    "both": ({"prompts": ["a fox"], "vary": {"n_images": [8]}, "settings": {"n_images": 9}}, "Leave one of them out"),
    "seed": ({"prompts": ["a fox"], "settings": {"seed": 3}}, "seed: expected among seeds"),
    "settings": ({"prompts": ["a fox"], "settings": [1]}, "settings: expected a valid dictionary, got [1]"),
    "preset": ({"prompts": ["a fox"], "preset": "best"}, "preset: expected one of"),
    "do": ({"prompts": ["a fox"], "do": "dance"}, "do: expected 'gallery' or 'run', got 'dance'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_plan_is_told_before_anything_runs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    values, match = WRONG[name]
    plan, folder = tmp_path / "plan.json", tmp_path / "out"
    plan.write_text(json.dumps(values))
    assert cli.main(["sweep", str(plan), "--folder", str(folder)]) == 1
    said = capsys.readouterr()
    assert match in said.err
    assert len(said.err.splitlines()) == 1
    assert not folder.exists()


def test_what_is_no_plan(tmp_path: Path):
    with pytest.raises(PlanError, match=r"got something else.*No such file"):
        SweepPlan.read(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"prompts": [')
    with pytest.raises(PlanError, match="expected a plan, an object in JSON, got something else"):
        SweepPlan.read(tmp_path / "half.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(PlanError, match=r"expected a plan, an object in JSON, got something else \(a list\)"):
        SweepPlan.read(tmp_path / "list.json")


def test_a_plan_is_prompts_by_settings_by_seeds():
    jobs = SweepPlan(**FOX, seeds=[0, 7]).jobs()
    assert [(job.prompt, job.settings.guidance_scale, job.settings.seed) for job in jobs[:3]] == [
        ("a fox", 2, 0), ("a fox", 2, 7), ("a fox", 4, 0)]  # fmt: skip
    assert len({job.folder for job in jobs}) == len(jobs) == 8
    assert jobs[0].settings.n_images == 8


def test_the_bundled_example_is_a_plan():
    plan = SweepPlan.read(Path(__file__).parents[1] / "data/sweeps/example_plan.json")
    assert len(plan.jobs()) == 12


def test_a_plan_without_a_preset_takes_the_models_own():
    assert SweepPlan(prompts=["a fox"]).jobs()[0].settings == Settings.preset("menagerie")
    assert SweepPlan(prompts=["a fox"], models="sdxl").jobs()[0].settings == Settings.preset("paper")
    assert SweepPlan(prompts=["a fox"], models="sdxl", preset="quick").jobs()[0].settings == Settings.preset("quick")


def test_a_plan_says_how_to_load_and_sample(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = {"prompts": ["a fox"], "settings": {"n_images": 16}, "load": {"dtype": "bfloat16"}, "sampling": "fast"}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    plan = SweepPlan.read(tmp_path / "plan.json")
    assert plan.load == {"dtype": "bfloat16"}
    assert plan.jobs()[0].settings.sampling_steps == 8
    assert SweepPlan(**plan.model_dump()).jobs() == plan.jobs()
    assert cli.main(["sweep", str(tmp_path / "plan.json"), "--check"]) == 0
    assert "fast: 8 steps: another distribution" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"load": ["bfloat16"]}, "load: expected a valid dictionary"),
        ({"load": {"name": "sdxl"}}, "load: name: expected 'device', 'dtype', .* got 'name'"),
        ({"load": {"low_memory": 1}}, "load: low_memory: expected a text, true, false or null, got 1"),
        ({"sampling": "slow"}, "sampling: expected one of full, standard, fast, flash, got 'slow'"),
    ],
)
def test_a_plan_that_cannot_be_loaded(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        SweepPlan(prompts=["a fox"], **values)
