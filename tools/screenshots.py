"""Take the images of the explorer for the README: ``python tools/screenshots.py [--out FOLDER] [--every]``.

A copy of the bundled run is opened in JupyterLab in Chromium and used as a person would. With ``--every`` the states
that the README does not show are kept too, to be looked at. With ``--lesson`` it is the explorer of lesson 03, after
that lesson's own cells, and the image is the one that the lesson shows.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

import nbformat
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers import lab  # noqa: E402

CELLS = [
    "from chosen_one_nb import Explorer, Run\nrun = Run.example('fox')",
    "explorer = Explorer(run)\nexplorer",
]
LESSON = ROOT / "notebooks" / "03_spurious_attributes.ipynb"
KEPT = ("explorer", "explorer_dark", "explorer_compare", "explorer_shares")
MARGIN = 4
WIDE, NARROW = (1600, 2700), (820, 3200)
POINT = """(index) => {
  const traces = [...document.querySelectorAll('.chosen-map .scatterlayer .trace')];
  const groups = traces.map(t => [...t.querySelectorAll('.point')]);
  const points = groups.findLast(g => g.length === Math.max(...groups.map(h => h.length))); // above the ghosts
  const box = points[index].getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
}"""


class Camera:
    """The explorer in a notebook, used and photographed."""

    def __init__(self, notebook: lab.Notebook, out: Path, wanted: tuple[str, ...]) -> None:
        self.notebook, self.page, self.out, self.wanted = notebook, notebook.page, out, wanted

    def find(self, selector: str):  # noqa: ANN201
        """Find a part of the explorer."""
        return self.page.locator(f".chosen-explorer {selector}")

    def settled(self) -> None:
        """Wait until the UMAP and the resampling of clusters are there and drawn."""
        self.find(".chosen-trust").filter(has_text="trustworthiness").first.wait_for()
        self.find(".chosen-card").first.filter(has_text="%").wait_for()
        self.page.wait_for_timeout(1500)

    def hover(self, index: int) -> None:
        """Point at a point of the map."""
        x, y = self.page.evaluate(POINT, index)
        self.page.mouse.move(x - 30, y - 30)
        self.page.mouse.move(x, y)
        self.find(f".chosen-preview[data-index='{index}']").wait_for()

    def tab(self, name: str) -> None:
        """Turn to a tab."""
        self.page.get_by_role("tab", name=name, exact=True).click()
        self.page.wait_for_timeout(800)

    def dark(self, yes: bool) -> None:
        """Change JupyterLab's theme."""
        self.notebook.command("apputils:change-theme", theme="JupyterLab Dark" if yes else "JupyterLab Light")
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{'false' if yes else 'true'}'")
        self.page.wait_for_timeout(800)

    def keep(self, name: str, first: str = "", last: str = "") -> None:
        """Keep an image of the explorer, or of what stands between two parts of it, both included."""
        if name not in self.wanted and self.wanted:
            return
        self.page.wait_for_timeout(500)
        whole = self.page.locator(".chosen-explorer").bounding_box()
        top = self.find(first).first.bounding_box()["y"] if first else whole["y"]
        end = self.find(last).first.bounding_box() if last else whole
        clip = {"x": whole["x"] - MARGIN, "y": top - MARGIN, "width": whole["width"] + 2 * MARGIN,
                "height": end["y"] + end["height"] - top + 2 * MARGIN}  # fmt: skip
        shot = self.page.screenshot(clip=clip)
        Image.open(io.BytesIO(shot)).convert("RGB").save(self.out / f"{name}.jpg", quality=85, optimize=True)
        print(self.out / f"{name}.jpg", flush=True)


def photograph(camera: Camera) -> None:
    """Go through the states."""
    camera.settled()
    camera.keep("opened")
    camera.hover(7)
    camera.keep("explorer", last=".chosen-choice")
    camera.dark(True)
    camera.keep("explorer_dark", last=".chosen-choice")
    camera.tab("Compare")
    camera.keep("compare_dark")
    camera.dark(False)
    camera.keep("explorer_compare", first=".widget-tab, .jupyter-widget-tab")
    for name in ("Strength", "Settings", "Files"):
        camera.tab(name)
        camera.keep(name.split()[0].lower())
    camera.tab("Gallery")
    camera.find(".chosen-map .chosen-button").filter(has_text="other maps").click()
    camera.find(".chosen-variants").wait_for()
    camera.keep("other_maps")
    camera.find(".chosen-map .chosen-button").filter(has_text="other maps").click()
    camera.tab("Gallery")
    camera.find(".chosen-switch").filter(has_text="images").click()
    camera.page.wait_for_timeout(1500)
    camera.keep("images_on_points")
    camera.find(".chosen-node[data-node='1']").click()
    camera.page.wait_for_timeout(2500)
    camera.keep("last_iteration")
    camera.page.set_viewport_size({"width": NARROW[0], "height": NARROW[1]})
    camera.find(".chosen-node[data-node='0']").click()
    camera.page.wait_for_timeout(2500)
    camera.keep("narrow")


def cells_of_the_lesson() -> list[str]:
    """Give the lesson's code down to its explorer."""
    sources = [cell.source for cell in nbformat.read(LESSON, as_version=4).cells if cell.cell_type == "code"]
    return sources[: 1 + next(i for i, source in enumerate(sources) if "Explorer(run)" in source)]


def photograph_shares(camera: Camera) -> None:
    """Keep the cards, and the table of what the chosen cluster shares."""
    camera.find(".chosen-card .chosen-shares").filter(has_text="not asked for").first.wait_for()
    camera.settled()
    camera.page.locator(".chosen-explorer").evaluate("explorer => explorer.scrollIntoView()")  # from below the cells
    camera.keep("explorer_shares", first=".chosen-map", last=".chosen-attributes")


def main() -> None:
    """Open, photograph, close."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "images")
    parser.add_argument("--every", action="store_true", help="keep the states that the README does not show too")
    parser.add_argument("--lesson", action="store_true", help="the explorer of lesson 03 instead")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lab.write_notebook(place / "explorer.ipynb", cells_of_the_lesson() if asked.lesson else CELLS)
        with lab.server(place) as address, lab.browser() as chromium:
            notebook = lab.Notebook(chromium, address, "explorer.ipynb", width=WIDE[0], height=WIDE[1])
            notebook.page.evaluate("jupyterapp.commands.execute('application:toggle-left-area')")
            notebook.run_all()
            camera = Camera(notebook, asked.out, () if asked.every else KEPT)
            camera.find(".chosen-map .scatterlayer .point").first.wait_for()
            (photograph_shares if asked.lesson else photograph)(camera)


if __name__ == "__main__":
    main()
