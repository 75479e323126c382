"""Score the health check and calibrate its limits: ``python -m menagerie.health``.

For every prompt, galleries are made to collapse and others to stay sound; the judge, which sees what the health
check does not, drops those that came out otherwise. Then: how many collapsed ones does the check recognise, and how
many sound ones does it call collapsed? Limits are found on one half of the prompts and scored on the other, and the
other way round. Every gallery is kept on disk, so that the command goes on where it stopped.

With ``--runs runs/evaluation`` galleries of whole runs count too: nobody made them to be sound or to collapse, so they
are what the judge says, and those that it cannot tell are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from chosen_one_nb.cli import add_changes
from chosen_one_nb.models.hub import bundled
from chosen_one_nb.models.load import load_models
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.converge import Health, health
from menagerie.galleries import LIMITS, RECIPES, GalleryRecipe, GalleryStore, gallery_settings, sheet
from menagerie.judge import Judge, Verdict, load_judge

USUAL = 0.95  # share of sound galleries that a sign's unit covers
LEAST = {"statistic_limit": 0.5, "prompt_limit": 0.5, "drift_limit": 1.0, "variety_floor": 1.0}
"""Smallest unit of each sign: a few sound galleries alike are no strict judge."""


def extremes(found: Health) -> dict[str, float]:
    """Reduce a gallery's checks to one number per limit, each the larger the worse; variety upside down.

    It is called collapsed exactly when one of them is beyond its limit (for variety: beyond 1 / limit).
    """
    values = found.values
    variety = [values.pop("variety"), values.pop("image variety")]
    prompt, drift = values.pop("prompt", 0.0), values.pop("drift")
    return {
        "statistic_limit": max(abs(value) for value in values.values()),
        "prompt_limit": prompt,
        "drift_limit": drift,
        "variety_floor": 1 / max(min(variety), 1e-6),
    }


def limits_of(settings: Settings) -> pd.Series:
    """The settings' limits, in the form that `extremes` compares with."""
    limits = {name: getattr(settings, name) for name in LIMITS}
    return pd.Series({**limits, "variety_floor": 1 / max(limits["variety_floor"], 1e-6)})


def calibrate(sound: pd.DataFrame, collapsed: pd.DataFrame) -> pd.Series:
    """Find the limits between sound and collapsed galleries.

    Each sign is measured in units of what it reaches in 95 % of the sound galleries, and a gallery's score is its
    largest sign. The limits are all the same number of units: halfway, on a logarithmic scale, between the 95th
    percentile of the sound scores and the 5th of the collapsed ones.

    Parameters
    ----------
    sound, collapsed : DataFrame
        One row per gallery, one column per limit, as of `extremes`.

    Returns
    -------
    Series
        One number per limit.
    """
    unit = np.maximum(sound[list(LIMITS)].quantile(USUAL), pd.Series(LEAST))
    scores = [(rows[list(LIMITS)] / unit).max(axis=1) for rows in (sound, collapsed)]
    between = np.sqrt(scores[0].quantile(USUAL) * scores[1].quantile(1 - USUAL))
    return unit * max(float(between), 1.0)


def called(rows: pd.DataFrame, limits: pd.Series) -> pd.Series:
    """Whether each gallery is called collapsed under the limits."""
    return (rows[list(LIMITS)] > limits[list(LIMITS)]).any(axis=1)


def share(hits: pd.Series) -> tuple[float, float, float]:
    """Share of hits with Wilson's 95 % interval: value, low, high; NaN without any row.

    >>> [round(x, 2) for x in share(pd.Series([True] * 20))]
    [1.0, 0.84, 1.0]
    """
    n, z = len(hits), 1.96
    if not n:
        return (float("nan"),) * 3
    p = float(hits.mean())
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return p, float((middle - half) / (1 + z**2 / n)), float((middle + half) / (1 + z**2 / n))


def gallery_row(number: int, recipe: str, meant: str, judged: Verdict, found: Health) -> dict[str, object]:
    """One gallery in the table: what it was meant to be and is, the judge's figures, and the check's `extremes`."""
    return {"number": number, "recipe": recipe, "meant": meant, "strange": judged.strange, "lost": judged.lost,
            "frozen": judged.frozen, "is": judged.state, **extremes(found)}  # fmt: skip


def measure(
    galleries: GalleryStore, number: int, judge: Judge, recipes: Sequence[GalleryRecipe] = RECIPES
) -> list[dict[str, object]]:
    """Make or read one prompt's galleries; one row each, and one image of all of them to look at."""
    rows, sheets = [], {}
    for recipe in recipes:
        first, images = galleries.first(recipe), galleries.gallery(recipe)
        judged = judge(images, first, galleries.prompt)
        found = health(galleries.measure(images), galleries.measure(first), galleries.settings)
        rows.append(gallery_row(number, recipe.name, recipe.meant, judged, found))
        sheets |= {"first": first} if not recipe.first else {}
        sheets[f"{recipe.name}: meant {recipe.meant}, is {judged.state}, called {found.state}"] = images
        print(f"{number:>2} {recipe.name:<9} {judged.state:<10} called {found.state}", flush=True)
    overview(sheets).save(galleries.folder / "all.png")
    return rows


def measure_run(run: Run, number: int, judge: Judge) -> list[dict[str, object]]:
    """One row for each gallery of a run but the first, as of `measure`."""
    rows, first = [], list(run.root.images)
    for node in run.nodes.values():
        if node is run.root or node.check is None:
            continue
        judged = judge(list(node.images), first, run.prompt)
        rows.append(gallery_row(number, "run", judged.state, judged, node.check.health))
        print(f"{number:>2} {f'run {node.id}':<9} {judged.state:<10} called {node.check.health.state}", flush=True)
    return [row for row in rows if row["is"] != "unclear"]


def overview(sheets: dict[str, list[Image.Image]], *, across: int = 4, line: int = 14) -> Image.Image:
    """Lay sheets side by side, each under its title."""
    found = {title: sheet(images) for title, images in sheets.items()}
    width, height = next(iter(found.values())).size
    page = Image.new("RGB", (across * (width + 8), -(-len(found) // across) * (height + line + 6)), "white")
    pen = ImageDraw.Draw(page)
    for i, (title, image) in enumerate(found.items()):
        x, y = i % across * (width + 8), i // across * (height + line + 6)
        pen.text((x, y), title, fill="black")
        page.paste(image, (x, y + line))
    return page


def rates(rows: pd.DataFrame, name: str, calls: pd.Series) -> pd.DataFrame:
    """Two rows of the table: collapsed ones recognised, sound ones called collapsed."""
    collapsed, sound = calls[rows["is"] == "collapsed"], calls[rows["is"] == "sound"]
    lines = [(f"{name}: collapsed recognised", len(collapsed), *share(collapsed)),
             (f"{name}: sound called collapsed", len(sound), *share(sound))]  # fmt: skip
    return pd.DataFrame(lines, columns=["figure", "galleries", "value", "low", "high"])


def crossed(rows: pd.DataFrame) -> pd.Series:
    """Calls under limits found on the other half of the prompts."""
    numbers = sorted(rows["number"].unique())
    half = rows["number"].isin(numbers[::2])
    calls = pd.Series(False, index=rows.index)
    for learnt, scored in ((half, ~half), (~half, half)):
        calls[scored] = called(rows[scored], calibrate(*parted(rows[learnt])))
    return calls


def parted(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sound and collapsed galleries."""
    return rows[rows["is"] == "sound"], rows[rows["is"] == "collapsed"]


def report(rows: pd.DataFrame, settings: Settings) -> str:
    """Everything there is to say about the galleries: what was made of them, the rates, the limits."""
    fits = rows[rows["is"] == rows["meant"]]
    made = rows.assign(dropped=rows["is"] != rows["meant"], called=called(rows, limits_of(settings)))
    by_recipe = made.groupby("recipe", sort=False).agg(
        meant=("meant", "first"), galleries=("meant", "size"), dropped=("dropped", "sum"), called=("called", "sum"),
        strange=("strange", "median"), lost=("lost", "median"), frozen=("frozen", "median"),
    )  # fmt: skip
    table = [rates(fits, "limits as they stand", called(fits, limits_of(settings)))]
    if min(len(part) for part in parted(fits)) and fits["number"].nunique() > 1:
        table.append(rates(fits, "calibrated on the other half", crossed(fits)))
    text = [f"{len(rows)} galleries, {len(rows) - len(fits)} of them dropped: they came out otherwise than meant.",
            by_recipe.to_string(float_format="{:.2f}".format), "",
            pd.concat(table).to_string(index=False, float_format="{:.2f}".format)]  # fmt: skip
    if min(len(part) for part in parted(fits)):
        limits = calibrate(*parted(fits))
        limits["variety_floor"] = 1 / limits["variety_floor"]
        text += ["", "limits calibrated on all prompts: " + ", ".join(f"{k}={v:.2f}" for k, v in limits.items())]
    return "\n".join(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Make the galleries of the chosen prompts, or read them, and print the report."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.health", description=__doc__)
    parser.add_argument("--prompts", type=Path, default=Path("data/prompts.json"))
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the prompts to take, from 0")
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument("--recipes", nargs="+", choices=names, default=names, help="galleries to make of each prompt")
    parser.add_argument("--models", type=Path, default=bundled("menagerie"))
    parser.add_argument("--reader", type=Path, help="default: reader/ beside the models")
    parser.add_argument("--folder", type=Path, default=Path("work/health"), help="where galleries are kept")
    parser.add_argument("--runs", type=Path, help="folder of `evaluate`, whose galleries count too")
    add_changes(parser)
    given = parser.parse_args(argv)
    prompts = json.loads(given.prompts.read_text())["prompts"]
    models, judge = load_models(given.models), load_judge(given.models, given.reader or given.models / "reader")
    folder, rows = given.folder / models.fingerprint[:8], []
    for number in given.only or range(len(prompts)):
        settings = gallery_settings(seed=number, **dict(given.set))
        galleries = GalleryStore(prompts[number], models, settings, folder / f"{number:02d}")
        rows += measure(galleries, number, judge, [recipe for recipe in RECIPES if recipe.name in given.recipes])
    for place in sorted(given.runs.glob("*/run")) if given.runs else ():
        if not given.only or int(place.parent.name) in given.only:
            rows += measure_run(Run.open(place, read_only=True), int(place.parent.name), judge)
    table = pd.DataFrame(rows)
    table.to_csv(folder / "galleries.csv", index=False)
    print(report(table, gallery_settings(**dict(given.set))))


if __name__ == "__main__":
    main()
