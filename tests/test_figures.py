import numpy as np
import pytest
from PIL import Image

from chosen_one_nb import plots as charts
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.cluster import cluster
from chosen_one_nb.widgets.cluster_style import DROPPED, GREY, HUES, marker_of, marks, plain_marks
from chosen_one_nb.widgets.curves import CurveFigure, LossFigure
from chosen_one_nb.widgets.figures import LINES, NUMBERS, POINTS, RINGS, MapFigure
from chosen_one_nb.widgets.live_figure import LiveFigure, plotly_bundle, show_figures


def fire(figure, kind, indices, trace=POINTS):
    """Do what the figure does in the browser: tell of an event as Plotly describes it (xs and ys must be there)."""
    points = {
        "trace_indexes": [trace] * len(indices),
        "point_indexes": list(indices),
        "xs": [0.0] * len(indices),
        "ys": [0.0] * len(indices),
    }
    selector = {"type": "lasso", "selector_state": {"xs": [], "ys": []}} if kind == "plotly_selected" else None
    event = {"event_type": kind, "points": points, "device_state": None, "selector": selector}
    if kind.endswith("hover"):
        figure._js2py_pointsCallback = event
    else:
        figure._handle_custom_msg({"points": event}, [])


@pytest.fixture
def found():
    """Three groups in a plane: five, four and two images, the last too few to keep."""
    centres = np.repeat([[0, 0], [5, 0], [0, 9]], [5, 4, 2], axis=0)
    features = centres + np.random.default_rng(0).normal(0, 0.2, (11, 2))
    return features, cluster(
        features, Settings.preset("quick", n_images=11, feature_space="raw", min_cluster_size=2), k=3
    )


@pytest.fixture
def map_figure(found):
    features, clusters = found
    figure = MapFigure()
    figure.show(features, marks(clusters), [f"image {i}" for i in range(11)])
    return figure


# --- signs -------------------------------------------------------------------------------------------------------


def test_every_cluster_has_its_own_pair_of_colour_and_symbol(found):
    _, clusters = found
    signs = [marker_of(clusters, c) for c in range(3)]
    assert len({sign.symbol for sign in signs}) == 3
    assert signs[int(np.argmin(clusters.sizes))].colour == DROPPED


def test_beyond_seven_clusters_colour_gives_way_to_sign():
    features = np.repeat(np.arange(20) * 10.0, 4)[:, None] + np.tile([0, 0.1, 0.2, 0.3], 20)[:, None]
    clusters = cluster(features, Settings.preset("quick", n_images=80, feature_space="raw", min_cluster_size=2), k=20)
    signs = [marker_of(clusters, c) for c in range(20)]
    assert [sign.colour for sign in signs[:7]] == list(HUES)
    assert {sign.colour for sign in signs[7:]} == {GREY}
    assert len({(sign.colour, sign.symbol) for sign in signs[:15]}) == 15


def test_colours_agree_with_the_still_images(found):
    _, clusters = found
    kept = [c for c in range(3) if clusters.kept[c]]
    assert [marker_of(clusters, c).colour for c in kept] == [charts.colour_of(c) for c in kept]


@pytest.mark.parametrize("colour_by", ["cluster", "distance", "order", "kept"])
def test_symbols_stay_with_the_cluster_whatever_the_colour_means(found, colour_by):
    _, clusters = found
    assert marks(clusters, colour_by).symbol == marks(clusters, "cluster").symbol
    assert len(marks(clusters, colour_by).colour) == 11


def test_unknown_colouring_and_cluster_are_refused(found):
    _, clusters = found
    with pytest.raises(ValueError, match="got 'mood'"):
        marks(clusters, "mood")
    with pytest.raises(ValueError, match="from 0 to 2, got 9"):
        marker_of(clusters, 9)


# --- the map -----------------------------------------------------------------------------------------------------


def test_point_number_is_image_number(map_figure, found):
    features, _ = found
    trace = map_figure.widget.data[POINTS]
    np.testing.assert_allclose(trace.x, features[:, 0])
    assert trace.text[7] == "image 7"


def test_showing_again_keeps_the_figure_and_its_traces(map_figure, found):
    features, clusters = found
    before = [map_figure.widget, *map_figure.widget.data]
    map_figure.show(features + 1, marks(clusters, "distance"), ["x"] * 11)
    map_figure.show(features[:4], plain_marks(4), ["x"] * 4)
    assert all(a is b for a, b in zip(before, [map_figure.widget, *map_figure.widget.data], strict=True))
    assert map_figure.shown == len(map_figure.widget.data[POINTS].x) == 4


def test_a_gallery_is_one_message_not_one_per_property(map_figure, found, monkeypatch):
    features, clusters = found
    sent = []
    monkeypatch.setattr(map_figure.widget, "_send_update_msg", lambda *a, **k: sent.append("update"))
    monkeypatch.setattr(map_figure.widget, "_send_restyle_msg", lambda *a, **k: sent.append("selection"))
    monkeypatch.setattr(map_figure.widget, "_send_relayout_msg", lambda *a, **k: sent.append("wiped outline"))
    map_figure.show(features * 2, marks(clusters), ["x"] * 11)
    assert sent == ["update"]


def test_hover_is_heard_once_per_point(map_figure):
    heard = []
    map_figure.on_hover(heard.append)
    for index in (3, 3, 3, 5):
        fire(map_figure.widget, "plotly_hover", [index])
    assert heard == [3, 5]


def test_click_lasso_and_its_end_are_heard(map_figure):
    clicked, selected = [], []
    map_figure.on_click(clicked.append)
    map_figure.on_select(selected.append)
    fire(map_figure.widget, "plotly_click", [4])
    fire(map_figure.widget, "plotly_selected", [9, 2, 5])
    fire(map_figure.widget, "plotly_deselect", [])
    assert clicked == [4]
    assert selected == [[2, 5, 9], []]


def test_hovering_a_ring_or_a_number_is_not_hovering_a_image(map_figure):
    heard = []
    map_figure.on_hover(heard.append)
    fire(map_figure.widget, "plotly_hover", [0], trace=NUMBERS)
    assert heard == []


def test_ring_and_lines_to_neighbours(map_figure, found):
    features, _ = found
    map_figure.ring([2], neighbours=[0, 1])
    lines, ring = map_figure.widget.data[LINES], map_figure.widget.data[RINGS]
    assert (ring.x[0], ring.y[0]) == tuple(features[2])
    assert list(lines.x[:2]) == [features[2, 0], features[0, 0]]
    assert np.isnan(lines.x[2])
    map_figure.ring([])
    assert len(map_figure.widget.data[RINGS].x) == len(map_figure.widget.data[LINES].x) == 0


def test_dropped_and_left_out_points_look_it(found):
    features, clusters = found
    figure = MapFigure()
    figure.show(features, marks(clusters), ["x"] * 11, chosen=[0, 1], excluded=[1])
    trace = figure.widget.data[POINTS]
    assert trace.marker.symbol[10] == "circle-open"
    assert trace.marker.symbol[1] == "x-thin-open"
    assert trace.marker.size[0] > trace.marker.size[5]


def test_thumbnails_do_not_cover_each_other_and_go_away_again(map_figure):
    images = [Image.new("RGB", (32, 32), "red")] * 11
    shown = map_figure.thumbnails(images, first=[7])
    assert 3 <= shown < 11
    assert map_figure.widget.layout.images[0].source.startswith("data:image/webp;base64,")
    assert map_figure.widget.layout.images[0].x == map_figure.widget.data[POINTS].x[7]
    assert map_figure.thumbnails([]) == 0
    assert len(map_figure.widget.layout.images) == 0


def test_a_selection_fades_the_others_and_none_shows_all(map_figure):
    map_figure.select([1, 2])
    assert list(map_figure.widget.data[POINTS].selectedpoints) == [1, 2]
    map_figure.select([])
    assert map_figure.widget.data[POINTS].selectedpoints is None


def test_the_outline_of_a_lasso_goes_with_it_and_its_echo_is_not_the_persons(map_figure, monkeypatch):
    """Plotly answers to a wiped outline with an empty selection, and fades every point."""
    heard, wiped = [], []
    map_figure.on_select(heard.append)
    monkeypatch.setattr(map_figure.widget, "_send_relayout_msg", lambda data, *a, **k: wiped.append(data))
    fire(map_figure.widget, "plotly_selected", [1, 2, 3])
    map_figure.select([5])
    assert wiped == [{"selections": []}]
    fire(map_figure.widget, "plotly_selected", [])
    assert list(map_figure.widget.data[POINTS].selectedpoints) == [5]
    assert heard == [[1, 2, 3]]
    fire(map_figure.widget, "plotly_selected", [])
    assert heard == [[1, 2, 3], []]
    assert map_figure.widget.data[POINTS].selectedpoints is None


def test_both_ends_of_the_ranges_are_padded_and_hold_the_ghosts(found):
    features, clusters = found
    figure = MapFigure()
    figure.show(features, marks(clusters), ["x"] * 11, ghosts=np.array([[50.0, 50.0]]))
    assert figure.widget.layout.xaxis.range[1] > 50


def test_an_empty_map_can_be_shown():
    figure = MapFigure()
    figure.show(np.zeros((0, 2)), plain_marks(0), [])
    figure.ring([3])
    assert figure.shown == 0


# --- stale first paint ---------------------------------------------------------------------------------------------


def test_what_is_edited_before_the_first_drawing_is_drawn(map_figure, found):
    """Plotly copies a figure's data for the browser when it is made, and edits of a nested figure never get there.

    So it is copied when the screen is shown, and a LiveFigure's script asks once more after its first drawing.
    """
    features, clusters = found
    figure, sent = map_figure.widget, []
    assert "fresh" in figure._esm
    map_figure.show(features + 100, marks(clusters), ["x"] * 11)
    show_figures([figure])
    np.testing.assert_allclose(figure._widget_data[POINTS]["x"], features[:, 0] + 100)
    np.testing.assert_allclose(figure._widget_layout["xaxis"]["range"], figure.layout.xaxis.range)
    figure.send = sent.append
    figure._handle_custom_msg({"want": "fresh"}, [])
    map_figure.show(features + 200, marks(clusters), ["x"] * 11)  # while the browser was drawing
    figure._handle_custom_msg({"want": "fresh"}, [])
    np.testing.assert_allclose(figure._widget_data[POINTS]["x"], features[:, 0] + 200)
    assert sent == [{"fresh": True, "changed": False}, {"fresh": True, "changed": True}]


def test_plotly_travels_once_for_all_figures():
    figures = [MapFigure().widget, CurveFigure().widget, LossFigure().widget]
    assert all(isinstance(figure, LiveFigure) and len(figure._esm) < 5_000 for figure in figures)
    plotly_bundle.cache_clear()
    show_figures(figures)
    for figure in figures:
        figure._handle_custom_msg({"want": "plotly"}, [])
    assert plotly_bundle.cache_info().misses == 1
    assert len(plotly_bundle().source) > 1_000_000


# --- curves ----------------------------------------------------------------------------------------------------


ROWS = [
    {
        "node": "0",
        "parent": None,
        "iteration": 0,
        "distance": 1.0,
        "ratio": 1.0,
        "threshold": 0.8,
        "state": "not yet",
    },
    {
        "node": "1",
        "parent": "0",
        "iteration": 1,
        "distance": 0.9,
        "ratio": 0.9,
        "threshold": 0.8,
        "state": "not yet",
    },
    {
        "node": "1b",
        "parent": "0",
        "iteration": 1,
        "distance": 0.7,
        "ratio": 0.7,
        "threshold": 0.8,
        "state": "converged",
    },
]


def test_the_curve_joins_branches_where_they_left():
    figure = CurveFigure()
    figure.show(ROWS, here="1b", last=3)
    edges, nodes, limit, ring = figure.widget.data
    assert list(edges.x) == [0, 1, None, 0, 1, None]
    assert list(nodes.y) == [1.0, 0.9, 0.7]
    assert nodes.marker.symbol[2] == "star"
    assert list(limit.y) == [0.8, 0.8]
    assert list(ring.y) == [0.7]


def test_a_click_on_the_curve_names_the_iteration():
    figure, heard = CurveFigure(), []
    figure.show(ROWS, here="0", last=3)
    figure.on_click(heard.append)
    fire(figure.widget, "plotly_click", [2], trace=1)
    assert heard == ["1b"]


def test_an_empty_curve_can_be_shown():
    figure = CurveFigure()
    figure.show([], here="0", last=3)
    assert len(figure.widget.data[2].x) == 0


def test_the_loss_is_drawn_raw_and_smoothed():
    figure = LossFigure()
    figure.show([{"step": 1, "loss": 0.5, "ema_loss": 0.5}, {"step": 2, "loss": 0.3}])
    assert list(figure.widget.data[0].y) == [0.5, 0.3]
    assert list(figure.widget.data[1].y) == [0.5, 0.3]
