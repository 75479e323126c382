"""The ways to look, one after the other: on stock classes with random weights, and on the bundled models."""

from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from chosen_one_nb.analysis.attributes import contrast, drift, headline, rise
from chosen_one_nb.analysis.inquiry import leave_out, prefer_least
from chosen_one_nb.analysis.localization import cohesion_heat, cosegment, held_by, on_foreground, phrase_heat, shown_by
from chosen_one_nb.analysis.projection import project
from chosen_one_nb.analysis.prompt_match import classify
from chosen_one_nb.analysis.segmentation import NO_PATCHES, cut_out, segment
from chosen_one_nb.analysis.vocabulary import load_vocabulary, score_attributes
from chosen_one_nb.models.features import Clip, FeatureExtractor
from chosen_one_nb.steps.prompts import subject

PROMPT = "a sticker of a fox in the snow"


@pytest.fixture(scope="module")
def words(request):
    return load_vocabulary(request.config.rootpath / "data/attributes_menagerie.json")


def alone(extractor, images, found):
    foregrounds, scenes = ([Image.fromarray(side) for side in sides] for sides in cut_out(images, found))
    return found.with_features(extractor(foregrounds, patches=True).patches, extractor(scenes, patches=True).patches)


def look_at_everything(models, words):
    """Every way to look, on sixteen images of noise."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8)) for _ in range(16)]
    members = [0, 1, 2, 3, 4]
    seen = models.extractor(images, patches=True)
    found = score_attributes(models.clip.images(images), models.clip.texts(words.texts(subject(PROMPT))), words)
    foreground = segment(seen.patches, seen.grid)
    segmented = alone(models.extractor, images, foreground)
    table = contrast(found, members, permutations=50)
    assert len(table) == len(words.attributes)
    answers = classify(
        words.attributes, PROMPT, encode=models.clip.texts, on_foreground=on_foreground(found.values, segmented)
    )
    assert {"asked", "identity", "incidental"} >= set(answers.answer)
    assert held_by(segmented, members).answer in ("foreground", "scene", "neither")
    patches, grid = models.clip.patches(images[:2])
    texts = models.clip.texts(words.texts())
    assert phrase_heat(patches, texts, [0], range(4), grid).shape == (2, *grid)
    assert cohesion_heat(seen.patches, members, seen.grid).shape == (5, *seen.grid)
    assert cosegment(seen.patches, foreground, members).labels.shape == (5, *seen.grid)
    assert shown_by(found, found, found).shape == (len(words.attributes),)
    assert len(drift({"base": found, "iteration 1": found})) == 2 * len(words.attributes)
    assert headline(rise(found, found), list(answers.answer)).startswith("Nothing")
    assert leave_out(found, 0, members).images
    assert prefer_least(found, 0, np.arange(16) % 3, np.ones(3, bool)).cluster in (0, 1, 2)
    assert project({"0": seen.cls}, method="pca").positions.shape == (16, 2)


@pytest.fixture(scope="module")
def full_size(models, tmp_path_factory):
    """Folders of DINOv2-large and CLIP ViT-L/14, random weights; only layers and words are fewer."""
    from transformers import CLIPConfig, CLIPModel, Dinov2Config, Dinov2Model
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("full")
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 1,
              "image_size": 224, "patch_size": 14}  # fmt: skip
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 1,
            "vocab_size": len(models.clip.tokenizer), "max_position_embeddings": 77,
            "bos_token_id": models.clip.tokenizer.bos_token_id,
            "eos_token_id": models.clip.tokenizer.eos_token_id}  # fmt: skip
    CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=768)).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}).save_pretrained(
        folder / "clip")  # fmt: skip
    models.clip.tokenizer.save_pretrained(folder / "clip")
    Dinov2Model(Dinov2Config(hidden_size=1024, num_attention_heads=16, num_hidden_layers=1, image_size=518,
                             patch_size=14)).save_pretrained(folder / "dinov2")  # fmt: skip
    BitImageProcessorPil(size={"shortest_edge": 256}, crop_size={"height": 224, "width": 224}).save_pretrained(
        folder / "dinov2")  # fmt: skip
    return SimpleNamespace(extractor=FeatureExtractor.load(folder / "dinov2"), clip=Clip.load(folder / "clip"))


def test_everything_runs_on_stock_classes(models, words):
    look_at_everything(models, words)


def test_everything_runs_on_folders_of_full_size(full_size, words):
    assert (full_size.extractor.width, full_size.clip.width) == (1024, 768)
    look_at_everything(full_size, words)


def test_an_extractor_without_patches_leaves_the_rest(models, words):
    images = [Image.new("RGB", (32, 32), (at * 15, 0, 0)) for at in range(16)]
    foreground = segment(None, (0, 0))
    assert foreground is NO_PATCHES
    assert held_by(foreground, [0, 1]) is NO_PATCHES
    found = score_attributes(models.clip.images(images), models.clip.texts(words.texts()), words)
    assert len(contrast(found, [0, 1, 2], permutations=20)) == len(words.attributes)
    assert (
        classify(words.attributes, PROMPT, on_foreground=on_foreground(found.values, foreground)).answer.notna().all()
    )


def test_a_gallery_of_one_image_twenty_times(models, words):
    images = [Image.new("RGB", (32, 32), (90, 40, 10))] * 20
    seen = models.extractor(images, patches=True)
    foreground = segment(seen.patches, seen.grid)
    assert not foreground or foreground.masks.any(axis=(1, 2)).all()
    assert not held_by(foreground, [0, 1, 2]) or held_by(foreground, [0, 1, 2]).answer == "neither"
    clip = models.clip.images(images)
    found = score_attributes(clip, models.clip.texts(words.texts()), words)
    assert not contrast(found, [0, 1, 2], permutations=50).finding.any()
    assert (np.ptp(project({"0": seen.cls}).positions, axis=0) == 0).all()


# --- on the bundled models, whose truth is known ----------------------------------------------------------

SIZE, REST = 10, 90


@pytest.fixture(scope="module")
def eyes(request):
    from chosen_one_nb.models.load import Clip, FeatureExtractor

    folder = request.config.rootpath / "data" / "menagerie"
    if not all((folder / part / "model.safetensors").is_file() for part in ("dinov2", "clip")):
        pytest.skip("the bundled models are not there")
    return FeatureExtractor.load(folder / "dinov2"), Clip.load(folder / "clip")


@pytest.fixture(scope="module")
def world():
    """90 foxes, then five groups of 10 that share a scene, then five that share an identity."""
    from menagerie import world

    rng = Random(7)
    truths = [world.sample(rng, kind="fox") for _ in range(REST)]
    for place in ("snow", "night", "beach", "forest", "underwater"):
        truths += [world.sample(rng, kind="fox", place=place, style="photo") for _ in range(SIZE)]
    for _ in range(5):
        fox = world.sample(rng, kind="fox")
        truths += [world.new_scene(fox, rng) for _ in range(SIZE)]
    return [world.render(truth) for truth in truths]


def groups(count):
    """Each planted group, with the 90 others as its gallery."""
    return [np.r_[REST + at * SIZE : REST + (at + 1) * SIZE, :REST] for at in range(count)]


def test_the_foreground_is_found_and_what_holds_a_group_together(eyes, world):
    extractor, _ = eyes
    images, true = [render.image for render in world], np.stack([render.mask for render in world])
    seen = extractor(images, patches=True)
    found = segment(seen.patches, seen.grid)
    masks = found.at(true.shape[1:])
    assert np.mean((masks & true).sum(axis=(1, 2)) / (masks | true).sum(axis=(1, 2))) >= 0.6
    segmented = alone(extractor, images, found)
    answers = [held_by(segmented.rows(rows), range(SIZE)).answer for rows in groups(10)]
    assert sum(answer == ("scene" if at < 5 else "foreground") for at, answer in enumerate(answers)) >= 9


def test_a_shared_place_is_found_and_called_incidental_unless_asked_for(eyes, world, words):
    _, clip = eyes
    texts = clip.texts(words.texts("fox"))
    images = clip.images([render.image for render in world])
    logit_scale = float(clip.model.logit_scale.exp())
    right = 0
    for rows, place in zip(
        groups(5), ("in the snow", "at night", "at the beach", "in the forest", "underwater"), strict=True
    ):
        table = contrast(score_attributes(images[rows], texts, words, logit_scale=logit_scale), range(SIZE))
        right += place in set(table[table.finding].attribute)
    assert right >= 4
    answers = classify(words.attributes, PROMPT).set_index(["group", "attribute"]).answer
    assert answers["place", "in the snow"] == answers["style", "sticker"] == answers["kind", "fox"] == "asked"
    assert answers["place", "at the beach"] == "incidental"
    assert answers["accessory", "a hat"] == "identity"
