"""The HTML page of a run and what `show` writes beside it."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fakes
from PIL import Image

from chosen_one_nb.plots import gallery_sheet, sentence
from chosen_one_nb.report import page, write_all
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
            run.selection.exclude([0], note=EVIL)
            run.selection.choose(images=[0, 1, 2, 3], note=EVIL, by=EVIL)
            run.until_converged()
            run.samples.contexts(contexts=["in the snow", f"with {EVIL}"], seeds=2)
            yield run


def test_the_gallery_sheet_frames_the_chosen(run: Run):
    framed = np.asarray(gallery_sheet(run.node("0b"), tile=40))
    green = (framed == (0, 158, 115)).all(-1)
    assert green.any()
    assert not (np.asarray(gallery_sheet(run.node("1"), tile=40)) == (0, 158, 115)).all(-1).any()


def test_a_sentence_says_what_a_node_is(run: Run):
    assert re.fullmatch(r"Node 0b, iteration 0 · distance \d\.\d+ \(100% of the first\) · 3 chosen: images by hand, "
                        r"by .* · refine", sentence(run.node("0b")))  # fmt: skip


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
    assert all(value.startswith("data:image/webp;base64,") for _, key, value in read.attributes if key == "src")
    assert all(value.startswith("#") for _, key, value in read.attributes if key.endswith("href"))
    assert page(run).count("url(") == page(run).count("url(#")
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


def test_everything_is_written_at_once(run: Run, tmp_path: Path):
    paths = write_all(run, tmp_path / "out", tile=32)
    assert [path.name for path in paths] == ["gallery-0.png", "gallery-1.png", "gallery-0b.png", "gallery-1b.png",
                                             "distance.png", "contexts.png", "report.html"]  # fmt: skip
    assert all(path.stat().st_size > 500 for path in paths)
