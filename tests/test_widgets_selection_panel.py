"""The choice: clusters, images of one's own, exclusions, merges, notes, undo and redo."""

import warnings

import pytest
from helpers.explorers import at_choose, step

from chosen_one_nb.run.run import ChoiceError
from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.explorer import Explorer

pytest_plugins = ["helpers.explorers"]


def test_choosing_what_was_not_proposed_is_recorded_and_on_disk(explorer):
    other = next(c for c in explorer.node.clusters.order if c != explorer.node.clusters.proposed)
    explorer.choice.note.value = "the blue one"
    explorer.clusters.act({"do": "choose", "cluster": int(other)})
    decision = explorer.node.decision
    assert (decision.cluster, decision.proposed, decision.by) == (
        other,
        explorer.node.clusters.proposed,
        "person",
    )
    assert decision.note == "the blue one"
    assert (explorer.run.folder / "nodes" / "0" / "edits.json").read_text().count("the blue one")
    assert f"Taken: cluster {other}" in explorer.choice.words.value
    assert [card["chosen"] for card in explorer.clusters.view.cards].count(True) == 1


def test_leave_one_out_put_it_back_undo_redo(explorer):
    actions.choose(explorer.session, 0)
    chosen = explorer.node.decision.images
    explorer.gallery.view.excluded = [chosen[0]]
    assert explorer.node.decision.excluded == (chosen[0],)
    assert explorer.choice.strip.excluded == [chosen[0]]
    explorer.choice.undo.click()
    assert explorer.node.decision.images == chosen
    explorer.choice.redo.click()
    assert explorer.node.decision.images == chosen[1:]
    explorer.choice.back.click()
    assert explorer.node.decision.images == chosen


def test_keys_choose_and_undo(explorer):
    explorer.gallery.view.press("choose", 4)
    assert explorer.node.decision.cluster == explorer.node.clusters.labels[4]
    explorer.gallery.view.press("undo")
    assert explorer.node.decision is None
    explorer.gallery.view.press("redo")
    assert explorer.node.decision is not None


def test_a_lasso_of_too_few_is_allowed_with_a_warning(explorer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explorer.session.select([1, 2])
        assert "d_min-c" in explorer.status.text
        explorer.choice.use.click()
    assert explorer.node.decision.images == (1, 2)
    assert explorer.node.decision.cluster is None
    assert "⚠" in explorer.choice.words.value


def test_leaving_every_image_out_is_refused_and_nothing_changes(explorer):
    actions.choose(explorer.session, 0)
    members = [int(i) for i in explorer.node.clusters.members(0)]
    with pytest.raises(ChoiceError):
        explorer.gallery.view.excluded = members
    assert explorer.gallery.view.excluded == []
    assert explorer.node.decision.images == tuple(members)
    assert "Put images back" in explorer.status.text


def test_choosing_nothing_is_refused(explorer):
    with pytest.raises(ChoiceError):
        actions.choose(explorer.session, images=explorer.session.selected)
    assert explorer.choice.use.disabled


def test_merge_ticked_clusters(explorer):
    before = explorer.node.clusters.sizes
    actions.merge_ticked(explorer.session)
    assert "Tick two" in explorer.status.text
    for cluster, on in ((3, True), (0, True), (1, True), (2, True), (3, False)):
        explorer.clusters.act({"do": "tick", "cluster": cluster, "on": on})
    assert explorer.clusters.view.ticked == [0, 1, 2]
    explorer.choice.merge.click()
    assert sorted(explorer.node.clusters.sizes)[-1] == before[:3].sum()
    assert len(explorer.clusters.view.cards) == len(before) - 2
    for _ in "ab":  # three clusters are two merges
        explorer.choice.undo.click()
    assert sorted(explorer.node.clusters.sizes) == sorted(before)
    explorer.gallery.view.press("redo")
    assert len(explorer.clusters.view.cards) == len(before) - 1


def test_recluster_keeps_the_images(explorer):
    explorer.choice.k.value = 3
    explorer.choice.recluster.click()
    assert len(explorer.node.clusters.sizes) == 3
    assert explorer.run.current.stages_done[0] == "generate"
    explorer.choice.undo.click()
    assert len(explorer.node.clusters.sizes) == 4


def test_a_note_is_kept_with_the_decision_that_stands(explorer):
    actions.choose(explorer.session, 1)
    explorer.choice.note.value = "rounder ears"
    assert explorer.node.decision.note == "rounder ears"
    assert explorer.node.decision.cluster == 1


def test_no_cluster_large_enough_is_a_clear_outcome(painted_steps, tmp_path):
    explorer = Explorer(at_choose(tmp_path, min_cluster_size=15), method="pca", raise_errors=False)
    assert step(explorer).startswith("The rule proposes nothing")
    assert explorer.choice.proposal.disabled
    actions.choose(explorer.session, 0)
    assert explorer.node.decision.cluster == 0
