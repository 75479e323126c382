import numpy as np
import pandas as pd
from PIL import Image

from chosen_one_nb.analysis.overlays import heat_over, parts_over
from chosen_one_nb.plots import attribute_chart, drift_chart, svg

GREY = Image.new("RGB", (8, 8), (100, 100, 100))


def test_heat_is_bright_where_it_is_high():
    laid = np.asarray(heat_over(GREY, np.array([[0.0, 1.0], [0.0, 1.0]]), side=8)).astype(int)
    assert laid.shape == (8, 8, 3)
    assert laid[:, -1].sum() > 2 * laid[:, 0].sum()


def test_parts_have_one_colour_each_and_the_scene_none():
    laid = np.asarray(parts_over(GREY, np.array([[-1, 0], [1, 0]]), side=8))
    assert (laid[0, 0] == 100).all()
    assert (laid[0, -1] == laid[-1, -1]).all()
    assert (laid[0, -1] != laid[-1, 0]).any()


def shares(name, *values):
    return [{"gallery": f"g{i}", "column": 0, "attribute": name, "share": v, "low": v - 0.1, "high": v + 0.1}
            for i, v in enumerate(values)]  # fmt: skip


def test_drift_is_told_in_words_and_markup_stays_text():
    chart = drift_chart(pd.DataFrame(shares("<b>snow</b>", 0.2, 0.9)))
    assert chart.words == "Share of images by gallery: <b>snow</b>: 20%, 90%."
    assert "<b>" not in svg(chart)
    assert drift_chart(pd.DataFrame(shares("x", np.nan, np.nan))).shapes == []


def test_attributes_as_bars():
    table = pd.DataFrame({"attribute": ["snow", "hat"], "answer": ["incidental", "identity"],
                          "share_in": [1.0, np.nan], "share_out": [0.1, np.nan], "p": [0.001, 0.01]})  # fmt: skip
    chart = attribute_chart(table)
    bars = [shape for shape in chart.shapes if shape.kind == "line"]
    assert len(bars) == 2
    assert bars[0].points[1][0] > bars[1].points[1][0]
    assert "snow: 100% here, 10% elsewhere" in chart.words
