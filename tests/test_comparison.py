"""Comparisons: cells that go on and fail alone, scores by hand, rows from elsewhere, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import joblib
import numpy as np
import pytest
from PIL import Image

from chosen_one_nb import cli
from chosen_one_nb.baselines import comparison
from chosen_one_nb.baselines.comparison import (
    AttributeClassifier,
    Comparison,
    ComparisonError,
    ComparisonPlan,
    compare,
    compared_pairs,
    score_images,
    score_truth,
)
from chosen_one_nb.plots import comparison_plot, pareto_front, to_svg
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.study import Study
from chosen_one_nb.sweep import workers
from menagerie import oracle, world

CONTEXTS = [{"text": "on the beach", "shows": {"place": "beach"}}, {"text": "in the snow", "shows": {"place": "snow"}}]
SMALL = {"n_images": 4, "sampling_steps": 2, "refine_steps": 4, "refine_batch_size": 2, "batch_size": 4,
         "target_cluster_size": 2, "min_cluster_size": 1, "max_iterations": 1, "lora_rank": 2, "prior_share": 0.0,
         "describe_scene": False}  # fmt: skip
READER = Path(__file__).resolve().parent.parent / "data" / "menagerie" / "reader"


def plan_of(**changes: Any) -> ComparisonPlan:
    values = {"prompts": ["a red fox", "a blue cat"], "contexts": CONTEXTS, "settings": SMALL,
              "methods": ["base", "reference_copied"]}  # fmt: skip
    return ComparisonPlan(**values | changes)


@pytest.fixture
def here(models: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tiny models, and workers in this process."""
    monkeypatch.setattr(workers, "_loaded", lambda load: models)
    with joblib.parallel_config(backend="sequential"):
        yield models


def test_a_comparison_gives_scores_a_page_and_a_study(here, tmp_path):
    found = compare(plan_of(), tmp_path / "out")
    assert found.scores[["prompt", "row"]].to_numpy().tolist() == [
        ["a red fox", "base"], ["a blue cat", "base"], ["a red fox", "reference_copied"],
        ["a blue cat", "reference_copied"]]  # fmt: skip
    copied = found.scores[found.scores["method"] == "reference_copied"]
    assert copied["identity"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert copied["passes_image"].tolist() == [0, 0]
    base = found.scores[found.scores["method"] == "base"]
    assert base["passes_image"].tolist() == [4, 4], "two steps, each with and without the text"
    assert base["passes"].tolist() == [0, 0], "nothing is learned"
    assert (found.scores["similarity"].abs() <= 1).all()
    page = (tmp_path / "out" / "compare.html").read_text()
    assert "a red fox" in page
    assert "<svg" in page
    assert Study.make(tmp_path / "out", tmp_path / "study").key.items


def test_what_is_done_is_not_done_again_and_a_failure_costs_its_cell(here, tmp_path, monkeypatch):
    drawn: list[str] = []

    def method(task: Any) -> Any:
        drawn.append(task.prompt)
        if task.prompt == "a blue cat" and len(drawn) < 3:
            raise ComparisonError("no such cat")
        yield "", task.drawer()

    usual = comparison.methods()
    monkeypatch.setattr(comparison, "methods", lambda: usual | {"frail": method})
    first = compare(plan_of(methods=["frail"]), tmp_path)
    assert first.failures[["prompt", "error"]].to_numpy().tolist() == [["a blue cat", "no such cat"]]
    assert "no such cat" in (tmp_path / "compare.html").read_text()
    assert first.scores["prompt"].tolist() == ["a red fox"]
    again = compare(plan_of(methods=["frail", "base"]), tmp_path)
    assert drawn == ["a red fox", "a blue cat", "a blue cat"], "only what failed"
    assert again.failures.empty
    assert again.rows == ["base", "frail"]


def test_a_folder_of_other_settings_is_refused(here, tmp_path):
    compare(plan_of(methods=["reference_copied"]), tmp_path)
    with pytest.raises(ComparisonError, match="with the same settings, got another"):
        compare(plan_of(methods=["reference_copied"], settings=SMALL | {"sampling_steps": 3}), tmp_path)


@pytest.mark.parametrize("file", ["../../../secret.png", "/secret.png", "images/../../../../secret.png"])
def test_a_shared_cell_that_names_a_file_elsewhere_is_refused(here, tmp_path, file):
    folder = tmp_path / "out"
    compare(plan_of(methods=["base"], prompts=["a red fox"]), folder)
    (cell,) = folder.glob("cells/*/*/cell.json")
    told = json.loads(cell.read_text())
    told["rows"][0]["images"][0]["file"] = file
    cell.write_text(json.dumps(told))
    with pytest.raises(StoreError, match=r"cell.json is damaged: rows: 0: images: 0: file"):
        Comparison.open(folder)


def test_images_from_elsewhere_are_a_row(here, tmp_path):
    source = tmp_path / "elsewhere"
    source.mkdir()
    images = []
    for i, context in enumerate(["on the beach", "in the snow", "at night"]):
        Image.new("RGB", (32, 32), "red").save(source / f"{i}.png")
        images.append({"method": "x", "character": "a red fox", "context": context, "seed": i, "file": f"{i}.png"})
    (source / "manifest.json").write_text(json.dumps({"images": images}))
    found = compare(plan_of(methods=["base"], images={"ELITE, global mapping": str(source)}), tmp_path / "out")
    row = found.scores[found.scores["row"] == "ELITE, global mapping"].iloc[0]
    assert row["identity"] == pytest.approx(1, abs=1e-5)
    assert np.isnan(row["seconds"])
    assert len(found.image_rows("a red fox")["ELITE, global mapping"]) == 2, "at night is not compared"
    with pytest.raises(ComparisonError, match="a name of no method of the kit, got 'ours'"):
        compare(plan_of(images={"ours": str(source)}), tmp_path / "other")
    with pytest.raises(ComparisonError, match="expected images of the prompts and contexts"):
        compare(plan_of(prompts=["a zebra"], images={"x": str(source)}), tmp_path / "third")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"methods": ["magic"]}, "expected methods out of base, .* got 'magic'"),
        ({"prompts": []}, "prompts: "),
        ({"seeds": 1}, "seeds: "),
        ({"contexts": CONTEXTS[:1]}, "contexts: "),
        ({"settings": {"sampling_steps": 0}}, "sampling_steps: expected"),
        ({"code": 1}, "code: "),
    ],
)
def test_a_plan_that_cannot_be_carried_out_is_refused_in_one_sentence(change, sentence):
    with pytest.raises(ComparisonError, match=sentence) as refused:
        plan_of(**change)
    assert "\n" not in str(refused.value)


# --- scores


def test_images_are_compared_across_contexts_and_seeds_only():
    asked = [("snow", 0), ("snow", 1), ("beach", 0), ("beach", 1)]
    assert [np.flatnonzero(row).tolist() for row in compared_pairs(asked)] == [[3], [2], [1], [0]]


def test_truth_is_read_off_by_hand():
    plan = plan_of(identity=["kind", "colour"])
    asked = [("on the beach", 0), ("on the beach", 1), ("in the snow", 0), ("in the snow", 1)]
    read = {"kind": np.array(["fox"] * 4), "colour": np.array(["red", "red", "red", "blue"]),
            "place": np.array(["beach", "snow", "snow", "snow"])}  # fmt: skip
    # pairs (0, 3) and (1, 2): the kind is equal in both, the colour in one; the place is right in three of four
    assert score_truth(read, asked, plan) == {"truth": 0.75, "context": 0.75}
    with pytest.raises(ComparisonError, match="a classifier that names colour, kind"):
        score_truth({"place": read["place"]}, asked, plan)


def test_copies_of_the_reference_are_identical_and_as_near_to_it_as_to_each_other(models):
    red = Image.new("RGB", (32, 32), "red")
    found = score_images(models, [red] * 4, "a fox", [("a", 0), ("a", 1), ("b", 0), ("b", 1)], red)
    assert found["identity"] == pytest.approx(1, abs=1e-5)
    assert found["copying"] == pytest.approx(0, abs=1e-5)


def test_a_classifier_names_attributes_and_one_of_other_labels_is_refused(tmp_path):
    truth = world.sample(Random(3), kind="owl", place="snow", framing="medium")
    read = AttributeClassifier(READER)([world.render(truth).image])
    assert read["kind"].tolist() == ["owl"]
    assert read["place"].tolist() == ["snow"]
    with pytest.raises(ComparisonError, match="judge: expected the folder of an image classifier"):
        AttributeClassifier(tmp_path)


# --- what is said of them


def stored(folder: Path, scores: dict[str, list[tuple[float, float]]]) -> Comparison:
    """A comparison on disk with these (similarity, identity) of each character, by row."""
    n = len(next(iter(scores.values())))
    prompts = [f"fox {i}" for i in range(n)]
    for row, values in scores.items():
        for prompt, (similarity, identity) in zip(prompts, values, strict=True):
            cell = folder / "cells" / prompt.replace(" ", "-") / row
            cell.mkdir(parents=True)
            about = {"prompt": prompt, "method": row, "rows": [{"row": row, "images": []}], "error": ""}
            (cell / "cell.json").write_text(json.dumps(about))
            marks = {row: {"similarity": similarity, "identity": identity, "truth": None}}
            (cell / "scores.json").write_text(json.dumps({"made": "", "scores": marks}))
    plan = plan_of(prompts=prompts).model_dump()
    (folder / "compare.json").write_text(json.dumps({"fixed": {}, "plan": plan}))
    return Comparison.open(folder)


def test_the_decision_counts_characters(tmp_path):
    found = stored(tmp_path, {"ours": [(0.9, 0.9)] * 6, "base": [(0.5, 0.5)] * 6})
    assert found.axes == ("similarity", "identity")
    (line,) = found.decision().itertuples()
    assert line[0] == "base"
    assert line.difference == 2, "one rank on each axis"
    assert line.p == 2 / 64
    assert line.characters == 6
    assert found.table().loc["ours", "identity (CLIP)"] == "0.90 [0.90, 0.90]"


def test_the_front_and_its_figure():
    values = {"a": (0.0, 3.0), "b": (1.0, 2.0), "c": (0.5, 1.0)}
    assert pareto_front(values) == ["a", "b"]
    points = {name: tuple({"value": v, "low": v - 0.1, "high": np.nan} for v in at) for name, at in values.items()}
    assert "Methods by x and y: a: 0.00, 3.00" in to_svg(comparison_plot(points, ("x", "y")))


def test_the_oracle_keeps_who_and_shows_where(tmp_path, capsys):
    truths = [oracle.in_context("a sticker of a red fox", shows, seed)
              for seed, shows in enumerate(({"place": "snow"}, {"action": "book"}))]  # fmt: skip
    assert all(truth["kind"] == "fox" and truth["colour"] == "red" for truth in truths)
    assert all(truths[0][name] == truths[1][name] for name in world.IDENTITY)
    assert truths[0]["place"] == "snow"
    plan = tmp_path / "plan.json"
    plan.write_text(plan_of(prompts=["a fox"]).model_dump_json())
    oracle.main([str(plan), "--folder", str(tmp_path / "oracle"), "--size", "32"])
    assert len(json.loads((tmp_path / "oracle" / "manifest.json").read_text())["images"]) == 4


def test_the_command_compares_some_prompts_by_some_methods(here, tmp_path, capsys):
    plan = tmp_path / "plan.json"
    plan.write_text(plan_of().model_dump_json())
    words = ["compare", str(plan), "--methods", "base", "--only", "1", "--folder", str(tmp_path / "out"), "--quiet"]
    assert cli.main(words) == 0
    assert "base" in capsys.readouterr().out
    assert Comparison.open(tmp_path / "out").scores["prompt"].tolist() == ["a blue cat"]
    assert cli.main([*words[:3], "magic", *words[4:]]) == 1
    assert "expected methods out of" in capsys.readouterr().err


def test_the_held_out_plan_is_other_than_the_evaluation_s_prompts():
    data = Path(__file__).resolve().parent.parent / "data"
    plan = ComparisonPlan.read(data / "comparison_prompts.json")
    assert len(plan.prompts) == 48
    assert len(plan.contexts) == 8
    assert not {*plan.prompts} & {*json.loads((data / "prompts.json").read_text())["prompts"]}
    assert all(world.named_in(context.text) == context.shows for context in plan.contexts)
    assert plan.identity == list(world.IDENTITY)
