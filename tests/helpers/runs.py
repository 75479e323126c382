"""Runs of the fake steps: their settings, fixtures to be taken over by a test module, and what a run has found out.

A module takes fixtures over by assignment (``run = runs.run``), so that only it has the fake steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings

from . import fakes

PROMPT = "a sticker of a fox"
SMALL_CLUSTERS = pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")  # chosen on purpose


def settings(**changes: Any) -> Settings:
    few = {
        "n_images": 9,
        "target_cluster_size": 3,
        "min_cluster_size": 1,
        "batch_size": 4,
        "refine_steps": 2,
        "max_iterations": 2,
        "convergence": 0.01,
    }
    return Settings.preset("quick", **{**few, **changes})


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.install(monkeypatch)


@pytest.fixture
def models() -> Any:
    return fakes.fake_models()


@pytest.fixture
def run(tmp_path: Path, models: Any) -> Iterator[Run]:
    with Run.start(PROMPT, models, settings(), tmp_path / "run") as run:
        yield run


def advance(run: Run, stage: str) -> None:
    """Do stages until ``stage`` is done."""
    while run.step() != stage:
        pass


def shown(run: Run) -> dict[str, Any]:
    """All that a run has found out, times left out."""
    found = {}
    for node in run.nodes.values():
        decision = node.decision and (node.decision.images, node.decision.cluster, node.decision.excluded)
        losses = [event["loss"] for event in node.losses]
        found[node.id] = (
            node.stages_done,
            node.seeds.tolist(),
            [image.tobytes() for image in node.images],
            None if node.embedding is None else node.embedding.features.tobytes(),
            None if node.clusters is None else node.clusters.labels.tolist(),
            decision,
            losses,
            node.theta_digest,
            node.check,
        )
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run that nothing interrupted, to be copied by tests, and what it found."""
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        folder = tmp_path_factory.mktemp("finished") / "run"
        with Run.start(PROMPT, fakes.fake_models(), settings(), folder) as run:
            run.until_converged()
            return folder, shown(run)


@pytest.fixture(scope="module")
def undisturbed(finished: tuple[Path, dict[str, Any]]) -> dict[str, Any]:
    """What a run finds when nothing interrupts it."""
    return finished[1]
