import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chosen_one_nb.analysis.attributes import contrast, drift, headline, rise
from chosen_one_nb.analysis.vocabulary import Attribute, AttributeScores, read_vocabulary, score_attributes


def toy(values):
    values = np.array(values, float)
    names = "abcdefgh"[: values.shape[1]]
    attributes = tuple(Attribute(name, "group", "seen", False, (at,), (name,)) for at, name in enumerate(names))
    return AttributeScores(values, attributes, np.ones(len(names), bool))


def planted(rng, n=128, size=14, share=1.0, phrases=60):
    """A gallery whose first `size` images mostly have thing 0, which one in eight of the others has."""
    truth = rng.random((n, phrases)) < 0.125
    truth[:size, 0] = rng.random(size) < share
    return AttributeScores(
        np.clip(truth + 0.2 * rng.standard_normal(truth.shape), 0, 1),
        tuple(Attribute(str(at), "g", "seen", False, (at,), (str(at),)) for at in range(phrases)),
        np.ones(phrases, bool),
    )


def test_the_table_says_what_one_can_count():
    found = toy([[1, 1], [1, 0], [0, 1], [0, 0], [0, 1], [0, 0]])  # the first three images are the group
    table = contrast(found, [0, 1, 2])
    first = table.loc[0]
    assert first.attribute == "a"
    assert (first.share_in, first.share_out) == (pytest.approx(2 / 3), 0)
    assert first.lift == pytest.approx((2.5 / 4) / (0.5 / 4))
    assert first.auroc == pytest.approx((2 * 3 + 1 * 1.5) / 9)
    assert first.effect == pytest.approx((2 / 3) / np.std([1, 1, 0, 0, 0, 0]))
    assert table.index.tolist() == [0, 1]


def test_p_is_the_share_of_groups_that_stand_out_as_much():
    found = toy(np.eye(5)[:, :1])  # one image of five has it, and it is the group: one group in five does that
    assert contrast(found, [0], permutations=4000).p[0] == pytest.approx(0.2, abs=0.03)


def test_a_planted_attribute_is_found_and_nothing_else():
    rng = np.random.default_rng(0)
    tables = [contrast(planted(rng), range(14), permutations=300) for _ in range(20)]
    assert np.mean([table.index[0] == 0 and table.finding.iloc[0] for table in tables]) >= 0.95
    assert np.mean([table.finding.sum() - 1 for table in tables]) <= 0.2


def test_power_falls_with_the_share_but_not_at_once():
    rng = np.random.default_rng(1)
    tables = [contrast(planted(rng, share=0.8), range(14), permutations=300) for _ in range(20)]
    assert np.mean([table.index[0] == 0 and table.finding.iloc[0] for table in tables]) >= 0.85


@pytest.mark.parametrize("kind", ["even", "rare and correlated"])
def test_noise_is_called_a_finding_no_more_often_than_stated(kind):
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        values = rng.random((64, 40))
        if kind != "even":
            values = (values + 0.5 * rng.random((64, 1)) > 1.2).astype(float)
        found = AttributeScores(values, planted(rng, phrases=40).attributes, np.ones(40, bool))
        wrong += contrast(found, range(9), permutations=200).finding.any()
    assert wrong / 200 <= 0.07


def test_two_words_for_one_thing_are_one_finding():
    rng = np.random.default_rng(3)
    found = planted(rng)
    found.values[:, 1] = found.values[:, 0] * 0.9
    table = contrast(found, range(14))
    assert sorted(table.loc[[0, 1], "same_as"]) in ([-1, 0], [-1, 1])
    assert table.finding.sum() >= 2


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_images_does_not_matter(order):
    found = toy(np.random.default_rng(4).random((12, 3)))
    members = [0, 1, 2, 3]
    moved = [order.index(member) for member in members]
    one, other = contrast(found, members), contrast(found.rows(order), moved)
    for name in ("auroc", "effect", "z", "lift"):
        assert other[name].sort_index().to_numpy() == pytest.approx(one[name].sort_index().to_numpy())


def test_identical_images_share_nothing_that_the_rest_has_not():
    table = contrast(toy(np.full((10, 3), 0.7)), [0, 1, 2])
    assert not table.finding.any()
    assert (table.p == 1).all()
    assert (table.auroc == 0.5).all()
    assert np.isfinite(table[["effect", "z", "lift"]].to_numpy()).all()


def test_a_group_of_one_image_has_a_table_without_findings():
    table = contrast(planted(np.random.default_rng(5), phrases=60), [3])
    assert np.isfinite(table[["auroc", "effect", "z", "p"]].to_numpy()).all()
    assert not table.finding.any()


@pytest.mark.parametrize("members", [[], [0, 1, 2], np.zeros(3, bool)])
def test_nothing_to_compare_is_said(members):
    with pytest.raises(ValueError, match="there is nothing to compare"):
        contrast(toy(np.random.default_rng(0).random((3, 2))), members)


def test_shares_are_not_given_where_images_were_not_told_apart():
    found = toy(np.random.default_rng(0).random((9, 2)))
    table = contrast(AttributeScores(found.values, found.attributes, np.array([True, False])), [0, 1])
    assert np.isnan(table.loc[1, ["share_in", "share_out", "lift"]].astype(float)).all()
    assert np.isfinite(table.loc[0, "lift"])


def test_drift_against_the_first_gallery_is_the_same_comparison():
    rng = np.random.default_rng(6)
    first, later = planted(rng, share=0.125), planted(rng, size=128, share=0.9)
    both = AttributeScores(np.concatenate([first.values, later.values]), first.attributes, first.separable)
    table = contrast(both, range(128, 256), permutations=200)
    assert table.index[0] == 0
    assert table.p.iloc[0] == pytest.approx(1 / 201)


def test_a_gallery_of_128_and_600_phrases_takes_less_than_two_seconds():
    rng = np.random.default_rng(7)
    words = read_vocabulary(
        {f"group {g}": {"one_of": g % 2 == 0, "phrases": [f"{g} {i}" for i in range(40)]} for g in range(15)}
    )
    images, texts = rng.standard_normal((128, 768)), rng.standard_normal((600, 768))
    start = time.process_time()
    contrast(score_attributes(images, texts, words), range(12), permutations=1000)
    assert time.process_time() - start < 2


# --- gallery after gallery

NAMES = ("red hat", "snow", "sticker")
ATTRIBUTES = tuple(Attribute(name, "g", "seen", False, (at,), (name,)) for at, name in enumerate(NAMES))


def gallery(*counts, n=20):
    """n images of which the first `counts` have each attribute."""
    return AttributeScores(
        np.array([[i < count for count in counts] for i in range(n)], float), ATTRIBUTES, np.ones(3, bool)
    )


BASE, FIRST, LAST = gallery(4, 10, 2), gallery(10, 10, 20), gallery(19, 9, 20)


def test_shares_with_intervals_gallery_by_gallery():
    table = drift({"base": BASE, "iteration 1": FIRST, "iteration 2": LAST})
    hat = table[table.attribute == "red hat"]
    assert hat.gallery.tolist() == ["base", "iteration 1", "iteration 2"]
    assert hat.share.tolist() == [0.2, 0.5, 0.95]
    assert (hat.low < hat.share).all()
    assert (hat.high > hat.share).tolist() == [True, True, True]
    assert (hat.high <= 1).all()


def test_what_was_not_told_apart_and_empty_galleries_have_no_share():
    unclear = AttributeScores(BASE.values, ATTRIBUTES, np.array([True, False, True]))
    table = drift({"base": unclear, "none": unclear.rows(slice(0, 0))}).set_index(["gallery", "attribute"])
    assert np.isnan(table.share["base", "snow"])
    assert table.share["base", "red hat"] == 0.2
    assert table.loc["none", ["share", "low", "high"]].isna().all().all()
    assert drift({}).empty


def test_the_headline_is_what_rose_most_and_was_not_asked_for():
    table = rise(BASE, LAST)
    assert table.attribute.tolist() == ["sticker", "red hat", "snow"]
    assert table["rise"].tolist() == pytest.approx([0.9, 0.75, -0.05])
    assert table.certain.tolist() == [True, True, False]
    sentence = headline(table, ["identity", "incidental", "asked"])
    assert sentence.startswith('"red hat" rose from 20% to 95% of the images (+')
    assert sentence.endswith("nobody asked for it.")


def test_no_news_is_said():
    assert headline(rise(BASE, BASE), ["incidental"] * 3) == (
        "Nothing that the prompt leaves open has become clearly more frequent."
    )
    assert headline(rise(BASE, LAST), ["asked"] * 3).startswith("Nothing")
