"""The explorer in a real JupyterLab in Chromium: what a person sees and does, from the first cell to a second branch.

One notebook is opened once; the tests go through it in order, as a person would. They look at the page (points, alt
texts, words) and never at pixels. With CHOSEN_SCREENSHOTS set to a folder, the main states are kept there as images.
"""

from __future__ import annotations

import re
from itertools import pairwise

import nbformat
import pytest
from helpers import lab
from helpers.screen import CELLS, N, Screen

from chosen_one_nb.run.run import Run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()),
]

LESSON = lab.ROOT / "notebooks" / "00_explorer.ipynb"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A folder that JupyterLab serves, its address, and a browser."""
    folder = tmp_path_factory.mktemp("lab")
    with lab.server(folder) as address, lab.browser() as chromium:
        yield folder, address, chromium


@pytest.fixture(scope="module")
def screen(served):
    folder, address, chromium = served
    lab.write_notebook(folder / "explorer.ipynb", CELLS)
    notebook = lab.Notebook(chromium, address, "explorer.ipynb", height=1900)
    notebook.run_all()
    screen = Screen(notebook)
    screen.find(".chosen-next").wait_for()
    yield screen
    notebook.close()


@pytest.fixture(scope="module")
def lesson(served):
    """The notebook 00 as it is in the repository, with fewer images, and a cell that waits below the explorer."""
    folder, address, chromium = served
    book = nbformat.read(LESSON, as_version=4)
    for cell in book.cells:
        cell.source = cell.source.replace('preset("menagerie").replace(n_images=32)', 'preset("quick")')
        if cell.cell_type == "code":
            cell.outputs = []
    waiting = "from pathlib import Path\nimport time\nwhile not Path('go-on').exists():\n    time.sleep(0.1)"
    book.cells.insert(3, nbformat.v4.new_code_cell(waiting))
    nbformat.write(book, folder / LESSON.name)
    notebook = lab.Notebook(chromium, address, LESSON.name, height=1900)
    notebook.command("notebook:run-all-cells")
    return notebook


def test_a_new_run_says_what_to_do(screen):
    screen.says("Next comes Generate")
    screen.find(".chosen-empty").filter(has_text="Clusters appear here").first.wait_for()
    assert screen.find("li[aria-current=step]").inner_text() == "▸ Generate"


def test_two_clicks_on_next_do_one_stage_and_images_appear_as_they_are_made(screen):
    screen.python("painted.pause = 0.1")
    screen.page.evaluate("() => { const next = document.querySelector('.chosen-next'); next.click(); next.click(); }")
    screen.page.wait_for_function(
        f"(n => 0 < n && n < {N})(document.querySelectorAll('.chosen-explorer .chosen-tile img[src]').length)"
    )
    assert screen.find(".chosen-next").is_disabled()
    screen.says("Next comes Embed")
    assert screen.python("print(*run.current.stages_done)") == "generate"
    screen.python("painted.pause = 0.0")


def test_images_come_with_alt_text(screen):
    images = screen.find(".chosen-gallery[aria-label='Gallery of the iteration'] img")
    assert images.count() == N
    assert images.first.get_attribute("alt").startswith("Image 0, seed")
    assert screen.page.evaluate("(i) => i.naturalWidth", images.first.element_handle()) == 64
    screen.keep("drawn")


def test_the_map_is_drawn_after_embedding(screen):
    """Nested figures used to show what they held when they were made: nothing."""
    screen.step("Next comes Check")
    screen.page.wait_for_function(f"document.querySelectorAll('.chosen-map .point').length >= {N}")


def test_cards_and_curve_follow(screen):
    screen.step("Next comes Cluster")
    screen.step("Your turn")
    assert screen.find(".chosen-card").count() == 4
    screen.find(".chosen-badge").filter(has_text="proposed").wait_for()
    screen.find(".chosen-card").first.filter(has_text="picked").filter(has_text="%").wait_for()
    screen.keep("clusters")


@pytest.mark.parametrize("index", [7, 20])
def test_hovering_a_point_shows_its_image(screen, index):
    shown = screen.hover(index)
    assert shown.locator("> img").get_attribute("data-image").endswith(f"0/{index}")
    assert f"Image {index}" in shown.inner_text()
    assert shown.locator(".chosen-near img").count() == 5
    assert screen.python(f"print(run.tables.gallery().image_id[{index}])") in shown.inner_text()
    screen.find(f".chosen-tile.is-hovered[data-index='{index}']").first.wait_for(state="attached")
    screen.keep(f"hover-{index}")


def test_a_click_on_a_point_scrolls_the_gallery_to_it(screen):
    last = screen.python("explorer.gallery.size.value = 160; print(explorer.gallery.view.sections[-1]['ids'][-1])")
    screen.turn_to("Shares")
    screen.keep_busy(2)  # a slow kernel hears the click too, though the pointer goes on to another point
    screen.page.mouse.click(*screen.point(int(last)))
    screen.page.mouse.move(*screen.point(0))
    tile = screen.find(f".chosen-gallery[aria-label='Gallery of the iteration'] .chosen-tile[data-index='{last}']")
    tile.wait_for()
    screen.page.wait_for_function(
        """(tile) => {
          const [inner, outer] = [tile, tile.closest('.chosen-gallery')].map((e) => e.getBoundingClientRect());
          return inner.height > 100 && outer.top <= inner.top && inner.bottom <= outer.bottom;
        }""",
        arg=tile.element_handle(),
    )
    screen.python("explorer.gallery.size.value = 72")


def test_a_lasso_gives_the_ids_inside_it(screen):
    spots = [screen.point(i) for i in range(N)]
    left, right = min(x for x, _ in spots) - 12, max(x for x, _ in spots) + 12
    heights = sorted(y for _, y in spots)
    top, gaps = (
        heights[0] - 12,
        [(b - a, (a + b) / 2) for a, b in pairwise(heights[8:-4])],
    )
    middle = max(gaps)[1]  # through the widest gap between two points
    inside = [i for i, (_, y) in enumerate(spots) if y < middle]
    mouse = screen.page.mouse
    screen.keep_busy(2)
    mouse.move(left, top)
    mouse.down()
    for corner in ((right, top), (right, middle), (left, middle), (left, top + 4)):
        mouse.move(*corner, steps=8)
    mouse.up()
    mouse.move(*spots[inside[0]])
    screen.says("images selected")
    assert screen.python("print(explorer.session.selected)") == str(inside)
    screen.keep("lasso")


def test_keys_work_only_while_the_gallery_has_the_focus(screen):
    cells = screen.page.locator(".jp-Cell").count()
    tile = screen.find(".chosen-gallery[aria-label='Gallery of the iteration'] .chosen-tile").first
    tile.focus()
    first = int(tile.get_attribute("data-index"))
    for key in ("ArrowRight", "ArrowLeft", "s", "x", "d", "d", "Escape"):
        screen.page.keyboard.press(key)
    assert screen.page.locator(".jp-Cell").count() == cells
    screen.says("0 images selected")  # Escape has been dealt with: the status line is free for what follows
    screen.page.keyboard.press("f")
    closer = screen.find(".chosen-closer[open] img")
    closer.wait_for()
    assert closer.get_attribute("alt").startswith(f"Image {first}, seed")
    screen.page.keyboard.press("Escape")
    closer.wait_for(state="hidden")
    screen.page.keyboard.press("Enter")
    screen.says("Chosen: cluster")
    chosen = screen.python(f"print(explorer.node.decision.cluster == explorer.node.clusters.labels[{first}])")
    assert chosen == "True"
    tile.focus()
    screen.page.keyboard.press("z")
    screen.says("nothing chosen yet")


def test_space_leaves_out_and_z_and_y_undo_and_redo(screen):
    tile = screen.find(".chosen-gallery[aria-label='Gallery of the iteration'] .chosen-tile").first
    tile.focus()
    for key, left_out in ((" ", 1), ("z", 0), ("y", 1), ("z", 0)):
        screen.page.keyboard.press(key)
        screen.page.wait_for_function(
            "n => document.querySelectorAll('.chosen-gallery .is-excluded').length === n", arg=left_out
        )


def test_merge_clusters_and_take_it_back(screen):
    screen.turn_to("Clusters")
    screen.press("regroup")  # the ticks come with it
    names = [card.get_attribute("data-cluster") for card in screen.find(".chosen-card").all()]
    screen.keep_busy(2)  # what is ticked reaches a slow kernel before the click that follows
    for name in names[:2]:
        screen.find(f".chosen-card[data-cluster='{name}'] input").check()
    screen.press("merge")
    screen.says(f"{len(names) - 1} clusters")
    screen.page.wait_for_function(f"document.querySelectorAll('.chosen-card').length === {len(names) - 1}")
    screen.press("undo")
    screen.says(f"{len(names)} clusters")
    screen.press("redo")
    screen.says(f"{len(names) - 1} clusters")
    screen.press("undo")
    screen.page.wait_for_function(f"document.querySelectorAll('.chosen-card').length === {len(names)}")


def test_choose_what_was_not_proposed_and_leave_one_out(screen):
    screen.press("regroup")
    card = screen.find(".chosen-card:not(:has(.chosen-badge))").first
    cluster = int(card.get_attribute("data-cluster"))
    card.locator(".chosen-choose").click()
    screen.says(f"Chosen: cluster {cluster}")
    strip = screen.find(".chosen-choice .chosen-tile")
    n = strip.count()
    strip.first.click()
    screen.says(f"{n - 1} images, 1 left out")
    assert screen.find(".chosen-choice .chosen-tile.is-excluded").count() == 1
    screen.press("undo")
    screen.says(f"{n} images. Stored")
    screen.press("redo")
    screen.says("1 left out")
    screen.keep("chosen")


def test_refine_and_see_the_second_gallery(screen):
    screen.step("Next comes Generate")
    screen.step("Next comes Embed")
    screen.page.wait_for_function("document.querySelector('.chosen-stagebar').innerText.includes('iteration 1')")
    images = screen.find(".chosen-gallery[aria-label='Gallery of the iteration'] img")
    assert images.count() == N
    assert images.first.get_attribute("data-image").endswith("1/0")


def test_cancel_and_go_on(screen):
    screen.step("Next comes Check")
    screen.step("Next comes Cluster")
    screen.step("Your turn")
    screen.press("proposal")
    screen.says("Chosen")
    screen.python("painted.pause = 2.0")
    screen.press("next")
    screen.find(".chosen-words-now").filter(has_text="steps").wait_for()
    screen.page.wait_for_function("document.querySelector('.chosen-curves').innerText.includes('Blue: smoothed')")
    screen.keep("refining")
    screen.press("cancel")
    screen.says("Cancelled")
    assert screen.python("print(run.current.refined, run.current.state)") == "False choose"


def test_the_work_goes_on_while_the_page_is_closed(screen):
    screen.python("painted.pause = 0.5")
    screen.press("next")
    screen.find(".chosen-words-now").filter(has_text="steps").wait_for()
    screen.notebook.do("docmanager:save")
    screen.reload()
    screen.says("Next comes Generate")
    screen.page.wait_for_function(lab.KERNEL_READY)
    assert screen.python("painted.pause = 0.0; print(run.nodes['1'].refined)") == "True"


def test_the_same_state_after_a_kernel_restart(screen):
    judged = "!document.querySelector('.chosen-cards').textContent.includes('…')"  # everything is counted
    parts = (".chosen-stagebar", ".chosen-decision", ".chosen-tree", ".chosen-cards", ".chosen-gallery >> nth=1")
    screen.turn_to("Clusters")
    screen.page.wait_for_function(judged)
    before = [screen.find(part).first.text_content() for part in parts]
    screen.notebook.restart()
    screen.notebook.run_all()
    screen.page.wait_for_function(f"document.querySelectorAll('.chosen-map .point').length >= {N}")
    screen.page.wait_for_function(judged)
    assert [screen.find(part).first.text_content() for part in parts] == before
    assert screen.find(".chosen-node").count() == 2


def test_a_sibling_branch_beside_what_would_have_followed(screen):
    screen.find(".chosen-node[data-node='0']").click()
    screen.page.wait_for_function("document.querySelector('.chosen-stagebar').innerText.includes('iteration 0')")
    screen.turn_to("Clusters")
    screen.find(".chosen-card:not(.is-chosen) .chosen-choose").first.click()
    screen.says("began branch 0b")
    screen.step("Next comes Generate")
    screen.step("Next comes Embed")
    screen.page.get_by_role("tab", name="Compare").click()
    table = screen.find(".chosen-table table").first
    table.wait_for()
    assert "chosen by" in table.inner_text()
    sides = [screen.find(f".chosen-gallery[aria-label='Gallery {side}'] img") for side in "AB"]
    assert [side.count() for side in sides] == [N, N]
    screen.keep("compare")


def test_in_the_dark(screen):
    screen.page.get_by_role("tab", name="Gallery").click()
    screen.notebook.command("apputils:change-theme", theme="JupyterLab Dark")
    screen.page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
    for part in (".chosen-stagebar li.is-done", ".chosen-heading, .chosen-empty"):
        ink = screen.page.evaluate("(s) => getComputedStyle(document.querySelector(s)).color", part)
        assert brightness(ink) > 140, part
    screen.keep("dark")


def test_reloading_the_page_loses_nothing(screen):
    screen.notebook.do("docmanager:save")
    screen.page.reload()
    screen.page.wait_for_function(f"document.querySelectorAll('.chosen-gallery img').length >= {N}")
    screen.page.wait_for_function(
        "[...document.querySelectorAll('.chosen-gallery img')].every(i => i.complete && i.naturalWidth > 0)"
    )
    screen.says("Next comes Embed")


def test_no_script_failed(screen):
    assert screen.notebook.errors == []


def test_the_first_notebook_shows_a_finished_run(lesson, served):
    """What is seen first, map and all, while a cell below is still at work and the kernel hears nobody."""
    page, first = lesson.page, lesson.page.locator(".chosen-explorer").first
    first.locator(".chosen-card").nth(1).wait_for()
    points = "document.querySelector('.chosen-explorer')?.querySelectorAll('.chosen-map .point').length >= 32"
    page.wait_for_function(points)
    assert first.locator(".chosen-node").count() == len(Run.example().nodes)
    assert "0b" in first.locator(".chosen-node.is-shown").inner_text()
    (served[0] / "go-on").touch()
    first.locator(".chosen-node[data-node='1']").click()
    first.locator(".chosen-stagebar").filter(has_text="iteration 1").wait_for()


def test_the_first_notebook_runs_to_its_end(lesson):
    page = lesson.page
    lesson.wait_idle()
    stderr = page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'] pre")
    assert stderr.all_inner_texts() == []
    assert page.locator(".jp-RenderedImage img").filter(visible=True).count() == 2
    second = page.locator(".chosen-explorer").nth(1)
    second.locator(".chosen-status").filter(has_text="Next comes Embed").wait_for()
    assert second.locator(".chosen-gallery[aria-label='Gallery of the iteration'] img").count() == 16
    assert lesson.errors == []


def brightness(colour: str) -> float:
    """Mean of red, green and blue, 0 to 255, of a CSS colour: ``rgb(1, 2, 3)`` or ``color(srgb 0.1 0.2 0.3)``."""
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3 * (255 if colour.startswith("color(srgb") else 1)
