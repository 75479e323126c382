import numpy as np
import pytest

from chosen_one_nb.analysis.counterfactual import counterfactual
from chosen_one_nb.analysis.vocabulary import read_vocabulary

HAT, SNOW, ODD = read_vocabulary(
    {"g": [{"text": "hat", "opposite": "bare head"}, {"text": "snow", "opposite": "desert"}, "odd"]}
).attributes


def similarity(images, texts):
    """An image is the set of words that it shows."""
    return np.array([[float(text in image) for text in texts] for image in images])


def draw_base(opposite):
    return [{opposite} for _ in range(8)]


def draw_character(opposite):
    return [{"hat"} if i < 7 else {opposite} for i in range(8)]  # Θ has learnt the hat


def test_what_theta_baked_in_shows_although_the_opposite_is_asked_for():
    made = counterfactual([HAT, SNOW, ODD], draw_base, draw_character, similarity)
    table = made.table.set_index("attribute")
    assert table.loc["hat", ["asked_for", "base", "character", "baked_in"]].tolist() == ["bare head", 0, 0.875, 0.875]
    assert table.persists.to_dict() == {"hat": True, "snow": False}
    assert 0 < table.low["hat"] < 0.875 < table.high["hat"] <= 1
    assert made.skipped == ("odd",)
    assert [len(side) for side in made.images["bare head"]] == [8, 8]


def test_what_the_base_model_does_too_is_no_fault_of_theta():
    made = counterfactual([HAT], draw_character, draw_character, similarity)
    assert made.table.loc[0, ["base", "character", "baked_in"]].tolist() == [0.875, 0.875, 0]
    assert not made.table.persists[0]


def test_sentences_are_made_by_the_callers_template():
    seen = []
    counterfactual(
        [HAT],
        draw_base,
        draw_character,
        lambda images, texts: seen.append(texts) or similarity(images, texts),
        say=lambda _, text: f"a {text}",
    )
    assert seen[0] == ["a hat", "a bare head"]


def test_what_is_asked_of_the_generator_has_its_own_wording():
    asked = []
    made = counterfactual(
        [HAT],
        lambda text: asked.append(text) or draw_base("bare head"),
        draw_character,
        similarity,
        ask=lambda _, text: f"with a {text}",
    )
    assert asked == ["with a bare head"]
    assert set(made.images) == {"bare head"}  # by what the vocabulary calls it


def test_nothing_to_ask_gives_an_empty_table():
    made = counterfactual([ODD], draw_base, draw_character, similarity)
    assert made.table.empty
    assert "persists" in made.table


@pytest.mark.parametrize("count", [0, 3])
def test_base_and_character_draw_the_same_seeds(count):
    with pytest.raises(ValueError, match="Draw both on the same seeds"):
        counterfactual([HAT], lambda _: [set()] * count, draw_character, similarity)
