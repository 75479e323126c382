"""The command line: begin a run, go on with it, show it. `python -m chosen_one_nb --help` tells the rest.

Everything done here is a method of `chosen_one_nb.run.run.Run`, so a run begun here can be opened in the explorer and
the other way round. An error is one sentence; ``--debug`` shows where it arose.

examples:
  python -m chosen_one_nb run "a sticker of a fox" --folder runs/fox
  python -m chosen_one_nb run --folder runs/fox                      (goes on after a stop)
  python -m chosen_one_nb run --folder runs/fox --node 0 --choose 2  (a branch: another cluster at node 0)
  python -m chosen_one_nb run "a cat" --folder runs/cat --preset quick --set seed=3 --ask
  python -m chosen_one_nb show runs/fox
  python -m chosen_one_nb sweep plan.json --workers 2                (goes on after a stop)
  python -m chosen_one_nb compare data/comparison_prompts.json --only 0,1,2 --judge data/menagerie/reader
  python -m chosen_one_nb export runs/fox --to fox --formats diffusers,kohya
  python -m chosen_one_nb story runs/fox story.json --out story.pdf
  python -m chosen_one_nb edit runs/fox fox.png --mask head.png --context "wearing a hat" --out hat.png
  python -m chosen_one_nb pose runs/fox figure_arms_up --out up.png
  python -m chosen_one_nb study make compared --out study            (then: study analyse study)

exit codes:
  0    finished: converged, or all iterations used up
  1    an error, printed as one sentence (--debug shows where it arose)
  2    the command line is not understood
  3    the gallery collapsed (the last sound character is kept)
  4    waiting for a choice: --choose, --choose-images, or in the explorer
  130  stopped with Ctrl-C; the same command goes on from there
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.run.run import Outcome, Run
    from chosen_one_nb.settings import Settings

__all__ = ["add_changes", "add_common", "add_machine", "call", "main", "models_of", "note_on", "parser"]

DONE, FAILED, COLLAPSED, WAITING, INTERRUPTED = 0, 1, 3, 4, 130

WORKERS = 256

MACHINE = ("device", "dtype", "low_memory", "compile", "offline", "extractor", "clip", "distilled")
"""Arguments of `load_models` that the command line takes."""


TAKEN_OVER = ("token", "token_vectors", "lora_rank", "carry_over")
"""Settings that a run takes over from the character that it begins from."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says.

    Parameters
    ----------
    arguments : sequence of str, optional
        None takes those of the process.

    Returns
    -------
    int
        The exit code; see `CODES`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a letter that the terminal lacks must not end a run
            stream.reconfigure(errors="backslashreplace")
    args = parser().parse_args(arguments)
    return call(args.do, args)


def call(command: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Call a command and return its exit code; an error becomes one sentence, or with --debug a traceback."""
    try:
        return command(args)
    except KeyboardInterrupt:
        print("\nStopped. Every finished stage is kept; the same command goes on from there.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        else:
            print(f"error: {_sentence(error)}", file=sys.stderr)
        return FAILED


def _sentence(error: Exception) -> str:
    """Return an error in one line: ours and the system's as they are, others by name."""
    text = " ".join(str(error).split())
    if type(error).__module__.startswith("chosen_one_nb") or isinstance(error, OSError):
        return text
    return f"{type(error).__name__}: {text} (unexpected; --debug shows where it arose)"


# --- what a command line may hold


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    about = "examples:" + (__doc__ or "").partition("examples:")[2]
    form = {"epilog": about, "formatter_class": argparse.RawDescriptionHelpFormatter}
    description = "From a prompt to one consistent character (The Chosen One)."
    top = argparse.ArgumentParser(prog="python -m chosen_one_nb", description=description, **form)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    for name, (what, add_arguments, do) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", **form)
        command.set_defaults(do=do)
        add_common(command)
        add_arguments(command)
    return top


def add_common(command: argparse.ArgumentParser) -> None:
    """Add what every command takes."""
    command.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    command.add_argument("--models", help="models to load: a name, a folder or a Hub id (default: menagerie)")


def add_machine(command: argparse.ArgumentParser) -> None:
    """Add where and how models run."""
    add = command.add_argument
    add("--device", help="cpu, cuda or mps (default: the best there is)")
    precisions = ("float32", "bfloat16", "float16")
    add("--dtype", choices=precisions, help="precision (default: float32 on the CPU, half precision elsewhere)")
    add("--low-memory", action="store_true", default=None, help="one switch: fit into as little memory as possible")
    add("--compile", action="store_true", help="compile the UNet's transformer blocks when they first draw")
    add("--offline", action="store_true", help="take models from folders and the Hub's cache only")
    add("--extractor", help="feature extractor by folder or Hub id; with --random: dinov2-small, -base, -large, -giant")
    add("--clip", help="CLIP by folder or Hub id")
    add("--distilled", help="LoRA or UNet distilled to few steps (for --sampling flash): folder, file, Hub id, or own: "
        "that of the models")  # fmt: skip


def add_changes(command: argparse.ArgumentParser) -> None:
    """Add changes of settings: ``set``, a list of (name, value), from several words or the option several times."""
    form = {"type": _assignment, "action": "extend", "nargs": "+", "default": [], "metavar": "NAME=VALUE"}
    command.add_argument("--set", **form, help="change settings, such as n_images=32 refine_steps=60")


def _assignment(text: str) -> tuple[str, Any]:
    """Read "name=value"; the value as JSON where it is JSON, else as text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, such as n_images=32, got {text!r}")
    try:
        return name.strip(), json.loads(value)
    except ValueError:
        return name.strip(), value


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers within limits."""

    def read(text: str) -> int:
        if not (text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20 and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text[:40]!r}")
        return int(text)

    return read


def _numbers(text: str) -> list[int]:
    try:
        return [whole(0, 10**6)(part.strip()) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, such as 1,4,9, got {text[:40]!r}") from None


def _machine(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `load_models` that were given, an empty text among them."""
    return {key: getattr(args, key) for key in MACHINE if getattr(args, key) not in (None, False)}


def models_of(args: argparse.Namespace, name: str | None = None) -> Models | str:
    """Return the models asked for: loaded if any option of the machine is set, else by name."""
    from chosen_one_nb.models.load import load_models

    name = name or args.models or "menagerie"
    machine = _machine(args)
    return load_models(name, **machine) if machine else name


def note_on(sampling: str) -> str:
    """Return a note on how a sampling preset changes what is drawn."""
    from chosen_one_nb.settings import SAMPLING

    return f"sampling {sampling}: {SAMPLING[sampling]['note']}"


# --- run


def add_run(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    add = command.add_argument
    add("prompt", nargs="?", help="what the character is; may be left out where the folder holds a run")
    add("--folder", type=Path, help="where the run lies or will lie (default: runs/<prompt>)")
    add("--images", type=Path, metavar="FOLDER", help="begin with your own images there as the first gallery")
    add("--character", type=Path, metavar="PATH", help="begin from a character, or another trainer's LoRA")
    add("--preset", help="settings to begin with: menagerie, paper or quick (default: menagerie)")
    add("--sampling", help="sampling on top of the preset: full, standard, fast or flash (another distribution each)")
    add_changes(command)
    more = "iterations at most; more than before goes on past the limit"
    add("--iterations", type=whole(1, 1000), metavar="N", help=more)
    add("--workers", type=whole(1, WORKERS), metavar="N", help="processes that share the drawing of each gallery")
    add("--ask", action="store_true", help="stop at each choice and ask")
    add("--node", help="go on from this node of the tree instead of the latest")
    add("--redo", metavar="STAGE", help="do a stage of the node again first, for example where a file was damaged")
    take = "take this cluster; at a refined node: as a new branch"
    add("--choose", type=whole(0, 10**6), metavar="CLUSTER", help=take)
    add("--choose-images", type=_numbers, metavar="I,J,...", help="take these images of the gallery instead")
    add("--exclude", type=_numbers, default=[], metavar="I,J,...", help="images to leave out of the choice")
    add("--note", default="", help="why, kept with the choice")
    add("--allow-other-models", action="store_true", help="go on with models the run was not made with")
    add("--quiet", action="store_true", help="print nothing but the outcome")
    add_machine(command)


def run_command(args: argparse.Namespace) -> int:
    """Begin a run or go on with it, to its end or to the next choice; tells the memory planned, and measured."""
    from chosen_one_nb.run.cost_estimate import gigabytes, peak_memory

    choosing = args.choose is not None or args.choose_images is not None
    _refuse_alone({"--exclude": args.exclude, "--note": args.note}, choosing, "--choose or --choose-images")
    with _start_or_open(args) as run:
        if args.redo:
            run.redo_stage(args.redo, args.node)
        before = run.current
        if args.node is not None:
            run.select(args.node)
        if choosing:
            images, exclude = args.choose_images, args.exclude
            try:
                _choose(run, args, cluster=args.choose, images=images, exclude=exclude, note=args.note)
            except Exception:
                run.select(before)  # what is refused leaves the run as it was
                raise
        tell = not args.quiet and run.next_stage is not None
        if tell:
            print(run.plan(run.root), file=sys.stderr)
        outcome = _until_end(run, args)
        if tell and (peak := peak_memory(run.models.device)):
            print(f"peak measured: {gigabytes(peak)}", file=sys.stderr)
        print(f"{outcome}\n{run.folder}")
    if outcome.finished:
        return COLLAPSED if outcome.state == "collapsed" else DONE
    print("Choose: --choose CLUSTER, --choose-images I,J,... or open the run in the explorer.")
    return WAITING


def _refuse_alone(options: Mapping[str, Any], complete: bool, needed: str) -> None:
    """Refuse options that would be ignored, since what they belong to is not asked for."""
    from chosen_one_nb.run.run import RunError

    if not complete and (given := [name for name, value in options.items() if value not in (None, [], "")]):
        raise RunError(f"{', '.join(given)}: expected {needed} with it, alone it does nothing.")


def _start_or_open(args: argparse.Namespace) -> Run:
    from chosen_one_nb.run.node import Tree
    from chosen_one_nb.run.run import Run, RunError

    if not (args.folder and (args.folder / "run.json").exists()):
        if not args.prompt:
            raise RunError("Expected a prompt, or --folder of a run to go on with.")
        return _start(args)
    models = None
    if args.models or _machine(args):
        stored = None if args.models else Tree.load(args.folder).manifest["models"]["name"]
        models = models_of(args, stored)
    run = Run.open(args.folder, models, allow_other_models=args.allow_other_models)
    try:
        _check_same(run, args)
    except Exception:
        run.close()
        raise
    return run


def _start(args: argparse.Namespace) -> Run:
    """Begin a run, with a note on its sampling."""
    from chosen_one_nb.run.run import Run

    settings, models = _settings(args), models_of(args)
    if args.sampling and not args.quiet:
        print(note_on(args.sampling), file=sys.stderr)
    with warnings.catch_warnings(action="ignore"):
        warnings.simplefilter("always", RuntimeWarning)
        warnings.showwarning = lambda message, *place, **more: print(f"warning: {message}", file=sys.stderr)
        begin = {"images": args.images, "character": args.character}
        run = Run.start(args.prompt, models, settings, args.folder, **begin)
    kept = len(run.character.frozen) // 2 if run.character else 0
    if kept and not args.quiet:
        print(
            f"note: {kept} modules of the LoRA beside the UNet's attention are drawn with, not trained", file=sys.stderr
        )
    return run


def _settings(args: argparse.Namespace, stored: Settings | None = None) -> Settings:
    """Return the settings asked for; without a preset, on top of the stored ones."""
    from chosen_one_nb.settings import Settings

    fresh = args.preset or (None if stored else Settings.preset_for(args.models or "menagerie"))
    start = Settings.preset(fresh) if fresh else stored
    start = start.sampled(args.sampling) if args.sampling else start
    changes = dict(args.set)
    if args.iterations is not None:
        changes["max_iterations"] = stored.max_iterations if stored else args.iterations
    return start.replace(**changes)


def _check_same(run: Run, args: argparse.Namespace) -> None:
    """Refuse to go on with a run under a prompt or settings that are not its own."""
    from chosen_one_nb.run.run import RunError

    if args.prompt and args.prompt.strip() != run.prompt:
        raise RunError(f"{run.folder} holds a run of {run.prompt!r}, not of {args.prompt!r}. Give another --folder.")
    for name, kept in (("images", "images"), ("character", "start")):
        if getattr(args, name) and kept not in run.manifest:
            raise RunError(
                f"{run.folder} holds a run that was not begun with --{name}. Leave it out, or begin another."
            )
    asked, stored = _settings(args, run.root.settings).model_dump(), run.root.settings.model_dump()
    different = [f"{name}={stored[name]!r} (asked: {asked[name]!r})" for name in stored if stored[name] != asked[name]]
    if "start" in run.manifest:
        different = [text for text in different if text.partition("=")[0] not in TAKEN_OVER]
    if different and (args.preset or args.set or args.sampling):
        raise RunError(f"{run.folder} holds a run with {', '.join(different)}. Leave these out, or begin another.")


def _choose(run: Run, args: argparse.Namespace, **choice: Any) -> None:
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # what it would warn of is printed below
        decision = run.selection.choose(**choice)
    if not args.quiet:
        about = f"{len(decision.images)} images chosen by {decision.by}. {run.selection.risk(decision.images)}"
        print(f"node {run.current.id}: {about}")


def _until_end(run: Run, args: argparse.Namespace) -> Outcome:
    from chosen_one_nb.progress import RunProgress
    from chosen_one_nb.sweep.workers import WorkerPool

    with RunProgress(run, quiet=args.quiet) as progress:
        while True:
            with WorkerPool(args.workers) if args.workers is not None else nullcontext() as workers:
                outcome = run.until_converged(ask=args.ask, on_progress=progress, workers=workers)
            # Of the branch's end, where the limit is: the current node may be an old one.
            done = run.node(outcome.node).iteration
            if outcome.state == "limit" and args.iterations and done < args.iterations:
                run.go_on()
            elif outcome.finished or not (args.ask and sys.stdin.isatty() and _ask(run, args)):
                return outcome


def _ask(run: Run, args: argparse.Namespace) -> bool:
    """Ask which cluster to take; False when the person would rather stop."""
    clusters = run.current.clusters
    print("cluster  images  cohesion")
    for cluster in clusters.order:
        mark = "  proposed" if cluster == clusters.proposed else "" if clusters.kept[cluster] else "  dropped: small"
        print(f"{cluster:>7}  {clusters.sizes[cluster]:>6}  {clusters.cohesion[cluster]:>8.3f}{mark}")
    while True:
        answer = input("cluster to take (Enter: the proposed one, q: stop): ").strip()
        if answer.lower() == "q":
            return False
        if not answer or answer.isdigit():
            _choose(run, args, cluster=int(answer) if answer else None)
            return True
        print(f"Expected a number, Enter or q, got {answer!r}.")


# --- show


def add_show(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``show``."""
    add = command.add_argument
    add("folder", type=Path, help="the run's folder")
    add("--out", type=Path, help="where to write (default: show/ in the run's folder)")
    add("--contexts", type=lambda text: text.split(","), help="contexts to draw, with commas (default: eight)")
    add("--seeds", type=whole(1, 1024), help="images per context (default: 4)")
    add("--no-contexts", action="store_true", help="draw nothing; show what there is (needs no models)")
    add("--tile", type=whole(16, 1024), default=96, help="side of the images on the sheets, in pixels (default: 96)")
    add("--quiet", action="store_true", help="print nothing but where the page is")


def show_command(args: argparse.Namespace) -> int:
    """Write contact sheets, curve, contexts and the HTML page."""
    from chosen_one_nb.progress import RunProgress
    from chosen_one_nb.report import write_all

    alone = {"--contexts": args.contexts, "--seeds": args.seeds}
    _refuse_alone(alone, not args.no_contexts, "images to be drawn, so no --no-contexts,")
    with _open_to_show(args) as run:
        if not args.no_contexts and run.character is not None:
            with RunProgress(run, quiet=args.quiet) as progress:
                run.samples.contexts(contexts=args.contexts, seeds=args.seeds or 4, on_progress=progress)
        paths = write_all(run, args.out or run.folder / "show", tile=args.tile)
    if not args.quiet:
        print("\n".join(str(path) for path in paths[:-1]))
    print(paths[-1])
    return DONE


def _open_to_show(args: argparse.Namespace) -> Run:
    """Open the run for writing (what is drawn is kept), or for looking where that is not possible."""
    from chosen_one_nb.run.run import Run
    from chosen_one_nb.run.store import NotWritable, RunInUse

    try:
        return Run.open(args.folder, args.models)
    except (RunInUse, NotWritable) as error:
        print(f"note: {error}", file=sys.stderr)
        return Run.open(args.folder, args.models, read_only=True)


# --- sweep


def add_sweep(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sweep``."""
    add = command.add_argument
    add("plan", type=Path, help="JSON: prompts, seeds, vary, settings, preset, sampling, do, models, load")
    add("--folder", type=Path, help="where everything lies (default: runs/sweep-<plan>)")
    add("--workers", type=whole(1, WORKERS), metavar="N", help="processes (default: one per GPU, or one per core)")
    add("--threads", type=whole(1, 1024), default=1, metavar="N", help="of PyTorch in each worker (default: 1)")
    add("--backend", choices=("dask", "ray"), help="who provides the workers (default: processes of this machine)")
    add("--address", help="of a running Dask scheduler or Ray cluster (default: a local one is started)")
    add("--check", action="store_true", help="only check the plan and print what it would do")
    add("--quiet", action="store_true", help="print nothing but the table")


def sweep_command(args: argparse.Namespace) -> int:
    """Carry a plan out, or go on with it; 1 where a job failed."""
    from chosen_one_nb.progress import ProgressBar
    from chosen_one_nb.sweep import SweepPlan, sweep
    from chosen_one_nb.sweep.workers import joblib_backend

    _refuse_alone({"--address": args.address}, bool(args.backend), "--backend")
    plan = SweepPlan.read(args.plan)
    plan = SweepPlan(**plan.model_dump() | {"models": args.models or plan.models})
    folder = args.folder or Path("runs") / f"sweep-{args.plan.stem}"
    show = (lambda *text: None) if args.quiet else partial(print, flush=True)
    show(f"{plan}, in {folder}")
    if plan.sampling:
        show(note_on(plan.sampling))
    if args.check:
        return DONE
    backend = joblib_backend(args.backend, args.workers, args.address) if args.backend else nullcontext()
    with backend, ProgressBar(quiet=args.quiet) as bar:

        def on_progress(event: dict[str, Any]) -> None:
            bar(event)
            if event["done"] == event["total"]:
                bar.end_bar()
                show(f"{event['stage']}: {event['total']} {event['unit']}")

        shared = {"workers": args.workers, "threads": args.threads}
        table = sweep(plan, folder, **shared, on_progress=on_progress, on_message=show)
    print(table.drop(columns="folder").to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    print(folder / "table.csv")
    return FAILED if (table["error"] != "").any() else DONE


# --- export


def add_export(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    add = command.add_argument
    add("source", type=Path, help="a run's folder, or a character's: what save, export or another trainer wrote")
    add("--to", type=Path, metavar="FOLDER", help="where to write (default: exports/ in the run's folder)")
    formats = ("diffusers", "kohya", "comfyui")
    about = "with commas: diffusers, kohya (A1111, Forge), comfyui (default: all)"
    add("--formats", type=lambda text: tuple(text.split(",")), default=formats, help=about)
    add("--node", help="with a run: the node whose character is meant (default: the run's)")
    add("--name", help="file name of LoRA and embeddings, and the word in prompts")
    add("--images", type=Path, nargs="*", metavar="PNG", help="previews, the best first (a run takes its own)")
    add("--embeddings", type=Path, help="the embeddings file, where it does not lie beside the LoRA")


def export_command(args: argparse.Namespace) -> int:
    """Write a run's or a folder's character for other programs; needs no models."""
    from chosen_one_nb import export
    from chosen_one_nb.character import CharacterError
    from chosen_one_nb.run.run import Run

    is_run = (args.source / "run.json").exists()
    _refuse_alone({"--images": args.images, "--embeddings": args.embeddings}, not is_run, "a character's folder")
    _refuse_alone({"--node": args.node}, is_run, "a run's folder")
    if is_run:
        run = Run.open(args.source, read_only=True)
        folder = run.export(args.to, args.node, formats=args.formats, name=args.name)
    elif args.to is None:
        raise CharacterError("--to: expected a folder to write to. Only a run has a place of its own for exports.")
    else:
        character = export.read(args.source, embeddings=args.embeddings)
        folder = export.write(character, args.to, args.formats, args.images or None, args.name)
    print("\n".join(str(path) for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "README.md"))
    print(folder / "README.md")
    return DONE


# --- story, edit, pose


def _add_use(command: argparse.ArgumentParser, out: str, *, prompted: bool = True) -> None:
    """Add what stories, edits and poses have in common."""
    add = command.add_argument
    add("source", type=Path, help="a run's folder, or a character's: what save, export or another trainer wrote")
    add("--node", help="with a run: the node whose character is meant (default: the run's)")
    add("--out", type=Path, default=Path(out), help=f"the file to write (default: {out})")
    if prompted:
        add("--context", default="", help='what is added to the character\'s caption, such as "wearing a hat"')
        add("--seed", type=whole(0, 2**32 - 1), default=0, help="of the image (default: 0)")
    add_changes(command)
    add_machine(command)


def _use(args: argparse.Namespace) -> tuple[Models, Character, Settings]:
    """Return the models, character and settings that a use is asked for with."""
    from chosen_one_nb import export
    from chosen_one_nb.applications import usual_settings
    from chosen_one_nb.models.load import load_models
    from chosen_one_nb.run.run import Run, RunError

    stored, settings = None, None
    if (args.source / "run.json").exists():
        run = Run.open(args.source, read_only=True)
        character = run.node(args.node).theta if args.node else run.character
        stored, settings = args.models or run.manifest["models"]["name"], run.root.settings
        if character is None:
            raise RunError(f"{args.source}: expected a run with a character, got none yet. Go on with it first.")
    else:
        _refuse_alone({"--node": args.node}, False, "a run's folder")
        character = export.read(args.source)
    models = models_of(args, stored)
    models = load_models(models) if isinstance(models, str) else models
    return models, character, (settings or usual_settings(models)).replace(**dict(args.set))


def _written(path: Path, image: Any) -> int:
    from chosen_one_nb.run import store

    store.write_image(path, image, image.info)
    print(path)
    return DONE


def add_story(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``story``."""
    _add_use(command, "story.html", prompted=False)
    command.add_argument("plan", type=Path, help="JSON: scenes (text, caption, style, seed), title, layout, candidates")


def story_command(args: argparse.Namespace) -> int:
    """Draw a story and write it as a page; the ending of --out says which: .html, .pdf or .png."""
    from chosen_one_nb.applications.story import StoryPlan, story
    from chosen_one_nb.progress import ProgressBar
    from chosen_one_nb.steps import Callbacks

    plan = StoryPlan.of(args.plan)
    models, character, settings = _use(args)
    with ProgressBar() as bar:
        told = story(models, character, plan, settings=settings, callbacks=Callbacks(bar))
    print(told.save(args.out))
    return DONE


def add_edit(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``edit``."""
    _add_use(command, "edit.png")
    command.add_argument("image", type=Path, help="the image to edit, of the size that the models draw")
    command.add_argument("--mask", type=Path, help="image of that size, white where it is drawn anew (default: what "
                         "stands in the foreground)")  # fmt: skip


def edit_command(args: argparse.Namespace) -> int:
    """Draw anew what lies under a mask."""
    from chosen_one_nb.applications.edit import edit, subject_mask

    models, character, settings = _use(args)
    mask = args.mask or subject_mask(models, args.image)
    drawing = {"settings": settings, "seeds": [args.seed], "context": args.context}
    done = edit(models, args.image, mask, character.prompt(), character=character, **drawing)
    return _written(args.out, done.images[0])


def add_pose(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``pose``."""
    _add_use(command, "pose.png")
    command.add_argument("skeleton", help="a skeleton's JSON file, or the name of one in data/poses")
    command.add_argument("--controlnet", help="folder or Hub id (default: that of the models); for SDXL and people "
                         "xinsir/controlnet-openpose-sdxl-1.0 (Apache-2.0), for SD 1.x "
                         "lllyasviel/sd-controlnet-openpose (OpenRAIL)")  # fmt: skip


def pose_command(args: argparse.Namespace) -> int:
    """Draw the character in a pose."""
    from chosen_one_nb.applications.pose import pose
    from chosen_one_nb.applications.skeleton import Skeleton

    skeleton = Skeleton.load(args.skeleton)
    models, character, settings = _use(args)
    drawing = {"settings": settings, "seeds": [args.seed], "context": args.context}
    images = pose(models, character, character.prompt(), skeleton, controlnet=args.controlnet, **drawing)
    return _written(args.out, images[0])


# --- study


def add_study(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``study``."""
    add = command.add_argument
    add("action", choices=("make", "analyse"), help="make a study of images, or analyse the answers to one")
    add("source", type=Path, help="make: manifest.json or its folder; analyse: the study's folder")
    add("--out", type=Path, help="make: the study's folder (default: study); analyse: default analysis/ in it")
    add("--seed", type=whole(0, 2**31), default=0, help="make: of what is shown, and of all orders (default: 0)")
    add("--screens", type=whole(1, 1000), default=72, help="make: rated screens for each rater, about (default: 72)")
    add("--sheets", type=whole(1, 1000), default=24, help="make: different orders (default: 24)")
    add("--side", type=whole(32, 2048), default=512, help="make: of all images, in pixels (default: 512)")


def study_command(args: argparse.Namespace) -> int:
    """Make a study, or print and write what its answers say."""
    from chosen_one_nb.study import Study, analyse

    if args.action == "analyse":
        results = analyse(Study(args.source))
        print(f"{results}\n{results.write(args.out or args.source / 'analysis')}")
        return DONE
    folder = args.out or Path("study")
    shared = {"per_rater": args.screens, "sheets": args.sheets, "side": args.side}
    print(f"{Study.make(args.source, folder, seed=args.seed, **shared)}\n{folder / 'page' / 'index.html'}")
    return DONE


# --- compare


def add_compare(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare``."""
    add = command.add_argument
    add("plan", type=Path, help="JSON: prompts, contexts, identity, seeds, methods, settings, models, load, judge")
    add("--methods", metavar="NAME,NAME,...", help='methods with commas, "all", or "main" (default: those of the plan)')
    add("--folder", type=Path, help="where everything lies (default: runs/compare-<plan>)")
    add("--only", type=_numbers, metavar="I,J,...", help="numbers of the prompts to take, from 0 (default: all)")
    add("--judge", type=Path, metavar="FOLDER", help='image classifier whose labels say "attribute=value": the truth')
    images = "images that were drawn elsewhere, as a row: a folder with manifest.json (docs/comparison.md)"
    add("--images", metavar="ROW=FOLDER", action="append", default=[], type=_assignment, help=images)
    add_changes(command)
    add("--workers", type=whole(1, WORKERS), metavar="N", help="processes (default: one per GPU, or one per core)")
    add("--threads", type=whole(1, 1024), default=1, metavar="N", help="of PyTorch in each worker (default: 1)")
    add("--quiet", action="store_true", help="print nothing but the table")


def compare_command(args: argparse.Namespace) -> int:
    """Carry a comparison out, or go on with it; 1 where a cell failed."""
    from chosen_one_nb.baselines.comparison import MAIN, ComparisonPlan, compare, methods
    from chosen_one_nb.progress import ProgressBar

    plan = ComparisonPlan.read(args.plan)
    named = {"all": list(methods()), "main": list(MAIN), None: plan.methods}
    changes: dict[str, Any] = {
        "prompts": plan.prompts if args.only is None else [plan.prompts[i] for i in args.only if i < len(plan.prompts)],
        "methods": named[args.methods] if args.methods in named else args.methods.split(","),
        "settings": plan.settings | dict(args.set), "models": args.models or plan.models,
        "judge": str(args.judge.resolve()) if args.judge else plan.judge, "images": plan.images | dict(args.images),
    }  # fmt: skip
    show = (lambda *text: None) if args.quiet else partial(print, flush=True)
    folder = args.folder or Path("runs") / f"compare-{args.plan.stem}"
    with ProgressBar(quiet=args.quiet) as bar:
        workers = {"workers": args.workers, "threads": args.threads}
        found = compare(
            ComparisonPlan(**plan.model_dump() | changes), folder, **workers, on_progress=bar, on_message=show
        )
    print(found.table().to_string())
    for failure in found.failures.itertuples():
        print(f"failed: {failure.method}, {failure.prompt}: {failure.error}", file=sys.stderr)
    print(found.folder / "compare.html")
    return FAILED if len(found.failures) else DONE


COMMANDS: dict[
    str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]
] = {
    "run": ("begin a run, or go on with the one in the folder", add_run, run_command),
    "show": ("write a run as images and one HTML page", add_show, show_command),
    "sweep": ("carry out a plan: prompts x settings x seeds, on several workers", add_sweep, sweep_command),
    "compare": ("compare methods on many prompts: images, scores, a table, a page", add_compare, compare_command),
    "export": ("write a character for other programs", add_export, export_command),
    "story": ("draw a character through a story, as a page", add_story, story_command),
    "edit": ("draw a part of an image anew, with the character", add_edit, edit_command),
    "pose": ("draw the character in a pose", add_pose, pose_command),
    "study": ("ask people: make a user study of images, analyse its answers", add_study, study_command),
}  # fmt: skip
"""What each command is, its arguments, and what does it."""
