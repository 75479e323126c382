import numpy as np
import pytest

from chosen_one_nb.analysis.vocabulary import read_vocabulary, score_attributes

PLACES = read_vocabulary(
    {"place": {"one_of": True, "phrases": ["beach", "snow", {"text": "ice", "attribute": "snow"}]}}
)
THINGS = read_vocabulary({"things": ["hat", "tie", "ball"]})
TEXTS = np.eye(4)[:3]
MANY = read_vocabulary({"things": ["hat", "tie", "ball", *(f"thing {i}" for i in range(20))]})


def test_one_of_a_group_is_a_softmax_and_synonyms_add_up():
    images = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 0]])
    found = score_attributes(images, TEXTS, PLACES, logit_scale=20)
    assert found.values.shape == (3, 2)
    assert found.values == pytest.approx(np.array([[1, 0], [0, 1], [0, 1]]), abs=1e-4)
    assert found.values.sum(axis=1) == pytest.approx(1)
    assert found.has_it.tolist() == [[True, False], [False, True], [False, True]]


def test_things_that_may_occur_together_are_split_each_by_itself():
    rng = np.random.default_rng(0)
    truth = rng.random((60, 23)) < [0.3, 0.5, *[0.0] * 21]  # hat and tie may be on one image, the rest on none
    images = truth + 0.1 * rng.standard_normal(truth.shape) + 0.5
    found = score_attributes(images, np.eye(23), MANY)
    assert (found.has_it[:, :2] == truth[:, :2]).all()
    assert found.separable[:2].all()


def test_a_group_of_one_phrase_is_split_too():
    images = np.column_stack([np.tile([0.1, 0.9], 20), np.ones(40)])
    found = score_attributes(images, np.eye(2)[:1], read_vocabulary({"extra": ["leaves"]}))
    assert found.has_it[:, 0].tolist() == [False, True] * 20
    single = read_vocabulary({"style": {"one_of": True, "phrases": ["sticker"]}})
    assert score_attributes(images, np.eye(2)[:1], single).has_it[:, 0].tolist() == [False, True] * 20


def test_identical_images_and_no_images_give_no_split():
    found = score_attributes(np.ones((5, 4)), TEXTS, THINGS)
    assert not found.separable.any()
    assert (found.values == 0).all()
    assert score_attributes(np.ones((0, 4)), TEXTS, THINGS).values.shape == (0, 3)


def test_length_of_vectors_does_not_matter():
    images = np.abs(np.random.default_rng(1).standard_normal((9, 4)))
    one, other = (score_attributes(images * scale, TEXTS, PLACES).values for scale in (1, 7))
    assert one == pytest.approx(other)


def test_rows_are_some_of_the_images():
    found = score_attributes(np.eye(4), TEXTS, PLACES)
    assert (found.rows(slice(1, 3)).values == found.values[1:3]).all()


@pytest.mark.parametrize(
    ("images", "texts", "message"),
    [
        (np.ones(4), TEXTS, "finite images of shape"),
        (np.full((2, 4), np.nan), TEXTS, "with NaN"),
        (np.ones((2, 5)), TEXTS, r"texts of shape \(3, 5\)"),
        (np.ones((2, 4)), TEXTS[:2], "one row per phrase"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(images, texts, message):
    with pytest.raises(ValueError, match=message):
        score_attributes(images, texts, THINGS)
