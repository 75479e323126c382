"""Run the method on many prompts and score it by the truth: ``python -m menagerie.evaluate``.

Every prompt gets a whole run, its final gallery and its character in eight contexts; the reader says what the
images show. What is done lies in the folder, so an interrupted evaluation goes on.

The final gallery is the one that the run ended with, collapsed or not. Contexts are drawn with the Θ of the last
sound gallery; where not even the first refinement left one, there is no character, and the base model's stand.
They are drawn twice: weighted as the settings say, for the base model too, and as the prompt is written ("plain").
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from chosen_one_nb.cli import add_changes
from chosen_one_nb.models.load import Models, load_models
from chosen_one_nb.run import store
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from menagerie import world
from menagerie.reader import Reader

SEEDS = 4  # images per context
FALL = 0.8  # of the first gallery's distance: what every gallery is asked to fall to, whatever the settings' d_conv


def agreement(values: Sequence[str]) -> float:
    """Chance that two different images show the same value.

    >>> agreement(["red", "red", "blue"])
    0.3333333333333333
    """
    counts, n = pd.Series(list(values)).value_counts(), len(values)
    return float((counts * (counts - 1)).sum() / (n * (n - 1)))


def identity_agreement(read: pd.DataFrame) -> float:
    """Mean over identity attributes of the chance that two of the images agree."""
    return float(np.mean([agreement(read[name]) for name in world.IDENTITY]))


def context_present(read: pd.DataFrame, asked: Sequence[dict[str, str]]) -> float:
    """Share of images that show everything their context asks for; ``asked`` has one dict per image."""
    return float(
        np.mean(
            [
                all(row[k] == v for k, v in wanted.items())
                for (_, row), wanted in zip(read.iterrows(), asked, strict=True)
            ]
        )
    )


def with_theta(run: Run) -> Node | None:
    """The node that learnt the Θ of the last sound gallery; None if there is none."""
    sound = run.outcome.sound_node
    return run.node(sound).parent if sound else None


def score(run: Run, reader: Reader) -> dict[str, object]:
    """Everything the table needs to know about one finished run."""
    texts = [text for text, _ in world.CONTEXTS]
    asked = [wanted for _, wanted in world.CONTEXTS for _ in range(SEEDS)]
    outcome, curve, node = run.outcome, run.tables.curve(), with_theta(run)
    read: dict[tuple[str, str], pd.DataFrame] = {}
    for way, weight in (("", None), ("_plain", 1.0)):
        for name, base in (("base", True), ("character", node is None)):
            drawn = run.samples.contexts(node, texts, SEEDS, base=base, weight=weight)
            read[name, way] = reader([image for text in texts for image in drawn[text]])
    contexts: dict[str, float] = {}
    for (name, way), shown in read.items():
        key = f"{'_base' if name == 'base' else ''}{way}"
        contexts |= {
            f"identity_contexts{key}": identity_agreement(shown),
            f"context{key}": context_present(shown, asked),
        }
    return {
        "prompt": run.prompt, "outcome": outcome.state, "iterations": int(curve["iteration"].max()),
        "ratio": float(curve["ratio"].iloc[-1]), "fell": bool((curve["ratio"] <= FALL).any()),
        "identity_first": identity_agreement(reader(list(run.root.images))),
        "identity_final": identity_agreement(reader(list(run.node(outcome.node).images))),
        **contexts,
    }  # fmt: skip


def evaluate(prompt: str, models: Models, reader: Reader, settings: Settings, folder: Path) -> dict[str, object]:
    """Run and score one prompt, or read the scores that are there already.

    Raises
    ------
    SystemExit
        If what lies in the folder was made with other models, another prompt or other settings.
    """
    scores, place = folder / "scores.json", folder / "run"
    made = store.digest(json.dumps([prompt, models.fingerprint, settings.model_dump()]))
    if scores.exists():
        found = json.loads(scores.read_text())
        if found.get("made") != made:
            raise SystemExit(
                f"{folder}: expected scores of {prompt!r} with these models and settings, got those of others. "
                "Give another --folder, or move this one away."
            )
        return found
    there = (place / "run.json").exists()
    with Run.open(place, models) if there else Run.start(prompt, models, settings, place) as run:
        start = time.perf_counter()
        run.until_converged()
        took = time.perf_counter() - start
        stages = sum(sum(node.seconds.values()) for node in run.nodes.values())  # also what an earlier process did
        found = {"made": made, "seconds": max(took, stages), **score(run, reader)}
    scores.write_text(json.dumps(found, indent=1))
    return found


def interval(values: Sequence[float], statistic=np.mean, *, n: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """The statistic over prompts with its 95 % bootstrap interval: value, low, high."""
    values = np.asarray(values, float)
    drawn = values[np.random.default_rng(seed).integers(len(values), size=(n, len(values)))]
    low, high = np.percentile(statistic(drawn, axis=1), [2.5, 97.5])
    return float(statistic(values)), float(low), float(high)


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per figure: value with its interval over prompts."""
    rows = {
        f"galleries that fall to {FALL} of the first distance": scores["fell"],
        "prompts that converged": scores["outcome"] == "converged",
        "final galleries that the health check calls collapsed": scores["outcome"] == "collapsed",
        "identity agreement, first gallery": scores["identity_first"],
        "identity agreement, final gallery": scores["identity_final"],
    }  # fmt: skip
    for way in ("", "_plain"):
        said, ours, theirs = ", plain" if way else "", scores[f"context{way}"], scores[f"context_base{way}"]
        rows |= {
            f"identity agreement in contexts{said}, base model": scores[f"identity_contexts_base{way}"],
            f"identity agreement in contexts{said}, character": scores[f"identity_contexts{way}"],
            f"asked context present{said}, base model": theirs,
            f"asked context present{said}, character": ours,
            f"asked context present{said}, relative to the base model": ours / theirs.clip(lower=1e-9),
        }
    found = [(name, *interval(values)) for name, values in rows.items()]
    found.append(("seconds of a run, median", *interval(scores["seconds"], np.median)))
    return pd.DataFrame(found, columns=["figure", "value", "low", "high"])


def image_sheet(folder: Path, scores: pd.DataFrame, *, side: int = 96) -> Image.Image:
    """For every prompt a row of first-gallery images above a row of the character in eight contexts."""
    rows = []
    for i in scores.index:
        run = Run.open(folder / f"{i:02d}" / "run", read_only=True)
        node = with_theta(run)
        drawn = run.samples.contexts(node, [text for text, _ in world.CONTEXTS], SEEDS, base=node is None)
        rows += [list(run.root.images)[:8], [images[x % SEEDS] for x, images in enumerate(drawn.values())]]
    sheet = Image.new("RGB", (8 * side, len(rows) * side + (len(rows) // 2) * 8), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            sheet.paste(image.resize((side, side), Image.Resampling.BICUBIC), (x * side, y * side + (y // 2) * 8))
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Evaluate the chosen prompts, print the table and one line per prompt."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.evaluate", description=__doc__)
    parser.add_argument("--prompts", type=Path, default=Path("data/prompts.json"))
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the prompts to take, from 0")
    parser.add_argument("--models", default="menagerie")
    parser.add_argument("--reader", type=Path, default=Path("data/menagerie/reader"))
    parser.add_argument("--folder", type=Path, default=Path("runs/evaluation"))
    add_changes(parser)
    given = parser.parse_args(argv)
    prompts = json.loads(given.prompts.read_text())["prompts"]
    settings = Settings.preset("menagerie").replace(**dict(given.set))
    models, reader = load_models(given.models), Reader(given.reader)
    found = {}
    for i in given.only or range(len(prompts)):
        folder = given.folder / f"{i:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        found[i] = evaluate(prompts[i], models, reader, settings, folder)
        print(json.dumps(found[i]), flush=True)
    scores = pd.DataFrame.from_dict(found, orient="index")
    print(table(scores).to_string(index=False, float_format="{:.3f}".format))
    image_sheet(given.folder, scores.iloc[:6]).save(given.folder / "image.png")


if __name__ == "__main__":
    main()
