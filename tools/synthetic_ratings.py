"""Fill a study with made-up answers, to test its plumbing: ``python tools/synthetic_ratings.py STUDY``.

They are no evidence of anything: each method's mean is what the command line says. The raters' names begin
with "synthetic", the analysis says so, and it refuses to take such answers together with those of people.
"""

import argparse
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chosen_one_nb.study import Study


def fill(study: Study, means: Mapping[str, float], raters: int = 6, seed: int = 0, spread: float = 0.5) -> None:
    """Answer one sheet for each synthetic rater.

    Parameters
    ----------
    study : Study
    means : mapping of str to float
        Mean rating of each method; 3 where it is not named.
    raters, seed : int
    spread : float
        Standard deviation of how well a method happens to draw a character, in points.
    """
    rng, items = np.random.default_rng(seed), {item.id: item for item in study.key.items}
    luck = {(item.method, item.character): rng.normal(0, spread) for item in study.key.items}
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for rater in range(raters):
        sheet, strict = rater % len(study.key.sheets), rng.normal(0, 0.3)
        about = {"study": study.key.study, "rater": f"synthetic-{rater + 1}", "sheet": sheet, "build": "synthetic"}
        for position, name in enumerate(study.key.sheets[sheet]):
            item = items[name]
            wanted = means.get(item.method, 3.0) + luck[item.method, item.character] + strict + rng.normal(0, 0.8)
            rating = (
                int(np.clip(round(wanted), 1, 5))
                if item.kind == "rated"
                else int(rng.integers(item.low, item.high + 1))
            )
            seen = (start + timedelta(seconds=8 * position)).isoformat(timespec="seconds").replace("+00:00", "Z")
            own = {"number": position + 1, "position": position, "item": name, "rating": rating}
            study.record(about | own | {"ms": int(rng.integers(1500, 7000)), "shown_at": seen})


def _mean(text: str) -> tuple[str, float]:
    method, _, points = text.rpartition("=")
    return method, float(points)


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("study", type=Path)
    asked.add_argument("--mean", type=_mean, action="append", default=[], metavar="METHOD=POINTS")
    asked.add_argument("--raters", type=int, default=6)
    asked.add_argument("--seed", type=int, default=0)
    args = asked.parse_args()
    fill(Study(args.study), dict(args.mean), args.raters, args.seed)
