import numpy as np
import pytest

from chosen_one_nb.analysis.projection_quality import nearest_neighbours, quality_table, reliability, unreliable

RNG = np.random.default_rng(0)
FLAT = RNG.standard_normal((40, 2))  # features that a map can show without loss


def test_a_map_without_loss_has_full_trust():
    table = quality_table(FLAT, 3 * FLAT, FLAT[:, :1] @ np.ones((1, 2)))
    assert table.k.tolist() == [5, 15]
    assert table.trustworthiness.tolist() == table.continuity.tolist() == [1, 1]
    assert (table.pca_trustworthiness < 1).all()


def test_a_shuffled_map_has_little():
    assert (quality_table(FLAT, RNG.permutation(FLAT)).trustworthiness < 0.7).all()
    assert quality_table(FLAT, FLAT).pca_continuity.isna().all()


@pytest.mark.parametrize(("n", "ks"), [(0, []), (1, []), (3, []), (4, [1]), (8, [3]), (12, [5]), (31, [5, 15])])
def test_neighbourhoods_fit_the_number_of_points(n, ks):
    points = RNG.standard_normal((n, 2))
    assert quality_table(points, points).k.tolist() == ks


def test_identical_points_have_no_neighbourhoods():
    assert quality_table(np.ones((9, 3)), np.zeros((9, 2))).empty


def test_true_neighbours_are_those_of_the_features():
    line = np.array([[0.0], [1], [3], [6], [10]])
    assert nearest_neighbours(line, 2).tolist() == [[1, 2], [0, 2], [1, 0], [2, 4], [3, 2]]
    assert nearest_neighbours(line, 9).shape == (5, 4)
    assert nearest_neighbours(line[:1]).shape == (1, 0)
    same = nearest_neighbours(np.ones((4, 2)), 3)
    assert all(row not in same[row] for row in range(4))


def test_reliability_is_high_on_a_faithful_map_and_low_for_a_misplaced_point():
    assert reliability(FLAT, FLAT) == pytest.approx(np.ones(40))
    moved = FLAT.copy()
    far = int(np.linalg.norm(FLAT, axis=1).argmax())
    moved[far] = -moved[far]
    assert reliability(FLAT, moved).argmin() == far
    assert np.isnan(reliability(FLAT[:5], FLAT[:5])).all()


def test_dubious_points_are_those_no_better_than_a_random_place():
    assert not unreliable(FLAT, FLAT).any()
    assert unreliable(FLAT, RNG.standard_normal((40, 2))).mean() > 0.8
    assert not unreliable(FLAT[:4], FLAT[:4]).any()
    assert not unreliable(np.ones((9, 2)), np.zeros((9, 2))).any()
