"""The score of the search for spurious attributes, on pools whose CLIP sees everything or nothing."""

import numpy as np
import pandas as pd
import pytest

from chosen_one_nb.looking.presence import Presence
from chosen_one_nb.looking.vocabulary import Attribute, load_vocabulary
from chosen_one_nb.menagerie import spurious, world
from chosen_one_nb.menagerie.persisting import meaning
from chosen_one_nb.menagerie.spurious import Pool, planted, planted_rows


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
    return Pool(truths, Presence(values, attributes, np.ones(len(meanings), bool)), meanings)


def figures(rows):
    return {figure: value for _, figure, value in rows}


def test_a_planted_group_has_the_share_that_was_asked_for(pool):
    pictures, size, value = planted(pool, "place", 0.8, np.random.default_rng(0))
    assert len(pictures) == len(set(pictures.tolist())) == spurious.GALLERY
    has_it = (pool.truths.place == value).to_numpy()
    assert has_it[pictures[:size]].sum() == round(0.8 * size)


def test_who_sees_everything_finds_what_is_planted(pool):
    found = figures(planted_rows(pool, 15))
    assert found["recall at 80 % and above"] >= 0.9
    assert found["precision at 80 % and above"] >= 0.9
    assert found["groups with a finding at the level of 5 % (n=45)"] <= 0.15


def test_who_sees_nothing_finds_nothing(pool):
    noise = np.random.default_rng(5).random(pool.found.values.shape)
    blind = Pool(pool.truths, Presence(noise, pool.found.attributes, pool.found.told_apart), pool.meanings)
    found = figures(planted_rows(blind, 15))
    assert found["recall at 80 % and above"] <= 0.1
    assert found["  recall, were everything seen in the pictures right"] >= 0.9  # so it is not the finder's fault


def test_every_attribute_of_the_vocabulary_means_something_in_the_world(request):
    vocabulary = load_vocabulary(request.config.rootpath / "data/attributes_menagerie.json")
    sentences = vocabulary.texts()
    meant = [meaning(attribute, sentences[attribute.columns[0]]) for attribute in vocabulary.attributes]
    assert all(value in world.ATTRIBUTES[name] for name, value in meant)
    twice = {each for each in meant if meant.count(each) > 1}
    assert twice == {("garment", "none"), ("accessory", "none")}  # nothing there, and so nothing to have a colour
    assert {name for name, _ in meant} == set(world.ATTRIBUTES)
