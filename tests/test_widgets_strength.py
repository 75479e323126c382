"""The same seeds at another strength of Θ."""

from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets.explorer import Explorer

pytest_plugins = ["helpers.explorers"]


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
