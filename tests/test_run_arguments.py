"""What a caller passes means what it says, or is refused before anything is written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import runs

from chosen_one_nb import Character, export, load_models
from chosen_one_nb.applications import request
from chosen_one_nb.applications.skeleton import Skeleton
from chosen_one_nb.applications.story import StoryPlan
from chosen_one_nb.models.images import find_images, read_image
from chosen_one_nb.run import arguments
from chosen_one_nb.run.run import ChoiceError, Run, RunError
from chosen_one_nb.settings import SettingsError
from chosen_one_nb.steps.prompts import PromptError
from chosen_one_nb.study import Study
from chosen_one_nb.sweep.plan import SweepPlan

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run = runs.quick_steps, runs.models, runs.run

MASK = np.arange(9) % 2 == 0


@pytest.mark.parametrize(
    ("images", "meant"),
    [
        ([3, 1, 3], (1, 3)),
        (np.array([1, 3]), (1, 3)),
        ({1, np.int64(3)}, (1, 3)),
        (MASK, (0, 2, 4, 6, 8)),
        (MASK.tolist(), (0, 2, 4, 6, 8)),
        (range(3), (0, 1, 2)),
    ],
)
def test_indices_that_are_taken(images: Any, meant: tuple[int, ...]):
    assert arguments.indices(images, 9) == meant


@pytest.mark.parametrize(
    "images",
    [[0.5, 1.9], [True, 3], ["1"], "12", {1: 2}, [9], [-1], None, np.float32([1, 2]), MASK[:8], [[1, 2]], 1.0, [None]],
)
def test_indices_that_are_refused(images: Any):
    with pytest.raises(ChoiceError, match="Expected image indices from 0 to 8, or 9 truth values, got"):
        arguments.indices(images, 9)


def test_choices_are_not_converted(run: Run):
    runs.advance(run, "cluster")
    for refused in ({"cluster": 0.7}, {"cluster": True}, {"cluster": "a"}, {"cluster": np.float64(1)}):
        with pytest.raises(ChoiceError, match="cluster: expected a whole number from 0 to"):
            run.selection.choose(**refused)
    with pytest.raises(ChoiceError, match="k: expected a whole number from 1 to 9, got '2'"):
        run.selection.recluster("2")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="note: expected text that can be written as UTF-8"):
        run.selection.choose(note="\ud800")
    assert run.current.decision is None
    assert run.selection.choose(np.int64(1)).cluster == 1
    assert run.selection.choose(images=MASK).images == (0, 2, 4, 6, 8)


def test_one_context_is_one_text(run: Run):
    assert list(run.samples.contexts(contexts="at sea", seeds=1)) == ["at sea"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"seeds": 0}, "seeds: expected a whole number from 1 to 1024, got 0"),
        ({"seeds": 1.5}, "seeds: expected a whole number"),
        ({"contexts": []}, "contexts: expected at least one text, got none"),
        ({"contexts": [3]}, "contexts: expected text"),
    ],
)
def test_contexts_that_are_refused(run: Run, asked: dict[str, Any], said: str):
    with pytest.raises(RunError, match=said):
        run.samples.contexts(**asked)
    assert not (run.folder / "contexts").exists()


@pytest.mark.parametrize("strength", [-0.1, 2, "1", float("nan"), True])
def test_strengths_that_are_refused(run: Run, strength: Any):
    with pytest.raises(RunError, match="strength: expected a number from 0 to 1"):
        run.samples.probe(strength=strength)


NO_PATHS = [3, 0.5, ["x"], "", "a\0b", "\ud800", "~nobody-has-this-home/x", "x" * 5000]


@pytest.mark.parametrize("path", NO_PATHS)
@pytest.mark.parametrize(
    "read",
    [
        Character.load, export.read, SweepPlan.read, Skeleton.load, Study, read_image,
        lambda path: StoryPlan.of(path if isinstance(path, str) else 3),
        lambda path: [read_image(image) for image in find_images(path)],
        lambda path: load_models(extractor=path),
        lambda path: export.read("x", embeddings=path),
    ],
)  # fmt: skip
def test_paths_that_are_none_are_told_wherever_one_is_given(read: Any, path: Any):
    with pytest.raises(Exception, match=r"expected|leads nowhere") as told:
        read(path)
    assert type(told.value).__module__.startswith("chosen_one_nb"), told.value


@pytest.mark.parametrize("folder", [path for path in NO_PATHS if path != ["x"]])
def test_paths_that_are_none(folder: Any, models: Any):
    with pytest.raises(RunError, match="folder: "):
        Run.start("a fox", models, runs.settings(), folder)
    with pytest.raises(RunError, match="folder: "):
        Run.open(folder)


def test_a_start_is_refused_before_its_folder_is_made(tmp_path: Path, models: Any):
    for prompt, settings, other in ((None, runs.settings(), models), ("a fox", {}, models), ("a fox", None, 3)):
        with pytest.raises((RunError, PromptError), match="expected"):
            Run.start(prompt, other, settings, tmp_path / "run")  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"n_images": 24}, r"n_images: expected prompt, .* goes into settings=, such as Settings\(n_images=24\)"),
        ({"colour": "red"}, r"colour: expected prompt, models, settings, folder"),
    ],
)
def test_a_setting_given_by_itself_is_told_where_it_belongs(tmp_path: Path, models: Any, given: Any, said: str):
    with pytest.raises(RunError, match=said):
        Run.start("a fox", models, folder=tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()
    assert Run.start("a fox", models, runs.settings(n_images=24), tmp_path / "run").root.settings.n_images == 24


def test_a_report_makes_its_folder(run: Run, tmp_path: Path):
    assert run.report(tmp_path / "new/report.html").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        *(
            ({"seeds": seeds}, "seeds: expected whole numbers")
            for seeds in ("12", [], [0.5], [True], [-1], [2**63], 0.5)
        ),
        *(({"strength": strength}, "strength: expected a number") for strength in (-0.1, "1", float("nan"), True)),
        ({"settings": {}}, "settings: expected Settings"),
        ({"context": 3}, "context: expected text"),
        ({"negative": "\ud800"}, "negative: expected text, or None"),
        ({"n_images": 24}, "n_images: expected seeds, settings"),
    ],
)
def test_what_cannot_be_sampled_is_told_before_anything_is_drawn(asked: dict[str, Any], said: str):
    like = SimpleNamespace(name="menagerie")
    with pytest.raises(SettingsError, match=said):
        request(like, "a fox", None, asked)  # type: ignore[arg-type]
    assert request(like, "a fox", None, {"seeds": np.array([3]), "strength": np.float32(1)}).seeds.tolist() == [3]  # type: ignore[arg-type]
