"""Stepping through a run: buttons clicked, work in the background, progress, cancel, retry."""

import threading
import time

from helpers import painted
from helpers.explorers import step

from chosen_one_nb.widgets import actions

pytest_plugins = ["helpers.explorers"]


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
    new.wait()
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
    explorer.wait(5)
    assert time.monotonic() - begun < 1.0
    assert explorer.status.text.startswith("Cancelled")
    assert not explorer.run.current.refined
    monkeypatch.setattr(painted, "pause", 0.0)
    step(explorer)
    assert explorer.run.nodes["0"].refined


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
    new.wait()
    assert "at work" in new.status.text
    script.join()
    assert new.run.current.stages_done == ("generate",)


def test_a_second_click_on_next_is_ignored(new, monkeypatch):
    monkeypatch.setattr(painted, "pause", 0.05)
    new.stepper.next.click()
    actions.next_stage(new.session)
    assert new.status.kind != "error"
    assert new.stepper.next.disabled
    new.wait()
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
