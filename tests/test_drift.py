import numpy as np
import pytest

from chosen_one_nb.analysis.drift import drift, headline, rise
from chosen_one_nb.analysis.vocabulary import Attribute
from chosen_one_nb.analysis.zero_shot import AttributeScores

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
