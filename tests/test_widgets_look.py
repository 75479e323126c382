"""Search by a phrase, add to and take from a selection, isolate it, give it a name."""

import numpy as np
import pytest
from helpers import painted
from helpers.explorers import opened
from helpers.figures import lasso

from chosen_one_nb.run.run import Run

pytest_plugins = ["helpers.explorers"]


@pytest.fixture
def searched(explorer, monkeypatch):
    """An explorer that has searched: image i fits the phrase by i / 100."""
    scores = np.arange(24) / 100
    monkeypatch.setattr(explorer.run.attributes, "search", lambda phrase, node: scores)
    explorer.look.phrase.value = " a fox at night "
    explorer.settle()
    return explorer


def test_a_phrase_orders_the_gallery_and_colours_the_map(searched):
    section = searched.gallery.view.sections[0]
    assert section["title"] == "“a fox at night”, surest first"
    assert section["ids"] == list(range(24))[::-1]
    assert searched.map.figure.points["marker"]["color"] == pytest.approx(np.arange(24) / 100)
    assert searched.map.figure.points["marker"]["colorbar"]["title"]["text"] == "a fox at night"
    searched.look.phrase.value = ""
    assert searched.gallery.view.sections[0]["title"].startswith("Cluster")


def test_a_threshold_selects_and_what_it_selects_can_be_chosen(searched):
    assert searched.session.selected == []
    searched.look.least.value = 0.205
    assert searched.session.selected == [21, 22, 23]
    assert "3 of 24 selected" in searched.look.count.value
    searched.choice.use.click()
    assert searched.node.decision.images == (21, 22, 23)
    searched.session.select([5])
    searched.choice.out.click()
    assert 5 in searched.node.excluded


def test_a_lit_attribute_takes_the_place_of_the_phrase(searched):
    searched.session.lit = 0
    assert searched.session.phrase == ""


def test_a_search_that_fails_says_why(explorer, monkeypatch):
    def fail(phrase, node):
        raise RuntimeError("no CLIP here")

    monkeypatch.setattr(explorer.run.attributes, "search", fail)
    explorer.look.phrase.value = "a fox"
    explorer.settle()
    assert "the search failed: no CLIP here" in explorer.look.count.value


@pytest.mark.parametrize(("how", "then"), [("", [3, 4]), ("add", [1, 2, 3, 4]), ("remove", [1, 2])])
def test_a_lasso_replaces_adds_or_takes_away(explorer, how, then):
    explorer.session.select([1, 2, 3] if how == "remove" else [1, 2])
    explorer.look.mode.value = how
    assert explorer.map.figure.lasso_mode == how
    lasso(explorer.map.figure, [3, 4], how)
    assert explorer.session.selected == explorer.map.figure.selected == then


def test_isolating_zooms_and_greys_the_others(explorer):
    explorer.session.select([1, 5, 9])
    explorer.look.isolate.click()
    xy = np.array([explorer.map.figure.points[axis] for axis in "xy"]).T
    low, high = explorer.map.figure.chart["xaxis"]["range"]
    assert low < xy[[1, 5, 9], 0].min()
    assert high - low == pytest.approx(1.16 * np.ptp(xy[[1, 5, 9], 0]))
    opacity = explorer.map.figure.points["marker"]["opacity"]
    assert [i for i in range(24) if opacity[i] == 1] == [1, 5, 9]
    assert sorted(i for section in explorer.gallery.view.sections for i in section["ids"]) == [1, 5, 9]
    assert explorer.look.isolate.description == "Show all"
    explorer.look.isolate.click()
    assert sum(len(section["ids"]) for section in explorer.gallery.view.sections) == 24


def test_a_named_selection_is_kept_in_the_run(explorer, clustered, tmp_path):
    explorer.session.select([2, 7])
    explorer.look.name.value = "blue ones"
    explorer.look.save.click()
    assert explorer.look.saved.options == ("–", "blue ones")
    explorer.run.close()
    run = Run.open(explorer.run.folder, painted.MODELS)
    assert run.selection.saved() == {"blue ones": (2, 7)}
    named = run.tables.gallery()["selections"]
    assert named[named != ""].to_dict() == {2: "blue ones", 7: "blue ones"}
    run.close()
    again = opened(explorer.run.folder, tmp_path / "again")
    again.look.saved.value = "blue ones"
    assert again.session.selected == [2, 7]
    again.session.select([])
    again.look.name.value = "blue ones"
    again.look.save.click()
    assert again.run.selection.saved() == {}
