from __future__ import annotations

import numpy as np
import pytest

from chosen_one_nb.analysis import statistics as scores
from chosen_one_nb.steps.embed import unit

APART = np.array([[1.0, 0.0], [0.0, 1.0]])
SAME = np.array([[2.0, 0.0], [5.0, 0.0], [1.0, 0.0]])


def cosines(vectors):
    return unit(vectors) @ unit(vectors).T


def test_identity_of_one_direction_is_one_and_of_right_angles_zero():
    assert scores.identity_consistency(SAME).value == pytest.approx(1.0)
    assert scores.identity_consistency(APART).value == pytest.approx(0.0)


def test_identity_is_the_mean_over_pairs():
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # pairs: 1, 0, 0
    assert scores.identity_consistency(vectors).value == pytest.approx(1 / 3)


def test_a_share_of_pairs_has_an_interval():
    labels = np.array([0, 0, 1, 1])
    found = scores.bootstrap(labels[:, None] == labels, scores.pair_mean)
    assert found.value == pytest.approx(2 / 6)
    assert found.low <= found.value <= found.high


def test_pairs_of_an_image_with_its_own_copy_are_left_out():
    """A resample that draws image 0 twice and image 1 once has two pairs of different images, both 0."""
    assert scores.pair_mean(np.eye(2), np.array([[2.0, 1.0]])).tolist() == [0.0]


def test_a_resample_of_one_image_has_no_pairs():
    assert np.isnan(scores.pair_mean(np.ones((2, 2)), np.array([[2.0, 0.0]]))).all()


def test_pair_mean_equals_the_slow_way():
    rng = np.random.default_rng(0)
    similarity = cosines(rng.normal(size=(6, 3)))
    drawn = [0, 0, 2, 3, 5, 5]
    slow = [similarity[a, b] for i, a in enumerate(drawn) for j, b in enumerate(drawn) if i != j and a != b]
    counts = np.bincount(drawn, minlength=6)[None].astype(float)
    assert scores.pair_mean(similarity, counts)[0] == pytest.approx(np.mean(slow))


def test_bootstrap_interval_of_a_mean_is_that_of_theory():
    values = np.random.default_rng(1).normal(5.0, 1.0, size=400)
    found = scores.bootstrap(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_interval_over_images_is_wider_than_one_over_pairs():
    """Pairs share images; taking them as independent would promise too much."""
    vectors = unit(np.random.default_rng(2).normal([3, 0, 0, 0], 1, size=(40, 4)))
    found = scores.identity_consistency(vectors)
    pairs = cosines(vectors)[np.triu_indices(40, 1)]
    over_pairs = scores.bootstrap(pairs)
    assert found.high - found.low > 3 * (over_pairs.high - over_pairs.low)


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        found = scores.bootstrap(rng.normal(size=30), repeats=300)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.98


def test_same_seed_same_interval():
    values = np.arange(10.0)
    assert scores.bootstrap(values, seed=4) == scores.bootstrap(values, seed=4)
    assert scores.bootstrap(values, seed=4) != scores.bootstrap(values, seed=5)


def test_one_image_has_a_score_but_no_interval():
    found = scores.bootstrap(np.array([0.5]))
    assert found.value == 0.5
    assert np.isnan(found.low)
    assert np.isnan(scores.identity_consistency(np.ones((1, 3))).value)


@pytest.mark.parametrize("values", [np.array([]), np.array(1.0)])
def test_no_images_is_an_error(values: np.ndarray):
    with pytest.raises(ValueError, match="at least one image"):
        scores.bootstrap(values)


def test_no_repeats_is_an_error():
    with pytest.raises(ValueError, match="Expected repeats of 1 or more, got 0"):
        scores.bootstrap(np.ones(3), repeats=0)


def test_a_zero_vector_scores_zero():
    assert scores.identity_consistency(np.array([[0.0, 0.0], [1.0, 0.0]])).value == 0.0


def test_it_is_quick_at_a_thousand_images():
    import time

    begun = time.monotonic()
    scores.identity_consistency(np.random.default_rng(0).normal(size=(1024, 64)))
    assert time.monotonic() - begun < 5


def test_intervals_read_well():
    assert str(scores.Interval(0.5, 0.25, 0.75, 8)) == "0.500 [0.250, 0.750]"
