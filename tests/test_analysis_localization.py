import numpy as np
import pytest

from chosen_one_nb.analysis.localization import held_by, on_foreground, shown_by
from chosen_one_nb.analysis.segmentation import NO_PATCHES, NotAvailable, Segmentation
from chosen_one_nb.analysis.vocabulary import AttributeScores

N = 64


def features(rng, members=(), tightness=0.3):
    """Unit vectors; those of the members are drawn together."""
    vectors = rng.standard_normal((N, 16))
    centre = rng.standard_normal(16)
    members = list(members)
    vectors[members] = centre + tightness * rng.standard_normal((len(members), 16))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def segmentation(foreground, scene):
    return Segmentation(np.zeros((N, 1, 1), bool), np.zeros((N, 1, 1)), 0.0, foreground, scene, 0.9)


@pytest.mark.parametrize(
    ("foreground", "scene", "answer"), [(range(10), (), "foreground"), ((), range(10), "scene"), ((), (), "neither")]
)
def test_what_holds_a_group_together(foreground, scene, answer):
    rng = np.random.default_rng(1)
    verdict = held_by(segmentation(features(rng, foreground), features(rng, scene)), range(10))
    assert verdict.answer == answer
    assert {"foreground": "by its foreground more", "scene": "by its scene at least", "neither": "than by chance"}[
        answer
    ] in verdict.sentence


def test_planted_scenes_and_foregrounds_are_told_apart():
    rng = np.random.default_rng(2)
    right = 0
    for at in range(40):
        tight, loose = features(rng, range(9), 0.8), features(rng, range(9), 2.5)
        pair = (tight, loose) if at % 2 else (loose, tight)
        right += held_by(segmentation(*pair), range(9), seed=at).answer == ("foreground" if at % 2 else "scene")
    assert right >= 38


def test_random_groups_are_seldom_called_tight():
    rng = np.random.default_rng(3)
    answers = [held_by(segmentation(features(rng), features(rng)), range(12)).answer for _ in range(60)]
    assert answers.count("neither") >= 53


def test_z_counts_standard_deviations_of_random_groups():
    rng = np.random.default_rng(4)
    scene = segmentation(features(rng), features(rng))
    z = [held_by(scene, rng.choice(N, 8, replace=False), seed=at).foreground_z for at in range(60)]
    assert abs(np.mean(z)) < 0.4
    assert 0.7 < np.std(z) < 1.3


def test_identical_images_are_held_by_nothing():
    same = np.ones((N, 4), np.float32) / 2
    verdict = held_by(segmentation(same, same), range(5))
    assert (verdict.foreground_z, verdict.scene_z, verdict.answer) == (0, 0, "neither")


@pytest.mark.parametrize("members", [[], [3], range(N)])
def test_groups_that_cannot_be_compared(members):
    rng = np.random.default_rng(5)
    verdict = held_by(segmentation(features(rng), features(rng)), members)
    assert isinstance(verdict, NotAvailable)
    assert "cannot be compared with random groups" in verdict.reason


def test_what_is_not_available_is_handed_on():
    assert held_by(NO_PATCHES, [1, 2]) is NO_PATCHES
    assert np.isnan(on_foreground(np.random.default_rng(0).random((20, 3)), NO_PATCHES)).all()


def test_attributes_are_put_where_the_features_foretell_them():
    rng = np.random.default_rng(6)
    foreground, scene = features(rng), features(rng)
    values = np.column_stack([foreground[:, 0] > 0, scene[:, 1] > 0, rng.random(N) > 0.5, np.ones(N)]).astype(float)
    where = on_foreground(values, segmentation(foreground, scene))
    assert where[0] > 0.2
    assert where[1] < -0.2
    assert abs(where[2]) < 0.1
    assert np.isnan(where[3])


def test_what_the_foreground_alone_still_shows_is_on_the_foreground():
    def seen(*rows):
        return AttributeScores(np.array(rows, float), (), np.array([True, True, True, False]))

    whole = seen([1, 1, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1])
    foreground, scene = (
        seen([1, 0, 0, 1], [0.8, 0, 0, 1], [0, 0.5, 0, 1]),
        seen([0, 1, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0]),
    )
    assert shown_by(whole, foreground, scene) == pytest.approx([0.9, -0.75, np.nan, np.nan], nan_ok=True)


def test_few_images_tell_nothing():
    rng = np.random.default_rng(7)
    few = Segmentation(np.zeros((5, 1, 1), bool), np.zeros((5, 1, 1)), 0.0, features(rng)[:5], features(rng)[:5], 0.9)
    assert np.isnan(on_foreground(rng.random((5, 2)), few)).all()
