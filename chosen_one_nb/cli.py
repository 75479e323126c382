"""The command line: begin a run, go on with it, show it. `python -m chosen_one_nb --help` tells the rest.

Everything done here is a method of `chosen_one_nb.run.run.Run`, so a run begun here can be opened in the
explorer and the other way round. An error is one sentence; ``--debug`` shows where it arose.
"""

from __future__ import annotations

import argparse
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chosen_one_nb import commands as more
from chosen_one_nb.sweep import command as sweeping

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Outcome, Run
    from chosen_one_nb.settings import Settings

DONE, FAILED, COLLAPSED, WAITING, INTERRUPTED = 0, 1, 3, 4, 130

CODES = """exit codes:
  0    finished: converged, or all iterations used up
  1    an error, told in one sentence (--debug shows where it arose)
  2    the command line is not understood
  3    the gallery collapsed (the last sound character is kept)
  4    waiting for a choice: --choose, --choose-images, or in the explorer
  130  stopped with Ctrl-C; the same command goes on from there
"""

EXAMPLES = """examples:
  python -m chosen_one_nb run "a sticker of a fox" --folder runs/fox
  python -m chosen_one_nb run --folder runs/fox                      (goes on after a stop)
  python -m chosen_one_nb run --folder runs/fox --node 0 --choose 2  (a branch: another cluster at node 0)
  python -m chosen_one_nb run "a cat" --folder runs/cat --preset quick --set seed=3 --ask
  python -m chosen_one_nb show runs/fox
  python -m chosen_one_nb sweep plan.json --workers 2                (goes on after a stop)
  python -m chosen_one_nb export runs/fox --to fox --formats diffusers,kohya
  python -m chosen_one_nb bench                                      (how fast, against straight use)
  python -m chosen_one_nb bench --random sdxl --preset paper --plan  (what SDXL takes, without its weights)
"""


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
    given = parser().parse_args(arguments)
    try:
        return given.do(given)
    except KeyboardInterrupt:
        print("\nStopped. Every finished stage is kept; the same command goes on from there.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if given.debug:
            traceback.print_exc()
        else:
            print(f"error: {_sentence(error)}", file=sys.stderr)
        return FAILED


def _sentence(error: Exception) -> str:
    """Say an error in one line: ours and the system's as they are, others by name."""
    text = " ".join(str(error).split())
    if type(error).__module__.startswith("chosen_one_nb") or isinstance(error, OSError):
        return text
    return f"{type(error).__name__}: {text} (unexpected; --debug shows where it arose)"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = argparse.ArgumentParser(
        prog="python -m chosen_one_nb",
        description="From a prompt to one consistent character (The Chosen One).",
        epilog=f"{EXAMPLES}\n{CODES}", formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    top.set_defaults(debug=False)
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_run(_command(commands, "run", "begin a run, or go on with the one in the folder", run_command))
    _add_show(_command(commands, "show", "write a run as images and one HTML page", show_command))
    sweeping.add_arguments(_command(
        commands, "sweep", "carry out a plan: prompts x settings x seeds, on several workers", sweeping.sweep_command
    ))  # fmt: skip
    more.add_export(_command(commands, "export", "write a character for other programs", more.export_command))
    more.add_bench(_command(commands, "bench", "measure speed and memory, and plan them", more.bench_command))
    return top


def _command(commands: Any, name: str, what: str, do: Callable[[Any], int]) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name, help=what, description=what[0].upper() + what[1:] + ".", epilog=f"{EXAMPLES}\n{CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    command.set_defaults(do=do)
    command.add_argument("--debug", action="store_true", help="show the full traceback of an error")
    command.add_argument("--models", help="models to load: a name, a folder or a Hub id (default: menagerie)")
    return command


def _add_run(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("prompt", nargs="?", help="what the character is; may be left out where the folder holds a run")
    add("--folder", type=Path, help="where the run lies or will lie (default: runs/<prompt>)")
    add("--preset", help="settings to begin with: menagerie, paper or quick (default: menagerie)")
    more.add_changes(command)
    add(
        "--iterations",
        type=int,
        metavar="N",
        help="iterations at most; more than before goes on past the limit",
    )
    add("--workers", type=int, metavar="N", help="processes that share the drawing of each gallery")
    add("--ask", action="store_true", help="stop at each choice and ask")
    add("--node", help="go on from this node of the tree instead of the latest")
    add("--redo", metavar="STAGE", help="do a stage of the node again first, for example where a file was damaged")
    add("--choose", type=int, metavar="CLUSTER", help="take this cluster; at a refined node: as a new branch")
    add("--choose-images", type=_numbers, metavar="I,J,...", help="take these images of the gallery instead")
    add("--exclude", type=_numbers, default=[], metavar="I,J,...", help="images to leave out of the choice")
    add("--note", default="", help="why, kept with the choice")
    add("--allow-other-models", action="store_true", help="go on with models the run was not made with")
    add("--quiet", action="store_true", help="say nothing but the outcome")
    add("--sampling", help="sampling on top of the preset: full, standard, fast or flash (another distribution each)")
    more.add_machine(command)


def _add_show(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("folder", type=Path, help="the run's folder")
    add("--out", type=Path, help="where to write (default: show/ in the run's folder)")
    add("--contexts", type=lambda text: text.split(","), help="contexts to draw, with commas (default: eight)")
    add("--seeds", type=int, default=4, help="images per context (default: 4)")
    add("--no-contexts", action="store_true", help="draw nothing; show what there is (needs no models)")
    add("--tile", type=int, default=96, help="side of the images on the sheets, in pixels (default: 96)")
    add("--quiet", action="store_true", help="say nothing but where the page is")


def _numbers(text: str) -> list[int]:
    """Read "1,4,9"."""
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers with commas, such as 1,4,9, got {text!r}") from None


# --- run


def run_command(given: argparse.Namespace) -> int:
    """Begin a run or go on with it, to its end or to the next choice."""
    with _begun(given) as run:
        if given.redo:
            run.redo_stage(given.redo, given.node)
        _choose(run, given)
        with _memory(run, quiet=given.quiet):
            outcome = _to_the_end(run, given)
        print(f"{outcome}\n{run.folder}")
    if outcome.finished:
        return COLLAPSED if outcome.state == "collapsed" else DONE
    print("Choose: --choose CLUSTER, --choose-images I,J,... or open the run in the explorer.")
    return WAITING


@contextmanager
def _memory(run: Run, *, quiet: bool) -> Iterator[None]:
    """Print the memory plan before a run's work, and the peak measured after it."""
    if quiet or run.next_stage is None:
        yield
        return
    from chosen_one_nb.run.cost_estimate import gigabytes
    from chosen_one_nb.run.memory_profile import Peak

    print(run.plan(run.root), file=sys.stderr)
    with Peak(run.models.device) as peak:
        yield
    if peak.bytes:
        print(f"peak measured: {gigabytes(peak.bytes)}", file=sys.stderr)


def _begun(given: argparse.Namespace) -> Run:
    from chosen_one_nb.run.run import Run, RunError

    if given.folder and (given.folder / "run.json").exists():
        named = given.models or any(getattr(given, key) for key in more.MACHINE)
        stored = _stored_name(given.folder) if named and not given.models else None
        models = more.models_of(given, stored) if named else None
        run = Run.open(given.folder, models, allow_other_models=given.allow_other_models)
        try:
            _check_same(run, given)
        except Exception:
            run.close()
            raise
        return run
    if not given.prompt:
        raise RunError("Expected a prompt, or --folder of a run to go on with.")
    return _started(given)


def _started(given: argparse.Namespace) -> Run:
    """Begin a run, and say what its sampling means."""
    from chosen_one_nb.run.run import Run

    settings, models = _settings(given), more.models_of(given)
    if given.sampling and not given.quiet:
        print(more.note_on(given.sampling), file=sys.stderr)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        run = Run.start(given.prompt, models, settings, given.folder)
    for warning in caught:
        if warning.category is RuntimeWarning:
            print(f"warning: {warning.message}", file=sys.stderr)
    return run


def _stored_name(folder: Path) -> str:
    """Name of the models that a run was made with."""
    from chosen_one_nb.run.store import read_json

    return str(read_json(folder / "run.json")["models"]["name"])


def _settings(given: argparse.Namespace, stored: Settings | None = None) -> Settings:
    """The settings asked for; without a preset, on top of the stored ones."""
    from chosen_one_nb.settings import Settings

    fresh = given.preset or (None if stored else Settings.preset_for(given.models or "menagerie"))
    start = Settings.preset(fresh) if fresh else stored
    start = start.sampled(given.sampling) if given.sampling else start
    changes = dict(given.set)
    if given.iterations is not None:
        changes["max_iterations"] = stored.max_iterations if stored else given.iterations
    return start.replace(**changes)


def _check_same(run: Run, given: argparse.Namespace) -> None:
    """Refuse to go on with a run under a prompt or settings that are not its own."""
    from chosen_one_nb.run.run import RunError

    if given.prompt and given.prompt.strip() != run.prompt:
        raise RunError(f"{run.folder} holds a run of {run.prompt!r}, not of {given.prompt!r}. Give another --folder.")
    asked, stored = _settings(given, run.root.settings).model_dump(), run.root.settings.model_dump()
    different = [f"{name}={stored[name]!r} (asked: {asked[name]!r})" for name in stored if stored[name] != asked[name]]
    if different and (given.preset or given.set or given.sampling):
        raise RunError(f"{run.folder} holds a run with {', '.join(different)}. Leave these out, or begin another.")


def _choose(run: Run, given: argparse.Namespace) -> None:
    """Make the choice given on the command line."""
    if given.node is not None:
        run.select(given.node)
    if given.choose is None and given.choose_images is None:
        return
    _decide(run, given, cluster=given.choose, images=given.choose_images, exclude=given.exclude, note=given.note)


def _decide(run: Run, given: argparse.Namespace, **choice: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        decision = run.choose(**choice)
    if not given.quiet:
        print(f"node {run.current.id}: {len(decision.images)} images chosen by {decision.by}. "
              f"{run.risk(decision.images)}")  # fmt: skip


def _to_the_end(run: Run, given: argparse.Namespace) -> Outcome:
    from chosen_one_nb.progress import Bars

    bars, workers = Bars(run, quiet=given.quiet), _workers(given)
    try:
        while True:
            with workers() as crew:
                outcome = run.until_converged(ask=given.ask, on_progress=bars, crew=crew)
            if outcome.state == "limit" and given.iterations and run.current.iteration < given.iterations:
                run.go_on()
            elif outcome.finished or not (given.ask and sys.stdin.isatty() and _asked(run, given)):
                return outcome
    finally:
        bars.close()


def _workers(given: argparse.Namespace) -> Callable[[], Any]:
    """What gives the workers asked for, or none."""
    from chosen_one_nb.sweep.worker_pool import Crew

    return nullcontext if given.workers is None else lambda: Crew(given.workers)


def _asked(run: Run, given: argparse.Namespace) -> bool:
    """Ask which cluster to take; False when the person would rather stop."""
    clusters = run.current.clusters
    print("cluster  images  cohesion")
    for cluster in clusters.order:
        mark = "  proposed" if cluster == clusters.proposed else "" if clusters.kept[cluster] else "  dropped: small"
        print(f"{cluster:>7}  {clusters.sizes[cluster]:>6}  {clusters.cohesion[cluster]:>8.3f}{mark}")
    answer = input("cluster to take (Enter: the proposed one, q: stop): ").strip()
    if answer.lower() == "q":
        return False
    if answer and not answer.isdigit():
        print(f"Expected a number, Enter or q, got {answer!r}.")
        return _asked(run, given)
    _decide(run, given, cluster=int(answer) if answer else None)
    return True


# --- show


def show_command(given: argparse.Namespace) -> int:
    """Write contact sheets, curve, contexts and the HTML page."""
    from chosen_one_nb.progress import Bars
    from chosen_one_nb.report import write_all

    with _viewed(given) as run:
        if not given.no_contexts and run.character is not None:
            bars = Bars(run, quiet=given.quiet)
            try:
                run.contexts(contexts=given.contexts, seeds=given.seeds, on_progress=bars)
            finally:
                bars.close()
        paths = write_all(run, given.out or run.folder / "show", tile=given.tile)
    if not given.quiet:
        print("\n".join(str(path) for path in paths[:-1]))
    print(paths[-1])
    return DONE


def _viewed(given: argparse.Namespace) -> Run:
    """Open the run for writing (what is drawn is kept), or for looking where another process works on it."""
    from chosen_one_nb.run.run import Run
    from chosen_one_nb.run.store import RunInUse

    try:
        return Run.open(given.folder, given.models)
    except RunInUse as error:
        print(f"note: {error}", file=sys.stderr)
        return Run.open(given.folder, given.models, read_only=True)
