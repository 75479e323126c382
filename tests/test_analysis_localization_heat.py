import numpy as np
import pytest

from chosen_one_nb.analysis.localization import cohesion_heat, cosegment, phrase_heat, scaled
from chosen_one_nb.analysis.segmentation import NO_PATCHES, NotAvailable, Segmentation

GRID = (2, 3)


def gallery(n=8, seed=0):
    """Random patches; patch 4 of the first four images is the same thing."""
    rng = np.random.default_rng(seed)
    patches = rng.standard_normal((n, 6, 12))
    patches[:4, 4] = rng.standard_normal(12)
    return patches


def test_the_patch_that_a_group_shares_is_hottest():
    heat = cohesion_heat(gallery(), range(4), GRID)
    assert heat.shape == (4, *GRID)
    assert (heat.reshape(4, -1).argmax(axis=1) == 4).all()


def test_what_everybody_has_is_not_what_makes_a_group():
    patches = gallery()
    patches[:, 0] = patches[0, 0]
    heat = cohesion_heat(patches, range(4), GRID).reshape(4, -1)
    assert heat[:, 0] == pytest.approx(0, abs=1e-5)
    assert (heat.argmax(axis=1) == 4).all()


def test_large_galleries_are_sampled_and_whole_galleries_have_no_outside():
    patches = gallery(n=70)
    assert cohesion_heat(patches, range(40), GRID).shape == (40, *GRID)
    assert np.isfinite(cohesion_heat(patches, range(70), GRID)).all()


@pytest.mark.parametrize("members", [[], [2]])
def test_one_image_shares_nothing_with_itself(members):
    assert isinstance(cohesion_heat(gallery(), members, GRID), NotAvailable)


def test_the_patch_that_says_a_phrase_is_hottest():
    texts = np.eye(5)
    patches = np.ones((1, 6, 5)) * [1, 0, 0, 0, 0]
    patches[0, 2] = [0.2, 1, 0, 0, 0]
    heat = phrase_heat(patches, texts, [1], [0, 1, 2], GRID)
    assert heat.shape == (1, *GRID)
    assert heat[0].argmax() == 2


def test_without_patches_heat_and_parts_say_so():
    assert phrase_heat(None, np.eye(3), [0], [0, 1], GRID) is NO_PATCHES
    assert cohesion_heat(None, [0, 1], GRID) is NO_PATCHES
    assert cosegment(None, NO_PATCHES, [0, 1]) is NO_PATCHES
    assert cosegment(gallery(), NotAvailable("flat"), [0, 1]).reason == "flat"


def test_scaling_is_one_for_all_and_ignores_outliers():
    heat = np.concatenate([np.linspace(0, 1, 99), [50]]).reshape(4, 5, 5)
    shown = scaled(heat)
    assert (shown.min(), shown.max()) == (0, 1)
    assert shown[1].mean() > shown[0].mean()
    assert (scaled(np.full((2, 3), 7.0)) == 0).all()
    assert scaled(np.zeros((0, 2, 2))).shape == (0, 2, 2)


def foregrounds(n=5, parts=3, side=6):
    """Foregrounds in the middle, of `parts` vertical stripes with a token each; the last image lacks the last part."""
    rng = np.random.default_rng(0)
    tokens = 5 * rng.standard_normal((parts, 16))
    masks = np.zeros((n, side, side), bool)
    masks[:, 1:5, :parts] = True
    truth = np.where(masks, np.arange(side), -1)
    truth[-1][truth[-1] == parts - 1] = 0
    patches = np.where(truth[..., None] >= 0, tokens[np.maximum(truth, 0)], rng.standard_normal(16))
    patches = patches + 0.1 * rng.standard_normal(patches.shape)
    zeros = np.zeros((n, 16), np.float32)
    return patches.reshape(n, -1, 16), Segmentation(masks, masks.astype(float), 0.5, zeros, zeros, 0.9), truth


def test_the_same_part_has_the_same_number_everywhere_and_the_missing_one_is_named():
    patches, found, truth = foregrounds()
    parts = cosegment(patches, found, range(5))
    assert set(np.unique(parts.labels)) == {-1, 0, 1, 2}
    assert ((parts.labels == -1) == (truth == -1)).all()
    for part in range(3):
        assert len(np.unique(parts.labels[truth == part])) == 1
    sizes = [(parts.labels == part).sum() for part in range(3)]
    assert sizes == sorted(sizes, reverse=True)
    lost = int(parts.labels[0][truth[0] == 2][0])
    assert parts.missing == ((), (), (), (), (lost,))


def test_the_number_of_parts_can_be_given_and_never_exceeds_what_is_there():
    patches, found, _ = foregrounds()
    assert cosegment(patches, found, range(5), parts=2).labels.max() == 1
    same = np.ones_like(patches)
    assert cosegment(same, found, range(5)).labels.max() == 0
    assert cosegment(patches, found, [2]).labels.shape == (1, 6, 6)
    assert isinstance(cosegment(patches, found, []), NotAvailable)
