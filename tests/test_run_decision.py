"""When a branch stops, and which character counts, as tables."""

import pytest

from chosen_one_nb.run.decision import Outcome, character_source, last_sound, stop_reason

NOT_YET, CONVERGED, COLLAPSED = "not yet", "converged", "collapsed"


@pytest.mark.parametrize(
    ("verdict", "iteration", "overruled", "reason"),
    [
        (None, 1, False, None),  # not checked yet
        (NOT_YET, 1, False, None),
        (NOT_YET, 3, False, "limit"),
        (NOT_YET, 4, False, "limit"),
        (CONVERGED, 1, False, CONVERGED),
        (CONVERGED, 3, False, CONVERGED),
        (COLLAPSED, 1, False, COLLAPSED),
        (CONVERGED, 0, False, None),  # the first gallery never ends a run
        (COLLAPSED, 0, False, None),
        (CONVERGED, 2, True, None),  # a person went on
        (NOT_YET, 3, True, None),
    ],
)
def test_when_a_branch_stops(verdict, iteration, overruled, reason):
    assert stop_reason(verdict, iteration, 3, overruled=overruled) == reason


def test_without_iterations_the_first_gallery_still_goes_on():
    assert stop_reason(NOT_YET, 0, 0) is None


@pytest.mark.parametrize(
    ("verdicts", "place"),
    [
        ([], None),
        ([NOT_YET], None),  # the first gallery is drawn without a character
        ([NOT_YET, None], None),
        ([NOT_YET, NOT_YET], 1),
        ([NOT_YET, CONVERGED, COLLAPSED], 1),
        ([NOT_YET, COLLAPSED, NOT_YET], 2),
        ([NOT_YET, NOT_YET, None], 1),
    ],
)
def test_the_last_sound_gallery(verdicts, place):
    assert last_sound(verdicts) == place


@pytest.mark.parametrize(
    ("verdicts", "refined", "children", "place"),
    [
        ([NOT_YET], False, [], None),  # no character yet
        ([NOT_YET], True, [], 0),  # its own, not tried yet
        ([NOT_YET], True, [None], 0),
        ([NOT_YET], True, [NOT_YET], 0),
        ([NOT_YET], True, [COLLAPSED], None),  # its only gallery collapsed
        ([NOT_YET], True, [COLLAPSED, NOT_YET], 0),  # one of its galleries is sound
        ([NOT_YET, NOT_YET], False, [], 0),  # the one it was drawn with
        ([NOT_YET, NOT_YET], True, [COLLAPSED], 0),
        ([NOT_YET, COLLAPSED], False, [], None),
        ([NOT_YET, COLLAPSED], True, [], None),  # learnt from a collapsed gallery
        ([NOT_YET, NOT_YET, COLLAPSED], False, [], 0),
        ([NOT_YET, NOT_YET, NOT_YET], False, [], 1),
        ([NOT_YET, NOT_YET, None], False, [], 1),  # not checked is not collapsed
        ([COLLAPSED], True, [], None),
    ],
)
def test_which_character_counts(verdicts, refined, children, place):
    assert character_source(verdicts, refined=refined, children=children) == place


@pytest.mark.parametrize("state", [CONVERGED, COLLAPSED, "limit"])
def test_an_outcome_that_ends_the_method(state):
    assert Outcome(state, "Why.", "1", None).finished


@pytest.mark.parametrize("state", ["unfinished", "no cluster"])
def test_an_outcome_that_does_not(state):
    assert not Outcome(state, "Why.", "1", None).finished
