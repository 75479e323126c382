"""Branches that share a gallery."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import runs

from chosen_one_nb.run.run import Run, RunError
from chosen_one_nb.settings import SettingsError

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run = runs.quick_steps, runs.models, runs.run


def test_choosing_at_a_refined_node_begins_a_sibling_that_shares_the_gallery(run: Run, models: Any):
    run.next_iteration()
    run.step()
    first = runs.shown(run)
    models.drawn.clear()
    run.select("0")
    decision = run.selection.choose(1, note="the other one")
    new = run.current
    assert (new.id, new.parent, new.gallery_of, new.iteration) == ("0b", None, "0", 0)
    assert new.decision == decision
    assert np.array_equal(new.embedding.features, run.root.embedding.features)
    assert new.check == run.root.check
    assert not (new.folder / "gallery").exists()
    assert run.next_stage == "refine"
    run.next_iteration()
    run.step()
    assert (run.current.id, run.current.parent.id) == ("1b", "0b")
    assert models.drawn[0][0].endswith("<v>")
    assert {name: runs.shown(run)[name] for name in first} == first


def test_undo_on_such_a_branch_opens_the_choice(run: Run):
    run.next_iteration()
    run.selection.choose(1)
    assert run.selection.undo() is None
    assert run.next_stage == "choose"


def test_leaving_out_at_a_refined_node_branches_with_the_same_choice(run: Run):
    run.next_iteration()
    images = run.current.decision.images
    run.selection.exclude([images[0]])
    assert run.current.id == "0b"
    assert run.current.decision.images == images[1:]
    assert run.node("0").decision.images == images


def test_a_branch_goes_on_from_choosing_or_with_other_settings_from_the_check(run: Run):
    run.next_iteration()
    assert run.branch("0").id == "0b"
    assert run.next_stage == "choose"
    other = run.branch("0", target_cluster_size=4, convergence=0.5)
    assert (other.id, other.settings.target_cluster_size, run.next_stage) == ("0c", 4, "check")
    run.next_iteration()
    assert len(other.clusters.sizes) == 2
    assert other.check.convergence.threshold == pytest.approx(0.5 * other.check.convergence.distance)
    run.step()
    assert run.current.settings.target_cluster_size == 4


def test_a_branch_of_a_branch_shares_the_first_gallery(run: Run):
    run.next_iteration()
    run.branch("0")
    run.branch("0b")
    assert (run.current.id, run.current.gallery_of) == ("0c", "0")


def test_what_a_shared_gallery_cannot_follow_is_refused(run: Run):
    with pytest.raises(RunError, match="no clusters yet"):
        run.branch()
    run.next_iteration()
    with pytest.raises(SettingsError, match="n_images: cannot differ"):
        run.branch("0", n_images=12)
    with pytest.raises(SettingsError):
        run.branch("0", convergence=-1)
    assert list(run.nodes) == ["0"]


def test_selecting_a_refined_node_goes_on_along_its_newest_line(run: Run):
    run.next_iteration()
    run.step()
    run.select("0")
    assert run.next_stage == "embed"
    run.step()
    assert run.current.id == "1"
    with pytest.raises(RunError, match="Expected one of the nodes 0, 1, got '7'"):
        run.select("7")


def test_branches_survive_a_reopening(run: Run, models: Any):
    run.next_iteration()
    run.selection.choose(1)
    found = runs.shown(run)
    run.close()
    with Run.open(run.folder, models) as again:
        assert again.current.id == "0b"
        assert runs.shown(again) == found
