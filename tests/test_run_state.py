"""Several who watch a run, and one piece of work at a time."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from helpers import runs

from chosen_one_nb.run.run import Run, RunError

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run = runs.quick_steps, runs.models, runs.run


def test_listeners_hear_of_every_change_in_order(run: Run):
    heard = []
    run.listeners.append(heard.append)
    runs.advance(run, "cluster")
    run.selection.choose()
    run.selection.undo()
    run.selection.redo()
    run.step()
    run.selection.choose(1)
    run.select("0")
    kinds = [(event["kind"], event["node"]) for event in heard]
    assert kinds == [("stage", "0")] * 4 + [("choose", "0"), ("undo", "0"), ("redo", "0"), ("stage", "0"),
                                            ("choose", "0b"), ("select", "0")]  # fmt: skip
    versions = [event["version"] for event in heard]
    assert versions == list(range(versions[0], versions[0] + len(versions)))


def test_a_listener_that_fails_is_a_warning(run: Run):
    run.listeners.append(lambda event: 1 / 0)
    with pytest.warns(RuntimeWarning, match="listener of the run failed"):
        assert run.step() == "generate"


def test_two_clicks_on_next_do_one_stage(run: Run):
    inside, go_on, errors = threading.Event(), threading.Event(), []

    def wait(event: dict[str, Any]) -> None:
        inside.set()
        go_on.wait(20)

    worker = threading.Thread(target=lambda: run.step(on_progress=wait))
    worker.start()
    assert inside.wait(20)
    assert run.busy == "generate at 0"
    for do in (run.step, run.selection.choose, lambda: run.redo_stage("generate")):
        with pytest.raises(RunError) as caught:
            do()
        errors.append(str(caught.value))
    go_on.set()
    worker.join()
    assert "The run is at work (generate at 0)" in errors[0]
    assert run.busy is None
    assert run.next_stage == "embed"


def test_the_screen_can_be_read_during_work(run: Run):
    """The lock is free while a stage computes."""
    run.next_iteration()
    free = []
    run.step(on_progress=lambda event: free.append(_acquired(run)))
    assert free
    assert all(free)


def _acquired(run: Run) -> bool:
    found = []
    thread = threading.Thread(target=lambda: found.append(run.lock.acquire(timeout=5) and not run.lock.release()))
    thread.start()
    thread.join()
    return found == [True]


def test_choosing_elsewhere_is_possible_during_work(run: Run):
    run.next_iteration()
    told = []

    def branch(event: dict[str, Any]) -> None:
        if not told:
            run.select("0")
            told.append(run.selection.choose(1))

    run.step(on_progress=branch)
    assert run.current.id == "0b"
    assert run.node("1").done("generate")
