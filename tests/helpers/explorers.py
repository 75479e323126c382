"""Explorers on painted runs at three stages, for tests that drive them by events; a plugin that test files name.

PYTEST_DONT_REWRITE: test files import its functions before it becomes a plugin.
"""

from __future__ import annotations

import shutil

import pytest

from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets.explorer import Explorer
from helpers import painted


@pytest.fixture
def painted_steps(monkeypatch):
    """Every step painted at once, and few resamples."""
    painted.paint(monkeypatch)
    monkeypatch.setattr(painted, "pause", 0.0)
    monkeypatch.setattr("chosen_one_nb.widgets.cards.RESAMPLES", 5)


@pytest.fixture(scope="session")
def clustered(tmp_path_factory):
    """The folder of a run that waits for a choice; copied by each test."""
    with pytest.MonkeyPatch.context() as patch:
        painted.paint(patch)
        run = painted.start(tmp_path_factory.mktemp("painted") / "run")
        while run.next_stage != "choose":
            run.step()
        run.close()
        return run.folder


@pytest.fixture(scope="session")
def refined(clustered, tmp_path_factory):
    """The folder of a run with its first Θ and its second gallery; copied by each test."""
    with pytest.MonkeyPatch.context() as patch:
        painted.paint(patch)
        with Run.open(clustered, painted.MODELS, read_only=True).copy(
            tmp_path_factory.mktemp("painted") / "run"
        ) as run:
            run.next_iteration()
            while run.next_stage != "choose":
                run.step()
            return run.folder


def opened(folder, tmp_path):
    place = shutil.copytree(folder, tmp_path / "run")
    return Explorer(Run.open(place, painted.MODELS), method="pca", raise_errors=True)


@pytest.fixture
def new(painted_steps, tmp_path):
    """An explorer on a run that has just begun."""
    return Explorer(painted.start(tmp_path / "run"), method="pca", raise_errors=True)


@pytest.fixture
def explorer(painted_steps, clustered, tmp_path):
    """An explorer on a run that waits for a choice."""
    return opened(clustered, tmp_path)


@pytest.fixture
def second(painted_steps, refined, tmp_path):
    """An explorer on a run whose second gallery waits for a choice."""
    return opened(refined, tmp_path)


def step(explorer, button="next"):
    """Press a button of the stepper and wait for the work."""
    getattr(explorer.stepper, button).click()
    explorer.wait(60)
    return explorer.status.text


def at_choose(tmp_path, **changes):
    run = painted.start(tmp_path / "run", **changes)
    while run.next_stage != "choose":
        run.step()
    return run
