"""Two branches side by side; the same seeds at another strength of Θ."""

from helpers.explorers import step

from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.explorer import Explorer

pytest_plugins = ["helpers.explorers"]


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


def test_there_is_no_strength_without_a_character(explorer):
    assert explorer.strength.draw.disabled
    assert "no Θ yet" in explorer.strength.words.value


def test_strength_draws_eight_seeds_once(second):
    explorer = second
    explorer.strength.slider.value = 0.25
    explorer.strength.draw.click()
    explorer.wait()
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
