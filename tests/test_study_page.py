"""The page that raters open, from a file, in Chromium: rated by keyboard, closed in the middle, resumed, sent back.

With CHOSEN_SCREENSHOTS set to a folder, the screens are kept there as images.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from helpers import lab, studies

from chosen_one_nb.study import analyse

pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not())]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return studies.study(tmp_path_factory.mktemp("rated"), n_characters=2, sheets=2, side=128)


@pytest.fixture(scope="module")
def chromium():
    with lab.browser() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def context(chromium):
    return chromium.new_context(viewport={"width": 1366, "height": 700}, accept_downloads=True)


def opened(context, study, sheet=0):
    page = context.new_page()
    page.goto(f"{(study.folder / 'page' / 'index.html').as_uri()}?sheet={sheet}")
    return page


def keep(page, name):
    if folder := os.environ.get("CHOSEN_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder) / f"study_{name}.png"))


def seen(page):
    """Files of the images on the screen, and the text."""
    images = page.locator(".rating-images img").evaluate_all("all => all.map(img => img.getAttribute('src'))")
    quote = page.locator(".rating blockquote")
    return [Path(image).stem for image in images], quote.inner_text() if quote.count() else ""


def expected(study, sheet, position):
    item = {item.id: item for item in study.key.items}[study.key.sheets[sheet][position]]
    return item, (item.files, item.text)


def answer(page, study, position, rating, sheet=0):
    item, screen = expected(study, sheet, position)
    assert seen(page) == screen
    page.keyboard.press(str(rating))
    page.keyboard.press("Enter")
    if item.kind == "training":
        assert item.note in page.locator(".rating-told").inner_text()
        page.keyboard.press("Enter")


def test_rated_by_keyboard_closed_resumed_and_sent_back(context, study):
    n, half = len(study.key.sheets[0]), len(study.key.sheets[0]) // 2
    page = opened(context, study)
    keep(page, "welcome")
    page.get_by_label("Alias").fill("anna")
    page.keyboard.press("Enter")
    for position in range(half):
        answer(page, study, position, 1 + position % 5)
    keep(page, "middle")
    page.keyboard.press("Enter")  # without an answer: nothing happens
    assert page.locator(".rating-progress").inner_text().strip().startswith(f"{half + 1} of {n}")
    page.keyboard.press("Backspace")  # takes the last answer back
    assert seen(page) == expected(study, 0, half - 1)[1]
    html = page.content()
    page.close()

    page = opened(context, study)
    page.get_by_role("button", name="Go on as anna").click()
    for position in range(half - 1, n):
        answer(page, study, position, 1 + (position + 1) % 5)
    keep(page, "end")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save my answers").click()
    download.value.save_as(study.folder / "answers" / download.value.suggested_filename)

    answers, problems = study.read_answers()
    assert problems == []
    standing = analyse(study).answers
    assert standing.position.tolist() == list(range(n))
    given = [1 + p % 5 for p in range(half - 1)] + [1 + (p + 1) % 5 for p in range(half - 1, n)]
    assert standing.rating.tolist() == given
    assert len(answers) == n + 2  # the answer taken back, and the line that takes it back
    assert (standing.ms < 60_000).all()
    assert_blind(study, html + page.content())
    page.close()


def assert_blind(study, html):
    told = [*studies.METHODS, *(str(seed) for item in study.key.items for seed in item.seeds), ".png", "golden"]
    whole = (study.folder / "page" / "index.html").read_text()
    assert not [word for word in told if word in html or word in whole]


def test_another_person_begins_anew_and_a_screen_fits_a_laptop(context, study):
    page = opened(context, study, sheet=1)
    page.get_by_label("Alias").fill("synthetic-1")
    page.keyboard.press("Enter")
    assert page.get_by_role("button", name="Begin").is_visible()  # refused
    page.get_by_label("Alias").fill("bob")
    page.keyboard.press("Enter")
    assert page.locator(".rating-progress").inner_text().strip().startswith("1 of")
    assert seen(page) == expected(study, 1, 0)[1]
    page.locator(".rating-level").nth(2).click()
    page.locator(".rating-next").click()
    assert not page.evaluate("() => document.documentElement.scrollHeight > innerHeight")
    keep(page, "training")
    page.close()


def test_the_widget_in_a_notebook_keeps_each_answer_and_goes_on(chromium, tmp_path):
    study = studies.study(tmp_path, n_characters=2, sheets=2, side=128)
    cell = "from chosen_one_nb.study import Study\nfrom chosen_one_nb.widgets.rating import RatingPanel\n"
    lab.write_notebook(tmp_path / "rate.ipynb", [f'{cell}panel = RatingPanel(Study("study"), "anna")\npanel'])
    with lab.server(tmp_path) as address:
        notebook = lab.Notebook(chromium, address, "rate.ipynb", height=900)
        notebook.run_all()
        panel = notebook.page.locator(".rating")
        panel.locator("img").first.wait_for()
        panel.focus()
        for keys in ("4 Enter", "2 Enter", "Backspace", "5 Enter"):
            done = panel.locator(".rating-progress").inner_text()
            for key in keys.split():
                notebook.page.keyboard.press(key)
            if panel.locator(".rating-told").count():
                notebook.page.keyboard.press("Enter")
            notebook.page.wait_for_function(
                "(done) => document.querySelector('.rating-progress').innerText !== done", arg=done
            )
        keep(notebook.page, "widget")
        notebook.restart()
        notebook.run_all()
        notebook.page.locator(".rating-progress", has_text="3 of").wait_for()
        assert notebook.page.locator(".rating-problem").inner_text() == ""
        assert notebook.errors == []
        notebook.close()
    assert [answer.rating for answer in study.read_answers()[0]] == [4, 2, None, 5]
