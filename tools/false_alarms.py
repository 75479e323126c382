"""How often tests of a user study find a difference that there is not: ``python tools/false_alarms.py``.

Studies are simulated: raters of differing strictness rate several images of each character by each method from 1 to 5.
In truth no method is better, but each draws some characters better than others, as real methods do. Whoever pools all
ratings takes one lucky character's many ratings for independent evidence.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from chosen_one_nb.analysis.statistics import friedman, max_t

RATERS, CHARACTERS, METHODS, IMAGES = 8, 12, 4, 2


def simulate(rng: np.random.Generator, spread: float, better: float = 0.0) -> np.ndarray:
    """Rate one study: int (raters, characters, methods, images), in 1 to 5.

    Parameters
    ----------
    rng : numpy Generator
    spread : float
        Standard deviation, in points, of how well a method happens to draw a character.
    better : float
        By how many points the last method is better in truth.
    """
    strict = rng.normal(0, 0.5, (RATERS, 1, 1, 1))
    character = rng.normal(0, 0.5, (1, CHARACTERS, 1, 1))
    lucky = rng.normal(0, spread, (1, CHARACTERS, METHODS, 1))
    quality = better * (np.arange(METHODS) == METHODS - 1)[:, None]
    noise = rng.normal(0, 0.9, (RATERS, CHARACTERS, METHODS, IMAGES))
    return np.clip(np.rint(3.2 + strict + character + lucky + quality + noise), 1, 5).astype(int)


def shares(studies: int = 300, spread: float = 0.5, better: float = 0.0, seed: int = 0) -> dict[str, float]:
    """Return by test in which share of studies it finds a difference at 5 %."""
    from scipy.stats import kruskal

    rng = np.random.default_rng(seed)
    found = {"Kruskal-Wallis, all ratings pooled": 0, "Friedman, by character": 0, "max-T, by character": 0}
    for _ in range(studies):
        ratings = simulate(rng, spread, better)
        by_character = ratings.mean(axis=(0, 3))
        p = kruskal(*ratings.transpose(2, 0, 1, 3).reshape(METHODS, -1)).pvalue
        each = (p, friedman(by_character)[1], np.nanmin(max_t(by_character).p))
        for test, value in zip(found, each, strict=True):
            found[test] += int(value < 0.05)
    return {test: count / studies for test, count in found.items()}


if __name__ == "__main__":
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--studies", type=int, default=300)
    studies = asked.parse_args().studies
    print(f"{studies} studies, {RATERS} raters, {CHARACTERS} characters, {METHODS} methods, {IMAGES} images of each")
    for spread, better in ((0.5, 0.0), (0.25, 0.0), (0.0, 0.0), (0.5, 0.6)):
        truth = f"one method {better:g} better" if better else "no difference"
        found = ", ".join(f"{test} {share:.3f}" for test, share in shares(studies, spread, better).items())
        print(f"{truth}, spread {spread:g}: {found}")
