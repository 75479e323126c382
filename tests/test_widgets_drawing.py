"""The mask canvas and the pose editor: what a page sends, and both in JupyterLab by mouse and by keyboard."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import lab
from helpers.screen import RUN_CODE
from PIL import Image

from chosen_one_nb.applications.edit import EditError
from chosen_one_nb.applications.skeleton import Skeleton, SkeletonError
from chosen_one_nb.widgets.mask_canvas import MaskCanvas
from chosen_one_nb.widgets.pose_editor import PoseEditor

SIDE = 64
CELLS = [
    "from PIL import Image\n"
    "from chosen_one_nb.widgets.mask_canvas import MaskCanvas\n"
    "from chosen_one_nb.widgets.pose_editor import PoseEditor\n"
    f"canvas, editor = MaskCanvas(Image.new('RGB', ({SIDE}, {SIDE}), 'skyblue')), PoseEditor('person_standing')",
    "canvas",
    "editor",
]


def test_a_mask_is_what_the_page_sends_row_by_row():
    canvas = MaskCanvas(Image.new("RGB", (4, 4)))
    assert not canvas.mask.any()
    canvas.painted = bytes([0, 1, 0, 0] + [0] * 12)
    assert canvas.mask.nonzero() == (0, 1)
    canvas.mask = np.eye(4) > 0
    assert list(canvas.painted) == np.eye(4, dtype=int).ravel().tolist()


def test_what_is_no_mask_is_told():
    with pytest.raises(EditError, match="expected a square one to paint on, got 4 x 5"):
        MaskCanvas(Image.new("RGB", (4, 5)))
    canvas = MaskCanvas(Image.new("RGB", (4, 4)))
    with pytest.raises(EditError, match=r"expected truth values \(4, 4\), got bool of shape \(4, 5\)"):
        canvas.mask = np.ones((4, 5), bool)
    canvas.painted = b"1"
    with pytest.raises(EditError, match="expected 16 pixels from the page, got 1"):
        _ = canvas.mask


def test_a_pose_editor_begins_with_a_skeleton_and_gives_the_moved_one():
    editor = PoseEditor("person_standing")
    assert editor.skeleton.joints == Skeleton.load("person_standing").joints
    editor.joints = {**editor.joints, "nose": [0.25, 0.1], "left ear": None}
    assert editor.skeleton.joints["nose"] == (0.25, 0.1)
    assert editor.skeleton.joints["left ear"] is None
    editor.joints = {**editor.joints, "nose": [2, 0]}
    with pytest.raises(SkeletonError, match="expected joints from 0 to 1, got 'nose'"):
        _ = editor.skeleton


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    with lab.server(folder) as address, lab.browser() as chromium:
        lab.write_notebook(folder / "drawing.ipynb", CELLS)
        notebook = lab.Notebook(chromium, address, "drawing.ipynb", height=1500)
        notebook.run_all()
        notebook.page.locator(".chosen-easel circle").first.wait_for()
        yield notebook
        notebook.close()


def python(notebook, code):
    return notebook.page.evaluate(RUN_CODE, code).strip()


def keep(notebook, name):
    if folder := os.environ.get("CHOSEN_SCREENSHOTS"):
        notebook.page.screenshot(path=str(Path(folder) / f"{name}.png"))


in_the_browser = [pytest.mark.browser, pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not())]


def rows_and_columns(notebook):
    """First and last painted row and column."""
    code = "ys, xs = canvas.mask.nonzero(); print([int(f(v)) for v in (ys, xs) for f in (min, max)])"
    return json.loads(python(notebook, code))


class TestInJupyterLab:
    pytestmark = in_the_browser

    def painted(self, notebook, n=None):
        for _ in range(40):
            now = int(python(notebook, "print(int(canvas.mask.sum()))"))
            if now == n or (n is None and now):
                return now
            notebook.page.wait_for_timeout(100)
        raise AssertionError(f"expected {n or 'some'} painted pixels, got {now}")

    def test_a_rectangle_by_mouse_a_brush_an_eraser_and_undo(self, notebook):
        page = notebook.page
        easel = page.locator(".chosen-easel canvas")
        place = easel.bounding_box()

        def at(x, y):
            return place["x"] + (x + 0.5) * place["width"] / SIDE, place["y"] + (y + 0.5) * place["width"] / SIDE

        page.get_by_role("button", name="rectangle").click()
        page.mouse.move(*at(8, 16))
        page.mouse.down()
        page.mouse.move(*at(23, 31))
        page.mouse.up()
        assert self.painted(notebook, 256) == 256
        assert rows_and_columns(notebook) == [16, 31, 8, 23]
        page.get_by_role("button", name="eraser").click()
        page.mouse.move(*at(8, 16))
        page.mouse.down()
        page.mouse.move(*at(23, 16), steps=4)
        page.mouse.up()
        page.wait_for_timeout(300)
        assert 0 < self.painted(notebook) < 256
        page.get_by_role("button", name="brush").click()
        page.mouse.click(*at(48, 48))
        page.wait_for_timeout(300)
        assert rows_and_columns(notebook)[1] == 52, "a dot of radius 4"
        keep(notebook, "mask_canvas")
        page.get_by_role("button", name="undo").first.click()
        page.get_by_role("button", name="undo").first.click()
        assert self.painted(notebook, 256) == 256

    def test_the_same_by_keyboard(self, notebook):
        page, press = notebook.page, notebook.page.keyboard.press
        cells = page.locator(".jp-Cell").count()
        page.get_by_role("button", name="clear").click()
        self.painted(notebook, 0)
        page.locator(".chosen-easel canvas").focus()
        for key in ["r", *["Shift+ArrowLeft"] * 9, *["Shift+ArrowUp"] * 9, " ", "ArrowRight", "ArrowDown", " "]:
            press(key)
        assert self.painted(notebook, 4) == 4
        for key in ("b", "[", "[", " ", "e"):
            press(key)
        page.wait_for_timeout(300)
        assert self.painted(notebook) > 4
        press("Control+z")
        assert self.painted(notebook, 4) == 4
        assert page.locator(".jp-Cell").count() == cells, "Lab's own shortcuts hear nothing"

    def test_joints_are_dragged_moved_by_keys_left_out_and_taken_back(self, notebook):
        page, press = notebook.page, notebook.page.keyboard.press
        nose = page.locator("circle[data-joint='nose']")
        before = python(notebook, "print(editor.skeleton.joints['nose'])")
        stage, dot = page.locator(".chosen-easel svg").bounding_box(), nose.bounding_box()
        page.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
        page.mouse.down()
        page.mouse.move(stage["x"] + stage["width"] / 4, stage["y"] + stage["height"] / 4, steps=3)
        page.mouse.up()
        page.wait_for_timeout(300)
        assert python(notebook, "print([round(v, 2) for v in editor.skeleton.joints['nose']])") == "[0.25, 0.25]"
        for key in ("ArrowRight", "Shift+ArrowDown"):
            press(key)
        page.wait_for_timeout(300)
        assert python(notebook, "print([round(v, 2) for v in editor.skeleton.joints['nose']])") == "[0.26, 0.31]"
        press("Delete")
        page.wait_for_timeout(300)
        assert python(notebook, "print(editor.skeleton.joints['nose'])") == "None"
        keep(notebook, "pose_editor")
        for _ in range(4):
            press("Control+z")
        page.wait_for_timeout(300)
        assert python(notebook, "print(editor.skeleton.joints['nose'])") == before
