"""Training sets: validated, encoded once, and drawn in endless batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.training import PROMPT, encoded, next_batch
from PIL import Image

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.training_set import Batches, EncodedImages, TrainingSet, captions, place_weights, square


@pytest.mark.parametrize(("floor", "quietest"), [(0.0, 0), (0.4, 400), (0.9, 900)])
def test_noise_floor_leaves_the_quiet_levels_out(floor: float, quietest: int) -> None:
    """Of a thousand levels, every one from the floor on is drawn sooner or later, and none below it."""
    flat = torch.zeros(1, 1, 1, 1)
    images = EncodedImages(flat, flat, torch.zeros(1, 6), flat + 1, [PROMPT])
    seen = next_batch(images, Settings(noise_floor=floor, refine_batch_size=500)).times
    assert quietest <= seen.min() < quietest + 10
    assert seen.max() > 990


def test_a_training_set_has_images_and_one_of_everything_for_each(images: list[Image.Image]) -> None:
    with pytest.raises(ValueError, match="images: expected at least one"):
        TrainingSet(PROMPT, [])
    for name in ("latents", "masks", "descriptions"):
        with pytest.raises(ValueError, match=f"{name}: expected one for each of 6 images, got 2"):
            TrainingSet(PROMPT, images[:6], **{name: [None, None]})


def test_captions_take_as_many_descriptions_as_the_tokenizers_do(models: Any) -> None:
    tokenizer = models.pipeline.tokenizer
    room = tokenizer.model_max_length - len(tokenizer(PROMPT).input_ids)
    each = len(tokenizer(f"{PROMPT} snow").input_ids) - len(tokenizer(PROMPT).input_ids)
    image = Image.new("RGB", (8, 8))
    data = TrainingSet(PROMPT, [image] * 3, descriptions=[(), ["snow"], ["snow"] * 99])
    assert captions(models.pipeline, PROMPT, data) == [PROMPT, f"{PROMPT} snow", PROMPT + " snow" * (room // each)]


def test_every_image_comes_before_any_comes_again(quick: Any) -> None:
    five = EncodedImages(*(torch.zeros(5, 1, 1, 1),) * 4, [str(i) for i in range(5)])
    batches = Batches([five], quick.replace(refine_batch_size=5), 1000, seed=0)
    for _ in range(3):
        assert sorted(batches.next().captions) == list("01234")


def test_pitfall_9_each_latent_keeps_its_image_and_crop(models: Any, quick: Any) -> None:
    sizes = [(32, 32), (64, 32), (32, 48), (40, 40)]
    images = [Image.new("RGB", size, (60 * i, 0, 0)) for i, size in enumerate(sizes)]
    data = TrainingSet(PROMPT, images, descriptions=[["snow"], [], [], []])
    together = encoded(models, data, quick)
    for i, image in enumerate(images):
        alone = encoded(models, TrainingSet(PROMPT, [image]), quick)
        torch.testing.assert_close(together.mean[i], alone.mean[0], atol=1e-4, rtol=1e-3)
        latent, ids, _, caption = together.draw(i, torch.Generator().manual_seed(0))
        torch.testing.assert_close(latent, alone.draw(0, torch.Generator().manual_seed(0))[0], atol=1e-4, rtol=1e-3)
        assert torch.equal(ids, alone.time_ids)
        assert caption == (PROMPT if i else f"{PROMPT} snow")
    assert together.time_ids.tolist() == [
        [32, 32, 0, 0, 32, 32],
        [32, 64, 0, 16, 32, 32],
        [48, 32, 8, 0, 32, 32],
        [40, 40, 0, 0, 32, 32],
    ]


def test_pitfall_9_mean_and_spread_are_kept_and_drawn_anew(models: Any, images: list[Image.Image], quick: Any) -> None:
    one = encoded(models, TrainingSet(PROMPT, images[:1]), quick)
    g = torch.Generator().manual_seed(0)
    first, second = one.draw(0, g)[0], one.draw(0, g)[0]
    assert one.spread.min() > 0
    assert not torch.equal(first, second)
    assert ((first - one.mean).abs() < 6 * one.spread).all()


def test_weights_of_places_have_mean_one_and_follow_the_mask() -> None:
    left = np.zeros((1, 4, 4), bool)
    left[:, :, :2] = True
    assert place_weights(left, 0.0, (2, 2)).tolist() == [[[[2, 0], [2, 0]]]]
    assert place_weights(left, 1.0, (2, 2)).tolist() == [[[[1, 1], [1, 1]]]]
    assert place_weights(left, 0.5, (4, 4))[0, 0, 0].tolist() == pytest.approx([4 / 3, 4 / 3, 2 / 3, 2 / 3])
    assert torch.isfinite(place_weights(np.zeros((1, 4, 4), bool), 0.0, (2, 2))).all()


def test_pitfall_20_no_flip() -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (32, 32, 3)).astype(np.uint8))
    assert square(image, 32)[0].tobytes() == image.tobytes()


def test_a_batch_splits_into_parts_with_all_that_belongs_to_each(quick: Any) -> None:
    five = EncodedImages(*(torch.arange(5.0).view(5, 1, 1, 1),) * 4, [str(i) for i in range(5)])
    batch = next_batch(five, quick.replace(refine_batch_size=5))
    parts = list(batch.split(2))
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.noise for part in parts]), batch.noise)
    assert [caption for part in parts for caption in part.captions] == batch.captions
    assert [str(int(i)) for part in parts for i in part.weights] == batch.captions
