"""An explorer in JupyterLab, and short words for what a person does on it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from playwright.sync_api import TimeoutError as PlaywrightTimeout

from helpers import lab

N = 32
CELLS = [
    "import pytest\nfrom helpers import painted\n"
    "painted.paint(pytest.MonkeyPatch())\n"
    "from chosen_one_nb.run.run import Run\n"
    "from chosen_one_nb.widgets.explorer import Explorer",
    "from pathlib import Path\n"
    "if Path('run/run.json').exists():\n"
    "    run = Run.open('run', painted.MODELS)\n"
    "else:\n"
    f"    run = painted.start('run', n_images={N}, target_cluster_size=8)",
    "explorer = Explorer(run, method='pca')\nexplorer",
]
POINT = """([i, n]) => {
  const traces = [...document.querySelectorAll('.chosen-map .scatterlayer .trace')];
  const points = traces.map(t => t.querySelectorAll('.point')).findLast(p => p.length === n); // above the ghosts
  const box = points[i].getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""
RUN_CODE = """async (code) => {
  const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let text = '';
  future.onIOPub = (m) => { text += m.content.text ?? (m.content.evalue ? 'ERROR ' + m.content.evalue : ''); };
  await future.done;
  return text;
}"""


class Screen:
    """A notebook with an explorer in it, and short words for what a person does."""

    def __init__(self, notebook: lab.Notebook) -> None:
        self.notebook, self.page = notebook, notebook.page

    def find(self, selector: str):
        return self.page.locator(f".chosen-explorer {selector}")

    def press(self, kind: str) -> None:
        """Press a button of the explorer by its class."""
        self.find(f".chosen-{kind}:not([disabled])").first.click()

    def reload(self) -> None:
        """Reload the page until the explorer is there.

        ipywidgets shows "model not found" where JupyterLab draws a saved view before a slow kernel has sent its models.
        """
        for _ in range(4):
            self.page.reload()
            with contextlib.suppress(PlaywrightTimeout):
                return self.find(".chosen-status").wait_for(timeout=20_000)
        raise AssertionError("expected the explorer after four reloads, got none")

    def turn_to(self, tab: str) -> None:
        """Turn to a tab of the side pane."""
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def says(self, text: str) -> None:
        """Wait until the status line says something, that of the first display."""
        self.find(".chosen-status").filter(has_text=text).first.wait_for()

    def point(self, index: int) -> list[float]:
        return self.page.evaluate(POINT, [index, N])

    def hover(self, index: int) -> Any:
        """Point at an image on the map until its preview is there, and give that: a map that is being fitted moves."""
        shown = self.find(f".chosen-preview[data-index='{index}']:not([hidden])")
        for _ in range(20):
            x, y = self.point(index)
            self.page.mouse.move(x - 40, y - 40)
            self.page.mouse.move(x, y)
            self.page.wait_for_timeout(700)
            if shown.count() and self.point(index) == [x, y]:
                return shown
        raise AssertionError(f"no preview of image {index}")

    def step(self, then: str) -> None:
        self.press("next")
        self.says(then)

    def python(self, code: str) -> str:
        """Run code in the notebook's kernel and give what it printed."""
        return self.page.evaluate(RUN_CODE, code).strip()

    def keep_busy(self, seconds: float) -> None:
        """Have the kernel hear nobody for a while, from now on.

        Widgets are heard on a thread of their own, so the sleep keeps the interpreter's lock, as a slow step may.
        """
        code = f"import ctypes; ctypes.PyDLL(None).usleep({int(1e6 * seconds)})"
        self.page.evaluate(
            """(code) => {
              const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
              kernel.requestExecute({ code, store_history: false });
            }""",
            code,
        )

    def keep(self, name: str) -> None:
        """Keep a screenshot, where that was asked for."""
        if folder := os.environ.get("CHOSEN_SCREENSHOTS"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(1200)
            self.page.screenshot(path=str(Path(folder) / f"{name}.png"))
