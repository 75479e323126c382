"""What all panels share: the selection, the iteration shown, errors, other screens on the same run."""

import shutil
import time

import pandas as pd
import pytest
from helpers import painted
from helpers.explorers import at_choose, step
from helpers.figures import lasso

from chosen_one_nb.run.run import Run, RunError
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.widgets import actions, files
from chosen_one_nb.widgets.explorer import Explorer
from chosen_one_nb.widgets.status import sentence

pytest_plugins = ["helpers.explorers"]


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


def test_looking_elsewhere_during_work_does_not_move_the_work(second, monkeypatch):
    actions.choose(second.session)
    monkeypatch.setattr(painted, "pause", 0.05)
    second.stepper.next.click()
    time.sleep(0.1)
    second.session.show_node("0")
    assert second.node.id == "0"
    assert second.run.current.id == "1"
    second.wait()
    assert second.node.id == "0"
    assert second.run.nodes["1"].refined


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
        lambda e: files.save_table(e.session),
        lambda e: files.write_report(e.session),
        lambda e: (actions.next_stage(e.session), e.wait()),
        lambda e: (actions.to_convergence(e.session), e.wait()),
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


def test_without_the_flag_errors_go_to_the_status_line(painted_steps, tmp_path):
    explorer = Explorer(at_choose(tmp_path), method="pca")
    actions.choose(explorer.session, 99)
    assert explorer.status.kind == "error"
    assert "from 0 to" in explorer.status.text


def test_errors_read_as_sentences():
    assert sentence(RunError("Finished. To go on: run.go_on().")) == "Finished. To go on: run.go_on()."
    assert "try again" in sentence(ZeroDivisionError("division by zero"))
