"""Tests of the decision by character: by hand, against scipy, and on studies whose truth is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ttest_rel

from chosen_one_nb.analysis.statistics import friedman, interval, krippendorff_alpha, max_t, two_way

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

KRIPPENDORFF_2011 = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""


def table(text):
    lines = text.strip().splitlines()
    return np.array([[np.nan if cell == "." else float(cell) for cell in line.split()] for line in lines])


def test_max_t_of_one_pair_counts_signs():
    scores = np.array([[3.0, 1], [4, 2], [2, 3]])  # differences 2, 2, -1: |sum| 3; with other signs 5, 1, 1
    found = max_t(scores)
    assert found.p[0, 1] == found.p[1, 0] == 0.5  # two of the four sums are 3 or more
    assert found.difference[0, 1] == pytest.approx(1)
    assert np.isnan(found.p[0, 0])


def test_max_t_orders_pairs_as_t_does_and_corrects_for_their_number():
    scores = np.random.default_rng(0).normal(size=(9, 4)) + np.array([0, 0, 0.5, 2])
    found = max_t(scores)
    pairs = list(zip(*np.triu_indices(4, 1), strict=True))
    single = [ttest_rel(scores[:, a], scores[:, b]).pvalue for a, b in pairs]
    corrected = [found.p[a, b] for a, b in pairs]
    assert np.argsort(np.argsort(single))[:2].tolist() == np.argsort(np.argsort(corrected))[:2].tolist()
    assert all(more >= alone - 0.03 for alone, more in zip(single, corrected, strict=True))
    assert found.p[0, 3] < 0.05


def test_random_signs_agree_with_all_signs():
    scores = np.random.default_rng(1).normal(size=(13, 3)) + np.array([0, 0, 1])
    exact = max_t(scores).p
    few = max_t(np.vstack([scores, np.full((1, 3), 2.0)])).p  # one more character, without a difference
    assert few[np.triu_indices(3, 1)] == pytest.approx(exact[np.triu_indices(3, 1)], abs=0.02)


def test_characters_with_a_gap_are_left_out_and_equal_methods_do_not_differ():
    found = max_t(np.array([[1.0, 1], [2, 2], [np.nan, 5]]))
    assert found.n == 2
    assert found.p[0, 1] == 1
    assert np.isnan(max_t(np.array([[1.0, 2]])).p).all()
    with pytest.raises(ValueError, match="at least two methods"):
        max_t(np.zeros((4, 1)))


def test_friedman_of_the_same_order_everywhere_and_of_nothing():
    statistic, p = friedman(np.array([[1.0, 2, 3], [2, 3, 4], [1, 3, 5]]))
    assert statistic == pytest.approx(6)  # 12 / (n k (k + 1)) * sum of squared rank sums - 3 n (k + 1), n = k = 3
    assert p == pytest.approx(np.exp(-3))
    assert np.isnan(friedman(np.ones((5, 3)))).all()
    assert np.isnan(friedman(np.array([[1.0, 2], [2, 1]]))).all()


def test_alpha_is_that_of_its_author():
    assert krippendorff_alpha(table(KRIPPENDORFF_2011)) == pytest.approx(0.815, abs=5e-4)


def test_alpha_of_full_agreement_of_contradiction_and_of_nothing():
    assert krippendorff_alpha(np.array([[1.0, 5, 3], [1, 5, 3]])) == pytest.approx(1)
    assert krippendorff_alpha(np.array([[1.0, 5], [5, 1]])) < 0
    assert np.isnan(krippendorff_alpha(np.array([[1.0, 5, np.nan], [np.nan, np.nan, 3]])))
    assert np.isnan(krippendorff_alpha(np.full((2, 3), 4.0)))


def test_intervals_widen_where_raters_disagree_as_well():
    rng = np.random.default_rng(0)
    characters = rng.normal(0, 1, (20, 1, 1))
    alike = np.broadcast_to(characters, (20, 6, 2))
    apart = alike + rng.normal(0, 1, (1, 6, 1))
    widths = [np.subtract(*interval(two_way(ratings))[::-1]) for ratings in (alike, apart)]
    assert (widths[1] > 1.2 * widths[0]).all()


def test_a_gap_counts_for_nothing_in_the_bootstrap():
    ratings = np.full((4, 3, 2), 5.0)
    ratings[0, 0, 0] = np.nan
    ratings[:, :, 1] = np.nan
    drawn = two_way(ratings, repeats=50)
    assert np.nanmin(drawn[:, 0]) == np.nanmax(drawn[:, 0]) == 5
    assert np.isnan(drawn[:, 1]).all()


def test_false_alarms_of_the_decision_and_of_pooled_ratings():
    import false_alarms

    found = false_alarms.shares(300)
    print(found)  # shown by pytest -s
    assert found["Friedman, by character"] <= 0.08
    assert found["max-T, by character"] <= 0.08
    assert found["Kruskal-Wallis, all ratings pooled"] > 0.2
    assert false_alarms.shares(60, better=0.9)["max-T, by character"] > 0.5
