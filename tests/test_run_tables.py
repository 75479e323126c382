"""A run as tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import fakes, runs

from chosen_one_nb.run.run import Run

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run = runs.quick_steps, runs.models, runs.run


def test_table_has_a_row_per_image(run: Run):
    run.next_iteration()
    table = run.tables.gallery("0")
    columns = [
        "image_id",
        "iteration",
        "index",
        "seed",
        "cluster",
        "distance",
        "kept",
        "chosen",
        "excluded",
        "selections",
    ]
    assert list(table) == columns
    assert table["image_id"].tolist()[:2] == ["0/000", "0/001"]
    assert table["chosen"].sum() == len(run.root.decision.images)
    assert table["cluster"].tolist() == run.root.clusters.labels.tolist()


def test_curve_and_comparison(run: Run):
    run.next_iteration()
    runs.advance(run, "check")
    run.select("0")
    run.selection.choose(1, note="less hat")
    run.next_iteration()
    runs.advance(run, "check")
    assert run.tables.curve()["node"].tolist() == ["0", "1", "0b", "1b"]
    assert run.tables.curve("1b")["node"].tolist() == ["0b", "1b"]
    assert run.tables.curve()["ratio"][0] == pytest.approx(1.0)
    both = run.tables.compare("0", "0b")
    assert list(both) == ["0", "0b"]
    assert both.loc["note", "0b"] == "less hat"
    assert both.loc["next node"].tolist() == ["1", "1b"]
    assert both.loc["next distance", "0b"] == run.node("1b").check.convergence.distance
    assert 0 < both.loc["next identity (CLIP)", "0"] <= 1


def test_scores_have_intervals(run: Run):
    assert len(run.tables.scores()) == 0
    runs.advance(run, "embed")
    scores = run.tables.scores()
    assert list(scores.index) == ["prompt similarity (CLIP)", "identity (CLIP)", "identity (features, in the loop)"]
    assert (scores["low"] <= scores["value"]).all()


def test_without_clip_it_works_with_fewer_scores(tmp_path: Path):
    blind = fakes.fake_models()
    blind.clip = None
    with Run.start(runs.PROMPT, blind, runs.settings(), tmp_path / "run") as run:
        run.next_iteration()
        assert run.root.embedding.clip is None
        assert list(run.tables.scores("0").index) == ["identity (features, in the loop)"]
