import numpy as np
import pytest

from chosen_one_nb.analysis.segmentation import NO_PATCHES, NotAvailable, cut_out, resize, segment

GRID = (8, 8)


def toy_patches(n=12, seed=0, sign=1.0, noise=0.3):
    """Images whose foreground is a square of 16 patches somewhere; tokens of foreground and scene differ."""
    rng = np.random.default_rng(seed)
    direction = sign * rng.standard_normal(24)
    masks = np.zeros((n, *GRID), bool)
    for mask in masks:
        top, left = rng.integers(1, 4, size=2)
        mask[top : top + 4, left : left + 4] = True
    tokens = np.where(masks.reshape(n, -1, 1), direction, -direction) + noise * rng.standard_normal((n, 64, 24))
    return tokens.astype(np.float16), masks


@pytest.mark.parametrize("method", ["border", "pca"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_foreground_is_found_whichever_way_its_tokens_point(sign, method):
    patches, masks = toy_patches(sign=sign)
    found = segment(patches, GRID, method=method)
    assert (found.masks == masks).all()
    assert found.separation > 0.9
    assert found.foreground.shape == found.scene.shape == (12, 24)
    assert np.linalg.norm(found.foreground, axis=1) == pytest.approx(1, abs=1e-3)


def test_foreground_and_scene_features_are_means_under_the_mask():
    patches, masks = toy_patches(noise=0.0)
    found = segment(patches, GRID)
    expected = patches[0][masks[0].ravel()].astype(float).mean(axis=0)
    assert found.foreground[0] == pytest.approx(expected / np.linalg.norm(expected), abs=1e-3)
    assert found.scene[0] == pytest.approx(-found.foreground[0], abs=1e-3)


def test_a_threshold_of_zero_cuts_at_the_mean():
    patches, masks = toy_patches()
    found = segment(patches, GRID, threshold=0)
    assert found.threshold == 0
    assert (found.masks == masks).all()


def test_every_image_keeps_a_foreground_and_a_scene():
    patches, _ = toy_patches()
    patches[0] = patches[1, 0]  # one image is all of one patch
    patches[1] = 0
    found = segment(patches, GRID)
    counts = found.masks.sum(axis=(1, 2))
    assert (counts >= 1).all()
    assert (counts <= 63).all()
    assert np.isfinite(found.foreground).all()


@pytest.mark.parametrize(("where", "strength"), [("scene", 2), ("image", 4)])
def test_tints_do_not_mislead(where, strength):
    patches, masks = toy_patches(n=40, noise=0.1)
    tint = np.random.default_rng(5).standard_normal((40, 1, 24)) * strength  # each image has one of its own
    found = segment(patches + tint * (where == "image" or ~masks.reshape(40, -1, 1)), GRID)
    assert (found.masks == masks).mean() > 0.97


def test_a_foreground_cut_off_by_the_rim_is_still_found():
    rng = np.random.default_rng(6)
    bust = np.zeros(GRID, bool)
    bust[3:, 2:6] = True
    tokens = np.where(bust.reshape(-1, 1), *rng.standard_normal((2, 24))) + 0.1 * rng.standard_normal((9, 64, 24))
    assert (segment(tokens, GRID).masks == bust).mean() > 0.97


def test_foreground_and_scene_are_cut_out_and_seen_alone():
    patches, _ = toy_patches(n=3)
    found = segment(patches, GRID)
    images = [np.full((32, 32, 3), 10 * at, np.uint8) for at in range(3)]
    foregrounds, scenes = cut_out(images, found)
    large = found.at((32, 32))
    assert (foregrounds[2][large[2]] == 20).all()
    assert (foregrounds[2][~large[2]] == 128).all()
    assert (scenes[2] + foregrounds[2] == 148).all()
    masks = found.masks.reshape(3, -1, 1)
    alone = found.with_features(np.where(masks, [0.0, 2.0], [9.0, 9.0]), np.where(masks, [9.0, 9.0], [3.0, 0.0]))
    assert alone.foreground == pytest.approx(np.array([[0, 1]] * 3)), "the grey around a foreground does not count"
    assert alone.scene == pytest.approx(np.array([[1, 0]] * 3))
    assert (alone.masks == found.masks).all()
    with pytest.raises(ValueError, match="expected 3 images, got 2"):
        cut_out(images[:2], found)
    with pytest.raises(ValueError, match=r"patch tokens of 3 scenes, shape \(3, 64, D\), got \(2, 64, 5\)"):
        found.with_features(np.ones((3, 64, 5)), np.ones((2, 64, 5)))
    with pytest.raises(ValueError, match=r"patch tokens of 3 foregrounds, .* got None"):
        found.with_features(None, np.ones((3, 64, 5)))


def test_masks_come_at_any_size():
    patches, masks = toy_patches()
    large = segment(patches, GRID).at((32, 32))
    assert large.dtype == bool
    true = np.kron(masks, np.ones((4, 4))) > 0
    assert (large & true).sum() / (large | true).sum() > 0.8


def test_without_patches_it_says_so():
    assert segment(None, GRID) is NO_PATCHES
    assert not NO_PATCHES
    assert "no patch tokens" in NO_PATCHES.reason


@pytest.mark.parametrize(
    ("patches", "grid", "reason"),
    [
        (np.ones((3, 16, 5)), (4, 4), "All patches of all images are the same"),
        (np.ones((3, 4, 5)), (2, 2), "2 x 2 patches in an image are too few"),
        (np.ones((3, 4, 5)), (1, 4), "1 x 4 patches in an image are too few"),
    ],
)
def test_what_cannot_be_split_is_not_available(patches, grid, reason):
    found = segment(patches, grid)
    assert isinstance(found, NotAvailable)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("patches", "message"),
    [
        (np.ones((3, 5, 4)), r"expected patches of shape \(N, 8 \* 8, D\), got \(3, 5, 4\)"),
        (np.ones((0, 64, 4)), "expected patches of shape"),
        (np.full((1, 64, 4), np.inf), "finite patches"),
    ],
)
def test_wrong_patches_are_refused(patches, message):
    with pytest.raises(ValueError, match=message):
        segment(patches, GRID)


@pytest.mark.parametrize("grid", [(3, 3), (3, 8), (16, 16), (4, 9)])
@pytest.mark.parametrize("method", ["border", "pca"])
def test_all_grids_work(grid, method):
    patches = np.random.default_rng(0).standard_normal((5, grid[0] * grid[1], 6))
    assert segment(patches, grid, method=method).masks.shape == (5, *grid)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'border' or 'pca', got 'sam'"):
        segment(np.zeros((1, 9, 2)), (3, 3), method="sam")


def test_full_size_tokens_fit_in_memory_and_time():
    patches = np.random.default_rng(0).standard_normal((16, 256, 1024), dtype=np.float32).astype(np.float16)
    assert segment(patches, (16, 16)).foreground.shape == (16, 1024)


def test_resizing_keeps_constants_means_and_corners():
    maps = np.array([[[0.0, 1.0], [2.0, 3.0]]])
    large = resize(maps, (4, 6))
    assert large.shape == (1, 4, 6)
    assert large.mean() == pytest.approx(maps.mean())
    assert (large[0, 0, 0], large[0, -1, -1]) == (0, 3)
    assert resize(np.ones((2, 3, 3)), (5, 1)) == pytest.approx(np.ones((2, 5, 1)))
    assert resize(maps, (2, 2)) == pytest.approx(maps)


def test_where_images_are_unclear_the_others_say_where_foregrounds_stand():
    """Forty foregrounds in one place, each hardly to be told from its scene: together they show where they stand."""
    rng = np.random.default_rng(1)
    mask = np.zeros(GRID, bool)
    mask[2:7, 2:6] = True
    direction = 0.5 * rng.standard_normal(24)
    tokens = np.where(mask.reshape(1, -1, 1), direction, -direction) + rng.standard_normal((40, 64, 24))
    each = np.stack([segment(image[None], GRID).masks[0] for image in tokens])  # alone
    together = segment(tokens, GRID)
    assert (together.masks == mask).mean() > (each == mask).mean() + 0.05
    assert (together.masks == mask).mean() > 0.85


def test_a_clear_foreground_that_stands_elsewhere_is_not_overruled():
    patches, masks = toy_patches(n=30)
    masks[0] = False
    masks[0, 4:8, 0:4] = True  # on the rim, at the left and below, where no other foreground is
    direction = patches[1][masks[1].ravel()].mean(axis=0)
    patches[0] = np.where(masks[0].reshape(-1, 1), direction, -direction)
    assert (segment(patches, GRID).masks[0] == masks[0]).all()
