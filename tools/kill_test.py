"""Kill work at random moments, go on, and compare: ``python tools/kill_test.py [--kills 200] [--kinds run sweep ...]``.

Each kind of work is done once undisturbed, on the bundled models at the smallest settings. Then it is done again and
again in processes that get SIGKILL after a random time, until one ends by itself; what then lies in the folder must
equal what the undisturbed one left, times left out. After each kill what is there must still open. Linux and macOS:
the processes are forked, so that models are loaded once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# Before torch is imported: a fork must not inherit threads, and sums must not depend on where arrays lie.
os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MKL_CBWR": "COMPATIBLE", "HF_HUB_OFFLINE": "1"}

PROMPT = "a sticker of a fox"
SMALL = {"n_images": 6, "sampling_steps": 2, "refine_steps": 3, "refine_batch_size": 1, "min_cluster_size": 1,
         "target_cluster_size": 3, "batch_size": 2, "max_iterations": 1, "describe_scene": False, "scene_weight": 1.0,
         "cluster_on": "image", "prior_share": 0.0}  # fmt: skip
TIMES = ("time", "made", "seconds", "cpu", "since", "pid")


# --- what is done; each goes on from whatever lies in the folder


def run(folder: Path, models: Any) -> None:
    """Carry a run to its end."""
    _opened(folder / "run", models).until_converged()


def explorer(folder: Path, models: Any) -> None:
    """Press *Next* in the explorer until there is nothing left to do."""
    from chosen_one_nb.widgets.explorer import Explorer

    screen = Explorer(_opened(folder / "run", models), method="pca", raise_errors=True)
    while screen.run.next_stage is not None:
        screen.next()
        screen.wait()


def sweep(folder: Path, models: Any) -> None:
    """Draw and measure the galleries of a plan."""
    from joblib import parallel_config

    import chosen_one_nb.sweep as sweeping
    from chosen_one_nb.sweep import workers

    # In this very process: it is the one that is killed. What becomes of workers is tested with the package.
    sweeping.load_same_models = workers.load_same_models = lambda load, fingerprint="": models
    plan = sweeping.SweepPlan(prompts=[PROMPT, "a photo of a cat"], seeds=[0, 1], settings=SMALL, preset="quick")
    with parallel_config(backend="sequential"):
        sweeping.sweep(plan, folder / "sweep", workers=1, on_message=lambda text: None)


def export(folder: Path, models: Any) -> None:
    """Export and report a finished run, which `main` has put in the folder."""
    from chosen_one_nb import Run

    finished = Run.open(folder / "run", read_only=True)
    finished.export(folder / "exported", name="fox")
    finished.report(folder / "report.html")


KINDS: dict[str, Callable[[Path, Any], None]] = {"run": run, "sweep": sweep, "explorer": explorer, "export": export}


def _opened(folder: Path, models: Any) -> Any:
    from chosen_one_nb import Run, Settings

    if (folder / "run.json").exists():
        return Run.open(folder, models)
    return Run.start(PROMPT, models, Settings.preset("quick", **SMALL), folder)


# --- what is left


def found(folder: Path) -> dict[str, Any]:
    """Return everything under a folder by its name, times left out."""
    names = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): _content(path) for path in names if path.name not in SKIPPED}


SKIPPED = ("log.jsonl", ".lock", "lock.json", "run.json", "plan.json", "report.html", "character.json", "README.md")
"""Of times throughout, or of this one process."""


def _content(path: Path) -> Any:
    if path.suffix == ".json":
        return _timeless(json.loads(path.read_text("utf-8")))
    if path.suffix == ".csv":
        return _timeless(list(csv.DictReader(path.read_text("utf-8").splitlines())))
    if path.suffix == ".safetensors":  # its header is in any order
        from safetensors.numpy import load_file

        return {name: array.tobytes() for name, array in load_file(path).items()}
    return path.read_bytes()


def _timeless(value: Any) -> Any:
    """Leave out times, and the stamps of files that hold some."""
    if isinstance(value, dict):
        timed = (*TIMES, "losses.json", "theta/character.json", "sshs_model_hash")
        return {key: _timeless(part) for key, part in value.items() if key not in timed and "safetensors" not in key}
    return [_timeless(part) for part in value] if isinstance(value, list) else value


# --- killing


def forked(work: Callable[[], None], patience: float | None = None) -> bool:
    """Do work in a process of its own, killed after `patience` seconds; returns whether it ended by itself."""
    process = os.fork()
    if process == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    late = None if patience is None else time.monotonic() + patience
    while (ended := os.waitpid(process, 0 if late is None else os.WNOHANG))[0] == 0:
        if time.monotonic() >= late:
            os.kill(process, signal.SIGKILL)
            ended = os.waitpid(process, 0)
            break
        time.sleep(0.002)
    if os.WIFEXITED(ended[1]) and os.WEXITSTATUS(ended[1]):
        raise RuntimeError("The work failed; its traceback stands above.")
    return not os.WIFSIGNALED(ended[1])


def survive(kind: str, kills: int, place: Path, models: Any, rng: random.Random) -> tuple[int, int]:
    """Kill one kind of work so many times; returns how many kills were survived with equal results, and of how many."""

    def fresh(name: str) -> Path:
        folder = place / name
        folder.mkdir(parents=True)
        if kind == "export":
            shutil.copytree(place.parent / "finished" / "run", folder / "run")
        return folder

    whole = fresh("whole")
    begun = time.monotonic()
    forked(partial(KINDS[kind], whole, models))
    lasts, expected, done, equal, number = time.monotonic() - begun, found(whole), 0, 0, 0
    while done < kills:
        folder, of_this = fresh(f"{number}"), 0
        # The last lap of all goes on undisturbed.
        while not forked(partial(KINDS[kind], folder, models), rng.uniform(0, lasts) if done < kills else None):
            done, of_this = done + 1, of_this + 1
            forked(partial(_look, folder / "run"))
        left = found(folder)
        differ = [name for name in {**expected, **left} if expected.get(name) != left.get(name)]
        if differ:
            print(f"{kind} {number}: {', '.join(differ)}", file=sys.stderr)
        else:
            equal += of_this
            shutil.rmtree(folder)
        number += 1
    return equal, done


def _look(folder: Path) -> None:
    """Open a run that was just killed, to look at it."""
    from chosen_one_nb import Run

    if (folder / "run.json").exists() and any((folder / "nodes").glob("*/node.json")):
        for node in Run.open(folder, read_only=True).nodes.values():
            list(node.images)


def main(arguments: Sequence[str] | None = None, models: Any = None) -> int:
    """Kill as often as asked, spread over the kinds, and print the table; 1 where something differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="in all (default: 200)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    asked = parser.parse_args(arguments)
    if models is None:
        import torch

        from chosen_one_nb import load_models

        torch.set_num_threads(1)
        models = load_models("menagerie", device="cpu")
    rng, lines = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as folder:
        if "export" in asked.kinds:
            forked(partial(run, Path(folder) / "finished", models))
        for i, kind in enumerate(asked.kinds):
            share = asked.kills // len(asked.kinds) + (i < asked.kills % len(asked.kinds))
            lines.append((kind, *survive(kind, share, Path(folder) / kind, models, rng)))
            print(f"{lines[-1][0]:<10} {lines[-1][1]:>4} of {lines[-1][2]:>4} kills survived, equal", flush=True)
    equal, done = (sum(line[i] for line in lines) for i in (1, 2))
    print(f"{'all':<10} {equal:>4} of {done:>4}")
    return 0 if equal == done else 1


if __name__ == "__main__":
    sys.exit(main())
