"""Run the method on many prompts and score it by the truth: ``python -m menagerie.evaluate``.

Every prompt gets a whole run, its final gallery and its character in eight contexts; the reader says what the
images show. What is done lies in the folder, so an interrupted evaluation goes on.

The final gallery is the one that the run ended with, collapsed or not. Contexts are drawn with the Θ of the last
sound gallery; where not even the first refinement left one, there is no character, and the base model's stand.
They are drawn twice: weighted as the settings say, for the base model too, and as the prompt is written ("plain").
All contexts are drawn on the same few seeds. Two images of one seed agree by their noise alone, so identity compares
images of different seeds only.

To compare models of different sizes, give one reader and one ``--size`` for both: their images are brought to it
before they are read. Another reader, or size, reads the runs that are there again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from chosen_one_nb.cli import add_changes
from chosen_one_nb.models.load import Models, fingerprint, load_models
from chosen_one_nb.run import store
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from menagerie import world
from menagerie.reader import Reader

SEEDS = 4  # images per context
FALL = 0.8  # of the first gallery's distance: what every gallery is asked to fall to, whatever the settings' d_conv
ONE = 0.8  # agreement in identity from which on a row of contexts counts as one character
ACROSS, SIDE, LINE = 8, 128, 16  # images in a row of a sheet, their side and the height of a title in pixels


def agreement(values: Sequence[str], seeds: Sequence[int] | None = None) -> float:
    """Chance that two images show the same value, of different seeds if seeds are given; NaN without such a pair.

    >>> agreement(["red", "red", "blue"])
    0.3333333333333333
    >>> agreement(["red", "red", "blue"], seeds=[0, 0, 1])
    0.0
    """
    values = np.asarray(values)
    seeds = np.arange(len(values)) if seeds is None else np.asarray(seeds)
    pairs = seeds[:, None] != seeds
    return float((values[:, None] == values)[pairs].mean()) if pairs.any() else float("nan")


def identity_agreement(read: pd.DataFrame, seeds: Sequence[int] | None = None) -> float:
    """Mean over identity attributes of the chance that two of the images (of different seeds) agree."""
    return float(np.mean([agreement(read[name], seeds) for name in world.IDENTITY]))


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


def score_clusters(read: pd.DataFrame, labels: np.ndarray, kept: np.ndarray, chosen: Sequence[int]) -> dict[str, float]:
    """How much the images of a first gallery agree: all of them, the chosen ones, and the best cluster there is.

    Parameters
    ----------
    read : DataFrame
        What the N images show, as of the reader.
    labels : ndarray of int, shape (N,)
        The cluster of each image.
    kept : ndarray of bool, shape (K,)
        Which clusters are large enough to be chosen.
    chosen : sequence of int
        Numbers of the chosen images; none if no cluster was large enough.

    Returns
    -------
    dict of str to float
        `identity_first`, `identity_chosen`, `identity_best` (NaN where there is no such cluster), and the same of the
        place: `place_first`, `place_chosen`.
    """
    clusters = [read[labels == cluster] for cluster in np.flatnonzero(kept)]
    picked = read.iloc[list(chosen)]
    return {
        "identity_first": identity_agreement(read),
        "identity_chosen": identity_agreement(picked),
        "identity_best": max((identity_agreement(each) for each in clusters), default=float("nan")),
        "place_first": agreement(read["place"]),
        "place_chosen": agreement(picked["place"]),
    }


def score_contexts(run: Run, reader: Reader) -> dict[str, float]:
    """Identity and asked contexts of the base model (`_base`) and the character, weighted and as written (`_plain`)."""
    texts = [text for text, _ in world.CONTEXTS]
    asked = [wanted for _, wanted in world.CONTEXTS for _ in range(SEEDS)]
    seeds = np.tile(np.arange(SEEDS), len(texts))
    node, found = with_theta(run), {}
    for way, weight in (("", None), ("_plain", 1.0)):
        for name, base in (("_base", True), ("", node is None)):
            drawn = run.samples.contexts(node, texts, SEEDS, base=base, weight=weight)
            read = reader([image for text in texts for image in drawn[text]])
            found[f"identity_contexts{name}{way}"] = identity_agreement(read, seeds)
            found[f"context{name}{way}"] = context_present(read, asked)
    return found


def score(run: Run, reader: Reader) -> dict[str, object]:
    """Everything the table needs to know about one finished run."""
    outcome, curve, root = run.outcome, run.tables.curve(), run.root
    chosen = root.decision.images if root.decision else ()
    return {
        "prompt": run.prompt, "outcome": outcome.state, "iterations": int(curve["iteration"].max()),
        "ratio": float(curve["ratio"].iloc[-1]), "fell": bool((curve["ratio"] <= FALL).any()),
        **score_clusters(reader(list(root.images)), root.clusters.labels, root.clusters.kept, chosen),
        "identity_final": identity_agreement(reader(list(run.node(outcome.node).images))),
        **score_contexts(run, reader),
    }  # fmt: skip


def evaluate(
    prompt: str, models: Models, reader: Reader, settings: Settings, folder: Path, *, ruler: str = ""
) -> dict[str, object]:
    """Run and score one prompt, or read the scores that are there already.

    Parameters
    ----------
    prompt : str
    models : Models
    reader : Reader
    settings : Settings
    folder : Path
        Of this prompt: holds ``run/`` and ``scores.json``.
    ruler : str
        What the reader is; scores by another one are made again, of the same run.

    Raises
    ------
    SystemExit
        If what lies in the folder was made with other models, another prompt or other settings.
    """
    scores, place = folder / "scores.json", folder / "run"
    made = store.digest(json.dumps([prompt, models.fingerprint, settings.model_dump()]))
    found = json.loads(scores.read_text()) if scores.exists() else {"made": made, "ruler": None}
    if found.get("made") != made:
        raise SystemExit(
            f"{folder}: expected scores of {prompt!r} with these models and settings, got those of others. "
            "Give another --folder, or move this one away."
        )
    if found.get("ruler") == ruler:
        return found
    there = (place / "run.json").exists()
    with Run.open(place, models) if there else Run.start(prompt, models, settings, place) as run:
        start = time.perf_counter()
        run.until_converged()
        took = time.perf_counter() - start
        stages = sum(sum(node.seconds.values()) for node in run.nodes.values())  # also what an earlier process did
        found = {"made": made, "ruler": ruler, "seconds": max(took, stages), **score(run, reader)}
    scores.write_text(json.dumps(found, indent=1))
    return found


def interval(values: Sequence[float], statistic=np.mean, *, n: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """The statistic over prompts with its 95 % bootstrap interval: value, low, high. NaN is left out."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not len(values):
        return (float("nan"),) * 3
    drawn = values[np.random.default_rng(seed).integers(len(values), size=(n, len(values)))]
    low, high = np.percentile(statistic(drawn, axis=1), [2.5, 97.5])
    return float(statistic(values)), float(low), float(high)


def table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per figure: its base line (what it is without choosing, or without Θ), its value and interval."""
    first, chosen, best = (scores[f"identity_{name}"] for name in ("first", "chosen", "best"))
    rows = [
        (f"galleries that fall to {FALL} of the first distance", None, scores["fell"]),
        ("prompts that converged", None, scores["outcome"] == "converged"),
        ("final galleries that the health check calls collapsed", None, scores["outcome"] == "collapsed"),
        ("identity agreement, chosen cluster of the first gallery", first, chosen),
        ("identity agreement, best cluster of the first gallery", first, best),
        ("identity agreement, chosen relative to the best", first / best, chosen / best),
        ("place agreement, chosen cluster of the first gallery", scores["place_first"], scores["place_chosen"]),
        ("identity agreement, final gallery", first, scores["identity_final"]),
    ]
    for way in ("", "_plain"):
        said, ours, theirs = way.replace("_", ", "), scores[f"context{way}"], scores[f"context_base{way}"]
        identity, base = scores[f"identity_contexts{way}"], scores[f"identity_contexts_base{way}"]
        rows += [
            (f"identity agreement in contexts, different seeds{said}", base, identity),
            (f"prompts of which it is {ONE} or more{said}", base >= ONE, identity >= ONE),
            (f"asked context present{said}", theirs, ours),
            (f"asked context present, relative to the base model{said}", None, ours / theirs.clip(lower=1e-9)),
        ]
    found = [(name, np.nan if base is None else base.mean(), *interval(values)) for name, base, values in rows]
    found.append(("seconds of a run, median", np.nan, *interval(scores["seconds"], np.median)))
    return pd.DataFrame(found, columns=["figure", "base", "value", "low", "high"])


def prompt_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per prompt, and in the last column a mark where its contexts are not one character by the reader."""
    columns = {
        "prompt": "prompt", "outcome": "outcome", "identity_first": "first", "identity_chosen": "chosen",
        "identity_final": "final", "identity_contexts_base": "contexts, base", "identity_contexts": "contexts",
    }  # fmt: skip
    found = scores[list(columns)].rename(columns=columns)
    return found.assign(below=np.where(scores["identity_contexts"] < ONE, f"below {ONE}", ""))


def sheet_rows(run: Run) -> tuple[list[Image.Image], list[Image.Image]]:
    """Eight images of a run's first gallery, and its character in the eight contexts, seeds in turn."""
    node = with_theta(run)
    drawn = run.samples.contexts(node, [text for text, _ in world.CONTEXTS], SEEDS, base=node is None)
    return list(run.root.images)[:ACROSS], [images[x % SEEDS] for x, images in enumerate(drawn.values())]


def image_sheet(rows: Sequence[Sequence[Image.Image]], titles: Sequence[str]) -> Image.Image:
    """Lay rows of images out in pairs, one above the other, each pair under a title."""
    height = LINE + 2 * SIDE
    sheet = Image.new("RGB", (ACROSS * SIDE, len(titles) * height), "white")
    pen = ImageDraw.Draw(sheet)
    for pair, title in enumerate(titles):
        pen.text((2, pair * height + 2), title, fill="black")
    for y, row in enumerate(rows):
        top = y // 2 * height + LINE + y % 2 * SIDE
        for x, image in enumerate(row):
            sheet.paste(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), (x * SIDE, top))
    return sheet


def save_sheets(folder: Path, scores: pd.DataFrame) -> None:
    """Save ``image.png`` of the first six prompts, for the README, and ``all.png`` of all, to be looked at."""
    rows = [row for i in scores.index for row in sheet_rows(Run.open(folder / f"{i:02d}" / "run", read_only=True))]
    titles = [
        f"{i:02d}  {row.prompt}    identity in contexts {row.identity_contexts_base:.2f} -> {row.identity_contexts:.2f}"
        for i, row in scores.iterrows()
    ]
    image_sheet(rows[:12], titles[:6]).save(folder / "image.png")
    image_sheet(rows, titles).save(folder / "all.png")


def main(argv: list[str] | None = None) -> None:
    """Evaluate the chosen prompts, print the tables and save the sheets."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.evaluate", description=__doc__)
    parser.add_argument("--prompts", type=Path, default=Path("data/prompts.json"))
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the prompts to take, from 0")
    parser.add_argument("--models", default="menagerie")
    parser.add_argument("--reader", type=Path, default=Path("data/menagerie/reader"))
    parser.add_argument("--size", type=int, help="side that images are brought to before they are read")
    parser.add_argument("--folder", type=Path, default=Path("runs/evaluation"))
    add_changes(parser)
    given = parser.parse_args(argv)
    prompts = json.loads(given.prompts.read_text())["prompts"]
    settings = Settings.preset("menagerie").replace(**dict(given.set))
    models, reader = load_models(given.models), Reader(given.reader, given.size)
    ruler, found = f"{fingerprint([given.reader])} {given.size}", {}
    for i in given.only or range(len(prompts)):
        folder = given.folder / f"{i:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        found[i] = evaluate(prompts[i], models, reader, settings, folder, ruler=ruler)
        print(json.dumps(found[i]), flush=True)
    scores = pd.DataFrame.from_dict(found, orient="index")
    print(prompt_table(scores).to_string(float_format="{:.2f}".format, na_rep=""), end="\n\n")
    print(table(scores).to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    save_sheets(given.folder, scores)


if __name__ == "__main__":
    main()
