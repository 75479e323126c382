"""The explorer driven by events, without a browser: buttons clicked, traits written, Plotly's events sent."""

import shutil
import threading
import time
import warnings

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from helpers import painted
from helpers.figures import click, hover, lasso
from ipywidgets.widgets.widget import _instances

from chosen_one_nb.run.run import ChoiceError, Run, RunError
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.cluster_style import LEFT_OUT
from chosen_one_nb.widgets.explorer import Explorer
from chosen_one_nb.widgets.status import sentence
from chosen_one_nb.widgets.tasks import Busy


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch):
    painted.paint(monkeypatch)
    monkeypatch.setattr(painted, "pause", 0.0)
    monkeypatch.setattr("chosen_one_nb.widgets.cards.RESAMPLES", 5)


@pytest.fixture(scope="session")
def clustered(tmp_path_factory):
    """The folder of a run that waits for a choice; copied by each test."""
    with pytest.MonkeyPatch.context() as patch:
        painted.paint(patch)
        run = painted.start(tmp_path_factory.mktemp("painted") / "run")
        while run.next_stage != "choose":
            run.step()
        run.close()
        return run.folder


@pytest.fixture(scope="session")
def refined(clustered, tmp_path_factory):
    """The folder of a run with its first Θ and its second gallery; copied by each test."""
    with pytest.MonkeyPatch.context() as patch:
        painted.paint(patch)
        with Run.open(clustered, painted.MODELS, read_only=True).copy(
            tmp_path_factory.mktemp("painted") / "run"
        ) as run:
            run.next_iteration()
            while run.next_stage != "choose":
                run.step()
            return run.folder


def opened(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "run")
    return Explorer(Run.open(place, painted.MODELS), method="pca", raise_errors=True)


@pytest.fixture
def new(tmp_path):
    """An explorer on a run that has just begun."""
    return Explorer(painted.start(tmp_path / "run"), method="pca", raise_errors=True)


@pytest.fixture
def explorer(clustered, tmp_path):
    """An explorer on a run that waits for a choice."""
    return opened(clustered, tmp_path)


@pytest.fixture
def second(refined, tmp_path):
    """An explorer on a run whose second gallery waits for a choice."""
    return opened(refined, tmp_path)


def step(explorer, button="next"):
    """Press a button of the stepper and wait for the work."""
    getattr(explorer.stepper, button).click()
    explorer.session.wait(60)
    return explorer.status.text


def at_choose(tmp_path, **changes):
    run = painted.start(tmp_path / "run", **changes)
    while run.next_stage != "choose":
        run.step()
    return run


# --- stepping ------------------------------------------------------------------------------------------------------


def test_next_does_one_stage_and_lights_the_one_after(new):
    assert '<li class="is-lit" aria-current="step"' in new.bar.ui.value
    assert new.stepper.next.description == "Next: Generate"
    assert step(new) == "Done. Next comes Embed."
    assert new.run.current.stages_done == ("generate",)
    assert new.stepper.next.description == "Next: Embed"
    assert "✓ Generate" in new.bar.ui.value


def test_a_whole_iteration_and_the_second_gallery(explorer):
    step(explorer, "iteration")
    assert explorer.run.current.refined
    assert explorer.node.decision.by == "rule"
    assert len(explorer.curves.loss.raw["y"]) == 12
    step(explorer)
    assert explorer.node.id == "1"
    assert len(explorer.gallery.view.sections[0]["ids"]) == 24
    assert explorer.gallery.view.thumbnails.endswith("/1")


def test_to_convergence_ends_with_a_reason(new):
    new.stepper.convergence.click()
    new.session.wait()
    assert new.run.outcome.finished
    assert new.status.text.startswith("Finished, ")
    assert new.stepper.next.disabled
    assert new.stepper.go_on.layout.display is None


def test_ask_me_each_time_stops_at_choose(new):
    new.stepper.ask.value = True
    assert step(new, "convergence").startswith("Your turn")
    assert new.run.next_stage == "choose"
    actions.choose(new.session, 0)
    assert step(new, "convergence").startswith("Your turn")
    assert new.node.id == "1"


def test_images_and_loss_appear_while_work_goes_on(new, monkeypatch):
    seen = []
    monkeypatch.setattr(painted, "pause", 0.01)
    new.gallery.view.observe(lambda change: seen.append(sum(len(s["ids"]) for s in change["new"])), "sections")
    step(new)
    assert 0 < seen[0] < 24
    assert seen[-1] == 24
    assert new.session.thumbnails.bytes_sent() > 0


def test_progress_counts_and_tells_the_time_left(new, monkeypatch):
    texts = []
    monkeypatch.setattr(painted, "pause", 0.02)
    new.stepper.words.observe(lambda change: texts.append(change["new"]), "value")
    step(new)
    assert any("/24 images" in text and "left" in text for text in texts)
    assert texts[-1] == ""


def test_cancel_stops_at_once_and_the_run_goes_on_from_there(explorer, monkeypatch):
    actions.choose(explorer.session)
    monkeypatch.setattr(painted, "pause", 0.2)
    explorer.stepper.next.click()
    time.sleep(0.3)
    begun = time.monotonic()
    explorer.stepper.cancel.click()
    explorer.session.wait(5)
    assert time.monotonic() - begun < 1.0
    assert explorer.status.text.startswith("Cancelled")
    assert not explorer.run.current.refined
    monkeypatch.setattr(painted, "pause", 0.0)
    step(explorer)
    assert explorer.run.nodes["0"].refined


def test_the_loss_is_drawn_while_it_learns(explorer, monkeypatch):
    seen = []
    actions.choose(explorer.session)
    monkeypatch.setattr(painted, "pause", 0.05)
    monkeypatch.setattr("chosen_one_nb.widgets.curves.LOSS_EVERY", 0.0)
    monkeypatch.setattr(explorer.curves.loss, "show", lambda losses: seen.append(len(losses)))
    step(explorer)
    assert {1, 6, 12} <= set(seen)


def test_a_cancelled_gallery_keeps_whole_images_and_goes_on(new, monkeypatch):
    drawn = []
    monkeypatch.setattr(painted, "pause", 0.05)
    new.gallery.view.observe(
        lambda change: drawn.append(change) or (len(drawn) == 1 and actions.cancel(new.session)), "sections"
    )
    assert step(new).startswith("Cancelled")
    assert drawn
    assert new.run.current.stages_done == ()
    assert new.stepper.next.description == "Next: Generate"
    monkeypatch.setattr(painted, "pause", 0.0)
    assert step(new) == "Done. Next comes Embed."
    assert len(new.gallery.view.sections[0]["ids"]) == 24


def test_next_while_a_script_is_at_work_is_refused_in_words(new, monkeypatch):
    monkeypatch.setattr(painted, "pause", 0.05)
    script = threading.Thread(target=new.run.step)
    script.start()
    while not new.run.busy:
        time.sleep(0.01)
    new.session.refresh()
    assert new.stepper.next.disabled
    new.session.raise_errors = False
    actions.next_stage(new.session)
    new.session.wait()
    assert "at work" in new.status.text
    script.join()
    assert new.run.current.stages_done == ("generate",)


def test_a_second_click_on_next_is_refused_in_words(new, monkeypatch):
    monkeypatch.setattr(painted, "pause", 0.05)
    new.stepper.next.click()
    with pytest.raises(Busy):
        actions.next_stage(new.session)
    assert "Still at work" in new.status.text
    assert new.stepper.next.disabled
    new.session.wait()
    assert new.run.current.stages_done == ("generate",)


def test_a_failed_stage_says_why_and_can_be_retried(explorer, monkeypatch):
    actions.choose(explorer.session)

    def broken(*_, **__):
        raise MemoryError("no room for 12 images")

    with monkeypatch.context() as patch:
        patch.setattr("chosen_one_nb.steps.refine.refine", broken)
        assert "no room for 12 images" in step(explorer)
    assert explorer.status.kind == "error"
    assert "Traceback" in explorer.status.value
    assert explorer.stepper.next.description == "Retry: Refine"
    assert step(explorer) == "Done. Next comes Generate."


# --- the map -------------------------------------------------------------------------------------------------------


def test_the_image_shown_is_the_one_under_the_pointer(explorer):
    hover(explorer.map.figure, 7)
    assert explorer.map.preview.index == explorer.gallery.view.hovered == 7
    cluster, far = explorer.node.clusters.labels[7], explorer.node.clusters.distances[7]
    facts = ["id 0/007", f"seed {explorer.node.seeds[7]}", f"cluster {cluster}", f"{far:.2f} from its centroid"]
    assert explorer.map.preview.lines == ["Image 7", *facts]
    assert explorer.run.tables.gallery()["image_id"][7] == "0/007"
    assert explorer.map.preview.thumbnails == explorer.gallery.view.thumbnails


def test_what_is_pointed_at_stays_so_when_the_clusters_change(explorer):
    hover(explorer.map.figure, 7)
    actions.recluster(explorer.session, 2)
    ring, points = explorer.map.figure.rings, explorer.map.figure.points
    assert ring["x"][0] == points["x"][7]
    assert explorer.map.preview.lines[3] == f"cluster {explorer.node.clusters.labels[7]}"


def test_the_lines_lead_to_the_true_neighbours(explorer):
    features = explorer.node.embedding.features
    hover(explorer.map.figure, 4)
    nearest = np.argsort(np.linalg.norm(features - features[4], axis=1))[1:6]
    assert [near["index"] for near in explorer.map.preview.neighbours] == list(nearest)


def test_a_hover_answers_fast(explorer):
    hover(explorer.map.figure, 0)
    times = []
    for index in range(1, 11):
        begun = time.perf_counter()
        hover(explorer.map.figure, index)
        times.append(time.perf_counter() - begun)
    assert np.median(times) < 0.05


def test_click_on_a_point_scrolls_the_gallery(explorer):
    explorer.tabs.selected_index = 2
    click(explorer.map.figure, 11)
    assert explorer.gallery.view.focused == 11
    assert explorer.tabs.selected_index == 0


def test_pointing_in_the_gallery_rings_the_point(explorer):
    explorer.gallery.view.hovered = 5
    ring, points = explorer.map.figure.rings, explorer.map.figure.points
    assert ring["x"][0] == points["x"][5]


def test_a_lasso_gives_ids_and_a_table(explorer):
    lasso(explorer.map.figure, [3, 1, 8])
    assert list(explorer.selection.index) == [1, 3, 8]
    assert list(explorer.selection["image_id"]) == ["0/001", "0/003", "0/008"]
    assert list(explorer.selection["index"]) == [1, 3, 8]
    assert isinstance(explorer.selection, pd.DataFrame)
    assert explorer.gallery.view.selected == [1, 3, 8]
    assert explorer.choice.use.description == "Choose selection (3)"
    explorer.choice.clear.click()
    assert len(explorer.selection) == 0


def test_a_selection_can_be_set_and_is_checked(explorer):
    explorer.selection = [2, 2, 0]
    assert list(explorer.selection.index) == [0, 2]
    with pytest.raises(ValueError, match="from 0 to 23"):
        explorer.selection = [99]


def test_colour_by_distance_and_back(explorer):
    explorer.map.colour.value = "distance"
    marker = explorer.map.figure.points["marker"]
    np.testing.assert_allclose(marker["color"], explorer.node.clusters.distances)
    assert marker["showscale"]
    explorer.map.colour.value = "cluster"
    assert isinstance(explorer.map.figure.points["marker"]["color"][0], str)


def test_colour_by_kept_and_left_out(explorer):
    actions.choose(explorer.session)
    out = explorer.node.decision.images[0]
    actions.leave_out(explorer.session, [out])
    explorer.map.colour.value = "kept"
    colours = explorer.map.figure.points["marker"]["color"]
    assert colours[out] == LEFT_OUT
    assert [i for i, colour in enumerate(colours) if colour == LEFT_OUT] == [out]
    assert "orange: left out" in explorer.map.trust.value


def test_points_may_glide_to_their_new_places(second):
    figure = second.map.figure
    assert "transition" not in figure.chart
    second.map.glide.value = True
    second.session.show_node("0")
    assert 0 < figure.chart["transition"]["duration"] < 1000
    assert figure.points["x"] == second.map.layout_now().projection.of("0")[:, 0].tolist()
    second.map.glide.value = False
    assert figure.chart["transition"]["duration"] == 0


def test_images_on_the_points(explorer):
    explorer.map.thumbs.value = True
    assert len(explorer.map.figure.chart["images"]) > 0
    explorer.map.thumbs.value = False
    assert len(explorer.map.figure.chart["images"]) == 0


def test_the_signs_on_the_map_are_explained(explorer):
    assert "numbered at its middle" in explorer.map.trust.value
    assert "left out" not in explorer.map.trust.value
    actions.choose(explorer.session)
    actions.leave_out(explorer.session, [explorer.node.decision.images[0]])
    assert "large: chosen · × left out" in explorer.map.trust.value


def test_iterations_share_one_map_and_a_slider(second):
    second.session.show_node("0")
    assert second.map.steps.options == ("0", "1")
    first = np.array(second.map.figure.points["x"])
    assert second.map.layout_now().galleries == ("0", "1")
    second.map.steps.value = "1"
    assert second.run.current.id == second.node.id == "1"
    np.testing.assert_allclose(
        second.map.layout_now().projection.of("0")[:, 0], first
    )  # a position means the same at each step
    assert len(second.map.layout_now().galleries) == 2
    assert not np.array_equal(first, second.map.figure.points["x"])


def test_pca_stands_in_while_umap_is_fitted(explorer, monkeypatch):
    from chosen_one_nb.analysis import projection as maps

    go, real = threading.Event(), maps.project

    def slow(galleries, *, method, **options):
        if method == "umap":
            assert go.wait(10)
        return real(galleries, method="pca", **options)

    monkeypatch.setattr(maps, "project", slow)
    explorer.map.method.value = "umap"
    assert "PCA for now" in explorer.map.trust.value
    go.set()
    explorer.settle(10)
    assert "PCA for now" not in explorer.map.trust.value
    assert "trustworthiness" in explorer.map.trust.value


def test_no_umap_is_said_not_hidden(explorer, monkeypatch):
    from chosen_one_nb.analysis import projection as maps

    real = maps.project

    def broken(galleries, *, method, **options):
        if method == "umap":
            raise ImportError("umap-learn is not installed")
        return real(galleries, method=method, **options)

    monkeypatch.setattr(maps, "project", broken)
    explorer.map.method.value = "umap"
    explorer.settle(10)
    assert "umap-learn is not installed" in explorer.map.trust.value


def test_other_maps_on_request(explorer, monkeypatch):
    from chosen_one_nb.analysis import projection as maps

    one = maps.project({"": explorer.node.embedding.features}, method="pca", quality=False)
    monkeypatch.setattr(maps, "sensitivity", lambda features: [one] * 4)
    explorer.map.vary.click()
    explorer.settle(10)
    assert explorer.map.variants.value.count("<figure>") == 4
    explorer.map.vary.click()
    assert explorer.map.variants.value == ""


# --- judging and deciding --------------------------------------------------------------------------------------------


def test_cards_are_most_cohesive_first_and_mark_the_proposal(explorer):
    explorer.settle()
    cards, clusters = explorer.clusters.view.cards, explorer.node.clusters
    assert [card["cluster"] for card in cards] == [int(c) for c in clusters.order]
    assert [card["proposed"] for card in cards].index(True) == 0
    assert cards[0]["reason"] == clusters.reason
    assert cards[0]["facts"]["picked"].endswith("%")


def test_images_of_a_card_belong_to_its_cluster(explorer):
    for card in explorer.clusters.view.cards:
        shown = {card["medoid"], *card["typical"], *card["odd"]}
        assert shown <= set(explorer.node.clusters.members(card["cluster"]))
        assert len(shown) == 1 + len(card["typical"]) + len(card["odd"])


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


def test_hovering_a_card_rings_its_points(explorer):
    explorer.clusters.view.hovered = 2
    assert len(explorer.map.figure.rings["x"]) == explorer.node.clusters.sizes[2]
    explorer.clusters.view.hovered = -1
    assert len(explorer.map.figure.rings["x"]) == 0


def test_no_cluster_large_enough_is_a_clear_outcome(tmp_path):
    explorer = Explorer(at_choose(tmp_path, min_cluster_size=15), method="pca", raise_errors=False)
    assert step(explorer).startswith("The rule proposes nothing")
    assert explorer.choice.proposal.disabled
    actions.choose(explorer.session, 0)
    assert explorer.node.decision.cluster == 0


# --- branches --------------------------------------------------------------------------------------------------------


def test_a_new_choice_at_a_refined_node_begins_a_branch(second):
    explorer = second
    explorer.tree.act({"do": "select", "node": "0"})
    other = next(int(c) for c in explorer.node.clusters.order if c != explorer.node.decision.cluster)
    actions.choose(explorer.session, other)
    assert "began branch 0b" in explorer.status.text
    assert explorer.run.nodes["0"].decision.cluster != other
    spots = {node["id"]: (node["column"], node["row"]) for node in explorer.tree.view.nodes}
    assert spots == {"0": (0, 0), "1": (1, 0), "0b": (0, 1)}
    step(explorer, "iteration")
    step(explorer)
    explorer.compare.show()
    assert {pick.value for pick in explorer.compare.picks} == {"0", "0b"}
    assert list(explorer.run.nodes["1"].seeds) == list(explorer.run.nodes["1b"].seeds)
    assert all(len(view.sections[0]["ids"]) == 24 for view in explorer.compare.views)
    assert "chosen by" in explorer.compare.table.value


def test_compared_branches_show_their_ways_and_where_they_differ(second):
    explorer = second
    explorer.tree.act({"do": "select", "node": "0"})
    actions.choose(
        explorer.session, next(int(c) for c in explorer.node.clusters.order if c != explorer.node.decision.cluster)
    )
    step(explorer, "iteration")
    step(explorer)
    said = explorer.compare.table.value
    assert said.index("The choice") < said.index("What followed") < said.index("Mean pairwise distance by node")
    assert "<td class='is-changed'>0</td><td class='is-changed'>0b</td>" not in said
    assert all(f">{end}<" in said for end in ("d_conv", "A · 1", "B · 0b"))
    explorer.compare.picks[1].value = "0"
    assert "two different nodes" in explorer.compare.table.value


def test_compared_galleries_point_together(second):
    explorer = second
    explorer.compare.views[0].hovered = 9
    assert explorer.compare.views[1].hovered == 9


def test_branches_share_their_gallery_and_it_travels_once(second):
    explorer = second
    explorer.session.show_node("0")
    sent = explorer.session.thumbnails.bytes_sent()
    actions.choose(explorer.session, 1)
    assert explorer.node.id == "0b"
    assert explorer.session.thumbnails.bytes_sent() == sent
    assert explorer.gallery.view.thumbnails.endswith("/0")


def test_looking_elsewhere_during_work_does_not_move_the_work(second, monkeypatch):
    actions.choose(second.session)
    monkeypatch.setattr(painted, "pause", 0.05)
    second.stepper.next.click()
    time.sleep(0.1)
    second.session.show_node("0")
    assert second.node.id == "0"
    assert second.run.current.id == "1"
    second.session.wait()
    assert second.node.id == "0"
    assert second.run.nodes["1"].refined


# --- closer, settings, taking away -----------------------------------------------------------------------------------


def test_there_is_no_strength_without_a_character(explorer):
    assert explorer.strength.draw.disabled
    assert "no Θ yet" in explorer.strength.words.value


def test_strength_draws_eight_seeds_once(second):
    explorer = second
    explorer.strength.slider.value = 0.25
    explorer.strength.draw.click()
    explorer.session.wait()
    assert len(explorer.strength.view.sections[0]["ids"]) == 8
    assert explorer.strength.view.thumbnails.endswith("/0@0.25")
    assert explorer.strength.draw.disabled
    explorer.strength.slider.value = 1.0
    assert explorer.strength.view.sections == []
    explorer.run.close()
    again = Explorer(Run.open(explorer.run.folder, read_only=True), method="pca", raise_errors=True)
    again.session.show_node("0")
    again.strength.slider.value = 0.25
    assert len(again.strength.view.sections[0]["ids"]) == 8


def test_looking_closer_sends_the_full_image(explorer):
    explorer.gallery.view.zoomed = 3
    assert explorer.gallery.view.large["index"] == 3
    assert len(explorer.gallery.view.large["data"]) > 500


def test_settings_show_symbols_and_sources(explorer):
    assert "d_min-c" in explorer.settings.table.value
    assert "class='is-changed'" in explorer.settings.table.value


def test_what_an_iteration_takes_is_counted_when_asked(explorer, monkeypatch):
    asked = []
    count = "chosen_one_nb.run.cost_estimate.estimate_cost"
    monkeypatch.setattr(count, lambda models, settings: asked.append(settings) or "9 GB <peak>")
    assert explorer.settings.plan.value == ""
    explorer.settings.count.click()
    explorer.session.background.settle()
    explorer.session.refresh()
    assert explorer.settings.plan.value == "<pre>9 GB &lt;peak&gt;</pre>"
    assert asked == [explorer.node.settings]


def test_why_it_cannot_be_counted_is_said(explorer, monkeypatch):
    def fail(models, settings):
        raise OSError("no room")

    monkeypatch.setattr("chosen_one_nb.run.cost_estimate.estimate_cost", fail)
    explorer.settings.count.click()
    explorer.session.background.settle()
    explorer.session.refresh()
    assert explorer.settings.plan.value == "<p>This cannot be counted: no room</p>"


def test_tables_are_written(explorer, tmp_path):
    csv, parquet = actions.save_table(explorer.session, tmp_path / "out")
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), explorer.run.tables.gallery(), check_dtype=False)
    assert len(pd.read_csv(csv)) == 24


def test_snapshots_at_every_stage(new):
    assert new.snapshot().size[1] > 80
    step(new)
    assert new.snapshot().size[0] > 600
    step(new, "iteration")
    image = new.snapshot()
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10


# --- the run, other screens, trouble ---------------------------------------------------------------------------------


def test_plotly_is_sent_with_the_screen(explorer, monkeypatch):
    """A kernel that runs the cells below would not hear a figure that asks."""
    sent = []
    monkeypatch.setattr("chosen_one_nb.widgets.explorer.send_plotly", lambda: sent.append("plotly"))
    explorer._repr_mimebundle_()
    assert sent == ["plotly"]


def test_two_explorers_on_one_run_agree(explorer):
    other = Explorer(explorer.run, method="pca", raise_errors=True)
    actions.choose(explorer.session, 1)
    assert other.choice.words.value == explorer.choice.words.value
    step(other)
    assert explorer.stepper.next.description == other.stepper.next.description
    assert explorer.status.text == other.status.text


def test_a_script_and_the_screen_leave_the_same_record(explorer):
    explorer.run.selection.choose(2, note="from a cell")
    assert explorer.choice.note.value == "from a cell"
    assert "Taken: cluster 2" in explorer.choice.words.value
    explorer.run.step()
    assert explorer.stepper.next.description == "Next: Generate"


def test_the_same_state_after_a_restart(explorer):
    actions.choose(explorer.session, 1)
    actions.leave_out(explorer.session, [explorer.node.decision.images[0]])
    explorer.settle()
    before = dict(vars(explorer).items())
    words, cards, sections = (
        before["choice"].words.value,
        explorer.clusters.view.cards,
        explorer.gallery.view.sections,
    )
    explorer.run.close()
    again = Explorer(Run.open(explorer.run.folder, painted.MODELS), method="pca", raise_errors=True)
    again.settle()
    assert again.choice.words.value == words
    assert again.clusters.view.cards == cards
    assert again.gallery.view.sections == sections
    assert again.gallery.view.excluded == explorer.gallery.view.excluded


def test_markup_in_the_prompt_is_text(tmp_path):
    prompt = "<img src=x onerror=alert(1)> & <b>fox</b>"
    explorer = Explorer(painted.start(tmp_path / "run", prompt), method="pca", raise_errors=True)
    for _ in range(4):
        step(explorer)
    assert "<img src=x" not in explorer.bar.ui.value
    assert "&lt;img src=x onerror" in explorer.bar.ui.value
    actions.choose(explorer.session, 0)
    actions.write_note(explorer.session, "<script>alert(2)</script>")
    assert "<script>" not in "".join(html.value for html in (explorer.choice.words, *explorer.compare.heads))


def test_a_vanished_folder_is_said_in_a_sentence(explorer):
    shutil.rmtree(explorer.run.folder)
    with pytest.raises((StoreError, RunError)):
        actions.choose(explorer.session, 0)
    assert explorer.status.kind == "error"
    assert str(explorer.run.folder) in explorer.status.text


@pytest.mark.parametrize(
    "act",
    [
        lambda e: actions.leave_out(e.session, [1]),
        lambda e: actions.recluster(e.session, 3),
        lambda e: setattr(e.gallery.view, "zoomed", 3),
        lambda e: setattr(e.map.thumbs, "value", True),
        lambda e: actions.save_table(e.session),
        lambda e: actions.write_report(e.session),
        lambda e: (actions.next_stage(e.session), e.session.wait()),
        lambda e: (actions.to_convergence(e.session), e.session.wait()),
    ],
    ids=["leave out", "re-cluster", "look closer", "images", "table", "report", "next", "to convergence"],
)
def test_whatever_is_pressed_says_that_the_folder_is_gone_and_makes_none(explorer, act):
    explorer.session.raise_errors = False
    kept = shutil.copytree(explorer.run.folder, explorer.run.folder.with_name("kept"))
    shutil.rmtree(explorer.run.folder)
    act(explorer)
    assert explorer.status.kind == "error"
    assert "is gone (moved or deleted?). Put it back" in explorer.status.text
    assert not explorer.run.folder.exists()
    shutil.copytree(kept, explorer.run.folder)
    actions.choose(explorer.session, 1)
    assert step(explorer) == "Done. Next comes Generate."


def test_a_run_opened_for_looking_only_cannot_be_changed(explorer):
    explorer.run.close()
    only = Explorer(Run.open(explorer.run.folder, painted.MODELS, read_only=True), method="pca", raise_errors=True)
    assert only.stepper.next.disabled
    assert only.choice.proposal.disabled
    assert not only.clusters.view.can_choose
    with pytest.raises(RunError, match="looking only"):
        actions.choose(only.session, 0)


def test_without_the_flag_errors_go_to_the_status_line(tmp_path):
    explorer = Explorer(at_choose(tmp_path), method="pca")
    actions.choose(explorer.session, 99)
    assert explorer.status.kind == "error"
    assert "from 0 to" in explorer.status.text


def test_closing_stops_listening(explorer):
    words = explorer.choice.words.value
    explorer.close()
    explorer.run.selection.choose(1)
    assert explorer.choice.words.value == words


def test_closing_leaves_no_widget_no_thread_and_no_listener(explorer):
    widgets, threads = set(_instances), set(threading.enumerate())
    other = Explorer(explorer.run, method="pca", raise_errors=True)
    other.settle()
    assert len(_instances) > len(widgets) + 100
    other.close()
    assert set(_instances) == widgets
    assert set(threading.enumerate()) <= threads
    assert len(explorer.run.listeners) == len(explorer.session.tasks.watchers) == 1


def test_every_control_has_a_tooltip(explorer):
    controls = list(walk(explorer.ui))
    named = [
        w
        for w in controls
        if hasattr(w, "description")
        and type(w).__name__
        in (
            "Button",
            "Switch",
            "Dropdown",
            "IntSlider",
            "FloatSlider",
            "SelectionSlider",
            "Text",
            "BoundedIntText",
        )
    ]
    assert len(named) > 20
    assert [w for w in named if not w.tooltip] == []
    assert set(explorer.tabs.titles) <= set(explorer.hints.tips)


def test_a_page_that_missed_something_gets_it_again(explorer):
    sent, seen = [], explorer.hints.beat
    explorer.status.send_state = lambda key=None: key or sent.append(explorer.status.text)
    explorer.hints._handle_custom_msg({"want": "fresh", "beat": seen}, [])
    assert sent == []
    actions.choose(explorer.session, 1)  # while the page was being set up
    explorer.hints._handle_custom_msg({"want": "fresh", "beat": seen}, [])
    assert len(sent) == 1


def test_figures_say_what_they_show(second):
    assert second.map.figure.alt.startswith("Map of 24 images by PCA, 4 clusters")
    assert "0: 0." in second.curves.distance.alt
    assert "d_conv is" in second.curves.distance.alt
    second.session.show_node("0")
    assert "over 12 refinement steps, from" in second.curves.loss.alt


def test_a_cluster_of_one_image_reads_well(explorer):
    actions.recluster(explorer.session, len(explorer.node.seeds))  # as many clusters as images
    explorer.settle()
    facts = explorer.clusters.view.cards[0]["facts"]
    assert facts["corrected"] == "–"
    assert not any("nan" in value for value in facts.values())
    assert explorer.gallery.view.sections[0]["note"].startswith("1 image, ")


def test_what_is_typed_is_sent_once_before_a_button_hears_of_the_click(explorer):
    """Letters sent one by one wait for a slow kernel's answers; the click that follows does not."""
    boxes = [widget for widget in walk(explorer.ui) if isinstance(widget, ipywidgets.Text)]
    assert len(boxes) >= 3
    assert [box.description for box in boxes if box.continuous_update] == []


def walk(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from walk(child)


def test_errors_read_as_sentences():
    assert sentence(RunError("Finished. To go on: run.go_on().")) == "Finished. To go on: run.go_on()."
    assert "try again" in sentence(ZeroDivisionError("division by zero"))


# --- real models -----------------------------------------------------------------------------------------------------


def test_one_iteration_with_real_models(models, quick, tmp_path, monkeypatch):
    monkeypatch.undo()
    run = Run.start("a sticker of a fox", models, quick, tmp_path / "real")
    explorer = Explorer(run, method="pca", raise_errors=True)
    step(explorer, "iteration")
    assert explorer.status.kind == "good", explorer.status.text
    assert run.nodes["0"].refined
    step(explorer)
    assert len(explorer.gallery.view.sections[0]["ids"]) == 4
    assert explorer.snapshot().size[0] > 600
