from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import fakes
from PIL import Image

from chosen_one_nb import plots as charts
from chosen_one_nb import show
from chosen_one_nb.analysis.counterfactual import Counterfactual
from chosen_one_nb.report import Markup, page, tag
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings

pytestmark = pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")

EVIL = "<script>alert('fox')</script> & \"friends\""
SMALL = Settings.preset(
    "quick", n_images=9, target_cluster_size=3, min_cluster_size=1, refine_steps=3, max_iterations=1, convergence=0.01
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory):
    """A finished run with a branch, contexts drawn, everything from a person full of HTML."""
    with pytest.MonkeyPatch.context() as patch:
        fakes.install(patch)
        models = fakes.fake_models(name=f"models {EVIL}")
        with Run.start(EVIL, models, SMALL, tmp_path_factory.mktemp("show") / "run") as run:
            run.until_converged()
            run.select("0")
            run.exclude([0], note=EVIL)
            run.choose(images=[0, 1, 2, 3], note=EVIL, by=EVIL)
            run.until_converged()
            run.contexts(contexts=["in the snow", f"with {EVIL}"], seeds=2)
            yield run


# --- sheets

RED, BLUE = (Image.new("RGB", (10, 10), colour) for colour in ("red", "blue"))


def colour_at(sheet: Image.Image, x: int, y: int) -> tuple[int, ...]:
    return sheet.getpixel((x, y))


def test_a_contact_sheet_puts_images_in_rows():
    sheet = show.contact_sheet([RED, BLUE, BLUE], columns=2, tile=20)
    assert sheet.size == (2 * 24 + 4, 2 * 24 + 4)
    assert [colour_at(sheet, 14, 14), colour_at(sheet, 38, 14), colour_at(sheet, 14, 38), colour_at(sheet, 38, 38)] == [
        (255, 0, 0), (0, 0, 255), (0, 0, 255), (255, 255, 255)]  # fmt: skip


def test_a_proof_has_a_row_for_each_opposite_and_a_gap_between_base_and_character():
    proof = Counterfactual(
        pd.DataFrame(), {"in snow": ([RED] * 2, [BLUE] * 2), f"by {EVIL}": ([BLUE] * 2, [RED] * 2)}, ()
    )
    sheet = show.counterfactual_sheet(proof, tile=20)
    step, row = 24, 24 + 16
    assert sheet.size == (6 * step + 4, 24 + 2 * row + 4)
    rows = [[colour_at(sheet, 14 + step * at, 24 + 14 + row * down) for at in range(6)] for down in range(2)]
    red, blue, white = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    assert rows == [[red, red, white, blue, blue, white], [blue, blue, white, red, red, white]]


def test_a_proof_of_nothing_is_a_sentence():
    assert show.counterfactual_sheet(Counterfactual(pd.DataFrame(), {}, ("hat",))).width > 0


def test_captions_frames_and_title_take_their_room():
    bare = show.contact_sheet([RED], tile=20)
    full = show.contact_sheet([RED], tile=20, captions=["1"], frames=["#009E73"], title="one")
    assert full.height == bare.height + 16 + 24
    assert colour_at(full, 2, 40) == (0, 158, 115)


def test_an_empty_sheet_is_a_image_too():
    assert show.contact_sheet([]).size[0] > 0
    assert show.context_sheet({}).size[0] > 0


def test_small_images_are_enlarged_without_blur():
    half = Image.new("RGB", (2, 1), "red")
    half.putpixel((1, 0), (0, 0, 255))
    large = show.fitted(half, 8)
    assert set(large.get_flattened_data() if hasattr(large, "get_flattened_data") else large.getdata()) == {
        (255, 0, 0), (0, 0, 255)}  # fmt: skip


def test_contexts_stand_in_columns():
    sheet = show.context_sheet({"in snow": [RED, RED], "at sea": [BLUE]}, tile=20)
    assert colour_at(sheet, 14, 14) == (255, 0, 0)
    assert colour_at(sheet, 38, 14) == (0, 0, 255)
    assert colour_at(sheet, 38, 14 + 40) == (255, 255, 255)


def test_before_and_after_are_two_rows():
    sheet = show.before_and_after([BLUE, BLUE], [RED, RED], tile=20)
    assert [colour_at(sheet, 14, 14), colour_at(sheet, 14, 38)] == [(0, 0, 255), (255, 0, 0)]


def test_the_gallery_sheet_frames_the_chosen(run: Run):
    framed = np.asarray(show.gallery_sheet(run.node("0b"), tile=40))
    green = (framed == (0, 158, 115)).all(-1)
    assert green.any()
    assert not (np.asarray(show.gallery_sheet(run.node("1"), tile=40)) == (0, 158, 115)).all(-1).any()


def test_a_sentence_says_what_a_node_is(run: Run):
    assert re.fullmatch(r"Node 0b, iteration 0 · distance \d\.\d+ \(100% of the first\) · 3 chosen: images by hand, "
                        r"by .* · refine", show.sentence(run.node("0b")))  # fmt: skip


# --- charts

ROWS = [
    {"node": "0", "parent": None, "iteration": 0, "distance": 1.0, "threshold": 0.8, "state": "refine"},
    {"node": "1", "parent": "0", "iteration": 1, "distance": 0.7, "threshold": 0.8, "state": "converged"},
    {"node": "1b", "parent": "0", "iteration": 1, "distance": 0.2, "threshold": 0.8, "state": "collapsed"},
]


def test_the_curve_says_in_words_what_it_shows():
    chart = charts.curve_chart(ROWS)
    assert chart.words == ("Mean pairwise distance by node: 0: 1 (refine); 1: 0.7 (converged); 1b: 0.2 (collapsed).")
    kinds = [shape.kind for shape in chart.shapes]
    assert (kinds.count("dot"), kinds.count("cross")) == (2, 1)
    assert charts.curve_chart([]).words == "Nothing measured yet."


def test_the_curve_is_drawn_to_scale():
    dots = {shape.text.split(":")[0]: shape.points[0] for shape in charts.curve_chart(ROWS).shapes
            if shape.kind in ("dot", "cross")}  # fmt: skip
    dashed = next(shape for shape in charts.curve_chart(ROWS).shapes if shape.dashed)
    assert dots["node 0"][0] < dots["node 1"][0] == dots["node 1b"][0]
    assert dots["node 0"][1] < dashed.points[0][1] < dots["node 1"][1] < dots["node 1b"][1]


def test_the_map_names_clusters_and_those_dropped():
    places, labels = np.array([[0.0, 0], [1, 0], [0, 1], [1, 1]]), np.array([0, 0, 1, 1])
    chart = charts.map_chart(places, labels, np.array([True, False]), [1])
    texts = [shape.text for shape in chart.shapes if shape.kind == "text"]
    assert texts == ["0", "1 dropped"]
    dots = [shape for shape in chart.shapes if shape.kind == "dot"]
    assert [dot.colour for dot in dots] == [charts.PALETTE[0]] * 2 + [charts.GREY] * 2
    assert [shape.kind for shape in chart.shapes].count("ring") == 1
    assert all(0 <= x <= chart.width and 0 <= y <= chart.height for dot in dots for x, y in dot.points)


def test_a_map_of_one_point_and_without_clusters():
    assert len(charts.map_chart(np.zeros((1, 2))).shapes) == 1


def test_colours_run_out_into_grey():
    assert charts.colour_of(0) == charts.PALETTE[0]
    assert charts.colour_of(8) == charts.colour_of(-1) == charts.GREY


def test_principal_places_are_joint_and_keep_their_sign():
    line = np.arange(12.0).reshape(4, 3)
    first, second = charts.principal_places([line, line + 1])
    np.testing.assert_allclose(first, charts.principal_places([line, line + 1])[0])
    np.testing.assert_allclose(second - first, np.tile((second - first)[0], (4, 1)), atol=1e-12)
    assert (np.diff(first[:, 0]) > 0).all()
    assert charts.principal_places([np.ones((2, 1))])[0].shape == (2, 2)


def test_loss_is_a_line():
    assert charts.loss_chart([3.0, 2.0, None, 1.0]).words == "Loss over 3 steps, from 3 to 1."
    assert charts.loss_chart([1.0]).shapes == []
    assert charts.loss_chart([1.0, 1.0]).shapes


@pytest.mark.parametrize("chart", [charts.curve_chart(ROWS), charts.map_chart(np.eye(2), np.array([0, 1]))])
def test_charts_are_drawn_as_images_and_as_svg(chart: charts.Chart):
    image = charts.image(chart, scale=1)
    assert image.size == (chart.width, chart.height)
    assert len(set(image.resize((60, 60)).getcolors(4000))) > 3
    drawn = charts.svg(chart)
    assert drawn.startswith("<svg")
    assert f"<title>{chart.words}</title>" in drawn
    assert drawn.count("<text") == sum(shape.kind == "text" for shape in chart.shapes)


def test_svg_escapes_what_it_says():
    chart = charts.Chart(10, 10, EVIL)
    chart.add("text", (1, 1), text=EVIL)
    chart.add("dot", (1, 1), text=EVIL)
    assert "<script" not in charts.svg(chart)


# --- the page


class Reader(HTMLParser):
    """Counts elements, checks that they close, and keeps attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.count: dict[str, int] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""

    def handle_starttag(self, name: str, attributes: Any) -> None:
        self.count[name] = self.count.get(name, 0) + 1
        self.attributes += [(name, key, value) for key, value in attributes]
        if name not in ("img", "meta", "br"):
            self.open.append(name)

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_startendtag(self, name: str, attributes: Any) -> None:
        self.count[name] = self.count.get(name, 0) + 1
        self.attributes += [(name, key, value) for key, value in attributes]

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def read(run: Run) -> Reader:
    reader = Reader()
    reader.feed(page(run))
    return reader


def test_the_page_is_whole_and_needs_nothing_else(run: Run, read: Reader):
    assert read.open == []
    assert "script" not in read.count
    sources = [value for _, key, value in read.attributes if key in ("src", "href", "xlink:href", "style")]
    assert all(value.startswith(("data:image/webp;base64,", "#node-", "background:#")) for value in sources)
    assert "http://" not in page(run).replace("http://www.w3.org/2000/svg", "")


def test_what_came_from_a_person_is_shown_as_text(read: Reader):
    assert read.text.count("<script>alert('fox')</script>") >= 5  # title, heading, note, name, context
    assert not any(key.startswith("on") for _, key, _ in read.attributes)


def test_every_image_has_alt_text(read: Reader):
    words = [value for name, key, value in read.attributes if (name, key) == ("img", "alt")]
    assert len(words) == read.count["img"] > 20
    assert all(words)
    assert any("chosen" in word for word in words)
    assert read.count["title"] >= read.count["svg"]


def test_images_of_the_page_can_be_seen(read: Reader):
    sources = [value for name, key, value in read.attributes if (name, key) == ("img", "src")]
    image = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",")[1])))
    assert image.format == "WEBP"


def test_the_page_tells_the_whole_run(read: Reader):
    for part in (
        "Distance",
        "Node 0,",
        "Node 0b,",
        "Node 1,",
        "Same gallery as node 0",
        "Decision",
        "by rule",
        "The character in contexts",
        "in the snow",
        "How it was made",
        "d_conv",
        "left out: ",
    ):
        assert part in read.text, part


def test_a_run_that_has_just_begun_has_a_page(tmp_path: Path):
    with Run.start("a fox", fakes.fake_models(), SMALL, tmp_path / "run") as run:
        path = run.report()
        assert path == run.folder / "report.html"
        assert "Nothing measured yet" in path.read_text()
        assert run.report(tmp_path / "mine.html").exists()


def test_tags_escape_and_nest():
    assert tag("p", "<", tag("b", "&"), [1, Markup("<i></i>")], class_='"') == (
        '<p class="&quot;">&lt;<b>&amp;</b>1<i></i></p>')  # fmt: skip


def test_everything_is_written_at_once(run: Run, tmp_path: Path):
    paths = show.write_all(run, tmp_path / "out", tile=32)
    assert [path.name for path in paths] == ["gallery-0.png", "gallery-1.png", "gallery-0b.png", "gallery-1b.png",
                                             "distance.png", "contexts.png", "report.html"]  # fmt: skip
    assert all(path.stat().st_size > 500 for path in paths)


def test_a_map_shows_each_image_at_its_place():
    """Red lies lowest and leftmost, blue highest and rightmost; the frame is of the cluster's colour."""
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    sheet = show.map_sheet(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]]), images, [0, 1, -1], size=200, tile=20)
    assert sheet.size == (200, 200)
    assert [sheet.getpixel(at) for at in ((14, 186), (100, 100), (186, 14))] == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [sheet.getpixel(at) for at in ((2, 186), (198 - 2, 2))]
    assert frames[0] == Image.new("RGB", (1, 1), charts.colour_of(0)).getpixel((0, 0))
    assert sheet.getpixel((14, 14)) == (255, 255, 255)


def test_a_map_of_images_in_one_place():
    sheet = show.map_sheet(np.zeros((2, 2)), [Image.new("RGB", (8, 8), "red")] * 2, size=100, tile=20)
    assert sheet.getpixel((14, 86)) == (255, 0, 0)
