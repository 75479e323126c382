"""The screen as a whole: built, sent, described, closed; one iteration with real models."""

import gc
import threading
import weakref

import ipywidgets
import numpy as np
from helpers import painted
from helpers.explorers import step
from ipywidgets.widgets.widget import _instances

from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.explorer import Explorer
from chosen_one_nb.widgets.panel import walk

pytest_plugins = ["helpers.explorers"]


def test_plotly_is_sent_with_the_screen(explorer, monkeypatch):
    """A kernel that runs the cells below would not hear a figure that asks."""
    sent = []
    monkeypatch.setattr("chosen_one_nb.widgets.explorer.send_plotly", lambda: sent.append("plotly"))
    explorer._ipython_display_()
    assert sent == ["plotly"]


def test_markup_in_the_prompt_is_text(painted_steps, tmp_path):
    prompt = "<img src=x onerror=alert(1)> & <b>fox</b>"
    explorer = Explorer(painted.start(tmp_path / "run", prompt), method="pca", raise_errors=True)
    for _ in range(4):
        step(explorer)
    assert "<img src=x" not in explorer.bar.ui.value
    assert "&lt;img src=x onerror" in explorer.bar.ui.value
    actions.choose(explorer.session, 0)
    actions.write_note(explorer.session, "<script>alert(2)</script>")
    assert "<script>" not in "".join(html.value for html in (explorer.choice.words, *explorer.compare.heads))


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


def test_what_is_typed_is_sent_once_before_a_button_hears_of_the_click(explorer):
    """Letters sent one by one wait for a slow kernel's answers; the click that follows does not."""
    boxes = [widget for widget in walk(explorer.ui) if isinstance(widget, ipywidgets.Text)]
    assert len(boxes) >= 3
    assert [box.description for box in boxes if box.continuous_update] == []


def test_a_page_that_missed_something_gets_it_again(explorer):
    sent, seen = [], explorer.hints.beat
    explorer.status.send_state = lambda key=None: key or sent.append(explorer.status.text)
    explorer.hints._handle_custom_msg({"want": "fresh", "beat": seen}, [])
    assert sent == []
    actions.choose(explorer.session, 1)  # while the page was being set up
    explorer.hints._handle_custom_msg({"want": "fresh", "beat": seen}, [])
    assert len(sent) == 1


def test_snapshots_at_every_stage(new):
    assert new.snapshot().size[1] > 80
    step(new)
    assert new.snapshot().size[0] > 600
    step(new, "iteration")
    image = new.snapshot()
    assert image.mode == "RGB"
    assert np.asarray(image).std() > 10


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
    kept = [weakref.ref(part) for part in (other.session, other.gallery.view, other.map.figure)]
    del other
    gc.collect()
    assert [part() for part in kept] == [None, None, None]


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
