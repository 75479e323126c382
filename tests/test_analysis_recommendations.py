from dataclasses import replace

import numpy as np
import pytest

from chosen_one_nb.analysis.inquiry import leave_out, most_and_least, prefer_least
from chosen_one_nb.analysis.vocabulary import Attribute, AttributeScores

HAT = AttributeScores(
    np.array([[0.9], [0.8], [0.1], [0.2], [0.7], [0.0]]),
    (Attribute("red hat", "accessory", "identity", False, (0,), ("a red hat",)),),
    np.array([True]),
)
ALL = np.ones(3, bool)


def test_most_and_least_never_share_an_image():
    values = np.array([0.1, 0.9, 0.5, 0.7, 0.3, 0.2])
    assert most_and_least(values, range(6)) == ([1, 3, 2], [0, 5, 4])
    assert most_and_least(values, [1, 2, 3, 4]) == ([1, 3], [4, 2])
    assert most_and_least(values, [4]) == ([4], [])
    assert most_and_least(values, values > 0.6) == ([1], [3])


def test_images_that_have_it_are_left_out_with_the_reason():
    made = leave_out(HAT, 0, [0, 1, 2, 3, 5])
    assert (made.images, made.exclude, made.cluster) == ((2, 3, 5), (0, 1), None)
    assert made.reason == 'left out 2 of 5 images for having "red hat"'


def test_enough_images_stay_to_learn_from():
    made = leave_out(HAT, 0, [0, 1, 4], keep_at_least=2)
    assert (made.images, made.exclude) == ((1, 4), (0,))
    assert made.reason == 'left out 1 of 3 images for having "red hat"; 3 have it, but 2 must stay to learn from'


def test_where_none_may_go_nothing_is_left_out():
    made = leave_out(HAT, 0, [0, 1, 4])
    assert (made.images, made.exclude) == ((0, 1, 4), ())
    assert made.reason == '3 of 3 images have "red hat", but 3 must stay to learn from'


def test_what_cannot_be_told_apart_is_no_reason_to_leave_images_out():
    unclear = replace(HAT, separable=np.array([False]))
    made = leave_out(unclear, 0, [0, 1, 2, 3, 5])
    assert (made.images, made.exclude) == ((0, 1, 2, 3, 5), ())
    assert made.reason == 'images with and without "red hat" cannot be told apart: nothing is left out'


def test_a_ranking_of_what_cannot_be_told_apart_counts_nothing():
    made = prefer_least(replace(HAT, separable=np.array([False])), 0, np.array([0, 0, 1, 1, 2, -1]), ALL, instead_of=0)
    assert made.cluster == 1
    assert made.reason.startswith('cluster 1 has "red hat" least surely: a ranking only')
    assert " of " not in made.reason


def test_nothing_to_leave_out_is_said():
    assert leave_out(HAT, 0, [2, 3]).exclude == ()
    assert leave_out(HAT, 0, [2, 3]).reason == 'none of the 2 images has "red hat": nothing to leave out'


def test_the_cluster_that_has_it_least():
    labels = np.array([0, 0, 1, 1, 2, -1])
    made = prefer_least(HAT, 0, labels, ALL, instead_of=0)
    assert (made.cluster, made.images) == (1, (2, 3))
    assert made.reason == 'cluster 1 has "red hat" least: 0 of 2 images; cluster 0: 2 of 2 images'


def test_dropped_clusters_are_not_preferred_and_none_left_is_an_error():
    labels = np.array([0, 0, 1, 1, 2, -1])
    assert prefer_least(HAT, 0, labels, kept=np.array([True, False, True])).cluster == 2
    with pytest.raises(ValueError, match="at least one cluster"):
        prefer_least(HAT, 0, labels, kept=np.zeros(3, bool))
