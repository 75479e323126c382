"""The explorer on one screen, in a real JupyterLab: what must be seen at once is, at three sizes and in both themes."""

from __future__ import annotations

import pytest
from helpers import lab
from helpers.screen import CELLS, Screen

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(lab.why_not()), reason=lab.why_not()),
]

SIZES = [(1440, 900), (1366, 768), (1024, 768)]
LOOK = """() => {
  const root = document.querySelector('.chosen-explorer');
  root.querySelector('.chosen-screen').scrollIntoView({ block: 'center' });
  const pane = root.closest('.jp-WindowedPanel-outer').getBoundingClientRect();
  const name = (e) => `${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`;
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getBoundingClientRect().width > 1;
  const outside = (e) => {
    const box = e.getBoundingClientRect();
    return box.top < pane.top - 1 || box.bottom > pane.bottom + 1 || box.left < pane.left - 1
      || box.right > pane.right + 1;
  };
  const wanted = ['.chosen-next', '.chosen-map .chosen-plot', '.chosen-card:nth-child(1)', '.chosen-card:nth-child(2)',
    '.chosen-decide', '.chosen-status'].map((s) => root.querySelector(s));
  const cards = root.querySelector('.chosen-cards').getBoundingClientRect();
  const plot = root.querySelector('.chosen-map .chosen-plot').getBoundingClientRect();
  const panes = [root, ...root.querySelectorAll('.chosen-screen, .chosen-stagebar, .chosen-stepper, .chosen-rail, ' +
    '.chosen-map, .chosen-tools, .chosen-cards, .chosen-decide, .chosen-acts, .widget-tab-contents')].filter(seen);
  const texts = 'button, li, .lm-TabBar-tabLabel, .chosen-facts span, .chosen-decision span';
  const written = [...root.querySelectorAll(texts)]
    .filter((e) => seen(e) && e.textContent.trim());
  const bars = ['.chosen-stepper', '.chosen-tools', '.chosen-acts', '.chosen-stagebar ol', '.chosen-card header'];
  const apart = (a, b) => a.right <= b.left + 1 || b.right <= a.left + 1
    || a.bottom <= b.top + 1 || b.bottom <= a.top + 1;
  const overlapping = bars.flatMap((bar) => [...root.querySelectorAll(bar)].flatMap((box) => {
    const kinds = 'button, select, input, li, strong, .chosen-size, .chosen-badge';
    const parts = [...box.querySelectorAll(kinds)].filter(seen);
    return parts.flatMap((a, i) => parts.slice(i + 1)
      .filter((b) => !a.contains(b) && !apart(a.getBoundingClientRect(), b.getBoundingClientRect()))
      .map((b) => `${name(a)} / ${name(b)}`));
  }));
  return {
    'not in sight': wanted.map((e, i) => [e, i]).filter(([e]) => !e || !seen(e) || outside(e)).map(([, i]) => i),
    'card below its pane': wanted[3].getBoundingClientRect().bottom > cards.bottom + 1,
    'map too small': plot.width < 280 || plot.height < 200 ? [plot.width, plot.height] : '',
    'wider than it is': panes.filter((e) => e.scrollWidth > e.clientWidth + 1).map(name),
    'cut': written.filter((e) => getComputedStyle(e).overflowX !== 'visible')
      .filter((e) => e.scrollWidth > e.clientWidth + 1).map(name),
    'overlapping': overlapping,
  };
}"""


@pytest.fixture(scope="module")
def screen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    ready = f"{CELLS[1]}\nwhile run.next_stage != 'choose':\n    run.step()"
    with lab.server(folder) as address, lab.browser() as chromium:
        lab.write_notebook(folder / "fit.ipynb", [CELLS[0], ready, CELLS[2], "explorer"])
        notebook = lab.Notebook(chromium, address, "fit.ipynb", width=1440, height=900)
        notebook.run_all()
        screen = Screen(notebook)
        screen.find(".chosen-card").first.filter(has_text="%").wait_for()
        screen.find(".chosen-map .point").first.wait_for(state="attached")
        yield screen
        notebook.close()


def faults(screen: Screen, size: tuple[int, int]) -> dict[str, object]:
    """Resize the window and give what is wrong."""
    screen.page.set_viewport_size({"width": size[0], "height": size[1]})
    screen.page.wait_for_timeout(700)
    return {what: found for what, found in screen.page.evaluate(LOOK).items() if found}


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_all_that_a_choice_needs_is_in_sight(screen, theme):
    screen.notebook.command("apputils:change-theme", theme=f"JupyterLab {theme}")
    screen.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str(theme == 'Light').lower()}'")
    for act in ("explorer.session.select([])", "explorer.session.select(range(6))", "explorer.choice.use.click()",
                "explorer.choice.undo.click()"):  # fmt: skip
        screen.python(act)
        assert {size: faults(screen, size) for size in SIZES} == {size: {} for size in SIZES}, act


def test_a_second_display_is_as_wide_and_high_as_the_first(screen):
    boxes = screen.page.evaluate("""() => [...document.querySelectorAll('.chosen-screen')].map((e) => {
      const box = e.getBoundingClientRect();
      return [box.width, box.height];
    })""")
    assert len(boxes) == 2
    assert boxes[0] == boxes[1]


def test_a_choice_and_the_next_step_take_two_clicks_and_no_scrolling(screen):
    page = screen.page
    page.set_viewport_size({"width": 1366, "height": 768})
    page.wait_for_timeout(700)
    where = "() => document.querySelector('.jp-WindowedPanel-outer').scrollTop"
    page.evaluate("document.querySelector('.chosen-screen').scrollIntoView({ block: 'center' })")
    before = page.evaluate(where)
    screen.find(".chosen-card:not(:has(.chosen-badge)) .chosen-choose").first.click()
    screen.says("Chosen: cluster")
    page.wait_for_function("document.activeElement.classList.contains('chosen-next')")
    screen.press("next")
    screen.says("Next comes Generate")
    assert page.evaluate(where) == before


def test_no_script_failed(screen):
    assert screen.notebook.errors == []
