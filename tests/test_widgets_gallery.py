"""The gallery and the other views: what they share with the browser, and their scripts and styles."""

import io
import re
import subprocess
from shutil import which
from types import SimpleNamespace

import ipywidgets
import pytest
from helpers import painted
from helpers.explorers import step
from PIL import Image

from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets import gallery as gallery_module
from chosen_one_nb.widgets.cards import CardsView
from chosen_one_nb.widgets.gallery import GalleryView
from chosen_one_nb.widgets.history import TreeView
from chosen_one_nb.widgets.images import HERE, ThumbnailBatch, Thumbnails, webp
from chosen_one_nb.widgets.map_panel import Preview
from chosen_one_nb.widgets.panel import Hints, Switch, described

pytest_plugins = ["helpers.explorers"]
VIEWS = [GalleryView, CardsView, Preview, TreeView, ThumbnailBatch, lambda: Hints(ipywidgets.VBox(), {}), Switch]


@pytest.fixture
def node():
    images = [Image.new("RGB", (64, 64), (40 * i, 90, 120)) for i in range(5)]
    return SimpleNamespace(gallery_of="0", images=images)


def test_images_are_webp_of_the_asked_size():
    data = webp(Image.new("RGBA", (400, 200), "red"), side=96)
    assert Image.open(io.BytesIO(data)).size == (96, 48)
    assert Image.open(io.BytesIO(data)).format == "WEBP"
    assert Image.open(io.BytesIO(webp(Image.new("L", (32, 32)), side=96))).size == (32, 32)


def test_each_image_travels_once(node):
    thumbnails = Thumbnails("test")
    thumbnails.send("0", node.images, [1])
    first = thumbnails.bytes_sent()
    thumbnails.send("0", node.images)
    sent = thumbnails.bytes_sent()
    assert thumbnails.send("0", node.images) == "test/0"
    assert thumbnails.bytes_sent() == sent > first > 0


def test_a_batch_holds_what_has_not_been_sent(node):
    thumbnails = Thumbnails("test")
    live = {i: node.images[i] for i in (3, 0, 4, 1)}
    thumbnails.send("0", live, live)
    thumbnails.send("0", node.images)
    thumbnails.send("0", node.images)
    assert [(batch.indices, len(batch.data)) for batch in thumbnails.batches] == [([0, 1, 3, 4], 4), ([2], 1)]


def test_closing_takes_the_images_off_the_page(node):
    thumbnails = Thumbnails("test")
    thumbnails.send("0", node.images)
    thumbnails.close()
    assert thumbnails.bytes_sent() == 0


def test_the_state_of_a_batch_is_binary(node):
    state = ThumbnailBatch(key="a", indices=[0], data=[webp(node.images[0])]).get_state()
    assert all(isinstance(data, bytes) for data in state["data"])


@pytest.mark.parametrize(
    "trait", ["hovered", "selected", "excluded", "chosen", "focused", "zoomed", "large", "sections"]
)
def test_the_traits_are_shared_with_the_browser(trait):
    assert GalleryView.class_traits()[trait].metadata["sync"]


def test_keys_are_heard_as_actions():
    gallery, heard = GalleryView(), []
    gallery.press = lambda action, index: heard.append((action, index))
    gallery._handle_custom_msg({"do": "choose", "index": 3}, [])
    gallery._handle_custom_msg({"do": "undo"}, [])
    gallery._handle_custom_msg({"do": "format the disk"}, [])
    assert heard == [("choose", 3), ("undo", -1)]


def test_what_is_selected_and_left_out_comes_as_messages():
    gallery = GalleryView(selected=[2], excluded=[4])
    for content in (
        {"do": "toggle", "trait": "selected", "index": 1},
        {"do": "toggle", "trait": "excluded", "index": 4},
        {"do": "toggle", "trait": "name", "index": 4},
    ):
        gallery._handle_custom_msg(content, [])
    assert (gallery.selected, gallery.excluded, gallery.name) == ([1, 2], [], "Images")
    gallery._handle_custom_msg({"do": "select", "ids": [5, 3, 3]}, [])
    assert gallery.selected == [3, 5]


def test_tile_size_is_bounded():
    with pytest.raises(Exception, match="size"):
        GalleryView(size=4)


@pytest.mark.parametrize("view", VIEWS)
def test_scripts_and_styles_are_there(view):
    widget = view()
    assert "export default" in widget._esm
    assert len(widget._esm) > 100


@pytest.mark.parametrize("path", sorted(HERE.glob("*.js")), ids=lambda path: path.name)
def test_texts_from_outside_never_become_markup(path):
    """A prompt may hold HTML: the views only ever set text."""
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", path.read_text("utf-8"))


@pytest.mark.parametrize("path", sorted(HERE.glob("*.js")), ids=lambda path: path.name)
def test_nothing_is_awaited_while_a_view_is_set_up(path):
    """Anywidget gives `initialize` two seconds; a slow one leaves the view deaf to the kernel for good."""
    assert "async initialize" not in path.read_text("utf-8")


@pytest.mark.parametrize("path", sorted(HERE.glob("*.css")), ids=lambda path: path.name)
def test_colours_follow_the_theme_and_have_a_fallback_outside_lab(path):
    for use in re.findall(r"var\(--jp-[^()]*(?:\([^()]*\))?[^()]*\)", path.read_text("utf-8")):
        assert "," in use, use


@pytest.mark.skipif(which("node") is None, reason="node is not installed")
@pytest.mark.parametrize("view", VIEWS)
def test_scripts_parse(view, tmp_path):
    file = tmp_path / "view.mjs"
    file.write_text(view()._esm, "utf-8")
    subprocess.run(["node", "--check", str(file)], check=True)


def test_tooltips_are_collected_by_description():
    boxes = [ipywidgets.Text(description="note", tooltip="Why"), ipywidgets.Button(description="Go", tooltip="Goes")]
    assert described(ipywidgets.VBox([ipywidgets.HBox(boxes)])) == {"note": "Why"}
    with pytest.raises(ValueError, match="Rename one"):
        described(ipywidgets.VBox([*boxes, ipywidgets.Text(description="note", tooltip="What")]))


def test_keyboard_help_and_code_agree():
    """Each key named in the module's docstring is handled in the script."""
    script = (HERE / "gallery.js").read_text("utf-8")
    assert all(f"{key}" in script for key in ("ArrowLeft", '" "', "s:", "f:", "Enter:", "z:", "Z:", "y:", "Escape:"))
    assert "space leaves an image out" in gallery_module.__doc__


def test_images_and_loss_appear_while_work_goes_on(new, monkeypatch):
    seen = []
    monkeypatch.setattr(painted, "pause", 0.01)
    new.gallery.view.observe(lambda change: seen.append(sum(len(s["ids"]) for s in change["new"])), "sections")
    step(new)
    assert 0 < seen[0] < 24
    assert seen[-1] == 24
    assert new.session.thumbnails.bytes_sent() > 0


def test_a_cancelled_gallery_keeps_whole_images_and_goes_on(new, monkeypatch):
    drawn = []
    monkeypatch.setattr(painted, "pause", 0.05)
    new.gallery.view.observe(
        lambda change: drawn.append(change) or (len(drawn) == 1 and actions.cancel(new.session)), "sections"
    )
    assert step(new).startswith("Cancelled")
    assert drawn
    assert new.run.current.stages_done == ()
    assert new.stepper.next.description == "Next: Generate"
    monkeypatch.setattr(painted, "pause", 0.0)
    assert step(new) == "Done. Next comes Embed."
    assert len(new.gallery.view.sections[0]["ids"]) == 24


def test_looking_closer_sends_the_full_image(explorer):
    explorer.gallery.view.zoomed = 3
    assert explorer.gallery.view.large["index"] == 3
    assert len(explorer.gallery.view.large["data"]) > 500
