"""The cards of the clusters."""

from chosen_one_nb.widgets import actions

pytest_plugins = ["helpers.explorers"]


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


def test_a_cluster_of_one_image_reads_well(explorer):
    actions.recluster(explorer.session, len(explorer.node.seeds))  # as many clusters as images
    explorer.settle()
    facts = explorer.clusters.view.cards[0]["facts"]
    assert facts["corrected"] == "–"
    assert not any("nan" in value for value in facts.values())
    assert explorer.gallery.view.sections[0]["note"].startswith("1 image, ")
