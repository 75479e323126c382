"""Local edits: what stays bit by bit, noise levels by hand, thin masks, what is refused."""

import numpy as np
import pytest
import torch
from helpers.tiny_models import SIZE, made_for
from PIL import Image

from chosen_one_nb.applications.edit import Blend, EditError, cells, edit, subject_mask
from chosen_one_nb.models.images import ImageError
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import SAMPLERS, Steering, generate
from chosen_one_nb.steps.latents import encode

FAST = Settings(sampling_steps=4, guidance_scale=2.0)
BOX = np.zeros((SIZE, SIZE), bool)
BOX[8:20, 8:20] = True


@pytest.fixture(params=["models", "sd_models"])
def base(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def source(images):
    return images[0]


def test_outside_of_the_feathered_mask_the_source_stays_bit_by_bit(base, source):
    done = edit(base, source, BOX, "a red hat", settings=FAST, seeds=[1, 2], blend=Blend(feather=3))
    outside = np.asarray(done.region) == 0
    assert outside[8, 24], "four pixels away"
    assert not outside[8, 22], "three pixels away"
    for image, decoded in zip(done.images, done.decoded, strict=True):
        new, old, raw = (np.asarray(each) for each in (image, source, decoded))
        assert np.array_equal(new[outside], old[outside])
        assert np.array_equal(new[BOX], raw[BOX])
        assert not np.array_equal(new[BOX], old[BOX])
        assert image.info["prompt"] == "a red hat"
    assert not np.array_equal(*done.images)


@pytest.fixture
def seen(monkeypatch):
    """What each step of an edit gives: scheduler, step, latents; its noise is 1 everywhere."""
    steps, real = [], Steering.__init__

    def watching(self, pipeline=None, arguments=None, modules=(), after_step=None):
        def watched(pipe, step, indices, latents):
            steps.append((pipe.scheduler, step, after_step(pipe, step, indices, latents)))
            return steps[-1][2]

        real(self, pipeline, arguments or {}, modules, watched)

    monkeypatch.setattr(Steering, "__init__", watching)
    monkeypatch.setattr("chosen_one_nb.applications.edit.noise", lambda seeds, shape: torch.ones(len(seeds), *shape))
    return steps


def noised(clean, scheduler, step):
    """Latents with a noise of 1 at the level after a step, from the scheduler's own tables."""
    if step + 1 == len(scheduler.timesteps):
        return clean
    if type(scheduler).__name__.startswith("Euler"):
        return clean + scheduler.sigmas[step + 1]
    alpha = scheduler.alphas_cumprod[int(scheduler.timesteps[step + 1])]
    return alpha.sqrt() * clean + (1 - alpha).sqrt()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_background_latents_are_the_source_at_the_next_level_and_clean_in_the_end(models, source, seen, sampler):
    edit(models, source, BOX, "a red hat", settings=FAST.replace(sampler=sampler))
    clean, _ = encode(models, [source], SIZE)
    outside = torch.from_numpy(~cells(BOX, 8))
    assert len(seen) == 4
    for scheduler, step, latents in seen:
        expected = noised(clean, scheduler, step)
        assert torch.allclose(latents[0][:, outside], expected[0][:, outside], atol=2e-3), step
        assert not torch.allclose(latents[0][:, ~outside], expected[0][:, ~outside], atol=2e-3), step


def test_an_edit_that_begins_late_is_the_noised_source_until_then(models, source, seen):
    edit(models, source, np.ones((SIZE, SIZE), bool), "a hat", settings=FAST, blend=Blend(keep=0.75))
    clean, _ = encode(models, [source], SIZE)
    same = [torch.allclose(latents, noised(clean, scheduler, step), atol=2e-3) for scheduler, step, latents in seen]
    assert same == [True, True, False, False]


def test_a_thin_mask_is_wider_at_first(models, source, seen):
    line = np.zeros((SIZE, SIZE), bool)
    line[16, 4:28] = True
    edit(models, source, line, "a hat", settings=FAST)
    clean, _ = encode(models, [source], SIZE)
    drawn = [
        (latents - noised(clean, scheduler, step)).abs().amax((0, 1)) > 2e-3 for scheduler, step, latents in seen
    ]  # (h, w) each
    sizes = [int(rows.any(1).sum()) for rows in drawn]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (5, 1)


def test_a_line_of_two_pixels_keeps_all_cells_that_it_touches():
    line = np.zeros((64, 64), bool)
    for x in range(60):
        line[x : x + 2, x] = True
    kept = cells(line, 16)
    touched = {(y // 4, x // 4) for y, x in zip(*line.nonzero(), strict=True)}
    assert set(zip(*kept.nonzero(), strict=True)) == touched


def test_an_edit_with_a_character_is_the_same_again_and_alone(base, source, tmp_path):
    character = made_for(base.pipeline)
    Image.fromarray(BOX).save(tmp_path / "mask.png")
    prompt = character.prompt("in the snow")
    one = edit(base, source, BOX, prompt, character=character, settings=FAST, seeds=[5])
    two = edit(base, source, tmp_path / "mask.png", prompt, character=character, settings=FAST, seeds=[4, 5])
    assert np.abs(np.asarray(one.images[0], int) - np.asarray(two.images[1], int)).max() <= 1
    plain = generate(base, SamplingRequest("a fox", [5], FAST)).images[0]
    assert np.array_equal(plain, generate(base, SamplingRequest("a fox", [5], FAST)).images[0])


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"mask": np.zeros((SIZE, SIZE), bool)}, EditError, "mask: expected white where"),
        ({"mask": np.ones((SIZE, 8), bool)}, EditError, f"mask: expected {SIZE} x {SIZE} pixels, got 8 x {SIZE}"),
        ({"mask": np.ones((SIZE, SIZE))}, EditError, "mask: expected truth values"),
        ({"image": Image.new("RGB", (8, 9))}, EditError, f"image: expected {SIZE} x {SIZE} pixels, got 8 x 9"),
        ({"image": "none.png"}, ImageError, "none.png: expected an image"),
    ],
)
def test_what_cannot_be_edited_is_refused_in_one_sentence(models, source, given, error, sentence):
    with pytest.raises(error, match=sentence):
        edit(models, **{"image": source, "mask": BOX, **given}, prompt="a hat", settings=FAST)


def test_numbers_of_a_blend_have_limits():
    with pytest.raises(EditError, match=r"keep: expected a number from 0 to 0.95, got 1"):
        Blend(keep=1)


def test_an_image_of_any_mode_is_a_source(models, source):
    assert edit(models, source.convert("L"), BOX, "a hat", settings=FAST).images[0].mode == "RGB"


def test_the_foreground_is_a_mask(models, source):
    mask = subject_mask(models, source)
    assert mask.size == source.size
    assert set(np.unique(mask)) == {0, 255}
