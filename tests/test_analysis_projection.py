import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import chosen_one_nb.analysis
from chosen_one_nb.analysis.projection import SMALLEST, Projection, project, quality_table, sensitivity

CENTRES = 4 * np.random.default_rng(0).standard_normal((4, 16))


def gallery(seed, n=32):
    rng = np.random.default_rng(seed)
    return CENTRES[np.arange(n) % 4] + rng.standard_normal((n, 16))


def separation(positions):
    """Mean distance between the four groups over mean distance within them."""
    groups = [positions[at::4] for at in range(4)]
    within = np.mean([np.linalg.norm(group - group.mean(axis=0), axis=1).mean() for group in groups])
    centres = np.array([group.mean(axis=0) for group in groups])
    return np.linalg.norm(centres[:, None] - centres, axis=-1).mean() / within


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_a_map_shows_groups_that_are_there(method):
    made = project({"0": gallery(1)}, method=method)
    assert made.positions.shape == (32, 2)
    assert made.method == method
    assert made.owners[5] == ("0", 5)
    assert separation(made.positions) > 2
    assert made.quality.k.tolist() == [5, 15]
    assert made.quality[["trustworthiness", "pca_continuity"]].notna().all().all()


def test_the_first_map_leaves_torch_the_threads_it_was_given():
    """In a process of its own: what numba does, it does at its first use."""
    code = (
        "import numpy as np, torch\n"
        "from chosen_one_nb.analysis.projection import project\n"
        "torch.set_num_threads(1)\n"
        "assert torch.get_num_threads() == 1  # asked once before: torch settles its number when first asked\n"
        "project({'0': np.random.default_rng(0).standard_normal((20, 4))})\n"
        "print(torch.get_num_threads())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_the_same_seed_gives_the_same_map(method):
    one, other = (project({"0": gallery(1)}, method=method, seed=3).positions for _ in range(2))
    assert (one == other).all()


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_galleries_share_one_map_and_old_points_stay_about_where_they_were(method):
    first = project({"0": gallery(1)}, method=method)
    both = project({"0": gallery(1), "1b": gallery(2, 24)}, method=method, previous=first)
    assert both.of("0").shape == (32, 2)
    assert both.of("1b").shape == (24, 2)
    moved = np.linalg.norm(both.of("0") - first.positions, axis=1)
    spread = np.linalg.norm(first.positions - first.positions.mean(axis=0), axis=1)
    assert np.median(moved) < 0.5 * np.median(spread)
    near = np.linalg.norm(both.of("1b")[0] - both.of("0")[::4].mean(axis=0))
    far = np.linalg.norm(both.of("1b")[0] - both.of("0")[1::4].mean(axis=0))
    assert near < far


@pytest.mark.parametrize("scale", [1, 3])
def test_a_turned_mirrored_and_shifted_projection_is_brought_back(scale):
    """PCA of the same features; a previous one that was scaled too stays larger, for distances are not to change."""
    alone = project({"0": gallery(1)}, method="pca")
    turned = scale * alone.positions @ np.array([[0.6, 0.8], [0.8, -0.6]]) + [5, -3]
    again = project({"0": gallery(1)}, method="pca", previous=replace(alone, positions=turned)).positions
    assert again - again.mean(axis=0) == pytest.approx((turned - turned.mean(axis=0)) / scale)
    assert again.mean(axis=0) == pytest.approx(turned.mean(axis=0))


def test_umap_is_scaled_onto_what_was_there():
    first = project({"0": gallery(1)})
    large = replace(first, positions=100 * first.positions)
    width, before = (
        np.ptp(made.positions, axis=0).max() for made in (project({"0": gallery(1)}, previous=large), large)
    )
    assert width > 0.5 * before


@pytest.mark.parametrize("n", range(1, SMALLEST))
def test_few_images_are_mapped_by_pca(n):
    made = project({"0": gallery(1, n)})
    assert made.method == "pca"
    assert made.positions.shape == (n, 2)
    assert np.isfinite(made.positions).all()
    assert "too few for UMAP" in made.note or n == 1


@pytest.mark.parametrize("n", [SMALLEST, 6, 16])
def test_umap_takes_as_many_neighbours_as_there_are(n):
    made = project({"0": gallery(1, n)})
    assert made.method == "umap"
    assert np.isfinite(made.positions).all()


def test_identical_images_lie_on_one_point():
    made = project({"0": np.full((9, 4), 0.3)})
    assert (made.positions == 0).all()
    assert "same features" in made.note
    assert made.quality.empty
    again = project({"0": np.full((9, 4), 0.3), "1": gallery(1)[:, :4]}, previous=made)
    assert np.isfinite(again.positions).all()


def test_images_on_a_line_are_mapped():
    line = np.outer(np.arange(12.0), np.ones(4))
    for method in ("pca", "umap"):
        assert np.isfinite(project({"0": line}, method=method).positions).all()


def test_copies_of_a_image_do_no_harm():
    assert np.isfinite(project({"0": np.repeat(gallery(1, 4), 8, axis=0)}).positions).all()


def test_a_map_from_before_with_nothing_in_common_is_no_help_and_no_harm():
    before = project({"9": gallery(9)}, method="pca")
    made, alone = (project({"0": gallery(1)}, method="pca", previous=old).positions for old in (before, None))
    assert (made == alone).all()


def test_nothing_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        project({"0": gallery(1, 12)})


def test_the_row_of_maps_is_turned_onto_the_first():
    maps = sensitivity(gallery(1, 24), seeds=(0, 1), n_neighbors=(5, 50))
    assert [(made.n_neighbors, made.seed) for made in maps] == [(5, 0), (5, 1), (50, 0), (50, 1)]
    assert all(isinstance(made, Projection) for made in maps)
    middle = maps[0].positions.mean(axis=0)
    assert all(made.positions.mean(axis=0) == pytest.approx(middle, abs=1e-3) for made in maps)


@pytest.mark.parametrize(
    ("galleries", "message"),
    [
        ({}, "all of one width"),
        ({"0": np.ones((0, 4))}, "at least one image"),
        ({"0": np.ones((2, 4)), "1": np.ones((2, 5))}, "all of one width"),
        ({"0": np.array([[np.nan, 1.0]])}, "NaN or infinity"),
    ],
)
def test_galleries_that_do_not_fit_are_refused(galleries, message):
    with pytest.raises(ValueError, match=message):
        project(galleries)


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="'umap' or 'pca', got 'tsne'"):
        project({"0": gallery(1)}, method="tsne")


def test_importing_what_looks_loads_neither_torch_nor_umap():
    names = [path.stem for path in Path(chosen_one_nb.analysis.__file__).parent.glob("*.py")]
    code = (
        f"import sys; [__import__('chosen_one_nb.analysis.' + name) for name in {names}]; "
        "print([name for name in ('torch', 'umap', 'plotly', 'ipywidgets') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_filter_of_warnings_set_meanwhile_stays(monkeypatch):
    """The first map is made in the background, while a person's cell imports libraries that silence themselves."""
    import umap

    class Slow(umap.UMAP):
        def fit_transform(self, points):
            warnings.filterwarnings("ignore", message="set while the map was made")
            return super().fit_transform(points)

    monkeypatch.setattr(umap, "UMAP", Slow)
    with warnings.catch_warnings():
        project({"gallery": np.random.default_rng(0).standard_normal((12, 4))}, method="umap")
        assert any(found[1] and found[1].pattern == "set while the map was made" for found in warnings.filters)


# --- quality

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
