"""Sweeps and crews: workers load what was loaded, and progress comes as tasks are finished."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from joblib.parallel import ThreadingBackend

from chosen_one_nb import cli
from chosen_one_nb.models.load import load_models
from chosen_one_nb.run.images import ImageFolder, draw
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.sweep import tasks
from chosen_one_nb.sweep.plan import Plan, PlanError
from chosen_one_nb.sweep.worker_pool import Crew


def test_what_is_sent_loads_the_same_models(model_folder: Path) -> None:
    """A bare pipeline with eyes of its own, in half precision and low memory."""
    given = load_models(
        model_folder / "pipeline", extractor=model_folder / "dinov2", dtype="bfloat16", low_memory=True, device="cpu"
    )
    again = tasks.models_of(json.loads(json.dumps(tasks.load_of(given))))
    assert (again.fingerprint, again.recipe, again.machine) == (given.fingerprint, given.recipe, given.machine)
    assert again.pipeline.unet.dtype == torch.bfloat16
    assert again.low_memory


def test_a_worker_draws_in_the_precision_of_the_run(model_folder: Path, quick: Any, tmp_path: Path) -> None:
    models = load_models(model_folder, dtype="bfloat16")
    drawing = SamplingRequest("a fox", np.arange(2), quick.replace(n_images=2, sampling_steps=1))
    folders = [ImageFolder(tmp_path / name, tmp_path, models.fingerprint, latents=True) for name in ("here", "there")]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        draw(drawing, folders[0], lambda: models)
    finally:
        torch.set_num_threads(threads)
    with Crew(1) as crew:
        crew.draw(drawing, folders[1], lambda: models, Callbacks())
    here, there = ({path.name: path.read_bytes() for path in place.folder.iterdir()} for place in folders)
    assert here == there


def test_a_plan_says_how_to_load_and_sample(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    values = {"prompts": ["a fox"], "settings": {"n_images": 16}, "load": {"dtype": "bfloat16"}, "sampling": "fast"}
    (tmp_path / "plan.json").write_text(json.dumps(values))
    plan = Plan.read(tmp_path / "plan.json")
    assert plan.loads == {"name": "menagerie", "dtype": "bfloat16"}
    assert plan.jobs()[0].settings.sampling_steps == 8
    assert Plan(**plan.to_dict()).jobs() == plan.jobs()
    assert cli.main(["sweep", str(tmp_path / "plan.json"), "--check"]) == 0
    assert "fast: 8 steps: another distribution" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"load": ["bfloat16"]}, "load: expected an object"),
        ({"load": {"name": "sdxl"}}, "load: expected some of device, dtype, .* got 'name'"),
        ({"load": {"low_memory": 1}}, "load: low_memory: expected a text, true, false or null, got 1"),
        ({"sampling": "slow"}, "sampling: expected one of full, standard, fast, flash, got 'slow'"),
    ],
)
def test_a_plan_that_cannot_be_loaded(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        Plan(prompts=["a fox"], **values)


class Many(ThreadingBackend):
    """As Dask's: unless told otherwise, all the workers there are."""

    default_n_jobs = -1

    def effective_n_jobs(self, n_jobs: int) -> int:
        return 3


def test_a_backend_says_itself_how_many_it_has_and_answers_come_one_by_one() -> None:
    heard = threading.Event()
    with joblib.parallel_config(backend=Many()), Crew() as crew:
        assert crew.n == 3
        answers = crew.do([partial(int, 7), partial(heard.wait, 20)])
        assert next(answers)[1].value == 7
        heard.set()
        assert next(answers)[1].value is True
