"""Make the bundled finished run: ``python tools/bundled_run.py [FOLDER]``, by default ``data/runs/fox``.

One prompt, two branches on the same first gallery: what the paper's rule chose, and what a person might take instead,
the runner-up without its oddest image. Small enough to travel with the code; opened by `Run.example`.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chosen_one_nb import Run, Settings
from chosen_one_nb.run.store import TEMPORARY

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "a sticker of a fox"
SETTINGS = {"n_images": 30, "target_cluster_size": 6, "min_cluster_size": 4, "lora_rank": 4}
STRENGTHS = (0.0, 0.5, 1.0)
NOTE = "The rule's runner-up, without its oddest image: which of the two would you draw?"


def overrule(run: Run) -> None:
    """At the first node take the most cohesive cluster that was not proposed, without the image farthest out."""
    clusters = run.select("0").clusters
    other = next(int(c) for c in clusters.order if clusters.kept[c] and c != clusters.proposed)
    members = clusters.members(other)
    oddest = int(members[np.argmax(clusters.distances[members])])
    run.selection.choose(other, exclude=[oddest], note=NOTE)


def make(folder: Path) -> None:
    """Do the run in a new folder."""
    with Run.start(PROMPT, settings=Settings.preset("menagerie").replace(**SETTINGS), folder=folder) as run:
        print(run.until_converged())
        overrule(run)
        branch = run.current
        print(run.until_converged())
        for strength in STRENGTHS:
            run.samples.probe(branch, strength=strength)
        for node in run.nodes:  # so that "What it shares" is answered at once, heat maps included
            run.attributes.patch_tokens(node)
            run.attributes.inquiry(node)
        run.select(branch)


def main() -> None:
    """Make the run beside its place, then put it there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", default=ROOT / "data" / "runs" / "fox")
    place = parser.parse_args().folder.resolve()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "run")
        shutil.rmtree(place, ignore_errors=True)
        leave = shutil.ignore_patterns(".lock", "lock.json", f"*{TEMPORARY}")
        shutil.copytree(Path(folder) / "run", place, ignore=leave)
    size = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    print(f"{place}: {size / 1e6:.1f} MB in {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
