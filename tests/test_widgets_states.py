"""What the screen offers in each state: a table."""

import pytest
from helpers.explorers import step

from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.states import screen_of

pytest_plugins = ["helpers.explorers"]

STATES = {
    # stage, outcome, what else: name, tab, buttons, how the status line begins
    "new": ("generate", "unfinished", {}, "before generate", "", {"steps"}, "Done. Next"),
    "drawing": ("generate", "unfinished", {"working": "generate"}, "generate", "Gallery", {"cancels"}, "Drawing"),
    "embedding": ("embed", "unfinished", {"working": "embed"}, "embed", "", {"cancels"}, "Turning"),
    "choose": ("choose", "unfinished", {"clustered": True}, "choose", "Clusters", {"steps", "decides"}, "Your turn"),
    "refining": ("refine", "unfinished", {"working": "refine", "clustered": True}, "refine", "", {"cancels"}, "Learn"),
    "converged": (None, "converged", {"clustered": True}, "converged", "", {"goes_on", "decides"}, "Finished, conv"),
    "two branches": (None, "converged", {"branches": 1}, "converged", "Compare", {"goes_on"}, "Finished, conv"),
    "collapsed": (None, "collapsed", {}, "collapsed", "", {"goes_on"}, "Finished, collapsed. Go back"),
    "limit": (None, "limit", {}, "limit", "", {"goes_on"}, "Finished, limit"),
    "no cluster": ("choose", "no cluster", {"clustered": True, "reason": "All are small."}, "no cluster", "Clusters",
                   {"steps", "decides"}, "All are small. Choose"),
    "read only": ("choose", "unfinished", {"read_only": True, "clustered": True}, "read only", "", set(), "Read only"),
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
def test_what_each_state_offers_and_says(state):
    stage, outcome, more, name, tab, buttons, says = STATES[state]
    screen = screen_of(stage, outcome, **more)
    offered = {each for each in ("steps", "cancels", "decides", "goes_on") if getattr(screen, each)}
    assert (screen.name, screen.tab, offered) == (name, tab, buttons)
    assert screen.says.startswith(says)


def test_a_status_goes_with_its_state(second):
    second.session.select([1, 2, 3, 4, 5, 6, 7])
    assert "7 images selected" in second.status.text
    second.session.show_node("0")
    assert "selected" not in second.status.text


def test_the_side_pane_follows_the_work_unless_the_person_is_elsewhere(new):
    titles = []
    new.tabs.observe(lambda change: titles.append(new.tabs.titles[change["new"]]), "selected_index")
    step(new)
    assert titles == ["Gallery"]
    for _ in range(3):
        step(new)
    assert titles == ["Gallery", "Clusters"]
    new.show_tab("Settings")
    actions.choose(new.session)
    assert new.tabs.titles[new.tabs.selected_index] == "Settings"


def test_buttons_that_cannot_work_are_not_there(explorer):
    def shown(part):
        return part.layout.display is None

    assert not any(map(shown, (explorer.choice.use, explorer.choice.out, explorer.stepper.cancel)))
    explorer.session.select([1, 2])
    assert shown(explorer.choice.use)
    assert explorer.choice.use.description == "Choose selection (2)"


def test_a_note_belongs_to_one_decision(explorer):
    actions.choose(explorer.session, 1)
    explorer.choice.note.value = "rounder ears"
    actions.choose(explorer.session, 0)
    assert explorer.node.decision.note == explorer.choice.note.value == ""


def test_a_note_keeps_what_is_left_out_of_images_picked_by_hand(explorer):
    actions.choose(explorer.session, images=[0, 1, 2, 3, 4, 5])
    actions.leave_out(explorer.session, [2])
    explorer.choice.note.value = "the blue ones"
    decision = explorer.node.decision
    assert (decision.note, decision.images, decision.excluded) == ("the blue ones", (0, 1, 3, 4, 5), (2,))
