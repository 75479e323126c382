"""The score of the search for spurious attributes, on pools whose CLIP sees everything or nothing."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from chosen_one_nb.looking.presence import Presence
from chosen_one_nb.looking.vocabulary import Attribute, load_vocabulary
from chosen_one_nb.menagerie import spurious, world
from chosen_one_nb.menagerie.spurious import Pool, in_contexts, meaning, odds_ratio, odds_rows, planted, planted_rows


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
    assert figures(planted_rows(blind, 15))["recall at 80 % and above"] <= 0.1


def test_every_attribute_of_the_vocabulary_means_something_in_the_world(request):
    vocabulary = load_vocabulary(request.config.rootpath / "data/attributes_menagerie.json")
    sentences = vocabulary.texts()
    meant = [meaning(attribute, sentences[attribute.columns[0]]) for attribute in vocabulary.attributes]
    unknown = [(name, value) for name, value in meant if value not in world.ATTRIBUTES.get(name, ())]
    assert unknown == [("garment_colour", ""), ("accessory_colour", "")]  # nothing there to have a colour
    assert {name for name, _ in meant} == set(world.ATTRIBUTES)


def cases(a, b, c, d):
    """Flagged and persisting, flagged only, persisting only, neither."""
    kinds = [(True, True)] * a + [(True, False)] * b + [(False, True)] * c + [(False, False)] * d
    return pd.DataFrame(kinds, columns=["flagged", "persists"])


def test_the_odds_ratio_by_hand():
    assert odds_ratio(cases(9, 1, 2, 8)) == pytest.approx(9.5 * 8.5 / (1.5 * 2.5))
    assert odds_ratio(cases(5, 5, 5, 5)) == 1


def test_its_interval_is_over_prompts():
    table = pd.concat([cases(3, 1, 2, 30).assign(prompt=str(i)) for i in range(6)])
    rows = odds_rows(table, repeats=50)
    assert [value for _, figure, value in rows if "interval" in figure] == pytest.approx([odds_ratio(table)] * 2)


def test_a_context_is_remembered_with_what_the_reader_sees():
    asked = []

    def contexts(node, texts, base):
        asked.append(base)
        return {text: [text, text] for text in texts}

    run = SimpleNamespace(contexts=contexts)
    read = in_contexts(run, None, lambda images: pd.DataFrame({"place": images}))
    assert asked == [True]
    texts = [text for text, _ in world.CONTEXTS]
    assert [texts[at] for at in read["context"]] == read["place"].tolist()
