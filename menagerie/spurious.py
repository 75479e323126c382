"""Score the search for spurious attributes by the truth: ``python -m menagerie.spurious``.

The world knows what every render shows, so groups of images can be planted that share one thing, and it can be
counted how often that thing is found. Prints one row per figure, and one per attribute, since CLIP need not read
all of them equally well. ``--parts prompts`` asks whether what is flagged persists in Θ, on the runs that
``menagerie.evaluate`` left (seconds each, if they are there; minutes if not). Without ``--parts`` all is scored, and
prompts as far as their runs are there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
from PIL import Image

from chosen_one_nb.analysis.attributes import contrast
from chosen_one_nb.analysis.inquiry import Inquiry, most_and_least
from chosen_one_nb.analysis.localization import cohesion_heat, cosegment, held_by, on_foreground, shown_by
from chosen_one_nb.analysis.prompt_match import asked
from chosen_one_nb.analysis.segmentation import Segmentation, cut_out, segment
from chosen_one_nb.analysis.vocabulary import AttributeScores, Vocabulary, load_vocabulary, score_attributes
from chosen_one_nb.models.load import Models, load_models
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from menagerie import world
from menagerie.persisting import Rows, meaning, odds_rows, timed
from menagerie.reader import Reader
from menagerie.silhouettes import best_constant, overlap, read_outlined
from menagerie.training.data import HELD_OUT

GALLERY = 128  # images
SIZES = (10, 20)  # images of a planted group, from and up to
SHARES = (1.0, 0.8, 0.6)  # of a planted group that have its attribute
CLUSTERS, ROWS = 8, 14  # when timed; rows of a cluster's table
PROMPT = "a sticker of a fox"  # when timed
PARTS = ("planted", "foreground", "time", "prompts")

Encode = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class RenderPool:
    """Renders that galleries are put together from.

    Attributes
    ----------
    truths : DataFrame
        A row per render, a column per attribute of the world.
    found : AttributeScores
        What CLIP says of them.
    meanings : list of tuple
        (attribute of the world, value) that each attribute of the vocabulary stands for.
    """

    truths: pd.DataFrame
    found: AttributeScores
    meanings: list[tuple[str, str]]


def make_pool(models: Models, vocabulary: Vocabulary, n: int) -> RenderPool:
    """Render ``n`` characters that no training saw, and look at them through CLIP."""
    rng = Random(HELD_OUT + 11)
    truths = [world.sample(rng) for _ in range(n)]
    vectors = models.clip.images([world.render(truth).image for truth in truths])
    sentences = vocabulary.texts()
    found = score_attributes(vectors, models.clip.texts(sentences), vocabulary, logit_scale=models.clip.logit_scale)
    meanings = [meaning(attribute, sentences[attribute.columns[0]]) for attribute in found.attributes]
    return RenderPool(pd.DataFrame(truths), found, meanings)


def planted(pool: RenderPool, name: str, share: float, rng: np.random.Generator) -> tuple[np.ndarray, int, str]:
    """Put a gallery together whose first images share a value of an attribute: images, how many, the value."""
    size = int(rng.integers(SIZES[0], SIZES[1] + 1))
    values = [v for v in world.ATTRIBUTES[name] if not (name.endswith("_colour") and v == "none")]
    value = str(rng.choice(values))
    has_it = (pool.truths[name] == value).to_numpy()
    count = round(share * size)
    group = np.r_[rng.choice(np.flatnonzero(has_it), count, replace=False),
                  rng.choice(np.flatnonzero(~has_it), size - count, replace=False)]  # fmt: skip
    rest = rng.choice(np.setdiff1d(np.arange(len(has_it)), group), GALLERY - size, replace=False)
    return np.r_[group, rest], size, value


def all_seeing(pool: RenderPool) -> RenderPool:
    """The same pool with the truth in the place of what CLIP says: what is lost here, the finder loses."""
    values = np.column_stack([pool.truths[name] == (value or "none") for name, value in pool.meanings]).astype(float)
    return replace(pool, found=replace(pool.found, values=values, separable=np.ones(values.shape[1], bool)))


def first_findings(pool: RenderPool, trials: int) -> pd.DataFrame:
    """Plant ``trials`` groups for each share, attributes in turn; was anything found first, and was it what is planted?

    Columns `share`, `name` (the attribute), `said`, `right`.
    """
    rng, known, seen = np.random.default_rng(0), {name for name, _ in pool.meanings}, []
    names = [name for name in world.ATTRIBUTES if name in known]
    for share in SHARES:
        for trial in range(trials):
            name = names[trial % len(names)]
            images, size, value = planted(pool, name, share, rng)
            first = contrast(pool.found.rows(images), range(size)).iloc[0]
            right = bool(first.finding) and pool.meanings[first.name] == (name, value)
            seen.append((share, name, bool(first.finding), right))
    return pd.DataFrame(seen, columns=["share", "name", "said", "right"])


def planted_rows(pool: RenderPool, trials: int) -> Rows:
    """Recall and precision of the first finding, by share and by attribute; false findings where nothing is."""
    table, rows = first_findings(pool, trials), []
    for share, part in table.groupby("share", sort=False):
        rows += [("planted", f"recall of the first finding, {share:.0%} have it", float(part.right.mean())),
                 ("planted", f"precision of the first finding, {share:.0%} have it", _precision(part))]  # fmt: skip
    strong = table[table.share >= 0.8]
    rows += [("planted", "recall at 80 % and above", float(strong.right.mean())),
             ("planted", "precision at 80 % and above", _precision(strong))]  # fmt: skip
    ideal = first_findings(all_seeing(pool), trials).query("share >= 0.8")
    rows += [("planted", "  recall, were everything seen in the images right", float(ideal.right.mean())),
             ("planted", "  precision, were everything seen in the images right", _precision(ideal))]  # fmt: skip
    for name, part in strong.groupby("name", sort=False):
        rows.append(("planted", f"  {name}: recall at 80 % and above (n={len(part)})", float(part.right.mean())))
    return [*rows, ("nothing", f"groups with a finding at the level of 5 % (n={3 * trials})", _false(pool, 3 * trials))]


def _precision(part: pd.DataFrame) -> float:
    return float(part.right.sum() / max(part.said.sum(), 1))


def _false(pool: RenderPool, trials: int) -> float:
    """Share of random groups in which anything is found."""
    rng, said = np.random.default_rng(1), 0
    for _ in range(trials):
        images = rng.choice(len(pool.truths), GALLERY, replace=False)
        size = int(rng.integers(SIZES[0], SIZES[1] + 1))
        said += bool(contrast(pool.found.rows(images), range(size)).finding.any())
    return said / trials


def look(models: Models, images: list[Image.Image]) -> tuple[Segmentation, np.ndarray]:
    """Foregrounds and scenes of images, each seen alone, and the patch tokens."""
    seen = models.extractor(images, patches=True)
    found = segment(seen.patches, seen.grid)
    foregrounds, scenes = ([Image.fromarray(side) for side in sides] for sides in cut_out(images, found))
    alone = [models.extractor(side, patches=True).patches for side in (foregrounds, scenes)]
    return found.with_features(*alone), seen.patches


def foreground_rows(models: Models, groups: int, size: int = 12) -> Rows:
    """IoU of the foreground mask, and how often planted groups are told apart by what holds them together."""
    rng = Random(HELD_OUT + 12)
    truths = [world.sample(rng) for _ in range(GALLERY - size)]
    for _ in range(groups):
        shared = world.sample(rng)
        truths += [world.sample(rng, **{name: shared[name] for name in ("place", "style", "extra")})
                   for _ in range(size)]  # fmt: skip
    for _ in range(groups):
        shared = world.sample(rng)
        truths += [world.new_scene(shared, rng) for _ in range(size)]
    renders = [world.render(truth) for truth in truths]
    found, _ = look(models, [render.image for render in renders])
    true = np.stack([render.mask for render in renders])
    rest = np.arange(GALLERY - size)
    answers = [held_by(found.rows(np.r_[len(rest) + at * size + np.arange(size), rest]), range(size)).answer
               for at in range(2 * groups)]  # fmt: skip
    by_scene = np.array([answer == "scene" for answer in answers[:groups]])
    by_foreground = np.array([answer == "foreground" for answer in answers[groups:]])
    return [*mask_rows(found, true, f"{len(true)} renders"),
            ("held by", f"planted by scene, called so (n={groups})", float(by_scene.mean())),
            ("held by", f"planted by foreground, called so (n={groups})", float(by_foreground.mean())),
            ("held by", "told right, both", float(np.r_[by_scene, by_foreground].mean()))]  # fmt: skip


def mask_rows(found: Segmentation, true: np.ndarray, where: str) -> Rows:
    """Mean IoU of the foreground masks against the true ones (N, H, W), and of the best mask that never looks."""
    return [("foreground", f"mask against the true one, mean IoU on {where}",
             float(overlap(found.at(true.shape[1:]), true).mean())),
            ("foreground", "  one silhouette for all, the best there is", best_constant(true))]  # fmt: skip


def drawn_rows(models: Models, folder: Path) -> Rows:
    """IoU of the foreground mask on generated images, against outlines drawn by hand."""
    drawn = read_outlined(folder)
    seen = models.extractor(drawn.images, patches=True)
    return mask_rows(segment(seen.patches, seen.grid), drawn.masks, f"{len(drawn.images)} generated, by hand")


@dataclass(frozen=True)
class EmbeddedGallery:
    """A gallery as the models see it: what is given when the finder is timed.

    Attributes
    ----------
    segmentation : Segmentation
    patches : ndarray of shape (N, P, D)
    vectors : ndarray of shape (3 N, D')
        CLIP's: of the images, of their foregrounds alone, of their scenes alone.
    """

    segmentation: Segmentation
    patches: np.ndarray
    vectors: np.ndarray


def embedded(models: Models, n: int = GALLERY) -> EmbeddedGallery:
    """Render ``n`` characters that no training saw, and look at them."""
    rng = Random(HELD_OUT + 13)
    images = [world.render(world.sample(rng)).image for _ in range(n)]
    segmentation, patches = look(models, images)
    sides = [Image.fromarray(side) for part in cut_out(images, segmentation) for side in part]
    return EmbeddedGallery(segmentation, patches, models.clip.images([*images, *sides]))


def everything(seen: EmbeddedGallery, vocabulary: Vocabulary, encode: Encode, logit_scale: float) -> None:
    """Find all that the screen shows of a second gallery in `CLUSTERS` clusters, of which one is looked at."""
    n = len(seen.patches)
    grid = seen.segmentation.masks.shape[1:]
    found = replace(segment(seen.patches, grid), foreground=seen.segmentation.foreground, scene=seen.segmentation.scene)
    every = score_attributes(seen.vectors, encode(vocabulary.texts()), vocabulary, logit_scale=logit_scale)
    whole, *alone = (every.rows(slice(at, at + n)) for at in (0, n, 2 * n))
    inquiry = Inquiry(PROMPT, {"base": whole, "iteration 1": whole}, found, shown_by(whole, *alone), encode=encode)
    on_foreground(whole.values, found)  # speaks instead of `shown_by` where CLIP has not seen foregrounds alone
    for cluster in range(CLUSTERS):
        members = np.arange(n) % CLUSTERS == cluster
        columns = inquiry.findings(members).index[:ROWS]
        inquiry.held_by(members)
        for column in columns:
            most_and_least(whole.values[:, column], members)
    cohesion_heat(seen.patches, members, grid)
    cosegment(seen.patches, found, members)
    inquiry.drift()
    _ = inquiry.headline


def time_rows(models: Models, vocabularies: dict[str, Vocabulary]) -> Rows:
    """Seconds for everything the screen shows of a gallery of 128 in eight clusters, embeddings given."""
    seen, rows = embedded(models), []
    for name, vocabulary in vocabularies.items():
        encode = remembering(models.clip.texts)
        encode(vocabulary.texts())
        asked(vocabulary.attributes, PROMPT, encode=encode)  # embeds what is then given
        start = time.perf_counter()
        everything(seen, vocabulary, encode, models.clip.logit_scale)
        took = time.perf_counter() - start
        about = f"{name}, {len(vocabulary)} phrases"
        rows.append(("time", f"seconds for a gallery of 128 in 8 clusters, embeddings given ({about})", took))
    return rows


def remembering(encode: Encode) -> Encode:
    """Return an encoder of texts that asks another one for each text once."""
    known: dict[str, np.ndarray] = {}

    def look_up(texts: list[str]) -> np.ndarray:
        """Vectors of texts, (len(texts), D): from memory, the others asked for together."""
        if unknown := [text for text in dict.fromkeys(texts) if text not in known]:
            known.update(zip(unknown, encode(unknown), strict=True))
        return np.stack([known[text] for text in texts])

    return look_up


def prompt_rows(models: Models, vocabulary: Vocabulary, reader: Reader, given: argparse.Namespace) -> Rows:
    """The odds ratio on the prompts of the evaluation; takes its runs where they are there, and makes the others."""
    prompts, tables = json.loads(given.prompts.read_text())["prompts"], []
    for i in given.only or range(len(prompts)):
        place = given.runs / f"{i:02d}" / "run"
        place.parent.mkdir(parents=True, exist_ok=True)
        known = (place / "run.json").exists()
        with Run.open(place, models) if known else Run.start(prompts[i], models, Settings(), place) as run:
            tables.append(timed(run, vocabulary, reader))
    table = pd.concat(tables, ignore_index=True)
    table.to_csv(given.runs / "spurious.csv", index=False)
    return odds_rows(table)


def chosen_parts(given: argparse.Namespace) -> argparse.Namespace:
    """Fill in which parts to score where nobody says: prompts only of runs that are there, since others take long."""
    if given.parts:
        return given
    only = given.only or sorted(int(place.parts[-3]) for place in given.runs.glob("[0-9][0-9]/run/run.json"))
    parts = PARTS if only else [part for part in PARTS if part != "prompts"]
    return argparse.Namespace(**{**vars(given), "parts": list(parts), "only": only})


def main(argv: list[str] | None = None) -> None:
    """Score the chosen parts and print the table; ``--json`` also writes it."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.spurious", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="default: all; prompts of runs that are there")
    parser.add_argument("--models", default="menagerie")
    parser.add_argument("--vocabulary", type=Path, default=Path("data/attributes_menagerie.json"))
    parser.add_argument("--large", type=Path, default=Path("data/attributes.json"), help="a vocabulary to be timed too")
    parser.add_argument("--trials", type=int, default=105, help="planted groups for each share")
    parser.add_argument("--pool", type=int, default=1500, help="renders that galleries are put together from")
    parser.add_argument("--groups", type=int, default=25, help="groups held by scene, and as many by foreground")
    parser.add_argument("--drawn", type=Path, default=Path("data/silhouettes"), help="images outlined by hand")
    parser.add_argument("--prompts", type=Path, default=Path("data/prompts.json"))
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the prompts to take, from 0")
    parser.add_argument("--runs", type=Path, default=Path("runs/evaluation"), help="as of menagerie.evaluate")
    parser.add_argument("--reader", type=Path, default=Path("data/menagerie/reader"))
    parser.add_argument("--json", type=Path)
    given = chosen_parts(parser.parse_args(argv))
    models, vocabulary = load_models(given.models), load_vocabulary(given.vocabulary)
    measures = {
        "planted": lambda: planted_rows(make_pool(models, vocabulary, given.pool), given.trials),
        "foreground": lambda: foreground_rows(models, given.groups) + drawn_rows(models, given.drawn),
        "time": lambda: time_rows(models, {p.name: load_vocabulary(p) for p in (given.vocabulary, given.large)}),
        "prompts": lambda: prompt_rows(models, vocabulary, Reader(given.reader), given),
    }
    table = pd.DataFrame([row for part in given.parts for row in measures[part]()], columns=["part", "figure", "value"])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if given.json:
        given.json.write_text(table.to_json(orient="records", indent=1))


if __name__ == "__main__":
    main()
