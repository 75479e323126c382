"""Step 3: toy arrays that can be checked by eye, and laws that hold for any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.cluster import (
    cluster,
    clusters_from_labels,
    random_group_cohesion,
    selection_frequency,
    silhouettes,
)
from chosen_one_nb.steps.embed import in_space, unit

RAW = Settings(feature_space="raw", min_cluster_size=2, kmeans_restarts=3)
LINE = np.array([[0.0], [0.2], [0.4], [9.0], [9.1], [9.2], [20.0]])  # a loose three, a tight three, one alone
POINTS = arrays(np.float64, st.tuples(st.integers(4, 14), st.integers(1, 4)), elements=st.floats(-50, 50, width=16))
FEW = settings(max_examples=25, deadline=None)


def groups(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == c).tolist()) for c in np.unique(labels)}


def test_a_line_by_eye() -> None:
    found = cluster(LINE, RAW, k=3)
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert found.sizes.tolist() == [3, 3, 1]
    assert found.centroids.ravel() == pytest.approx([0.2, 9.1, 20])
    assert found.cohesion == pytest.approx([0.08 / 3, 0.02 / 3, 0])
    assert found.cohesion_corrected[:2] == pytest.approx([0.04, 0.01])
    assert np.isnan(found.cohesion_corrected[2])
    assert found.distances == pytest.approx([0.2, 0, 0.2, 0.1, 0, 0.1, 0])
    assert found.medoids.tolist() == [1, 4, 6]
    assert found.kept.tolist() == [True, True, False]
    assert found.order.tolist() == [1, 0, 2]
    assert found.proposed == 1
    assert found.members(1).tolist() == [3, 4, 5]
    assert found.k == 3


def test_the_minimum_is_strict() -> None:
    assert cluster(LINE, RAW.replace(min_cluster_size=2), k=3).kept.tolist() == [True, True, False]
    assert cluster(LINE, RAW.replace(min_cluster_size=3), k=3).kept.tolist() == [False, False, False]


def test_nothing_large_enough_is_an_outcome_with_a_reason() -> None:
    found = cluster(LINE, RAW.replace(min_cluster_size=3), k=3)
    assert found.proposed is None
    assert found.reason.startswith("No cluster holds more than 3 images; the largest holds 3.")
    assert found.order.tolist() == [2, 1, 0]


def test_plain_distances_as_cohesion() -> None:
    found = cluster(LINE, RAW.replace(cohesion="distance"), k=3)
    assert found.cohesion == pytest.approx([0.4 / 3, 0.2 / 3, 0])
    assert found.cohesion_corrected[0] == pytest.approx(0.4 / 3 * np.sqrt(3 / 2))


@pytest.mark.parametrize(("n", "size", "k"), [(64, 8, 8), (15, 8, 1), (5, 8, 1), (16, 5, 3)])
def test_k_is_n_over_the_target_size_and_at_least_one(n: int, size: int, k: int) -> None:
    points = np.random.default_rng(0).normal(size=(n, 3))
    assert cluster(points, RAW.replace(target_cluster_size=size)).k == k


def test_never_more_clusters_than_distinct_images() -> None:
    found = cluster(np.repeat(LINE[:2], 5, axis=0), RAW, k=4)
    assert found.sizes.tolist() == [5, 5]


def test_ties_go_to_the_larger_then_the_earlier_cluster() -> None:
    points = np.array([[50.0], [50.0], [50.0], [0.0], [0.0], [0.0], [0.0], [9.0], [9.0], [9.0]])
    assert cluster(points, RAW, k=3).order.tolist() == [1, 0, 2]


def test_unit_space_groups_by_direction() -> None:
    points = np.array([[1.0, 0.0], [100.0, 1.0], [0.0, 1.0], [1.0, 100.0]])
    assert cluster(points, Settings(min_cluster_size=1), k=2).labels.tolist() == [0, 0, 1, 1]


@FEW
@given(POINTS, st.integers(1, 3), st.randoms(use_true_random=False))
def test_shuffling_the_gallery_gives_the_same_groups(points: np.ndarray, k: int, random: object) -> None:
    order = np.array(random.sample(range(len(points)), len(points)))
    plain, shuffled = cluster(points, RAW, k=k), cluster(points[order], RAW, k=k)
    assert groups(plain.labels) == {frozenset(order[list(group)].tolist()) for group in groups(shuffled.labels)}


@FEW
@given(POINTS, st.integers(1, 3))
def test_cohesion_is_the_mean_squared_distance_to_the_mean(points: np.ndarray, k: int) -> None:
    found = cluster(points, RAW, k=k)
    for c in range(found.k):
        members = points[found.members(c)]
        centre = sum(members) / len(members)
        expected = sum(sum((a - b) ** 2 for a, b in zip(m, centre, strict=True)) for m in members) / len(members)
        assert found.cohesion[c] == pytest.approx(expected, abs=1e-6)


@FEW
@given(POINTS, st.floats(0.5, 4))
def test_raw_cohesion_scales_with_the_square(points: np.ndarray, factor: float) -> None:
    labels = np.arange(len(points)) % 2
    plain, scaled = (clusters_from_labels(p, labels, RAW) for p in (points, points * factor))
    np.testing.assert_allclose(scaled.cohesion, plain.cohesion * factor**2, rtol=1e-6, atol=1e-6)


@FEW
@given(POINTS)
def test_sizes_add_up_and_the_order_holds_every_cluster(points: np.ndarray) -> None:
    found = cluster(points, RAW, k=2)
    assert found.sizes.sum() == len(points)
    assert sorted(found.order.tolist()) == list(range(found.k))
    assert all(found.labels[found.medoids] == np.arange(found.k))


def test_the_correction_removes_the_small_clusters_advantage() -> None:
    """Groups of any size from one distribution are equally cohesive, once corrected."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), [4, 40])
    draws = [clusters_from_labels(rng.normal(size=(44, 2)), labels, RAW) for _ in range(400)]
    plain = np.mean([found.cohesion for found in draws], axis=0)
    corrected = np.mean([found.cohesion_corrected for found in draws], axis=0)
    assert plain[0] == pytest.approx(0.75 * 2, rel=0.1)
    assert corrected == pytest.approx([2, 2], rel=0.1)


def test_merged_by_hand() -> None:
    merged = clusters_from_labels(LINE, np.array([7, 7, 7, 7, 7, 7, 1]), RAW)
    assert merged.sizes.tolist() == [6, 1]
    assert merged.labels.tolist() == [0, 0, 0, 0, 0, 0, 1]
    with pytest.raises(ValueError, match="labels: expected one for each of 7 images"):
        clusters_from_labels(LINE, np.zeros(3), RAW)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((0, 3)), "expected a finite array"),
        (np.zeros(3), "expected a finite array"),
        (np.array([[np.nan]]), "1 NaN or infinite"),
    ],
)
def test_bad_features(features: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster(features, RAW)


@pytest.mark.parametrize("k", [0, 8])
def test_bad_k(k: int) -> None:
    with pytest.raises(ValueError, match=f"k: expected between 1 and the 7 images, got {k}"):
        cluster(LINE, RAW, k=k)


def blobs(spreads: list[float], n: int = 10) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(20 * i, spread, size=(n, 3)) for i, spread in enumerate(spreads)])


def test_selection_frequency_of_a_clear_and_of_an_open_contest() -> None:
    clear, even = blobs([0.1, 2, 2]), blobs([1, 1, 1])
    assert selection_frequency(clear, RAW, clusters=cluster(clear, RAW, k=3), resamples=20).tolist() == [1, 0, 0]
    tied = selection_frequency(even, RAW, clusters=cluster(even, RAW, k=3), resamples=40)
    assert tied.max() < 1
    assert tied.sum() == pytest.approx(1)


def test_nothing_is_selected_where_nothing_is_large_enough() -> None:
    clusters = cluster(LINE, RAW, k=3)
    assert not selection_frequency(LINE, RAW.replace(min_cluster_size=6), clusters=clusters, resamples=5).any()


def test_selection_frequency_repeats() -> None:
    points = blobs([1, 1, 1])
    first, second = (selection_frequency(points, RAW, resamples=10, seed=3) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_a_true_cluster_beats_random_groups() -> None:
    points = blobs([0.5, 0.5])
    null = random_group_cohesion(points, 10, RAW, draws=50)
    assert null.shape == (50,)
    assert cluster(points, RAW, k=2).cohesion.max() < null.min()


def test_silhouettes() -> None:
    found = silhouettes(LINE, np.array([0, 0, 0, 1, 1, 1, 1]), RAW)
    assert found[0] > 0.9
    assert found[6] < found[5]
    assert np.isnan(silhouettes(LINE, np.zeros(7), RAW)).all()


def test_spaces() -> None:
    assert in_space(np.array([[3, 4]]), Settings()).tolist() == [[0.6, 0.8]]
    assert in_space(np.array([[3, 4]]), RAW).tolist() == [[3, 4]]
    assert unit(np.zeros((1, 2))).tolist() == [[0, 0]]
