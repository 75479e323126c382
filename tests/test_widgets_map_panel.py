"""The map: what is pointed at, selected and coloured, other iterations, UMAP in the background."""

import threading
import time

import numpy as np
from helpers.figures import click, hover

from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.figures import LEFT_OUT

pytest_plugins = ["helpers.explorers"]


def test_the_image_shown_is_the_one_under_the_pointer(explorer):
    hover(explorer.map.figure, 7)
    assert explorer.map.preview.index == explorer.gallery.view.hovered == 7
    cluster, far = explorer.node.clusters.labels[7], explorer.node.clusters.distances[7]
    facts = ["id 0/007", f"seed {explorer.node.seeds[7]}", f"cluster {cluster}", f"{far:.2f} from its centroid"]
    assert explorer.map.preview.lines == ["Image 7", *facts]
    assert explorer.run.tables.gallery()["image_id"][7] == "0/007"
    assert explorer.map.preview.thumbnails == explorer.gallery.view.thumbnails


def test_what_is_pointed_at_stays_so_when_the_clusters_change(explorer):
    hover(explorer.map.figure, 7)
    actions.recluster(explorer.session, 2)
    ring, points = explorer.map.figure.rings, explorer.map.figure.points
    assert ring["x"][0] == points["x"][7]
    assert explorer.map.preview.lines[3] == f"cluster {explorer.node.clusters.labels[7]}"


def test_the_lines_lead_to_the_true_neighbours(explorer):
    features = explorer.node.embedding.features
    hover(explorer.map.figure, 4)
    nearest = np.argsort(np.linalg.norm(features - features[4], axis=1))[1:6]
    assert [near["index"] for near in explorer.map.preview.neighbours] == list(nearest)


def test_a_hover_answers_fast(explorer):
    hover(explorer.map.figure, 0)
    times = []
    for index in range(1, 11):
        begun = time.perf_counter()
        hover(explorer.map.figure, index)
        times.append(time.perf_counter() - begun)
    assert np.median(times) < 0.05


def test_click_on_a_point_scrolls_the_gallery(explorer):
    explorer.show_tab("Compare")
    click(explorer.map.figure, 11)
    assert explorer.gallery.view.focused == 11
    assert explorer.tabs.titles[explorer.tabs.selected_index] == "Gallery"


def test_pointing_in_the_gallery_rings_the_point(explorer):
    explorer.gallery.view.hovered = 5
    ring, points = explorer.map.figure.rings, explorer.map.figure.points
    assert ring["x"][0] == points["x"][5]


def test_hovering_a_card_rings_its_points(explorer):
    explorer.clusters.view.hovered = 2
    assert len(explorer.map.figure.rings["x"]) == explorer.node.clusters.sizes[2]
    explorer.clusters.view.hovered = -1
    assert len(explorer.map.figure.rings["x"]) == 0


def test_colour_by_distance_and_back(explorer):
    explorer.map.colour.value = "distance"
    marker = explorer.map.figure.points["marker"]
    np.testing.assert_allclose(marker["color"], explorer.node.clusters.distances)
    assert marker["showscale"]
    explorer.map.colour.value = "cluster"
    assert isinstance(explorer.map.figure.points["marker"]["color"][0], str)


def test_colour_by_kept_and_left_out(explorer):
    actions.choose(explorer.session)
    out = explorer.node.decision.images[0]
    actions.leave_out(explorer.session, [out])
    explorer.map.colour.value = "kept"
    colours = explorer.map.figure.points["marker"]["color"]
    assert colours[out] == LEFT_OUT
    assert [i for i, colour in enumerate(colours) if colour == LEFT_OUT] == [out]
    assert "orange: left out" in explorer.map.trust.value


def test_points_may_glide_to_their_new_places(second):
    figure = second.map.figure
    assert "transition" not in figure.chart
    second.map.glide.value = True
    second.session.show_node("0")
    assert 0 < figure.chart["transition"]["duration"] < 1000
    assert figure.points["x"] == second.map.layout_now().projection.of("0")[:, 0].tolist()
    second.map.glide.value = False
    assert figure.chart["transition"]["duration"] == 0


def test_images_on_the_points(explorer):
    explorer.map.thumbs.value = True
    assert len(explorer.map.figure.chart["images"]) > 0
    explorer.map.thumbs.value = False
    assert len(explorer.map.figure.chart["images"]) == 0


def test_the_signs_on_the_map_are_explained(explorer):
    assert "numbered at its middle" in explorer.map.trust.value
    assert "left out" not in explorer.map.trust.value
    actions.choose(explorer.session)
    actions.leave_out(explorer.session, [explorer.node.decision.images[0]])
    assert "large: chosen · × left out" in explorer.map.trust.value


def test_iterations_share_one_map(second):
    second.session.show_node("0")
    first = np.array(second.map.figure.points["x"])
    assert second.map.layout_now().galleries == ("0", "1")
    second.tree.act({"do": "select", "node": "1"})
    assert second.run.current.id == second.node.id == "1"
    np.testing.assert_allclose(
        second.map.layout_now().projection.of("0")[:, 0], first
    )  # a position means the same at each step
    assert len(second.map.layout_now().galleries) == 2
    assert not np.array_equal(first, second.map.figure.points["x"])


def test_pca_stands_in_while_umap_is_fitted(explorer, monkeypatch):
    from chosen_one_nb.analysis import projection as maps

    go, real = threading.Event(), maps.project

    def slow(galleries, *, method, **options):
        if method == "umap":
            assert go.wait(10)
        return real(galleries, method="pca", **options)

    monkeypatch.setattr(maps, "project", slow)
    explorer.map.method.value = "umap"
    assert "PCA for now" in explorer.map.trust.value
    go.set()
    explorer.settle(10)
    assert "PCA for now" not in explorer.map.trust.value
    assert "trustworthiness" in explorer.map.trust.value


def test_no_umap_is_said_not_hidden(explorer, monkeypatch):
    from chosen_one_nb.analysis import projection as maps

    real = maps.project

    def broken(galleries, *, method, **options):
        if method == "umap":
            raise ImportError("umap-learn is not installed")
        return real(galleries, method=method, **options)

    monkeypatch.setattr(maps, "project", broken)
    explorer.map.method.value = "umap"
    explorer.settle(10)
    assert "umap-learn is not installed" in explorer.map.trust.value


def test_other_maps_on_request(explorer, monkeypatch):
    from chosen_one_nb.analysis import projection as maps

    one = maps.project({"": explorer.node.embedding.features}, method="pca", quality=False)
    monkeypatch.setattr(maps, "sensitivity", lambda features: [one] * 4)
    explorer.map.vary.click()
    explorer.settle(10)
    assert explorer.map.variants.value.count("<figure>") == 4
    explorer.map.vary.click()
    assert explorer.map.variants.value == ""
