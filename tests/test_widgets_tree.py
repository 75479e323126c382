"""The tree of iterations and branches."""

from helpers.explorers import step

from chosen_one_nb.widgets import actions

pytest_plugins = ["helpers.explorers"]


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


def test_branches_share_their_gallery_and_it_travels_once(second):
    explorer = second
    explorer.session.show_node("0")
    sent = explorer.session.thumbnails.bytes_sent()
    actions.choose(explorer.session, 1)
    assert explorer.node.id == "0b"
    assert explorer.session.thumbnails.bytes_sent() == sent
    assert explorer.gallery.view.thumbnails.endswith("/0")
