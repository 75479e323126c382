"""A gallery on disk: what is missing is drawn by one call, and what was drawn is never drawn again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.tiny_models import made_for

from chosen_one_nb import character
from chosen_one_nb.models.memory import OutOfMemory
from chosen_one_nb.run import store
from chosen_one_nb.run.images import ImageFolder, draw
from chosen_one_nb.steps import Callbacks, Cancelled
from chosen_one_nb.steps import lora as adapters
from chosen_one_nb.steps.gallery import SamplingRequest

N = 7


@pytest.fixture
def drawing(models: Any, quick: Any) -> SamplingRequest:
    fox = made_for(models.pipeline)
    return SamplingRequest(
        fox.prompt(), np.arange(N), quick.replace(batch_size=3, sampling_steps=2), fox, character_digest="theta"
    )


@pytest.fixture
def counted(models: Any, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a prompt was encoded, Θ was put on, and how many images the UNet was asked for."""
    counts, pipeline = Counter(), models.pipeline
    encode, denoise = pipeline.text_encoder.forward, pipeline.unet.forward

    def encoded(*args: Any, **more: Any) -> Any:
        counts["encoded"] += 1
        return encode(*args, **more)

    def worn(*args: Any, **more: Any) -> Any:
        counts["worn"] += 1
        return adapters.apply_lora(*args, **more)

    def denoised(sample: torch.Tensor, *args: Any, **more: Any) -> Any:
        counts["denoised"] += len(sample)
        return denoise(sample, *args, **more)

    monkeypatch.setattr(pipeline.text_encoder, "forward", encoded)
    monkeypatch.setattr(pipeline.unet, "forward", denoised)
    monkeypatch.setattr(character, "apply_lora", worn)
    return counts


def place_in(folder: Path, models: Any) -> ImageFolder:
    return ImageFolder(store.make_folder(folder) / "gallery", folder, models.fingerprint, latents=True)


def drawn(drawing: SamplingRequest, place: ImageFolder, models: Any, **calls: Any) -> dict[str, bytes]:
    draw(drawing, place, lambda: models, Callbacks(**calls))
    return contents(place)


def contents(place: ImageFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.folder.iterdir())}


def test_a_gallery_of_several_blocks_is_encoded_once_and_wears_its_character_once(
    drawing: SamplingRequest, models: Any, counted: Counter[str], tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []
    files = drawn(drawing, place_in(tmp_path / "a", models), models, on_progress=told.append)
    assert len(files) == 2 * N
    assert counted == {"encoded": 1, "worn": 1, "denoised": N * 2 * 2}  # steps, and guidance
    assert [event["done"] for event in told] == [1.5, 3, 4.5, 6, 6.5, 7]
    drawn(drawing, place_in(tmp_path / "a", models), models)
    assert counted["denoised"] == N * 2 * 2


def test_what_a_cancelled_gallery_has_is_kept_and_the_rest_is_one_call(
    drawing: SamplingRequest, models: Any, counted: Counter[str], tmp_path: Path
) -> None:
    whole, place = drawn(drawing, place_in(tmp_path / "whole", models), models), place_in(tmp_path / "cut", models)
    counted.clear()
    with pytest.raises(Cancelled):  # in the second block
        drawn(drawing, place, models, cancelled=lambda: counted["denoised"] > 3 * 2 * 2)
    assert sorted(contents(place)) == [f"00{i}.{end}" for i in range(3) for end in ("npy", "png")]
    counted.clear()
    seen: list[int] = []
    again = drawn(drawing, place, models, on_images=lambda pairs: seen.extend(i for i, _ in pairs))
    assert again == whole
    assert counted == {"encoded": 1, "worn": 1, "denoised": (N - 3) * 2 * 2}
    assert seen == list(range(N))


def test_holes_in_a_gallery_are_drawn_together_with_the_same_images(
    drawing: SamplingRequest, models: Any, counted: Counter[str], tmp_path: Path
) -> None:
    place = place_in(tmp_path / "a", models)
    whole = drawn(drawing, place, models)
    (place.folder / "001.png").unlink()
    (place.folder / "006.npy").write_bytes(b"")
    counted.clear()
    assert drawn(drawing, place, models) == whole
    assert counted == {"encoded": 1, "worn": 1, "denoised": (3 + 1) * 2 * 2}


def test_out_of_memory_goes_on_from_the_last_finished_batch(
    drawing: SamplingRequest, models: Any, counted: Counter[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Room for three images (with guidance six) at first, then for one, then for none."""
    place, unet, room = place_in(tmp_path / "a", models), models.pipeline.unet, [6] * 2 + [2] * 6 + [0]
    forward = unet.forward

    def tight(sample: torch.Tensor, *args: Any, **more: Any) -> Any:
        if len(sample) > room[0]:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        room.pop(0)
        return forward(sample, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(unet, "forward", tight)
        with pytest.raises(OutOfMemory, match="lower image_size"):
            drawn(drawing, place, models)
    assert len(contents(place)) == 2 * 6
    counted.clear()
    assert len(drawn(drawing, place, models)) == 2 * N
    assert counted["denoised"] == 2 * 2
