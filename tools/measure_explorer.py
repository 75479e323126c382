"""Measure the explorer: ``python tools/measure_explorer.py [--n 32 128 1024] [--no-browser]``.

For each N a run on the bundled models (two sampling steps: the images do not matter here) is brought to its first
choice. Then, in a fresh process: seconds to import everything and to open the explorer, and what it sends to the
browser at opening, per hover and per step; in brackets the processor's own seconds, which a busy machine does not
lengthen. And, in JupyterLab in Chromium with everything imported: seconds from running the explorer's cell until the
screen and the map are painted. Last, the same for ``notebooks/00_explorer.ipynb`` as a person opens it, with a fresh
kernel: its first two cells, imports and the copying of the bundled run included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

COLUMNS = ["N", "import, s", "(CPU)", "open, s", "(CPU) ", "opening, MB", "images, MB", "Plotly, MB", "hover, ms",
           "hover, kB", "step, kB", "screen, s", "map, s"]  # fmt: skip
CELLS = ["from chosen_one_nb import Explorer, Run\nrun = Run.open('run', read_only=True)\nrun.current.clusters.k",
         "Explorer(run, method='pca')"]  # fmt: skip
WATCH = """([n, command]) => {
  const begun = performance.now();
  window.painted = {};
  const look = () => {
    const seconds = (performance.now() - begun) / 1000;
    if (!window.painted.screen && document.querySelector('.chosen-stagebar h2')) window.painted.screen = seconds;
    const points = document.querySelectorAll('.chosen-map .scatterlayer .point').length;
    if (!window.painted.map && points >= n) window.painted.map = seconds;
    if (!window.painted.map) requestAnimationFrame(look);
  };
  look();
  jupyterapp.commands.execute(command);
}"""


class Counter:
    """Stands in for the channel to the browser and counts what goes through it."""

    def __init__(self) -> None:
        self.bytes = 0

    def install(self) -> None:
        """Take the channel's place."""
        import comm
        from comm.base_comm import BaseComm

        counter = self

        class CountingComm(BaseComm):
            def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys) -> None:
                counter.bytes += len(json.dumps(data, default=str)) + sum(len(b) for b in buffers or [])

        comm.create_comm = CountingComm

    def during(self, act) -> int:
        """Count the bytes that an act sends."""
        before = self.bytes
        act()
        return self.bytes - before


def make_run(folder: Path, n: int) -> None:
    """Bring a run of n images to its first choice."""
    from chosen_one_nb import Run, Settings

    settings = Settings(n_images=n, sampling_steps=2, guidance_scale=1.0, batch_size=32, target_cluster_size=16)
    with Run.start("a sticker of a fox", folder=folder, settings=settings) as run:
        while run.next_stage != "choose":
            run.step()


def in_the_kernel(folder: Path) -> dict[str, float]:
    """Measure in this process, which must be fresh."""
    counter = Counter()
    counter.install()
    begun, worked = time.perf_counter(), time.process_time()
    from chosen_one_nb import Explorer, Run
    from chosen_one_nb.steps import cluster  # noqa: F401  what reading a run imports
    from chosen_one_nb.widgets import actions
    from chosen_one_nb.widgets.figures import send_plotly

    imported, work = time.perf_counter(), time.process_time()
    explorer = Explorer(Run.open(folder), method="pca", raise_errors=True)
    opened = time.perf_counter()
    found = {
        "import, s": imported - begun,
        "(CPU)": work - worked,
        "open, s": opened - imported,
        "(CPU) ": time.process_time() - work,
        "opening, MB": counter.bytes / 1e6,
        "Plotly, MB": len(send_plotly().source) / 1e6,
        "images, MB": explorer.session.thumbnails.bytes_sent() / 1e6,
    }
    from helpers.figures import hover

    explorer.settle(600)
    times, sizes = [], []
    for index in range(1, 21):
        begun = time.perf_counter()
        sizes.append(counter.during(lambda i=index: hover(explorer.map.figure, i)))
        times.append(time.perf_counter() - begun)
    found |= {"hover, ms": 1000 * sorted(times)[10], "hover, kB": sorted(sizes)[10] / 1e3}
    session = explorer.session
    found["step, kB"] = counter.during(lambda: (actions.next_stage(session), explorer.wait(), explorer.settle())) / 1e3
    return found


def in_the_browser(folder: Path, n: int) -> dict[str, float]:
    """Measure in JupyterLab: from running the cells (imports included) until the screen and the map are there."""
    from helpers import lab

    lab.write_notebook(folder / "measure.ipynb", CELLS)
    with lab.server(folder) as address, lab.browser() as chromium:
        notebook = lab.Notebook(chromium, address, "measure.ipynb")
        notebook.command("notebook:run-cell-and-select-next")
        notebook.page.wait_for_timeout(1000)
        notebook.wait_idle()
        return painted(notebook, n, "notebook:run-cell")


def painted(notebook, n: int, command: str) -> dict[str, float]:
    """Run cells by one of Lab's commands; give the seconds until the screen and n points of its map are there."""
    page = notebook.page
    page.evaluate(WATCH, [n, command])
    page.wait_for_function("window.painted.map", timeout=300_000)
    found = page.evaluate("window.painted")
    return {"screen, s": found["screen"], "map, s": found["map"]}


def first_lesson() -> dict[str, float]:
    """Measure how long the first lesson takes to show something, in a fresh kernel."""
    import nbformat
    from helpers import lab

    book = nbformat.read(ROOT / "notebooks" / "00_explorer.ipynb", as_version=4)
    cells = [cell.source for cell in book.cells if cell.cell_type == "code"][:2]
    with tempfile.TemporaryDirectory() as folder:
        lab.write_notebook(Path(folder) / "lesson.ipynb", cells)
        with lab.server(Path(folder)) as address, lab.browser() as chromium:
            return painted(lab.Notebook(chromium, address, "lesson.ipynb"), 32, "notebook:run-all-cells")


def measure(n: int, browser: bool) -> dict[str, float]:
    """Measure at one N."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        make_run(place / "run", n)
        seen = in_the_browser(place, n) if browser else {}
        command = [sys.executable, __file__, "--kernel", str(place / "run")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {"N": n, **json.loads(said.splitlines()[-1]), **seen}


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, nargs="+", default=[32, 128, 1024])
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--kernel", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.kernel:
        print(json.dumps(in_the_kernel(asked.kernel)))
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    for n in asked.n:
        found = measure(n, not asked.no_browser)
        cells = [f"{found[name]:.3g}" if name in found else "–" for name in COLUMNS]
        print("| " + " | ".join([f"{n}", *cells[1:]]) + " |", flush=True)
    if not asked.no_browser:
        found = first_lesson()
        print(f"notebooks/00_explorer.ipynb: screen {found['screen, s']:.1f} s, map {found['map, s']:.1f} s")


if __name__ == "__main__":
    main()
