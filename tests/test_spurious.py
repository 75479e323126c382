"""The score of the search for spurious attributes, on pools whose CLIP sees everything or nothing."""

from argparse import Namespace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from chosen_one_nb.analysis import inquiry
from chosen_one_nb.analysis.vocabulary import Attribute, AttributeScores, load_vocabulary, read_vocabulary
from chosen_one_nb.models.load import Features
from menagerie import spurious, world
from menagerie.persisting import meaning
from menagerie.spurious import RenderPool, planted, planted_rows


@pytest.fixture(scope="module")
def pool():
    """600 truths, and a presence that is the truth itself."""
    from random import Random

    rng = Random(3)
    truths = pd.DataFrame([world.sample(rng) for _ in range(600)])
    meanings = [(name, value) for name in world.ATTRIBUTES for value in world.ATTRIBUTES[name]]
    values = np.column_stack([truths[name] == value for name, value in meanings]).astype(float)
    attributes = tuple(
        Attribute(value, name, "seen", True, (at,), (value,)) for at, (name, value) in enumerate(meanings)
    )
    return RenderPool(truths, AttributeScores(values, attributes, np.ones(len(meanings), bool)), meanings)


def figures(rows):
    return {figure: value for _, figure, value in rows}


def test_a_planted_group_has_the_share_that_was_asked_for(pool):
    images, size, value = planted(pool, "place", 0.8, np.random.default_rng(0))
    assert len(images) == len(set(images.tolist())) == spurious.GALLERY
    has_it = (pool.truths.place == value).to_numpy()
    assert has_it[images[:size]].sum() == round(0.8 * size)


def test_who_sees_everything_finds_what_is_planted(pool):
    found = figures(planted_rows(pool, 15))
    assert found["recall at 80 % and above"] >= 0.9
    assert found["precision at 80 % and above"] >= 0.9
    assert found["groups with a finding at the level of 5 % (n=45)"] <= 0.15


def test_who_sees_nothing_finds_nothing(pool):
    noise = np.random.default_rng(5).random(pool.found.values.shape)
    blind = RenderPool(pool.truths, AttributeScores(noise, pool.found.attributes, pool.found.separable), pool.meanings)
    found = figures(planted_rows(blind, 15))
    assert found["recall at 80 % and above"] <= 0.1
    assert found["  recall, were everything seen in the images right"] >= 0.9  # so it is not the finder's fault


def test_every_attribute_of_the_vocabulary_means_something_in_the_world(request):
    vocabulary = load_vocabulary(request.config.rootpath / "data/attributes_menagerie.json")
    sentences = vocabulary.texts()
    meant = [meaning(attribute, sentences[attribute.columns[0]]) for attribute in vocabulary.attributes]
    assert all(value in world.ATTRIBUTES[name] for name, value in meant)
    twice = {each for each in meant if meant.count(each) > 1}
    assert twice == {("garment", "none"), ("accessory", "none")}  # nothing there, and so nothing to have a colour
    assert {name for name, _ in meant} == set(world.ATTRIBUTES) - set(world.NEUTRAL)  # no CLIP has learnt poses yet


class Eyes:
    """An extractor and CLIP that see colours; texts are noise, and each is remembered."""

    logit_scale = 20.0

    def __init__(self):
        self.texts_seen = []

    def __call__(self, images, *, patches):
        small = np.stack([np.asarray(image.convert("RGB").resize((4, 4)), np.float32) / 255 for image in images])
        return Features(small.mean((1, 2)), small.reshape(len(images), 16, 3), (4, 4))

    def images(self, images):
        return np.stack([np.asarray(image.convert("RGB").resize((2, 2)), np.float32).ravel() + 1 for image in images])

    def texts(self, texts):
        self.texts_seen += texts
        return np.random.default_rng(len(texts)).standard_normal((len(texts), 12))


WORDS = {
    "place": {"kind": "incidental", "one_of": True, "phrases": ["in the snow", "on the beach"]},
    "on it": ["a hat"],
}
CALLS = ("segment", "score_attributes", "shown_by", "on_foreground", "most_and_least", "cohesion_heat", "cosegment")


@pytest.fixture
def eyes():
    eyes = Eyes()
    return SimpleNamespace(extractor=eyes, clip=eyes)


def test_seconds_are_of_all_that_the_screen_shows(eyes, monkeypatch):
    """Embeddings are given; nothing of what the panel calls is left out."""
    seen, vocabulary = spurious.embedded(eyes, 16), read_vocabulary(WORDS)
    encode = spurious.remembering(eyes.clip.texts)
    called = []
    places = [(spurious, name) for name in CALLS]
    places += [(inquiry, name) for name in ("contrast", "classify", "held_by", "drift", "rise", "headline")]
    for module, name in places:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, real=real, name=name, **k: called.append(name) or real(*a, **k))
    spurious.everything(seen, vocabulary, encode, 20.0)
    assert set(called) >= {name for _, name in places}


def test_a_row_of_seconds_for_each_vocabulary_with_nothing_left_to_embed(eyes, monkeypatch):
    monkeypatch.setattr(spurious, "embedded", lambda models, real=spurious.embedded: real(models, 16))
    timed = []

    def everything(*given, real=spurious.everything):
        before = len(eyes.clip.texts_seen)
        real(*given)
        timed.append(len(eyes.clip.texts_seen) - before)

    monkeypatch.setattr(spurious, "everything", everything)
    rows = spurious.time_rows(eyes, {"small.json": read_vocabulary(WORDS), "large.json": read_vocabulary(WORDS)})
    assert [figure.split("given ")[1] for _, figure, _ in rows] == [
        "(small.json, 3 phrases)",
        "(large.json, 3 phrases)",
    ]
    assert all(value > 0 for *_, value in rows)
    assert timed == [0, 0]


@pytest.mark.parametrize(
    ("said", "parts", "only"),
    [
        ({}, ["planted", "foreground", "time", "prompts"], [3, 11]),
        ({"parts": ["prompts"]}, ["prompts"], None),
        ({"only": [5]}, ["planted", "foreground", "time", "prompts"], [5]),
        ({"runs": "elsewhere"}, ["planted", "foreground", "time"], []),
    ],
)
def test_prompts_are_scored_unasked_where_their_runs_are(tmp_path, said, parts, only):
    for number in ("11", "03", "04"):
        (tmp_path / number / "run").mkdir(parents=True)
    for number in ("11", "03"):
        (tmp_path / number / "run" / "run.json").touch()
    said = {"parts": None, "only": None, **said, "runs": tmp_path / said.get("runs", "")}
    chosen = spurious.chosen_parts(Namespace(**said))
    assert (chosen.parts, chosen.only) == (parts, only)
