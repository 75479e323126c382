"""The curves beside the tree."""

from helpers import painted
from helpers.explorers import step

from chosen_one_nb.widgets import actions

pytest_plugins = ["helpers.explorers"]


def test_the_loss_is_drawn_while_it_learns(explorer, monkeypatch):
    seen = []
    actions.choose(explorer.session)
    monkeypatch.setattr(painted, "pause", 0.05)
    monkeypatch.setattr("chosen_one_nb.widgets.history.LOSS_EVERY", 0.0)
    monkeypatch.setattr(explorer.curves.loss, "show", lambda losses: seen.append(len(losses)))
    step(explorer)
    assert {1, 6, 12} <= set(seen)


def test_figures_say_what_they_show(second):
    assert second.map.figure.alt.startswith("Map of 24 images by PCA, 4 clusters")
    assert "0: 0." in second.curves.distance.alt
    assert "d_conv is" in second.curves.distance.alt
    second.session.show_node("0")
    assert "over 12 refinement steps, from" in second.curves.loss.alt
