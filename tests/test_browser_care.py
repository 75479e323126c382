"""The explorer in a real JupyterLab, where things go wrong: markup in the prompt, a folder that is gone, no mouse.

As in test_browser.py the tests go through one notebook in order.
"""

from __future__ import annotations

import pytest
from helpers import lab
from helpers.screen import CELLS, N, Screen

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()),
]

PROMPT = '<img src=x onerror="window.hacked=1"> <script>window.hacked=1</script> & a <b>fox</b>'
TABS = ("Clusters", "Gallery", "Shares", "Compare", "Strength", "Settings", "Use it", "Files")
FOCUS = """() => {
  const at = document.activeElement;
  if (!at.closest('.chosen-explorer')) return '';
  return [at.className?.baseVal ?? at.className ?? "", at.getAttribute("aria-label") ?? at.textContent ?? ""].join(" ");
}"""
CARE = """() => {
  const root = document.querySelector('.chosen-explorer');
  const seen = (e) => e.getBoundingClientRect().width > 0 && getComputedStyle(e).visibility !== 'hidden';
  const about = (e) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`;
  const kinds = 'button, input, select, textarea, [role=tab], [role=slider]';
  const controls = [...root.querySelectorAll(kinds)].filter(seen);
  const titled = (e) => root.contains(e.closest("[title]:not([title='']), [data-title]"));
  const named = (e) => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length
    || e.placeholder || e.querySelector('img[alt]');
  return {
    'without a tooltip': controls.filter((e) => !titled(e)).map(about),
    'without a name': controls.filter((e) => !named(e)).map(about),
    'without alt text': [...root.querySelectorAll('img')].filter((i) => !i.alt).map((i) => i.dataset.image),
    'drawn without words': [...root.querySelectorAll('svg')].filter(seen)
      .filter((s) => !s.closest('[role=figure][aria-label], [role=img], [aria-hidden=true], button')).map(about),
  };
}"""
FAINT = """() => {
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const parsed = (css) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = css;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => below.map((v, i) => top[i] * top[3] + v * (1 - top[3]));
  const linear = (v) => (v <= 0.04 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const own = (e) => parsed(getComputedStyle(e).backgroundColor);
  const ground = (e) => (e ? over(own(e), ground(e.parentElement)) : [255, 255, 255]);
  const written = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const skipped = 'svg, style, :disabled, [aria-hidden], .chosen-sign';
  return [...document.querySelectorAll('.chosen-explorer *')]
    .filter((e) => written(e) && e.getBoundingClientRect().width > 0 && !e.closest(skipped))
    .map((e) => {
      const below = ground(e);
      const [a, b] = [light(over(parsed(getComputedStyle(e).color), below)), light(below)];
      const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      return [ratio.toFixed(1), `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`];
    })
    .filter(([ratio]) => Number(ratio) < 4.5);
}"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    cells = [CELLS[0], f"run = painted.start('run', {PROMPT!r}, n_images={N}, target_cluster_size=8)", CELLS[2]]
    with lab.server(folder) as address, lab.browser() as chromium:
        lab.write_notebook(folder / "care.ipynb", cells)
        notebook = lab.Notebook(chromium, address, "care.ipynb", height=1900)
        notebook.run_all()
        screen = Screen(notebook)
        screen.find(".chosen-next").wait_for()
        yield screen
        notebook.close()


def tab_to(screen: Screen, name: str) -> None:
    """Press Tab until what has the focus is called so, or has that class."""
    for _ in range(200):
        if name in screen.page.evaluate(FOCUS):
            return
        screen.page.keyboard.press("Tab")
    raise AssertionError(f"Tab never comes to {name}")


def test_a_whole_decision_by_keyboard_alone(screen):
    press = screen.page.keyboard.press
    screen.find(".chosen-next").focus()
    for key, then in (("Enter", "Embed"), ("Enter", "Check"), ("Space", "Cluster"), ("Enter", "Your turn")):
        press(key)
        screen.says(then)  # the button has its focus back when the work is done
        screen.page.wait_for_function("document.activeElement.classList.contains('chosen-next')")
    cells = screen.page.locator(".jp-Cell").count()
    for key in "xdda":  # Lab's own: cut, delete, insert
        press(key)
    assert screen.page.locator(".jp-Cell").count() == cells
    tab_to(screen, "PCA")
    tab_to(screen, "chosen-choose")
    press("Enter")
    screen.says("Chosen: cluster")
    tab_to(screen, "chosen-undo")
    press("Enter")
    screen.says("nothing chosen yet")
    tab_to(screen, "chosen-redo")
    press("Enter")
    screen.says("Chosen: cluster")


def test_tabs_and_images_by_keyboard_alone(screen):
    press = screen.page.keyboard.press
    tab_to(screen, "lm-TabBar-tab")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "Enter"):
        press(key)
    screen.page.get_by_role("tab", name="Compare", selected=True).wait_for()
    for key in ("Home", "ArrowRight", "Enter"):
        press(key)
    screen.page.get_by_role("tab", name="Gallery", selected=True).wait_for()
    tab_to(screen, "chosen-tile")
    press("ArrowRight")
    press("s")
    press("ArrowDown")
    press("s")
    screen.says("2 images selected")
    index = screen.page.evaluate("document.activeElement.dataset.index")
    screen.find(f".chosen-preview[data-index='{index}']").wait_for()  # what a mouse sees on hovering


def test_every_control_has_a_tooltip_and_every_image_words(screen):
    for name in TABS:
        screen.page.get_by_role("tab", name=name).click()
        screen.page.wait_for_timeout(500)
        assert not {what: which for what, which in screen.page.evaluate(CARE).items() if which}, name


def test_nothing_is_written_too_faintly(screen):
    for theme in ("Light", "Dark"):
        screen.notebook.command("apputils:change-theme", theme=f"JupyterLab {theme}")
        screen.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'")
        screen.page.wait_for_timeout(800)
        for name in TABS:
            screen.page.get_by_role("tab", name=name).click()
            screen.page.wait_for_timeout(300)
            assert not screen.page.evaluate(FAINT), (theme, name)


def test_a_narrow_window_cuts_nothing_off(screen):
    screen.page.set_viewport_size({"width": 700, "height": 1900})
    screen.page.wait_for_timeout(1000)
    beyond = """() => {
      const edge = document.querySelector('.chosen-explorer').getBoundingClientRect().right + 2;
      return [...document.querySelectorAll('.chosen-explorer :is(button, input, select, li, img)')]
        .filter((e) => !e.closest('.chosen-tree, table, .chosen-decide .chosen-gallery')) // these scroll inside
        .filter((e) => e.getBoundingClientRect().right > edge)
        .map((e) => e.className + e.textContent);
    }"""
    assert screen.page.evaluate(beyond) == []
    screen.page.set_viewport_size({"width": 1560, "height": 1900})


def test_markup_in_prompt_and_note_is_text(screen):
    screen.find("h2[title='The prompt']").wait_for()
    assert screen.find("h2[title='The prompt']").inner_text() == PROMPT
    screen.python(
        "from chosen_one_nb.widgets import actions\n"
        "actions.write_note(explorer.session, '<img src=x onerror=\"window.hacked=1\">')"
    )
    for name in TABS:
        screen.page.get_by_role("tab", name=name).click()
        screen.page.wait_for_timeout(200)
    assert screen.page.evaluate("window.hacked") is None
    assert screen.find("img[src=x]").count() == screen.find("script").count() == 0


def test_the_report_opens_without_python_and_shows_markup_as_text(screen):
    path = screen.python("print(run.report().resolve())")
    page, asked = screen.page.context.browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"file://{path}")
    page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert PROMPT in page.inner_text("body")
    assert page.evaluate("window.hacked") is None
    assert not [url for url in asked if not url.startswith(("file://", "data:", "blob:"))]
    page.close()


def test_a_vanished_folder_is_said_and_the_stage_can_be_retried(screen):
    screen.python("import shutil; kept = shutil.copytree(run.folder, 'kept'); shutil.rmtree(run.folder)")
    screen.press("next")
    screen.says("is gone (moved or deleted?). Put it back and call the same step again.")
    details = screen.find(".chosen-status details")
    details.locator("summary").click()
    assert "Traceback" in details.inner_text()
    assert "Retry" in screen.find(".chosen-next").inner_text()
    assert screen.python("print(run.folder.exists())") == "False"
    screen.turn_to("Clusters")
    screen.hover(3)
    screen.python("shutil.copytree(kept, run.folder)")
    screen.step("Next comes Generate")


def test_no_script_failed(screen):
    assert screen.notebook.errors == []
