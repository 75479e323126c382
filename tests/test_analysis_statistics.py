import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chosen_one_nb.analysis.statistics import (
    auroc,
    balanced,
    group_mask,
    interval,
    random_groups,
    resampled,
    standardised,
    two_kinds,
    varying,
)

numbers = st.lists(st.integers(-5, 5), min_size=4, max_size=20)


def _case(values):
    column = np.array(values, float)[:, None]
    return column, np.arange(len(values)) < 2


def test_auroc_counts_pairs_and_halves_ties():
    values = np.array([[3.0], [1.0], [2.0], [1.0]])
    assert auroc(values, np.array([True, True, False, False])) == pytest.approx([(1 + 1 + 0 + 0.5) / 4])


@given(numbers)
def test_auroc_does_not_change_under_monotone_transforms(values):
    column, members = _case(values)
    assert auroc(np.exp(column) + 3 * column, members) == pytest.approx(auroc(column, members))


@given(numbers)
def test_auroc_of_the_outside_is_what_is_left(values):
    column, members = _case(values)
    assert auroc(column, members) + auroc(column, ~members) == pytest.approx(1)
    assert auroc(-column, members) + auroc(column, members) == pytest.approx(1)


@given(numbers, st.randoms(use_true_random=False))
def test_the_order_of_images_does_not_matter(values, random):
    column, members = _case(values)
    order = list(range(len(values)))
    random.shuffle(order)
    assert auroc(column[order], members[order]) == pytest.approx(auroc(column, members))
    assert standardised(column[order], members[order][None]) == pytest.approx(
        standardised(column, members[None]), abs=1e-9
    )


@given(numbers, st.floats(0.1, 10), st.floats(-10, 10))
def test_scale_and_shift_do_not_matter(values, scale, shift):
    column, members = _case(values)
    assert standardised(scale * column + shift, members[None]) == pytest.approx(
        standardised(column, members[None]), abs=1e-6
    )


def test_standardised_sums_have_mean_0_and_variance_1_over_all_groups():
    values = np.array([[0.0, 5], [0, 1], [1, 2], [4, 2], [0, 2]])
    pairs = np.array([[i in (a, b) for i in range(5)] for a in range(5) for b in range(a)])  # every pair
    z = standardised(values, pairs)
    assert z.mean(axis=0) == pytest.approx(0, abs=1e-12)
    assert (z**2).mean(axis=0) == pytest.approx(1)


def test_constant_columns_stand_out_nowhere():
    values = np.full((6, 1), 0.1) * 3
    groups = random_groups(6, 2, 10)
    z = standardised(values, groups)
    assert (z == 0).all()
    assert balanced(z, values, 2) == pytest.approx(0, abs=1e-4)


def test_rounding_is_no_variation():
    noise = 1e-7 * np.random.default_rng(0).standard_normal((9, 1))
    assert varying(np.hstack([0.3 + noise, noise, np.zeros((9, 1)), 100 + 1e6 * noise])).tolist() == [
        False,
        True,
        False,
        True,
    ]
    assert (standardised(0.3 + noise, random_groups(9, 3, 5)) == 0).all()
    assert (two_kinds(0.3 + noise)[0] == 0).all()


def test_balancing_makes_rare_and_even_columns_comparable():
    values = np.zeros((128, 2))
    values[:3, 0] = 1  # three images have the first thing, half have the second
    values[:64, 1] = 1
    groups = random_groups(128, 10, 20_000)
    z = standardised(values, groups)
    rare, even = np.quantile(z, 0.999, axis=0)
    rare_balanced, even_balanced = np.quantile(balanced(z, values, 10), 0.999, axis=0)
    assert rare - even > 1
    assert abs(rare_balanced - even_balanced) < 0.5


def test_balancing_keeps_the_order_within_a_column():
    values = np.random.default_rng(0).exponential(size=(40, 3))
    z = np.linspace(-4, 6, 50)[:, None] * np.ones(3)
    assert (np.diff(balanced(z, values, 8), axis=0) >= 0).all()


def test_groups_are_numbers_or_masks():
    assert group_mask([0, 2], 3).tolist() == [True, False, True]
    assert group_mask(np.array([True, False]), 2).tolist() == [True, False]
    assert group_mask([], 2).tolist() == [False, False]
    with pytest.raises(ValueError, match="images 0 to 2, got 1 to 3"):
        group_mask([1, 3], 3)
    with pytest.raises(ValueError, match="mask of 3 images"):
        group_mask(np.array([True]), 3)


def test_random_groups_have_their_size_and_reach_everybody():
    groups = random_groups(10, 4, 500)
    assert (groups.sum(axis=1) == 4).all()
    assert groups.mean(axis=0) == pytest.approx(0.4, abs=0.08)


def test_bootstrap_interval_holds_the_mean():
    values = np.array([[0.0, 1], [1, 1], [1, 1], [0, 1]])
    low, high = interval(resampled(values, repeats=500))
    assert low[0] < 0.5 < high[0]
    assert (low[1], high[1]) == (1, 1)


def test_two_kinds_finds_the_few_and_says_how_far_they_lie():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((100, 2))
    values[:10, 0] += 8
    high, gap = two_kinds(values)
    assert (high[:10, 0] > 0.99).all()
    assert (high[10:, 0] < 0.01).all()
    assert gap[0] > 5
    assert gap[1] < 3
    assert (high >= 0).all()
    assert (high <= 1).all()
