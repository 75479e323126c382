"""Fixtures shared by all tests: tiny models with random weights, images of one colour, a quick disk."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.tiny_models import SIZE, build_sd, build_sdxl, save_clip, save_dinov2
from PIL import Image

# Files that take longest: with several processes they begin first, so that none is still at one of them in the end.
SLOW = (
    "notebooks",
    "browser",
    "run_interrupted",
    "browser_care",
    "widgets_stages",
    "widgets_map_panel",
    "widgets_session",
    "sweep",
    "bench",
    "offload",
    "cost_estimate",
    "looking",
    "widgets_attribute_panel",
    "widgets_attribute_findings",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: order.get(item.path.stem, len(SLOW)))


@pytest.fixture(scope="session", autouse=True)
def quick_disk():
    """No test waits for the disk: flushing only looks whether it was given an open file. Returns the real fsync.

    What was written is read back through the system, which has it all; only a loss of power would tell. Other
    processes that a test starts flush as ever, and so do tests that ask for `real_fsync`.
    """
    real = os.fsync
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield real


@pytest.fixture
def real_fsync(quick_disk: Callable[[int], None]):
    """For tests of flushing itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", quick_disk)
        yield quick_disk


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model set: a folder with pipeline/, dinov2/ and clip/, as data/menagerie is. Read only."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    build_sdxl().save_pretrained(folder / "pipeline")
    save_dinov2(folder / "dinov2")
    save_clip(folder / "clip")
    return folder


@pytest.fixture(scope="session")
def models(model_folder: Path) -> Any:
    """The model set, loaded once for the whole session: tests leave it as it was."""
    from chosen_one_nb.models.load import load_models

    return load_models(model_folder)


@pytest.fixture(scope="session")
def sd_models(models: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same eyes with a StableDiffusionPipeline."""
    from chosen_one_nb.models.load import load_models

    folder = tmp_path_factory.mktemp("models") / "sd"
    build_sd().save_pretrained(folder)
    return load_models(folder, extractor=models.extractor, clip=models.clip)


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Eight images of one flat colour each, with a little noise."""
    rng = np.random.default_rng(0)
    flat = rng.integers(40, 215, size=(8, 1, 1, 3)) + rng.integers(-20, 20, size=(8, SIZE, SIZE, 3))
    return [Image.fromarray(image.astype(np.uint8)) for image in flat]


@pytest.fixture
def quick() -> Any:
    """Settings for tiny models: few images, few steps."""
    from chosen_one_nb.settings import Settings

    return Settings.preset(
        "quick",
        n_images=4,
        target_cluster_size=2,
        min_cluster_size=1,
        sampling_steps=3,
        batch_size=4,
        refine_steps=3,
        refine_batch_size=2,
        lora_rank=2,
    )
