"""A saved notebook opened again in a real JupyterLab shows a picture; the live screen hides it and downloads files."""

from __future__ import annotations

import nbformat
import pytest
from helpers import lab
from test_widgets_files import saved_notebook

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not())]
SEEN = "() => [...document.querySelectorAll('.jp-RenderedImage img')].map((i) => i.getBoundingClientRect().width > 300)"


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    nbformat.write(saved_notebook(), folder / "saved.ipynb")
    with lab.server(folder) as address, lab.browser() as chromium:
        opened = lab.Notebook(chromium, address, "saved.ipynb", height=900)
        yield opened
        opened.close()


def test_a_notebook_opened_again_shows_the_picture(notebook):
    notebook.page.wait_for_function(f"({SEEN})()[0]")
    assert not notebook.page.locator(".chosen-explorer").count()


def test_the_live_screen_hides_it_and_downloads(notebook):
    notebook.run_all()
    page = notebook.page
    page.locator(".chosen-map .scatterlayer .point").first.wait_for()
    page.wait_for_function(f"!({SEEN})()[0]")
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as waiting:
        page.locator("button.chosen-table").click()
    assert waiting.value.suggested_filename.endswith("-iteration-0b.csv")
    assert waiting.value.path().read_text().startswith("image_id,")
    assert not notebook.errors
