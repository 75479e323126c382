"""Methods on many characters: cells on disk, their scores, a table, a figure and a page (sections 4.1 and 4.3).

A cell is what a method makes of a prompt: its images, what they took, and their scores. It lies on disk once it is
done; doing it again does nothing, and a cell that fails costs itself only. The unit of every interval and test is the
character. The world's truth enters as data: an image classifier, and what the plan says that contexts show.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from chosen_one_nb import plots
from chosen_one_nb.analysis.segmentation import NotAvailable, cut_out, segment
from chosen_one_nb.analysis.statistics import bootstrap, max_t
from chosen_one_nb.baselines import BaselineTask, Drawer, Method
from chosen_one_nb.models.hub import absolute
from chosen_one_nb.models.images import read_image
from chosen_one_nb.report import template
from chosen_one_nb.run import store
from chosen_one_nb.settings import Settings, SettingsError, first_error
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.embed import unit
from chosen_one_nb.steps.gallery import probe_seeds
from chosen_one_nb.study.records import File, StudyImage, StudyTable
from chosen_one_nb.sweep import SweepError, prepare
from chosen_one_nb.sweep.plan import LoadOption
from chosen_one_nb.sweep.workers import TaskResult, WorkerPool, load_same_models

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from chosen_one_nb.models.load import Models

__all__ = ["MAIN", "AttributeClassifier", "Comparison", "ComparisonError", "ComparisonPlan", "compare", "methods"]

MAIN = ("base", "reference_copied", "ours", "textual_inversion", "lora_dreambooth", "ip_adapter")
SCORES = {
    "similarity": "prompt similarity (CLIP)", "identity": "identity (CLIP)", "dino": "identity (DINO)",
    "dino_figure": "identity of figures (DINO)", "truth": "identity attributes equal", "context": "asked context there",
    "diversity": "diversity of scenes", "copying": "nearer to the reference than to each other",
}  # fmt: skip
"""Scores of a cell and what they are called; `docs/comparison.md` says how each is computed."""

COSTS = {
    "seconds": "seconds per character", "passes": "UNet passes per character",
    "seconds_image": "seconds per image", "passes_image": "UNet passes per image",
}  # fmt: skip
LOOP = {"ip_adapter": "CLIP", "extractor_clip": "CLIP"}
BY_DINO = ("ours", "without", "reinitialising", "single", "extractor_dinov1")
"""What names begin with of methods that choose by DINO's features, which flatter them then."""
SHOWN = 12  # prompts whose images are on the page


class _CellImage(TypedDict):
    context: str
    seed: int
    file: File


class _CellRow(TypedDict):
    row: str
    images: list[_CellImage]
    seconds: NotRequired[float]
    passes: NotRequired[float]
    seconds_image: NotRequired[float]
    passes_image: NotRequired[float]


class _CellRecord(TypedDict):
    prompt: str
    method: str
    rows: list[_CellRow]
    error: str


class _CellScores(TypedDict):
    made: str
    scores: dict[str, dict[str, float | None]]


class _ComparisonRecord(TypedDict):
    fixed: dict[str, Any]
    plan: dict[str, Any]


# A folder may come from anybody: its files are read by these, and images lie in their cell.
CELL, CELL_SCORES, RECORD = (TypeAdapter(each) for each in (_CellRecord, _CellScores, _ComparisonRecord))


class ComparisonError(RuntimeError):
    """A comparison that cannot be made or read so; the message says what was expected."""


class Context(BaseModel):
    """A context and what an image of it shows, by attribute, where that is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: Annotated[str, Field(min_length=1, max_length=300)]
    shows: dict[str, str] = {}


def _methods_known(names: list[str]) -> list[str]:
    if unknown := [name for name in names if name not in methods()]:
        raise ValueError(f"expected methods out of {', '.join(methods())}, got {unknown[0]!r}.")
    return names


class ComparisonPlan(BaseModel):
    """What is compared: prompts x methods, each in contexts x seeds.

    Attributes
    ----------
    prompts : list of str
    contexts : list of Context
    identity : list of str
        Attributes that make a character what it is, of those that the classifier names.
    seeds : int
        Images of each context; identity compares images of different seeds and contexts.
    methods : list of str
    settings : dict
        Changes of the settings that the models go with.
    models, load
        As of `SweepPlan`.
    judge : str or None
        Folder of an image classifier that tells the truth; see `AttributeClassifier`.
    images : dict of str to str
        Folders of images that were drawn elsewhere, by row; see `take_over`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str = ""
    prompts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
    contexts: Annotated[list[Context], Field(min_length=2)]
    identity: list[str] = []
    seeds: Annotated[int, Field(ge=2, le=64)] = 2
    methods: Annotated[list[str], AfterValidator(_methods_known)] = list(MAIN)
    settings: dict[str, Any] = {}
    models: Annotated[str, AfterValidator(absolute)] = "menagerie"
    load: dict[LoadOption, Any] = {}
    judge: str | None = None
    images: dict[str, str] = {}

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ComparisonError(f"plan of a comparison: {first_error(error)}") from error
        try:
            self.drawn_with  # noqa: B018  before anything is drawn
        except SettingsError as error:
            raise ComparisonError(f"plan of a comparison: settings: {error}") from error

    @classmethod
    def read(cls, path: str | Path, **changes: Any) -> ComparisonPlan:
        """Read a plan from a JSON file, with entries put in the place of its own."""
        return cls(**store.read_json(Path(path).expanduser(), schema=TypeAdapter(dict[str, Any])) | changes)

    @property
    def drawn_with(self) -> Settings:
        """The settings of all methods."""
        return Settings.preset(Settings.preset_for(self.models)).replace(**self.settings)

    def fixed(self, fingerprint: str) -> dict[str, Any]:
        """What all cells of a folder share; more prompts and methods may come later."""
        part = self.model_dump(include={"contexts", "seeds"})
        return store.plain(part | {"settings": self.drawn_with.model_dump(), "models": fingerprint})

    @property
    def loading(self) -> dict[str, Any]:
        """The arguments of `load_models`, as plain data."""
        return {"name": self.models, **self.load}


def methods() -> dict[str, Method]:
    """Return all methods by name."""
    from chosen_one_nb.baselines.training_free import TRAINING_FREE
    from chosen_one_nb.baselines.tuned import TUNED

    return {"base": _base, "reference_copied": _copied, **TUNED, **TRAINING_FREE}


def _base(task: BaselineTask) -> Iterator[tuple[str, Drawer]]:
    """The base model and the whole prompt: what a method's identity has to be above."""
    yield "", task.drawer()


def _copied(task: BaselineTask) -> Iterator[tuple[str, Drawer]]:
    """The reference image for all contexts: a ceiling of identity, and a floor of following prompts."""
    (reference,) = task.references()
    yield "", lambda contexts, seeds: [reference] * (len(contexts) * len(seeds))


@dataclass(frozen=True)
class _Cost:
    """Seconds, and images that went through the UNet (steps x guidance x images)."""

    seconds: float = 0.0
    passes: float = 0

    def __add__(self, other: _Cost) -> _Cost:
        return _Cost(self.seconds + other.seconds, self.passes + other.passes)

    def __sub__(self, other: _Cost) -> _Cost:
        return _Cost(self.seconds - other.seconds, self.passes - other.passes)

    def __truediv__(self, n: int) -> _Cost:
        return _Cost(self.seconds / n, self.passes / n)


@contextmanager
def counted(unet: Any) -> Iterator[Callable[[], _Cost]]:
    """Yield what tells the cost since the beginning of a with-block."""
    passes, begun = [], time.monotonic()
    hook = unet.register_forward_pre_hook(lambda module, given: passes.append(len(given[0])))
    try:
        yield lambda: _Cost(time.monotonic() - begun, sum(passes))
    finally:
        hook.remove()


# --- what the workers do


def draw_cell(plan: ComparisonPlan, prompt: str, method: str, place: Path, fingerprint: str) -> None:
    """Do what a method does with a prompt: its images, what they took, and last ``cell.json``."""
    models = load_same_models(plan.loading, fingerprint)
    task = BaselineTask(models, prompt, plan.drawn_with, store.make_folder(place))
    contexts, seeds = [context.text for context in plan.contexts], probe_seeds(task.settings, n=plan.seeds)
    rows, drawn = [], _Cost()
    with counted(models.pipeline.unet) as cost:
        for variant, drawer in methods()[method](task):
            name = ", ".join(filter(None, (method, variant)))
            learned, before = cost() - drawn, cost()
            images = drawer(contexts, [int(seed) for seed in seeds])
            drawing = cost() - before
            drawn, each = drawn + drawing, drawing / len(images)
            every = [(context, int(seed)) for context in contexts for seed in seeds]
            records = _write_images(place, store.slug(variant or "images"), every, images)
            took = {"seconds": learned.seconds, "passes": learned.passes}
            took |= {"seconds_image": each.seconds, "passes_image": each.passes}
            rows.append({"row": name, "images": records, **took})
    store.write_json(place / "cell.json", {"prompt": prompt, "method": method, "rows": rows, "error": ""})


def _write_images(
    place: Path, name: str, every: Sequence[tuple[str, int]], images: Sequence[Image.Image]
) -> list[dict[str, Any]]:
    folder, records = store.make_folder(place / name), []
    for i, ((context, seed), image) in enumerate(zip(every, images, strict=True)):
        about = {"context": context, "seed": str(seed)}
        store.write_image(folder / f"{i:03d}.png", image, about, flush=False)
        records.append({"context": context, "seed": seed, "file": f"{name}/{i:03d}.png"})
    store.flush_all(folder, [f"{i:03d}.png" for i in range(len(images))])
    return records


def score_cell(plan: ComparisonPlan, place: Path, fingerprint: str) -> None:
    """Score the images of a cell: ``scores.json``."""
    models, cell = load_same_models(plan.loading, fingerprint), store.read_json(place / "cell.json", schema=CELL)
    reference = _reference(BaselineTask(models, cell["prompt"], plan.drawn_with, place), place.parent / "reference.png")
    judge = None if plan.judge is None else AttributeClassifier(plan.judge)
    scores = {}
    for row in cell["rows"]:
        images = [read_image(place / record["file"]) for record in row["images"]]
        asked = [(record["context"], record["seed"]) for record in row["images"]]
        scores[row["row"]] = score_images(models, images, cell["prompt"], asked, reference)
        if judge:
            scores[row["row"]] |= score_truth(judge(images), asked, plan)
    store.write_json(place / "scores.json", store.plain({"made": scored_with(plan, place), "scores": scores}))


def _reference(task: BaselineTask, path: Path) -> Image.Image:
    """The image that rivals are given."""
    if not path.exists():
        store.write_image(path, task.references()[0], {"prompt": task.prompt})
    return read_image(path)


def scored_with(plan: ComparisonPlan, place: Path) -> str:
    """Return a checksum of a cell and of what it is scored with."""
    from chosen_one_nb.models.load import fingerprint

    truth = json.dumps([plan.identity, [context.model_dump() for context in plan.contexts]])
    return store.digest(f"{store.digest(store.read_bytes(place / 'cell.json'))} {fingerprint([plan.judge])} {truth}")


def score_images(
    models: Models, images: Sequence[Image.Image], prompt: str, asked: Sequence[tuple[str, int]], reference: Image.Image
) -> dict[str, float]:
    """Score N images by CLIP and by the extractor.

    Parameters
    ----------
    models : Models
    images : sequence of PIL.Image, length N
    prompt : str
    asked : sequence of (context, seed), length N
    reference : PIL.Image
        What rivals were given.

    Returns
    -------
    dict of str to float
        By the names of `SCORES`; NaN where it cannot be had.
    """
    found, pairs = dict.fromkeys(SCORES, float("nan")), compared_pairs(asked)
    if models.clip is not None:
        clip = models.clip.images(images)
        texts = models.clip.texts([f"{prompt} {context}".strip() for context, _ in asked])
        found |= {"similarity": (unit(clip) * unit(texts)).sum(1).mean(), "identity": _cosine(clip, pairs)}
    seen = models.extractor([*images, reference], patches=True)
    whole = unit(seen.cls)
    found["dino"] = _cosine(whole[:-1], pairs)
    found["copying"] = (whole[:-1] @ whole[-1]).mean() - found["dino"]
    parts = segment(None if seen.patches is None else seen.patches[:-1], seen.grid)
    if not isinstance(parts, NotAvailable):
        sides = [[Image.fromarray(pixels) for pixels in side] for side in cut_out(images, parts)]
        parts = parts.with_features(*(models.extractor(side, patches=True).patches for side in sides))
        found |= {"dino_figure": _cosine(parts.foreground, pairs), "diversity": 1 - _cosine(parts.scene, pairs)}
    return found


def compared_pairs(asked: Sequence[tuple[str, int]]) -> np.ndarray:
    """Return which images are compared, bool (N, N): those of another context and another seed, so of other noise.

    >>> compared_pairs([("snow", 0), ("snow", 1), ("beach", 1)]).tolist()
    [[False, False, True], [False, False, False], [True, False, False]]
    """
    contexts, seeds = (np.array(part) for part in zip(*asked, strict=True))
    return (contexts[:, None] != contexts) & (seeds[:, None] != seeds)


def _cosine(vectors: np.ndarray, pairs: np.ndarray) -> float:
    directions = unit(np.asarray(vectors, dtype=np.float64))
    return float((directions @ directions.T)[pairs].mean()) if pairs.any() else float("nan")


def score_truth(
    read: Mapping[str, np.ndarray], asked: Sequence[tuple[str, int]], plan: ComparisonPlan
) -> dict[str, float]:
    """Score what a classifier reads in N images: `truth`, share of identity attributes that two images have in common,
    and `context`, share of images that show all that their context asks for.
    """
    pairs, shows = compared_pairs(asked), {context.text: context.shows for context in plan.contexts}
    if unknown := {*plan.identity, *(name for wanted in shows.values() for name in wanted)} - read.keys():
        raise ComparisonError(f"judge: expected a classifier that names {', '.join(sorted(unknown))}.")
    equal = [(read[name][:, None] == read[name])[pairs].mean() for name in plan.identity] if pairs.any() else []
    there = [
        all(read[name][i] == value for name, value in shows[context].items())
        for i, (context, _) in enumerate(asked) if shows.get(context)
    ]  # fmt: skip
    return {
        name: float(np.mean(part)) if part else float("nan") for name, part in (("truth", equal), ("context", there))
    }


class AttributeClassifier:
    """A stock image classifier whose labels say "attribute=value": names every attribute of an image.

    Parameters
    ----------
    folder : str or Path
        As `save_pretrained` writes it.

    Raises
    ------
    ComparisonError
        It is none, or has other labels.
    """

    def __init__(self, folder: str | Path) -> None:
        import transformers

        try:
            kind = transformers.AutoModelForImageClassification
            self.model = kind.from_pretrained(
                folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
            )
            self.model.eval().float()
            self.processor = transformers.AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ComparisonError(
                f"judge: expected the folder of an image classifier, got {folder}: {error}"
            ) from error
        labels = [label.partition("=") for _, label in sorted(self.model.config.id2label.items())]
        if not all(sign for _, sign, _ in labels):
            raise ComparisonError(f"judge: expected labels such as colour=red, got {labels[0][0]!r}.")
        self.values: dict[str, list[tuple[int, str]]] = {}
        for place, (name, _, value) in enumerate(labels):
            self.values.setdefault(name, []).append((place, value))

    def __call__(self, images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """Return the most probable value of each attribute, text (N,)."""
        import torch

        with torch.inference_mode():
            logits = self.model(**self.processor(list(images), return_tensors="pt")).logits.numpy()
        return {
            name: np.array([value for _, value in values])[logits[:, [place for place, _ in values]].argmax(1)]
            for name, values in self.values.items()
        }


# --- beside the workers


def compare(
    plan: ComparisonPlan,
    folder: str | Path,
    *,
    workers: int | None = None,
    threads: int = 1,
    on_progress: Callable[[dict[str, Any]], None] | None = None,
    on_message: Callable[[str], None] | None = None,
) -> Comparison:
    """Do every cell of a plan, or what is left of it; the same folder goes on, and takes more prompts and methods.

    Parameters
    ----------
    plan : ComparisonPlan
    folder : str or Path
    workers, threads, on_progress, on_message
        As of `chosen_one_nb.sweep.sweep`.

    Returns
    -------
    Comparison
        Of all cells in the folder; failed ones are done again the next time.

    Raises
    ------
    ComparisonError
        The folder holds a comparison by other models, settings or contexts.
    SweepError
        A prompt that the models cannot take, or models that cannot be loaded.
    """
    place = store.make_folder(Path(folder).expanduser().resolve())
    lock, callbacks = store.Lock(place), Callbacks(on_progress)
    lock.acquire()
    try:
        for row, source in plan.images.items():
            take_over(row, Path(source), place, plan)
        with WorkerPool(workers, threads=threads, on_message=on_message) as pool:
            [(_, ready)] = pool.do([partial(prepare, plan.loading, [(p, plan.drawn_with) for p in plan.prompts])])
            if ready.error:
                raise SweepError(ready.error)
            fingerprint = ready.value[0]
            _check_same(place, plan.fixed(fingerprint))
            store.write_json(place / "compare.json", {"fixed": plan.fixed(fingerprint), "plan": plan.model_dump()})
            _draw_cells(plan, place, fingerprint, pool, callbacks)
            there = [path.parent for path in sorted(place.glob("cells/*/*/cell.json"))]
            scoring = [partial(score_cell, plan, path, fingerprint) for path in there if _unscored(plan, path)]
            for _, result in _reported(pool, "score", scoring, callbacks):
                if result.error and on_message:
                    on_message(f"A cell without scores: {result.error}")
        found = Comparison.open(place)
        found.write()
    finally:
        lock.release()
    return found


def _draw_cells(plan: ComparisonPlan, place: Path, fingerprint: str, pool: WorkerPool, callbacks: Callbacks) -> None:
    """Do the cells that are left; a failed one is written down with its reason."""
    cells = [(p, method, _cell(place, p, method)) for p in plan.prompts for method in plan.methods]
    left = [cell for cell in cells if _failed(cell[2]) is not None]
    drawing = [partial(draw_cell, plan, *cell, fingerprint) for cell in left]
    for number, result in _reported(pool, "compare", drawing, callbacks):
        if result.error:
            prompt, method, cell = left[number]
            failed = {"prompt": prompt, "method": method, "rows": [], "error": result.error}
            store.write_json(store.make_folder(cell) / "cell.json", failed)


def _cell(place: Path, prompt: str, method: str) -> Path:
    return place / "cells" / store.slug(prompt) / method


def _failed(cell: Path) -> str | None:
    """Why a cell is to be done; None where it is done."""
    try:
        return store.read_json(cell / "cell.json", schema=CELL)["error"] or None
    except store.StoreError as error:
        return str(error)


def _unscored(plan: ComparisonPlan, cell: Path) -> bool:
    if _failed(cell) is not None:
        return False
    try:
        return store.read_json(cell / "scores.json", schema=CELL_SCORES)["made"] != scored_with(plan, cell)
    except store.StoreError:
        return True


def _reported(
    pool: WorkerPool, stage: str, tasks: Sequence[Callable[[], Any]], callbacks: Callbacks
) -> Iterator[tuple[int, TaskResult]]:
    """Do tasks, with progress in cells."""
    for done, result in enumerate(pool.do(tasks), 1):
        yield result
        callbacks.report(stage, done, len(tasks), "cells")


def _check_same(place: Path, fixed: dict[str, Any]) -> None:
    """Refuse a folder whose cells were made otherwise."""
    if not (place / "compare.json").exists():
        return
    there = store.read_json(place / "compare.json", schema=RECORD)["fixed"]
    if other := [name for name in fixed if there.get(name) != fixed[name]]:
        raise ComparisonError(
            f"{place}: expected a comparison with the same {', '.join(other)}, got another. Its cells cannot be "
            "compared with new ones: give another folder."
        )


def take_over(row: str, source: Path, place: Path, plan: ComparisonPlan) -> None:
    """Copy images that were drawn elsewhere into cells of a row, by the manifest beside them.

    Raises
    ------
    ComparisonError
        The name is that of a method, or no image is of the plan's prompts and contexts.
    """
    if row in methods() or store.slug(row) == "plain":
        raise ComparisonError(f"images: expected a name of no method of the kit, got {row!r}.")
    table: StudyTable = store.read_json(source / "manifest.json", schema=TypeAdapter(StudyTable))
    texts, found = [context.text for context in plan.contexts], dict[str, list[StudyImage]]()
    for image in table.images:
        if image.character in plan.prompts and image.context in texts:
            found.setdefault(image.character, []).append(image)
    if not found:
        raise ComparisonError(f"{source}: expected images of the prompts and contexts that are compared, got none.")
    for prompt, images in found.items():
        cell = store.make_folder(_cell(place, prompt, store.slug(row)))
        every = [(image.context, i if image.seed is None else image.seed) for i, image in enumerate(images)]
        records = _write_images(cell, "images", every, [read_image(source / image.file) for image in images])
        rows = [{"row": row, "images": records}]
        store.write_json(cell / "cell.json", {"prompt": prompt, "method": row, "rows": rows, "error": ""})


class Comparison:
    """A comparison in a folder, finished or under way; made by `compare`, looked at by `Comparison.open`.

    Attributes
    ----------
    folder : Path
    plan : ComparisonPlan
        The latest that was carried out.
    scores : DataFrame
        A line for each prompt and row: ``prompt``, ``method``, ``row``, the names of `SCORES` and `COSTS`.
    failures : DataFrame
        ``prompt``, ``method``, ``error`` of the cells that failed.
    images : DataFrame
        ``method`` (the row), ``character`` (the prompt), ``context``, ``seed``, ``file``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = ComparisonPlan(**store.read_json(folder / "compare.json", schema=RECORD)["plan"])
        cells = [(path.parent, store.read_json(path, schema=CELL)) for path in folder.glob("cells/*/*/cell.json")]
        order = {name: i for i, name in enumerate(dict.fromkeys([*methods(), *(cell["method"] for _, cell in cells)]))}
        prompts = {prompt: i for i, prompt in enumerate(self.plan.prompts)}
        cells.sort(key=lambda each: (order[each[1]["method"]], prompts.get(each[1]["prompt"], len(prompts))))
        lines, images, failures = [], [], []
        for place, cell in cells:
            about = {"prompt": cell["prompt"], "method": cell["method"]}
            scored = place / "scores.json"
            scores = store.read_json(scored, schema=CELL_SCORES)["scores"] if scored.exists() else {}
            failures += [about | {"error": cell["error"]}] if cell["error"] else []
            for row in cell["rows"]:
                costs = {name: row.get(name) for name in COSTS}
                lines.append(about | {"row": row["row"]} | scores.get(row["row"], {}) | costs)
                within = place.relative_to(folder).as_posix()
                images += [
                    {"method": row["row"], "character": cell["prompt"], **image, "file": f"{within}/{image['file']}"}
                    for image in row["images"]
                ]
        columns = ["prompt", "method", "row", *SCORES, *COSTS]
        self.scores = pd.DataFrame(lines, columns=columns).astype(dict.fromkeys([*SCORES, *COSTS], float))
        self.failures = pd.DataFrame(failures, columns=["prompt", "method", "error"])
        self.images = pd.DataFrame(images, columns=["method", "character", "context", "seed", "file"])

    @classmethod
    def open(cls, folder: str | Path) -> Comparison:
        """Open a folder to look at; a `StoreError` says where it holds no comparison."""
        return cls(Path(folder).expanduser())

    @property
    def rows(self) -> list[str]:
        """The rows that have images, in the methods' order."""
        return list(dict.fromkeys(self.scores["row"]))

    @property
    def axes(self) -> tuple[str, str]:
        """How well prompts are followed and identity is kept: by the truth where a judge was given, else by CLIP."""
        judged = self.scores["truth"].notna().any() and self.scores["context"].notna().any()
        return ("context", "truth") if judged else ("similarity", "identity")

    def means(self) -> pd.DataFrame:
        """Return each row's mean of each score over characters, with its 95 % interval: `row`, `score`, `n`, ...

        Returns
        -------
        DataFrame
            ``row``, ``score``, ``value``, ``low``, ``high`` (NaN for a single character), ``n`` (characters).
        """
        found = []
        for row in self.rows:
            part = self.scores[self.scores["row"] == row]
            for name in [*SCORES, *COSTS]:
                if len(values := part[name].dropna()):
                    at = bootstrap(values.to_numpy())
                    found.append((row, name, at.value, at.low, at.high, at.n))
        return pd.DataFrame(found, columns=["row", "score", "value", "low", "high", "n"])

    def table(self) -> pd.DataFrame:
        """Return the means as texts, a line per row: scores with intervals, costs, and what flatters the row."""
        means = self.means()
        texts = {
            (row, score): f"{value:.2f} [{low:.2f}, {high:.2f}]" if score in SCORES and n > 1 else f"{value:.3g}"
            for row, score, value, low, high, n in means.itertuples(index=False)
        }
        there = [name for name in [*SCORES, *COSTS] if (means["score"] == name).any()]
        method = self.scores.drop_duplicates("row").set_index("row")["method"]
        lines = {
            row: {"characters": int((self.scores["row"] == row).sum())}
            | {name: texts.get((row, name), "-") for name in there}
            | {"in the loop": in_loop(method[row])}
            for row in self.rows
        }
        return pd.DataFrame.from_dict(lines, orient="index").rename(columns=SCORES | COSTS)

    def decision(self, against: str = "ours", rows: Sequence[str] | None = None) -> pd.DataFrame:
        """Compare every row with one, by the sum of each character's ranks on both `axes`.

        Parameters
        ----------
        against : str
        rows : sequence of str, optional
            None: all that have every character that `against` has.

        Returns
        -------
        DataFrame
            By row: `difference`, how many ranks `against` is above it on the mean, and `p`, corrected for all pairs of
            rows (permutation over characters, max-T).
        """
        by = {name: self.scores.pivot(index="prompt", columns="row", values=name) for name in self.axes}
        whole = pd.concat(by.values(), axis=1, keys=by)
        if against not in self.rows:
            raise ComparisonError(f"against: expected one of {', '.join(self.rows)}, got {against!r}.")
        own = by[self.axes[0]][against].dropna().index
        rows = rows or [row for row in self.rows if by[self.axes[0]].loc[own, row].notna().all()]
        ranks = sum(whole.loc[own, name][list(rows)].rank(axis=1) for name in self.axes)
        if len(rows) < 2:
            return pd.DataFrame(columns=["difference", "p", "characters"])
        tests, at = max_t(ranks.to_numpy()), list(rows).index(against)
        found = pd.DataFrame({"difference": tests.difference[at], "p": tests.p[at], "characters": tests.n}, index=rows)
        return found.drop(index=against)

    def scatter(self) -> Figure:
        """Plot identity over prompt, as the paper's figure; see `chosen_one_nb.plots.comparison_plot`."""
        x, y = self.axes
        means = self.means().set_index(["row", "score"])
        rows = [row for row in self.rows if (row, x) in means.index and (row, y) in means.index]
        points = {row: (means.loc[(row, x)], means.loc[(row, y)]) for row in rows}
        return plots.comparison_plot(points, (SCORES[x], SCORES[y]))

    def image_rows(self, prompt: str) -> dict[str, list[Image.Image]]:
        """Return the images of a prompt by row, on the first seed of each context."""
        part = self.images[self.images["character"] == prompt].drop_duplicates(["method", "context"])
        files = part.groupby("method", sort=False)["file"]
        return {row: [read_image(self.folder / file) for file in found] for row, found in files}

    def write(self) -> Path:
        """Write ``table.csv``, ``scores.csv``, ``scatter.png``, ``manifest.json`` and the page ``compare.html``."""
        place = self.folder
        for name, table in (("table", self.table()), ("scores", self.scores)):
            store.write_bytes(place / f"{name}.csv", table.to_csv(index=name == "table").encode())
        store.write_image(place / "scatter.png", plots.to_image(self.scatter()), {"comparison": place.name})
        store.write_json(place / "manifest.json", {"images": store.plain(self.images.to_dict("records"))})
        decided = self.decision() if "ours" in self.rows else None
        page = template("compare.html.j2").render(
            comparison=self, figure=Markup(plots.to_svg(self.scatter())), decided=decided, shown=SHOWN
        )
        store.write_bytes(place / "compare.html", page.encode())
        return place / "compare.html"


def in_loop(method: str) -> str:
    """Say whose features a method was made with, so that a score of theirs flatters it."""
    return LOOP.get(method, "DINO" if method.startswith(BY_DINO) else "")
