"""What a person decides at a node."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from helpers import fakes, runs

from chosen_one_nb.run.run import ChoiceError, Run, RunError
from chosen_one_nb.run.store import StoreError

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run = runs.quick_steps, runs.models, runs.run


def test_choosing_nothing_takes_the_proposal(run: Run):
    runs.advance(run, "cluster")
    decision = run.selection.choose(note="fine")
    assert decision.cluster == decision.proposed == run.current.clusters.proposed
    assert (decision.by, decision.note, decision.excluded) == ("rule", "fine", ())
    assert decision.images == tuple(np.flatnonzero(run.current.clusters.labels == decision.cluster))
    assert run.next_stage == "refine"


def test_choosing_another_cluster_or_images_says_what_was_proposed(run: Run):
    runs.advance(run, "cluster")
    other = next(int(c) for c in run.current.clusters.order if c != run.current.clusters.proposed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decision = run.selection.choose(other, exclude=[0], by="Ada")
        by_hand = run.selection.choose(images=[8, 2, 2, 5])
    assert (decision.cluster, decision.by) == (other, "Ada")
    assert decision.proposed == run.current.clusters.proposed
    assert (by_hand.images, by_hand.cluster, by_hand.by) == ((2, 5, 8), None, "person")


@pytest.mark.parametrize(("choice", "match"), [
    ({"cluster": 99}, "cluster: expected a whole number from 0 to"),
    ({"cluster": -1}, "cluster: expected a whole number from 0 to"),
    ({"cluster": 0, "images": [1]}, "got both"),
    ({"images": []}, "no image was given"),
    ({"images": [1, 99]}, "from 0 to 8, or 9 truth values, got 99"),
    ({"images": [b"x"]}, "Expected image indices"),
    ({"images": [1, 2], "exclude": [1, 2]}, "every image of it is left out"),
])  # fmt: skip
def test_a_bad_choice_changes_nothing(run: Run, choice: dict, match: str):
    runs.advance(run, "cluster")
    before = run.current.edits.all
    with pytest.raises(ChoiceError, match=match):
        run.selection.choose(**choice)
    assert run.current.edits.all == before
    assert list(run.nodes) == ["0"]


def test_a_bad_choice_at_a_refined_node_leaves_no_branch(run: Run):
    run.next_iteration()
    with pytest.raises(ChoiceError):
        run.selection.choose(99)
    assert list(run.nodes) == ["0"]


def test_choosing_before_clustering_is_told(run: Run):
    with pytest.raises(RunError, match=r"no clusters yet.*run\.step"):
        run.selection.choose(0)


def test_choosing_few_images_is_allowed_with_a_warning(run: Run):
    runs.advance(run, "cluster")
    with pytest.warns(RuntimeWarning, match=r"1 images, a cluster must hold more than 1 \(d_min-c\)"):
        run.selection.choose(images=[4])
    assert run.selection.risk([1, 2, 3]) == ""


def test_images_are_left_out_and_put_back(run: Run):
    runs.advance(run, "cluster")
    whole = run.selection.choose(images=[1, 2, 3, 4])
    assert run.selection.exclude([2, 7]) == (2, 7)
    assert run.current.decision.images == (1, 3, 4)
    assert run.current.decision.excluded == (2,)
    assert run.selection.include([2]) == (7,)
    assert run.current.decision.images == whole.images
    with pytest.raises(ChoiceError, match="every image of it is left out"):
        run.selection.exclude([1, 2, 3, 4])


def test_images_left_out_before_choosing_stay_out(run: Run):
    runs.advance(run, "cluster")
    run.selection.exclude([1])
    decision = run.selection.choose(images=[1, 2, 3])
    assert (decision.images, decision.excluded) == ((2, 3), (1,))
    assert run.tables.gallery()["excluded"].tolist() == [i == 1 for i in range(9)]


def test_merging_and_reclustering_open_the_choice_again(run: Run):
    runs.advance(run, "cluster")
    run.selection.choose()
    before = run.current.clusters
    members = {*before.members(0), *before.members(1)}
    merged = run.selection.merge(0, 1)
    assert len(merged.sizes) == len(before.sizes) - 1
    assert any(set(merged.members(c)) == members for c in range(len(merged.sizes)))
    assert run.current.decision is None
    assert run.next_stage == "choose"
    assert len(run.selection.recluster(2).sizes) == 2
    assert len(run.selection.recluster().sizes) == 3
    with pytest.raises(ChoiceError, match="got 1 twice"):
        run.selection.merge(1, 1)
    with pytest.raises(ChoiceError, match="k: expected a whole number from 1 to 9"):
        run.selection.recluster(10)


def test_undo_and_redo_go_through_all_edits(run: Run):
    runs.advance(run, "cluster")
    assert not run.current.edits.can_undo
    states = [run.current.edits.current]
    for do in (
        run.selection.choose,
        lambda: run.selection.exclude([0]),
        lambda: run.selection.merge(0, 1),
        lambda: run.selection.choose(0),
    ):
        do()
        states.append(run.current.edits.current)
    for state in reversed(states[:-1]):
        assert run.selection.undo() == state.decision
        assert run.current.edits.current == state
    with pytest.raises(RunError, match="nothing to undo"):
        run.selection.undo()
    for state in states[1:]:
        run.selection.redo()
        assert run.current.edits.current == state
    with pytest.raises(RunError, match="nothing to redo"):
        run.selection.redo()


def test_a_new_edit_after_undo_drops_what_was_undone(run: Run):
    runs.advance(run, "cluster")
    run.selection.choose()
    run.selection.undo()
    run.selection.recluster(2)
    assert not run.current.edits.can_redo
    assert [edit.action for edit in run.current.edits.all] == ["cluster", "recluster"]
    assert list(run.tables.history()["action"])[-3:] == ["choose", "undo", "recluster"]


def test_each_edit_has_its_own_clusters(run: Run):
    """Also after undo, where fewer edits are left than there were."""
    runs.advance(run, "cluster")
    run.selection.recluster(2)
    run.selection.undo()
    run.selection.recluster(4)
    run.selection.merge(0, 1)
    run.selection.merge(0, 1)
    for n in (3, 4, 3):
        run.selection.undo()
        assert len(run.current.clusters.sizes) == n
    run.close()
    assert len(Run.open(run.folder, read_only=True).current.clusters.sizes) == 3


def test_damaged_clusters_of_a_merge_leave_the_choice(run: Run):
    runs.advance(run, "cluster")
    run.selection.merge(0, 1)
    decision = run.selection.choose(images=[1, 2, 3])
    (run.folder / "nodes/0/clusters-1.npz").unlink()
    run.close()
    with Run.open(run.folder, fakes.fake_models()) as run:
        with pytest.raises(StoreError, match=r"clusters-1\.npz is missing"):
            run.current.clusters  # noqa: B018
        run.redo_stage("cluster")
        assert len(run.current.clusters.sizes) == 3
        assert run.current.decision == decision


def test_damaged_edits_are_named_and_can_be_made_again(run: Run):
    run.next_iteration()
    run.close()
    path = run.folder / "nodes/0/edits.json"
    path.write_text("{")
    with pytest.raises(StoreError, match=r"edits\.json is damaged.*move it away"):
        Run.open(run.folder)
    path.unlink()
    with Run.open(run.folder, fakes.fake_models()) as again:
        assert again.next_stage == "generate"
        again.until_converged()
        again.report()


def test_edits_survive_a_reopening(run: Run, models: Any):
    runs.advance(run, "cluster")
    run.selection.merge(0, 1)
    run.selection.choose(0, note="<b>mine</b>")
    run.selection.undo()
    edits, labels = run.current.edits.all, run.current.clusters.labels
    run.close()
    with Run.open(run.folder, models) as again:
        assert again.current.edits.all == edits
        np.testing.assert_array_equal(again.current.clusters.labels, labels)
        assert again.current.edits.can_redo
        assert again.selection.redo().note == "<b>mine</b>"


def test_a_refined_choice_is_not_undone_but_branched(run: Run):
    run.next_iteration()
    with pytest.raises(RunError, match="has been refined, so its choice stands"):
        run.selection.undo()
