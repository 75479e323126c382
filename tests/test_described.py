import dataclasses

import numpy as np
import pytest

from chosen_one_nb.analysis.captioning import descriptions
from chosen_one_nb.analysis.vocabulary import read_vocabulary
from chosen_one_nb.analysis.zero_shot import score_attributes
from chosen_one_nb.run.run import Run, RunError

FOLLOWING = {"one_of": True, "kind": "incidental", "template": "a {noun} {}"}
WORDS = read_vocabulary({
    "place": FOLLOWING | {"phrases": ["at the beach", "in the snow"]},
    "pose": FOLLOWING | {"phrases": ["standing", "reading a book"]},
    "style": FOLLOWING | {"template": "{} of a {noun}", "phrases": ["a sticker", "a drawing"]},
    "garment": FOLLOWING | {"kind": "identity", "phrases": ["wearing a scarf", "without clothes"]},
    "things": {"kind": "incidental", "template": "a {noun} {}", "phrases": ["with a ball", "with a hat"]},
})  # fmt: skip
# One image: snow for sure, standing rather; a sticker, in a scarf, with a ball.
IMAGE = np.array([[0, 1, 0.6, 0.4, 1, 0, 1, 0, 1, 0]])


def described(prompt, image=IMAGE):
    return descriptions(score_attributes(image, np.eye(10), WORDS, logit_scale=10), WORDS, prompt)


def test_scene_words_that_can_follow_a_caption_surest_first():
    assert described("a fox") == [["in the snow", "standing"]]


def test_what_the_prompt_says_is_not_said_again():
    assert described("a fox at the beach") == [["standing"]]


def test_a_image_that_shows_nothing_clearly_gets_no_words():
    three = read_vocabulary({"place": FOLLOWING | {"phrases": ["at the beach", "in the snow", "in the city"]}})
    found = score_attributes(np.ones((1, 3)), np.eye(3), three, logit_scale=10)
    assert descriptions(found, three, "a fox") == [[]]


def test_a_run_describes_the_chosen_images(models, quick, tmp_path):
    settings = quick.replace(n_images=6, describe_scene=True)
    with Run.start("a sticker of a fox", models, settings, tmp_path / "run") as run:
        run.next_iteration()
        captions = run.root.theta.provenance["captions"]
    assert len(captions) == len(run.root.decision.images)
    assert all(caption.startswith("a sticker of a fox <v>") for caption in captions)


def test_images_of_the_first_gallery_are_described_too(models, quick, tmp_path, monkeypatch):
    from chosen_one_nb.steps import refine as step

    heard = []

    def listening(models, data, *given, real=step.refine, **more):
        heard.append(data)
        return real(models, data, *given, **more)

    monkeypatch.setattr(step, "refine", listening)
    settings = quick.replace(n_images=6, describe_scene=True, prior_share=0.5)
    with Run.start("a sticker of a fox", models, settings, tmp_path / "run") as run:
        run.next_iteration()
        chosen = list(run.root.decision.images)
    [data] = heard
    assert len(data.prior.descriptions) == 6
    assert [data.prior.descriptions[i] for i in chosen] == data.descriptions


def test_without_clip_it_says_what_to_do(models, quick, tmp_path):
    blind = dataclasses.replace(models, clip=None)
    settings = quick.replace(n_images=6, describe_scene=True)
    with (
        Run.start("a fox", blind, settings, tmp_path / "run") as run,
        pytest.raises(RunError, match="describe_scene: expected models with CLIP"),
    ):
        run.next_iteration()
