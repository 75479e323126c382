"""Figures, contact sheets and overlays, drawn of toy data."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from chosen_one_nb.plots import (
    GLYPHS,
    GREY,
    MARKERS,
    PALETTE,
    attribute_plot,
    before_and_after,
    colour_of,
    contact_sheet,
    context_sheet,
    counterfactual_sheet,
    distance_plot,
    drift_plot,
    heat_over,
    image_map,
    loss_plot,
    parts_over,
    projection_plot,
    to_image,
    to_svg,
)  # fmt: skip

EVIL = "<script>alert('fox')</script> & \"friends\""

# --- figures

CURVE = pd.DataFrame([
    {"node": "0", "parent": None, "iteration": 0, "distance": 1.0, "threshold": 0.8, "state": "refine"},
    {"node": "1", "parent": "0", "iteration": 1, "distance": 0.7, "threshold": 0.8, "state": "converged"},
    {"node": "1b", "parent": "0", "iteration": 1, "distance": 0.2, "threshold": 0.8, "state": "collapsed"},
])  # fmt: skip


def words(figure):
    """All that is written in a figure."""
    return [text.get_text() for text in figure.axes[0].texts]


def colours(points):
    return [tuple(round(255 * part) for part in colour[:3]) for colour in points.get_facecolors()]


def rgb(colour):
    return Image.new("RGB", (1, 1), colour).getpixel((0, 0))


def test_the_curve_is_described_in_words():
    assert distance_plot(CURVE).get_label() == (
        "Mean pairwise distance by node: 0: 1 (refine); 1: 0.7 (converged); 1b: 0.2 (collapsed)."
    )


def test_nothing_measured_has_no_axes():
    figure = distance_plot(CURVE[:0])
    assert (figure.get_label(), figure.axes) == ("Nothing measured yet.", [])
    assert "<title>Nothing measured yet.</title>" in to_svg(figure)


def test_the_curve_shows_each_node_and_a_cross_where_it_collapsed():
    axes = distance_plot(CURVE).axes[0]
    assert [points.get_offsets().tolist() for points in axes.collections] == [[[0, 1.0]], [[1, 0.7]], [[1, 0.2]]]
    assert [len(line.get_xdata()) for line in axes.lines] == [2, 2, 2]  # d_conv and two edges
    collapsed = axes.collections[-1]
    assert tuple(collapsed.get_edgecolors()[0]) != tuple(axes.collections[0].get_edgecolors()[0])
    assert words(axes.figure) == ["d_conv", "0", "1", "1b"]


def test_branches_have_lines_of_different_style_and_labels_apart():
    near = CURVE.assign(distance=[1.0, 0.79, 0.8])
    axes = distance_plot(near, {"A": ["0", "1"], "B": ["0", "1b"]}).axes[0]
    lines = axes.lines[1:]  # the first is d_conv
    assert len({(line.get_color(), line.get_linestyle(), line.get_marker()) for line in lines}) == 2
    assert words(axes.figure) == ["d_conv", "A · 1", "B · 1b"]
    heights = sorted(text.xy[1] for text in axes.texts)
    assert min(np.diff(heights)) > 0.05


def test_nodes_of_the_tree_are_named_apart_and_a_shared_gallery_once():
    near = pd.concat([CURVE.assign(distance=[1.0, 0.79, 0.8]), CURVE[:1].assign(node="0b")])
    axes = distance_plot(near).axes[0]
    assert words(axes.figure) == ["d_conv", "0, 0b", "1", "1b"]
    heights = [text.xy[1] for text in axes.texts]
    assert heights[3] - heights[2] > 0.05


def test_the_map_names_clusters_and_those_dropped():
    places, labels = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), np.array([0, 0, 1, 1])
    figure = projection_plot(places, labels, np.array([True, False]), [1])
    assert figure.get_label() == "Map of 4 images in 2 clusters; 1 chosen."
    assert words(figure) == ["0", "1 dropped"]
    rings, kept, dropped = figure.axes[0].collections
    assert rings.get_offsets().tolist() == [[1, 0]]
    assert colours(kept) == [rgb(PALETTE[0])]
    assert len(dropped.get_facecolors()) == 0


def test_a_map_points_upwards():
    svg = to_svg(projection_plot(np.array([[0.0, 0.0], [0.0, 1.0]]), np.array([0, 1])))
    places = [float(part.split(chr(34))[0]) for part in svg.split(' y="')[1:]]
    assert places[0] > places[1]


@pytest.mark.parametrize("labels", [None, np.array([-1])])
def test_a_map_of_one_point_and_without_clusters(labels):
    figure = projection_plot(np.zeros((1, 2)), labels)
    assert words(figure) == []
    assert colours(figure.axes[0].collections[1]) == [rgb(GREY)]


def test_every_cluster_has_a_second_sign():
    assert len(set(PALETTE)) < len(set(MARKERS)) == len(set(GLYPHS))
    assert "#000000" not in PALETTE  # cannot be seen on a dark page
    assert colour_of(0) == PALETTE[0]
    assert colour_of(7) == colour_of(-1) == GREY
    positions, labels = np.random.default_rng(0).random((9, 2)), np.arange(9)
    shapes = {
        points.get_paths()[0].vertices.tobytes() for points in projection_plot(positions, labels).axes[0].collections
    }
    assert len(shapes) == 8


def test_the_loss_is_a_line():
    figure = loss_plot([3.0, 2.0, None, 1.0])
    assert figure.get_label() == "Loss over 3 steps, from 3 to 1."
    assert figure.axes[0].lines[0].get_ydata().tolist() == [3, 2, 1]
    assert loss_plot([1.0]).axes == []


def shares(name, *values):
    return [{"gallery": f"g{i}", "column": 0, "attribute": name, "share": v, "low": v - 0.1, "high": v + 0.1}
            for i, v in enumerate(values)]  # fmt: skip


def test_drift_is_described_in_words():
    figure = drift_plot(pd.DataFrame(shares("snow", 0.2, 0.9)))
    assert figure.get_label() == "Share of images by gallery: snow: 20%, 90%."
    assert words(figure) == ["snow 90%"]
    assert drift_plot(pd.DataFrame(shares("x", np.nan, np.nan))).axes == []


def test_attributes_are_bars():
    table = pd.DataFrame({"attribute": ["snow", "hat"], "answer": ["incidental", "identity"],
                          "share_in": [1.0, np.nan], "share_out": [0.1, np.nan]})  # fmt: skip
    figure = attribute_plot(table)
    assert [round(bar.get_width(), 2) for bar in figure.axes[0].patches] == [1.0, 0, 0.1, 0]
    assert words(figure) == ["100% here, 10% elsewhere · incidental", "more surely · identity"]
    assert "snow: 100% here, 10% elsewhere" in figure.get_label()
    assert attribute_plot(table[:0]).get_label() == "Nothing to draw."


FIGURES = [lambda: distance_plot(CURVE), lambda: projection_plot(np.eye(2), np.array([0, 1])),
           lambda: drift_plot(pd.DataFrame(shares("snow", 0.2, 0.9)))]  # fmt: skip


@pytest.mark.parametrize("make", FIGURES)
def test_one_figure_gives_an_image_and_an_svg(make):
    figure = make()
    width, height = (round(72 * side) for side in figure.get_size_inches())
    assert to_image(figure, scale=1).size == (width, height)
    assert len(to_image(figure).resize((60, 60)).getcolors(4000)) > 3
    svg = to_svg(figure)
    assert svg == to_svg(figure)
    assert f'width="{width}"' in svg
    assert f"<title>{figure.get_label()}</title>" in svg
    assert all(word in svg for word in words(figure))


def test_points_have_tooltips():
    svg = to_svg(projection_plot(np.eye(2), np.array([0, 1])))
    assert "<title>image 0, cluster 0</title>" in svg
    assert "<title>image 1, cluster 1</title>" in svg
    assert "xlink" not in svg


def test_markup_in_data_stays_text():
    curve, drift = CURVE.assign(state=EVIL), pd.DataFrame(shares(EVIL, 0.2, 0.9))
    for figure in (distance_plot(curve), drift_plot(drift)):
        assert "<script" not in to_svg(figure)
        assert "&lt;script" in to_svg(figure)


# --- sheets

RED, BLUE = (Image.new("RGB", (10, 10), colour) for colour in ("red", "blue"))


def colour_at(sheet, x, y):
    return sheet.getpixel((x, y))


def test_a_contact_sheet_puts_images_in_rows():
    sheet = contact_sheet([RED, BLUE, BLUE], columns=2, tile=20)
    assert sheet.size == (2 * 24 + 4, 2 * 24 + 4)
    assert [colour_at(sheet, 14, 14), colour_at(sheet, 38, 14), colour_at(sheet, 14, 38), colour_at(sheet, 38, 38)] == [
        (255, 0, 0), (0, 0, 255), (0, 0, 255), (255, 255, 255)]  # fmt: skip


def test_a_counterfactual_sheet_has_a_row_for_each_opposite_and_a_gap_between_base_and_character():
    images = {"in snow": ([RED] * 2, [BLUE] * 2), f"by {EVIL}": ([BLUE] * 2, [RED] * 2)}
    sheet = counterfactual_sheet(images, tile=20)
    step, row = 24, 24 + 16
    assert sheet.size == (6 * step + 4, 24 + 2 * row + 4)
    rows = [[colour_at(sheet, 14 + step * at, 24 + 14 + row * down) for at in range(6)] for down in range(2)]
    red, blue, white = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    assert rows == [[red, red, white, blue, blue, white], [blue, blue, white, red, red, white]]


def test_a_counterfactual_sheet_of_nothing_is_a_sentence():
    assert counterfactual_sheet({}).width > 0


def test_captions_frames_and_title_take_their_room():
    bare = contact_sheet([RED], tile=20)
    full = contact_sheet([RED], tile=20, captions=["1"], frames=["#009E73"], title="one")
    assert full.height == bare.height + 16 + 24
    assert colour_at(full, 2, 40) == (0, 158, 115)


def test_an_empty_sheet_is_an_image_too():
    assert contact_sheet([]).size[0] > 0
    assert context_sheet({}).size[0] > 0


def test_small_images_are_enlarged_without_blur():
    half = Image.new("RGB", (2, 1), "red")
    half.putpixel((1, 0), (0, 0, 255))
    large = contact_sheet([half], tile=8).crop((4, 4, 12, 12))
    assert set(large.get_flattened_data() if hasattr(large, "get_flattened_data") else large.getdata()) == {
        (255, 0, 0), (0, 0, 255)}  # fmt: skip


def test_contexts_stand_in_columns():
    sheet = context_sheet({"in snow": [RED, RED], "at sea": [BLUE]}, tile=20)
    assert colour_at(sheet, 14, 14) == (255, 0, 0)
    assert colour_at(sheet, 38, 14) == (0, 0, 255)
    assert colour_at(sheet, 38, 14 + 40) == (255, 255, 255)


def test_before_and_after_are_two_rows():
    sheet = before_and_after([BLUE, BLUE], [RED, RED], tile=20)
    assert [colour_at(sheet, 14, 14), colour_at(sheet, 14, 38)] == [(0, 0, 255), (255, 0, 0)]


def test_a_map_shows_each_image_at_its_place():
    """Red lies lowest and leftmost, blue highest and rightmost; the frame is of the cluster's colour."""
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    sheet = image_map(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), images, [0, 1, -1], size=200, tile=20)
    assert sheet.size == (200, 200)
    assert [sheet.getpixel(at) for at in ((14, 186), (100, 100), (186, 14))] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [sheet.getpixel(at) for at in ((2, 186), (198 - 2, 2))]
    assert frames[0] == Image.new("RGB", (1, 1), colour_of(0)).getpixel((0, 0))
    assert sheet.getpixel((14, 14)) == (255, 255, 255)


def test_a_map_of_images_in_one_place():
    sheet = image_map(np.zeros((2, 2)), [Image.new("RGB", (8, 8), "red")] * 2, size=100, tile=20)
    assert sheet.getpixel((14, 86)) == (255, 0, 0)


# --- laid over an image

PALE_GREY = Image.new("RGB", (8, 8), (100, 100, 100))


def test_heat_is_bright_where_it_is_high():
    laid = np.asarray(heat_over(PALE_GREY, np.array([[0.0, 1.0], [0.0, 1.0]]), side=8)).astype(int)
    assert laid.shape == (8, 8, 3)
    assert laid[:, -1].sum() > 2 * laid[:, 0].sum()


def test_parts_have_one_colour_each_and_the_scene_none():
    laid = np.asarray(parts_over(PALE_GREY, np.array([[-1, 0], [1, 0]]), side=8))
    assert (laid[0, 0] == 100).all()
    assert (laid[0, -1] == laid[-1, -1]).all()
    assert (laid[0, -1] != laid[-1, 0]).any()
