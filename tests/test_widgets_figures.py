import numpy as np
import pytest
from helpers.figures import click, hover, lasso
from PIL import Image

from chosen_one_nb.plots import DROPPED, GREY, PALETTE, colour_of
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.cluster import cluster
from chosen_one_nb.widgets.figures import MapFigure, PlotlyFigure, PointStyle, marker_of, point_style, send_plotly
from chosen_one_nb.widgets.history import CurveFigure, LossFigure


@pytest.fixture
def found():
    """Three groups in a plane: five, four and two images, the last too few to keep."""
    centres = np.repeat([[0, 0], [5, 0], [0, 9]], [5, 4, 2], axis=0)
    features = centres + np.random.default_rng(0).normal(0, 0.2, (11, 2))
    return features, cluster(
        features, Settings.preset("quick", n_images=11, feature_space="raw", min_cluster_size=2), k=3
    )


@pytest.fixture
def figure(found):
    features, clusters = found
    figure = MapFigure()
    figure.show(features, point_style(clusters, 11))
    return figure


def heard(figure):
    """A list that fills with what a figure tells."""
    said = []
    figure.observe(lambda change: said.append(("hover", change["new"])), "hovered")
    figure.on_msg(lambda _figure, content, _buffers: said.append(tuple(content.values())))
    return said


# --- colours and symbols -----------------------------------------------------------------------------------------


def test_every_cluster_has_its_own_pair_of_colour_and_symbol(found):
    _, clusters = found
    markers = [marker_of(clusters, c) for c in range(3)]
    assert len({marker.symbol for marker in markers}) == 3
    assert markers[int(np.argmin(clusters.sizes))].colour == DROPPED


def test_beyond_seven_clusters_colour_gives_way_to_symbol():
    features = np.repeat(np.arange(20) * 10.0, 4)[:, None] + np.tile([0, 0.1, 0.2, 0.3], 20)[:, None]
    clusters = cluster(features, Settings.preset("quick", n_images=80, feature_space="raw", min_cluster_size=2), k=20)
    markers = [marker_of(clusters, c) for c in range(20)]
    assert [marker.colour for marker in markers[:7]] == list(PALETTE)
    assert {marker.colour for marker in markers[7:]} == {GREY}
    assert len({(marker.colour, marker.symbol) for marker in markers[:15]}) == 15


def test_colours_agree_with_the_still_images(found):
    _, clusters = found
    kept = [c for c in range(3) if clusters.kept[c]]
    assert [marker_of(clusters, c).colour for c in kept] == [colour_of(c) for c in kept]


@pytest.mark.parametrize("colour_by", ["cluster", "distance", "order", "kept"])
def test_symbols_stay_with_the_cluster_whatever_the_colour_means(found, colour_by):
    _, clusters = found
    assert point_style(clusters, 11, colour_by).symbol == point_style(clusters, 11).symbol
    assert len(point_style(clusters, 11, colour_by).colour) == 11


def test_unknown_colouring_and_cluster_are_refused(found):
    _, clusters = found
    with pytest.raises(ValueError, match="got 'mood'"):
        point_style(clusters, 11, "mood")
    with pytest.raises(ValueError, match="from 0 to 2, got 9"):
        marker_of(clusters, 9)


# --- the map -----------------------------------------------------------------------------------------------------


def test_point_number_is_image_number(figure, found):
    features, _ = found
    np.testing.assert_allclose(figure.points["x"], features[:, 0])
    np.testing.assert_allclose(figure.points["y"], features[:, 1])


def test_showing_again_sends_one_message_with_what_has_changed(figure, found, monkeypatch):
    features, clusters = found
    sent = []
    monkeypatch.setattr(figure, "send_state", lambda key=None: sent.append(set(key)))
    figure.show(features * 2, point_style(clusters, 11, "distance"))
    assert sent == [{"points", "chart"}]
    figure.show(features * 2, point_style(clusters, 11, "distance"))
    assert sent[1:] == [set()]  # nothing


def test_hover_is_heard_once_per_point(figure):
    said = heard(figure)
    for index in (3, 3, 3, 5):
        hover(figure, index)
    assert said == [("hover", 3), ("hover", 5)]


def test_click_lasso_and_its_end_are_heard(figure):
    said = heard(figure)
    click(figure, 4)
    lasso(figure, [9, 2, 5])
    assert figure.selected == [2, 5, 9]
    lasso(figure, [])
    assert said == [("click", 4), ("select", [2, 5, 9], ""), ("select", [], "")]
    assert figure.selected == []


def test_clicks_and_lassos_travel_as_messages_that_a_busy_kernel_hears_one_by_one(figure):
    """A trait would hold only the last of them: several clicks while a cell runs would be one."""
    assert figure._esm.count("model.send({ do:") == 3  # send plotly, select, click
    said = heard(figure)
    for index in (4, 4, 6):
        click(figure, index)
    assert said == [("click", 4), ("click", 4), ("click", 6)]


def test_only_the_points_of_images_can_be_hovered_and_selected(figure):
    assert figure.active == "points"
    others = [getattr(figure, name) for name in figure.traces if name != "points"]
    assert [trace["hoverinfo"] for trace in others] == ["skip"] * 4


def test_ring_and_lines_to_neighbours(figure, found):
    features, _ = found
    figure.ring([2], neighbours=[0, 1])
    assert (figure.rings["x"][0], figure.rings["y"][0]) == tuple(features[2])
    assert figure.lines["x"][:3] == [features[2, 0], features[0, 0], None]
    figure.ring([])
    assert figure.rings["x"] == figure.lines["x"] == []


def test_dropped_and_left_out_points_look_it(found):
    features, clusters = found
    figure = MapFigure()
    figure.show(features, point_style(clusters, 11, chosen=[0, 1], excluded=[1]))
    marker = figure.points["marker"]
    assert marker["symbol"][10] == "circle-open"
    assert marker["symbol"][1] == "x-thin-open"
    assert marker["size"][0] > marker["size"][5]


def test_thumbnails_do_not_cover_each_other_and_go_away_again(figure):
    images = [Image.new("RGB", (32, 32), "red")] * 11
    shown = figure.show_thumbnails(images, first=[7])
    assert 3 <= shown < 11
    assert figure.chart["images"][0]["source"].startswith("data:image/webp;base64,")
    assert figure.chart["images"][0]["x"] == figure.points["x"][7]
    assert figure.show_thumbnails([]) == 0
    assert figure.chart["images"] == []


def test_both_ends_of_the_ranges_are_padded_and_hold_the_ghosts(found):
    features, clusters = found
    figure = MapFigure()
    figure.show(features, point_style(clusters, 11), ghosts=np.array([[50.0, 50.0]]))
    low, high = figure.chart["xaxis"]["range"]
    assert low < features[:, 0].min()
    assert high > 50


def test_an_empty_map_can_be_shown():
    figure = MapFigure()
    figure.show(np.zeros((0, 2)), PointStyle([], []))
    figure.ring([3])
    assert figure.points["x"] == figure.rings["x"] == []


def test_plotly_travels_once_for_all_figures():
    figures = [MapFigure(), CurveFigure(), LossFigure()]
    assert all(isinstance(figure, PlotlyFigure) and len(figure._esm) < 10_000 for figure in figures)
    send_plotly.cache_clear()
    for figure in figures:
        figure._handle_custom_msg({"do": "send plotly"}, [])
    assert send_plotly.cache_info().misses == 1
    assert len(send_plotly().source) > 1_000_000


# --- curves ------------------------------------------------------------------------------------------------------


def row(node, parent, iteration, distance, state="not yet"):
    return {
        "node": node, "parent": parent, "iteration": iteration, "distance": distance, "ratio": distance,
        "threshold": 0.8, "state": state,
    }  # fmt: skip


ROWS = [row("0", None, 0, 1.0), row("1", "0", 1, 0.9), row("1b", "0", 1, 0.7, "converged")]


def test_the_curve_joins_branches_where_they_left():
    figure = CurveFigure()
    figure.show(ROWS, here="1b", last=3)
    assert figure.edges["x"] == [0, 1, None, 0, 1, None]
    assert figure.nodes["y"] == [1.0, 0.9, 0.7]
    assert figure.nodes["marker"]["symbol"][2] == "star"
    assert figure.limit["y"] == [0.8, 0.8]
    assert figure.ring["y"] == [0.7]
    assert "1b: 0.700, 70% of the first, converged. d_conv is 0.800." in figure.alt


def test_a_click_on_the_curve_names_the_iteration():
    figure = CurveFigure()
    figure.show(ROWS, here="0", last=3)
    said = heard(figure)
    click(figure, 2)
    assert said == [("click", 2)]
    assert figure.ids[2] == "1b"


def test_names_of_close_points_stand_apart_and_shared_galleries_have_one():
    figure = CurveFigure()
    figure.show([ROWS[0], {**ROWS[0], "node": "0b"}, ROWS[1], row("1b", "0", 1, 0.85)], here="0", last=3)
    assert figure.nodes["text"] == [" 0, 0b", "", " 1", " 1b"]
    assert figure.nodes["textposition"][2:] == ["top right", "bottom right"]


def test_an_empty_curve_can_be_shown():
    figure = CurveFigure()
    figure.show([], here="0", last=3)
    assert figure.limit["x"] == figure.nodes["x"] == []


def test_the_loss_is_drawn_raw_and_smoothed():
    figure = LossFigure()
    figure.show([{"step": 1, "loss": 0.5, "ema_loss": 0.5}, {"step": 2, "loss": 0.3}])
    assert figure.raw["y"] == [0.5, 0.3]
    assert figure.smoothed["y"] == [0.5, 0.3]
    assert figure.alt == "Smoothed loss over 2 refinement steps, from 0.500 to 0.300."
