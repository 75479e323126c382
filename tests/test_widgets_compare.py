"""Two branches side by side."""

from helpers.explorers import step

from chosen_one_nb.widgets import actions

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
