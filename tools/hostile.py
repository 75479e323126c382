"""Pass bad inputs to the kit and count what is told badly: ``python tools/hostile.py [--family NAME] [--every N]``.

Inputs come in families: arguments of the API, the command line, and damaged files of a run and of a character, some
with their checksums mended, as somebody would who means it. Each must end in one sentence of the kit's own. Counted
are bare errors (or "unexpected"), nonsense that was taken in silence, more than a minute, and more than 2 GB.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chosen_one_nb import Run, Settings, cli, export
from chosen_one_nb.applications.edit import Blend, edit
from chosen_one_nb.applications.pose import pose
from chosen_one_nb.applications.skeleton import Skeleton
from chosen_one_nb.applications.story import StoryPlan
from chosen_one_nb.character import Character
from chosen_one_nb.models.images import read_image
from chosen_one_nb.run import store
from chosen_one_nb.study import Study, analyse
from chosen_one_nb.sweep.plan import SweepPlan

SECONDS, BYTES = 60, 2 * 1024**3
HUGE = 10**400

NO_INDEX = [0.7, True, "a", "2", [1], {}, float("nan"), float("inf"), -1, 99, HUGE, b"1", np.float64(1), "\ud800"]
NO_INDICES = [
    "12", "nowhere.png", ["a.png", 3], b"12",
    3.3, {1: 2}, [0.5, 1.9], [True, 3], [-1], [99], [HUGE], [None], [[1]], ["1"], np.array([1.5]),
]  # fmt: skip
NO_TEXT = [3, b"x", ["x"], "\ud800", 0.5, {"a": 1}]
NO_PATH = [3, "", "a\0b", "\ud800", 0.5, ["x"], "~nobody-has-this-home/x", "x" * 5000]
NO_SHARE = [-0.1, 2, "1", float("nan"), True, None, [0.5], HUGE]
NO_NUMBER = ["0", "-1", "0.7", "x", "", "9" * 500, "nan", "1e3", "\u0662"]


OF_A_NODE = (
    "node.json", "edits.json", "check.json", "losses.json", "clusters-0.json", "clusters-0.npz", "features.npy",
    "measures.npz", "segmentation.json", "segmentation.npz", "gallery/003.png", "theta/character.json",
    "theta/pytorch_lora_weights.safetensors", "theta/embeddings.safetensors",
)  # fmt: skip
CONTENTS = {
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "object": b"{}",
    "deep": b"[" * 100_000,
    "digits": b"9" * 5000,
    "surrogate": b'"\\ud800"',
    "bytes": bytes(range(256)) * 40,
    "header": b"\x93NUMPY\x01\x00v\x00{" + b"(" * 999,
}
UNREAD = ("provenance", "made", "time", "reason", "versions")
"""Entries that hold whatever a person is told."""


@dataclass(frozen=True)
class Case:
    """One bad input: where it goes, what it is, and what passes it; `harmless` where taking it is no mistake."""

    family: str
    name: str
    do: Callable[[], Any]
    harmless: bool = False


class Place:
    """A copy of the bundled run to work on, and the bundled models, loaded when first needed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.run = folder, Run.example(folder / "run")
        self._models: Any = None

    @property
    def models(self) -> Any:
        """The bundled models."""
        if self._models is None:
            from chosen_one_nb import load_models

            self._models = load_models()
        return self._models

    def new(self) -> Path:
        """A path where nothing is yet."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "new"


def each(name: str, call: Callable[[Any], Any], values: list[Any]) -> Iterator[Case]:
    """A case of the API for each value that a call is given."""
    for value in values:
        yield Case("API", f"{name}({shown(value)})", partial(call, value))


def api(place: Place) -> Iterator[Case]:
    """Arguments of functions and methods."""
    yield from of_selection(place.run)
    yield from of_samples(place.run)
    yield from of_a_run(place)
    yield from of_start(place)
    yield from of_loading()
    yield from of_plans_and_settings()
    yield from of_uses(place)
    yield from of_studies(place)


def of_selection(run: Run) -> Iterator[Case]:
    """What a person decides at a node."""
    yield from each("choose", lambda v: run.selection.choose(v), NO_INDEX)
    yield from each("choose images=", lambda v: run.selection.choose(images=v), NO_INDICES)
    yield from each("choose exclude=", lambda v: run.selection.choose(0, exclude=v), NO_INDICES)
    yield from each("choose note=", lambda v: run.selection.choose(0, note=v), NO_TEXT)
    yield from each("choose by=", lambda v: run.selection.choose(0, by=v), NO_TEXT)
    yield from each("exclude", run.selection.exclude, NO_INDICES)
    yield from each("include", run.selection.include, NO_INDICES)
    yield from each("recluster", run.selection.recluster, NO_INDEX)
    yield from each("merge", lambda v: run.selection.merge(0, v), NO_INDEX)


def of_samples(run: Run) -> Iterator[Case]:
    """Images drawn to look at a character."""
    yield from each("contexts contexts=", lambda v: run.samples.contexts(contexts=v), [[], [3], 3, ["\ud800"], b"x"])
    yield from each("contexts seeds=", lambda v: run.samples.contexts(seeds=v), [0, -1, 1.5, "2", True, 10**6, HUGE])
    yield from each(
        "contexts weight=", lambda v: run.samples.contexts(weight=v), [0, -1, "2", float("nan"), True, HUGE]
    )
    yield from each("contexts node=", lambda v: run.samples.contexts(v), ["9", 0.5, "../0", True])
    yield from each("probe strength=", lambda v: run.samples.probe(strength=v), NO_SHARE)


def of_a_run(place: Place) -> Iterator[Case]:
    """A run's own methods."""
    run = place.run
    yield from each("node", run.node, ["9", 0.5, "../0", True, b"0", [0]])
    yield from each("select", run.select, ["9", 0.5, "../0", True])
    yield from each("redo_stage", run.redo_stage, ["dance", 3, ["embed"], ""])
    yield from each("branch", lambda v: run.branch(**v), [{"seed": 3}, {"colour": 1}, {"convergence": "x"}])
    yield from each("report", run.report, NO_PATH)
    yield from each("copy", run.copy, NO_PATH)
    yield from each("export", run.export, [3, "a\0b", "\ud800", 0.5, ["x"]])
    yield from each(
        "export formats=", lambda v: run.export(place.new(), formats=v), ["png", [], [3], 3, ("kohya", "x")]
    )
    yield from each("export name=", lambda v: run.export(place.new(), name=v), ["A b", "../x", "", 3, "x" * 5000])
    yield from each("open", Run.open, NO_PATH)


def of_start(place: Place) -> Iterator[Case]:
    """What a run begins with."""
    yield from each("start folder=", lambda v: Run.start("a fox", place.models, None, v), NO_PATH)
    prompts = [*NO_TEXT, None, "", "  ", "a <v> fox", "fox " * 500]
    yield from each("start", lambda v: Run.start(v, place.models, None, place.new()), prompts)
    wrong = [{}, 3, "quick", {"n_images": 24}, Settings]
    yield from each("start settings=", lambda v: Run.start("a fox", place.models, v, place.new()), wrong)
    yield from each("start models=", lambda v: Run.start("a fox", v, None, place.new()), [3, "", "nowhere", [1], b"x"])
    size = [63, 1001]
    yield from each(
        "image_size=", lambda v: Run.start("a fox", place.models, Settings(image_size=v), place.new()), size
    )
    token = [".", "flow"]  # words of the vocabulary
    yield from each("token=", lambda v: Run.start("a cat", place.models, Settings(token=v), place.new()), token)


def of_loading() -> Iterator[Case]:
    """Models and characters to load."""
    yield from each("load device=", lambda v: loaded(device=v), ["tpu", "cuda:99", 3.5, "", [1], "meta"])
    yield from each("load dtype=", lambda v: loaded(dtype=v), ["int8", 3, "float64", ["x"]])
    yield from each("load", lambda v: loaded(name=v), [3, "", "a\0b", "\ud800", ["x"], "/", "nowhere", "a/b/c/d@e"])
    yield from each("load clip=", lambda v: loaded(clip=v), [3, "nowhere", ["x"], "/"])
    yield from each("Character.load", Character.load, [*NO_PATH, "nowhere"])
    yield from each("export.read", export.read, [*NO_PATH, "nowhere"])
    yield from each("read_image", read_image, [*NO_PATH, "nowhere", b"x", None])


def of_plans_and_settings() -> Iterator[Case]:
    """Numbers of a plan, and each setting."""
    plans: list[Any] = [
        *({"prompts": prompts} for prompts in ("a fox", [], [3], 3, None, ["a", "a"], [" "])),
        *({"prompts": ["a"], **more} for more in ({"seeds": [-1]}, {"vary": {"x": [1]}}, {"do": "dance"}, {"x": 1})),
    ]
    yield from each("SweepPlan", lambda v: SweepPlan(**v), plans)
    for name, field in Settings.model_fields.items():
        values = (
            [[], {}, b"x"]
            + ([float("nan")] if field.annotation is float else [])
            + (["\ud800", 3] if field.annotation is str else [HUGE])
        )
        yield from each(f"Settings {name}=", lambda v, name=name: Settings(**{name: v}), values)


def of_uses(place: Place) -> Iterator[Case]:
    """Stories, skeletons, edits and poses."""
    plans: list[Any] = [
        3, None, b"x", [], [3], [" "], ["\ud800"], "nowhere.json", {}, {"scenes": "a"}, {"scenes": [{}]}, ["a"] * 25,
        *({"scenes": ["a"], **more} for more in ({"seed": True}, {"candidates": "4"}, {"layout": 3}, {"x": 1})),
    ]  # fmt: skip
    yield from each("StoryPlan.of", StoryPlan.of, plans)
    skeletons = [{}, {"joints": {"a": [0, 2], "b": [0, 0]}}, {"joints": {"a": ["0", 0], "b": [0, 0]}}, {"note": 3}]
    joined = [{"limbs": [["a", "b"]], "joints": {"a": [0, 0], "b": [1, 1]}} | each for each in skeletons[1:]]
    yield from each("Skeleton.load", Skeleton.load, [*NO_PATH, "nowhere"])
    yield from each("skeleton", lambda v: Skeleton.load(written(place, v)), [*skeletons[:1], *joined])
    image, prompt, theta = Image.new("RGB", (128, 128)), "a fox", place.run.character
    samplings: list[Any] = [
        *({"seeds": value} for value in ("12", [], [0.5], [True], [-1], [HUGE], [None], 0.5)),
        *({"strength": value} for value in NO_SHARE),
        *({"settings": value} for value in ({}, None, "quick", {"n_images": 3})),
        *({"context": value} for value in NO_TEXT), *({"negative": value} for value in NO_TEXT), {"n_images": 24},
    ]  # fmt: skip
    white = Image.new("L", (128, 128), 255)
    yield from each("edit", lambda v: edit(place.models, image, white, prompt, **v), samplings)
    yield from each("edit image=", lambda v: edit(place.models, v, white, prompt), [*NO_PATH, white.resize((9, 9))])
    masks = [
        *NO_PATH,
        np.zeros((128, 128), bool),
        np.zeros((128, 128)),
        white.resize((9, 9)),
        Image.new("L", (128, 128)),
    ]
    yield from each("edit mask=", lambda v: edit(place.models, image, v, prompt), masks)
    blends = [{"keep": 1}, {"keep": "x"}, {"feather": -1}, {"feather": 0.5}, {"shrink": True}, {"shrink": HUGE}]
    yield from each("Blend", lambda v: Blend(**v), blends)
    yield from each("pose", lambda v: pose(place.models, theta, prompt, "figure_arms_up", **v), samplings)
    scales = [-1, 3, "1", True, float("nan"), None]
    yield from each("pose scale=", lambda v: pose(place.models, theta, prompt, "figure_arms_up", scale=v), scales)
    nets = [3, "", "nowhere", "/", ["x"]]
    yield from each(
        "pose controlnet=", lambda v: pose(place.models, theta, prompt, "figure_arms_up", controlnet=v), nets
    )
    yield from each("pose prompt=", lambda v: pose(place.models, theta, v, "figure_arms_up"), NO_TEXT)


def of_studies(place: Place) -> Iterator[Case]:
    """What a study is made of, and what raters send back."""
    table, folder = manifest(place), place.new()
    Study.make(table, folder, sheets=2, side=64)
    yield from each("Study", Study, [*NO_PATH, "nowhere"])
    yield from each("Study.make", lambda v: Study.make(v, place.new()), [3, None, "nowhere", [], {}, {"images": []}])
    numbers = (
        {name: value} for name in ("seed", "per_rater", "sheets", "side") for value in (-1, "3", 0.5, True, HUGE)
    )
    yield from each("Study.make", lambda v: Study.make(table, place.new(), **v), list(numbers))
    study = Study(folder)
    answer = {"study": study.key.study, "rater": "ann", "sheet": 0, "number": 1, "position": 0, "rating": 3,
              "item": study.key.sheets[0][0]}  # fmt: skip
    wrong = {"study": 3, "rater": "a,b", "sheet": -1, "number": 0, "position": HUGE, "rating": "3", "item": "x",
             "ms": -1, "shown_at": "<b>"}  # fmt: skip
    yield from each("record", lambda v: study.record(answer | v), [{name: value} for name, value in wrong.items()])
    yield from each("record", study.record, [3, None, [], {}])


def manifest(place: Place) -> dict[str, Any]:
    """A table of a study: two methods, a character, two contexts, all by one image of the run."""
    file = place.new().with_suffix(".png")
    shutil.copyfile(place.run.folder / "nodes/0/gallery/003.png", file)
    os.chdir(file.parent)  # a table that is no file is read from there
    rows = [(method, context) for method in ("ours", "base") for context in ("at sea", "in bed")]
    made = {"character": "a fox", "file": file.name}
    return {"images": [{"method": method, "context": context, **made} for method, context in rows]}


def written(place: Place, value: Any) -> Path:
    """A JSON file that holds a value."""
    path = place.new()
    path.write_text(json.dumps(value))
    return path


def loaded(**more: Any) -> Any:
    """Load models."""
    from chosen_one_nb import load_models

    return load_models(**more)


def command_line(place: Place) -> Iterator[Case]:
    """Options with values that they cannot have, and files that are something else."""
    there = str(place.run.folder)
    numbers = {
        "show": ["--tile", "--seeds"],
        "run": ["--workers", "--iterations", "--choose"],
        "sweep": ["--threads", "--workers"],
    }
    files = {name: place.folder / name for name in ("empty.json", "list.json", "deep.json", "text.json", "latin.json")}
    contents = [b"", b"[1, 2]", b"[" * 100_000, b'{"prompts": "a fox"}', b'{"prompts": ["\xe9"]}']
    for path, content in zip(files.values(), contents, strict=True):
        path.write_bytes(content)
    positional = {"show": [there], "run": ["a fox", "--folder", str(place.new())], "sweep": [str(files["text.json"])]}
    lines = [
        [command, *positional[command], f"{option}={value}"]
        for command, options in numbers.items()
        for option in options
        for value in NO_NUMBER
        if not (option == "--choose" and value == "0")
    ]
    begin = ["run", "a cat", "--folder", str(place.new())]
    settings = (
        "n_images=0.5 n_images=5e6 sampling_steps=100000000 token=. token=a\u2003b guidance_scale=NaN "
        "guidance_scale=1e308 image_size=63 colour=1 =1 seed=-1 sampler=x n_images=[1] seed"
    )
    lines += [[*begin, "--set", setting] for setting in settings.split(" ")]
    options = (
        "--device tpu,--device ,--dtype int8,--models nowhere,--models a\0b,--preset best,--sampling slow,--clip /"
    )
    lines += [[*begin, *option.split(" ")] for option in options.split(",")]
    lines += [["run", prompt, *begin[2:]] for prompt in ("", "  ", "a <v> fox", "\ud800", "fox " * 500)]
    lines += [["run", "--folder", folder] for folder in ("a\0b", str(files["list.json"]), "/", "/proc/nothing")]
    changes = "--node 9,--redo dance,--choose 99,--choose-images 0.5,--choose-images 99,--choose-images a,--set seed=9"
    lines += [["run", "--folder", there, *change.split(" ")] for change in changes.split(",")]
    lines += [[*command, str(path)] for path in files.values() for command in (["show"], ["sweep", "--check"])]
    lines += [["export", str(path), "--to", str(place.new())] for path in (*files.values(), place.folder, "a\0b", "/")]
    for path in (*files.values(), "nowhere", "a\0b", "/"):
        lines += [["story", there, str(path)], ["pose", there, str(path)], ["edit", there, str(path)]]
        lines += [["study", "make", str(path), "--out", str(place.new())], ["study", "analyse", str(path)]]
    lines += [["story", there, str(files["text.json"]), *more] for more in (["--out", "a.gif"], ["--node", "9"])]
    lines += [["study", "make", there, *more.split(" ")] for more in ("--side 0", "--sheets -1", "--seed x")]
    exports = "--formats x,--formats ,--node 9,--name A,--name ../x"
    lines += [["export", there, "--to", str(place.new()), *more.split(" ")] for more in exports.split(",")]
    for line in lines:
        yield Case("command line", shown(" ".join(line)), lambda: called(line))  # noqa: B023


class Told(Exception):
    """What the command line said in one sentence of its own."""


class Bare(Exception):
    """What it said where it did not know what it was."""


def called(line: list[str]) -> None:
    """Call the command line; its errors become exceptions."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = cli.main(line)
        except SystemExit as stop:  # argparse
            code = int(stop.code or 0)
    if "unexpected;" in said.getvalue() or "Traceback" in said.getvalue():
        raise Bare(said.getvalue())
    if code:
        raise Told(said.getvalue())


def damaged(place: Place) -> Iterator[Case]:
    """Files of a run cut, emptied, filled with something else; their JSON changed entry by entry, checksums mended."""
    folder = place.run.folder
    log = ("log.jsonl", "state.json")  # a run reads without them
    for name in ("run.json", "state.json", "log.jsonl", *(f"nodes/0/{name}" for name in OF_A_NODE)):
        path, whole = folder / name, (folder / name).read_bytes()
        for what, content in {**CONTENTS, "half": whole[: len(whole) // 2]}.items():
            for sealed in (False, True) if name.startswith("nodes/") else (False,):
                title = f"{name}: {what}{', checksum mended' if sealed else ''}"
                harmless = name in log or (name.endswith("segmentation.json") and what == "list")
                yield Case("damaged files", title, lambda: with_file(path, content, folder, sealed), harmless)  # noqa: B023
        if path.suffix == ".json" and name not in log:
            value = json.loads(whole)
            for key in value if isinstance(value, dict) else ():
                for wrong in ({"a": "\ud800"}, -1e999, None if value[key] is not None else 3):
                    content = json.dumps({**value, key: wrong}).encode()
                    title = f"{name}: {key}={wrong}, checksum mended"
                    free = (key in UNREAD and wrong != 3) or (key == "proposed" and wrong is None)
                    yield Case("damaged files", title, lambda: with_file(path, content, folder, True), free)  # noqa: B023


def of_a_study(place: Place) -> Iterator[Case]:
    """The files of a study, each holding something else."""
    folder = place.new()
    source = place.folder / "study"
    source.mkdir()
    table = manifest(place)
    shutil.copyfile(table["images"][0]["file"], source / table["images"][0]["file"])
    (source / "manifest.json").write_text(json.dumps(table))
    study = Study.make(source, folder, sheets=2, side=64)
    answer = {"study": study.key.study, "rater": "ann", "sheet": 0, "number": 1, "position": 0, "rating": 3,
              "item": study.key.sheets[0][0]}  # fmt: skip
    study.record(answer)
    again = lambda: Study.make(source, place.new(), sheets=2, side=64)  # noqa: E731
    for path, do in ((source / "manifest.json", again), (folder / "key.json", lambda: analyse(Study(folder)))):
        value = json.loads(path.read_bytes())
        changed = {f"{key}={wrong}": json.dumps(value | {key: wrong}).encode()
                   for key in value for wrong in ({"a": "\ud800"}, -1e999, "x", 3)}  # fmt: skip
        for what, content in (CONTENTS | changed).items():
            free = what in ("build=x", "study=x", "known=x", "seed=3")  # any text or number is one
            yield Case("damaged files", f"{path.name}: {what}", partial(replaced, path, content, do), free)
    path = folder / "answers" / "ann.csv"
    for what, content in CONTENTS.items():  # left out, by name
        yield Case("damaged files", f"ann.csv: {what}", partial(replaced, path, content, lambda: analyse(study)), True)


def replaced(path: Path, content: bytes, do: Callable[[], Any]) -> None:
    """Do something while a file holds something else."""
    whole = path.read_bytes()
    try:
        path.write_bytes(content)
        do()
    finally:
        path.write_bytes(whole)


def with_file(path: Path, content: bytes, folder: Path, sealed: bool) -> None:
    """Read a whole run while a file of it holds something else; sealed: under a checksum that fits."""
    records = [folder / "nodes/0/node.json", folder / "nodes/0/edits.json"]
    kept = {file: file.read_bytes() for file in (path, *records)}
    try:
        path.write_bytes(content)
        if sealed and path.is_relative_to(folder / "nodes/0"):
            for record in records:
                if path != record:
                    mend(record, path.relative_to(folder / "nodes/0").as_posix(), store.stamp(content))
        read_all(folder)
    finally:
        for file, whole in kept.items():
            file.write_bytes(whole)


def mend(record: Path, name: str, stamp: dict[str, Any]) -> None:
    """Write a file's new checksum wherever a record has the old one."""

    def mended(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stamp if key == name else mended(entry) for key, entry in value.items()}
        return [mended(entry) for entry in value] if isinstance(value, list) else value

    record.write_text(json.dumps(mended(json.loads(record.read_text()))))


def read_all(folder: Path) -> None:
    """Look at everything of a run that its files say, as a screen would."""
    run = Run.open(folder, read_only=True)
    for node in run.nodes.values():
        _ = node.state, node.decision, node.clusters, node.losses, node.excluded, node.theta_digest
        if node.embedding:
            _ = node.embedding.measures, node.embedding.clip, node.embedding.clustered_on, node.check
        if node.theta:
            export.write(node.theta, folder.parent / "out", ("diffusers",))
    _ = run.outcome, run.tables.history(), run.tables.curve(), run.root.images[3], run.character


def shown(value: Any) -> str:
    """A value in a line, shortened."""
    return ascii(value) if len(ascii(value)) < 60 else f"{ascii(value)[:57]}..."


def outcome(case: Case) -> str:
    """Do a case and say what came of it."""

    def stop(*signal: Any) -> None:
        raise TimeoutError

    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of the processor's time: others may use the machine too
    try:
        with warnings.catch_warnings(action="ignore"):
            case.do()
        found = "harmless" if case.harmless else "taken in silence"
    except Exception as error:
        told = isinstance(error, Told) or type(error).__module__.startswith("chosen_one_nb")
        found = "told" if told else f"bare: {type(error).__name__}: {str(error)[:150]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if time.process_time() - begun >= SECONDS:
        return "over a minute"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return "over 2 GB" if grown > BYTES else found


def cases(folder: Path) -> Iterator[Case]:
    """All cases, on a copy of the bundled run in a folder."""
    place = Place(folder)
    yield from damaged(place)
    yield from of_a_study(place)
    yield from api(place)
    yield from command_line(place)


def main() -> int:
    """Do all cases and print the table; 1 where one went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", help="only this one: API, command line, damaged files")
    parser.add_argument("--every", type=int, default=1, help="only every n-th case (default: all)")
    args = parser.parse_args()
    counts: dict[str, Counter[str]] = {}
    folder = Path(tempfile.mkdtemp())
    for i, case in enumerate(cases(folder)):
        if i % args.every or (args.family and case.family != args.family):
            continue
        found = outcome(case)
        counts.setdefault(case.family, Counter())[found.partition(":")[0]] += 1
        if found not in ("told", "harmless"):
            print(f"{case.family}: {case.name}: {found}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    kinds = ("told", "harmless", "bare", "taken in silence", "over a minute", "over 2 GB")
    print(f"{'':14}{'all':>5}", *(f"{kind:>17}" for kind in kinds))
    for family, count in counts.items():
        print(f"{family:14}{count.total():>5}", *(f"{count[kind]:>17}" for kind in kinds))
    return int(any(count[kind] for count in counts.values() for kind in kinds[2:]))


if __name__ == "__main__":
    sys.exit(main())
