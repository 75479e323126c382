from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import fakes
from PIL import Image

from chosen_one_nb import cli
from chosen_one_nb.run import store
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import SAMPLING

FOX = "a sticker of a fox"
SMALL = [
    "--preset",
    "quick",
    "--set",
    "n_images=9",
    "--set",
    "target_cluster_size=3",
    "--set",
    "min_cluster_size=0",
    "--set",
    "refine_steps=2",
    "--set",
    "convergence=0.01",
    "--iterations",
    "1",
]


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fakes, however the models are named; opened runs are closed between commands as processes would."""
    import chosen_one_nb.models.load
    import chosen_one_nb.run.cost_estimate

    fakes.install(monkeypatch)
    monkeypatch.setattr(
        chosen_one_nb.run.cost_estimate, "estimate_cost", lambda models, settings: f"plan of {settings.n_images}"
    )
    found = fakes.fake_models()
    monkeypatch.setattr(chosen_one_nb.models.load, "load_models", lambda name, **machine: found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fox"


def begin(folder: Path, *more: str) -> int:
    return cli.main(["run", FOX, "--folder", str(folder), *SMALL, *more])


def nodes(folder: Path) -> dict[str, Any]:
    return {name: node.stages_done for name, node in Run.open(folder, read_only=True).nodes.items()}


def test_a_sampling_preset_says_what_it_changes(folder: Path, models: Any, capsys: pytest.CaptureFixture):
    """And that the fastest one is for distilled models, unless they were loaded so."""
    warned = {}
    for name, sampling in (("fast", "fast"), ("flash", "flash"), ("distilled", "flash")):
        models.recipe = {"name": "fake"} | ({"distilled": "owner/lora"} if name == "distilled" else {})
        begin(folder / name, "--sampling", sampling)
        said = capsys.readouterr().err
        assert f"sampling {sampling}: {SAMPLING[sampling]['note']}" in said
        warned[name] = "warning: sampling flash: 4 steps without guidance draw blurs" in said
    assert warned == {"fast": False, "flash": True, "distilled": False}


def test_a_run_goes_to_its_end_and_says_so(folder: Path, capsys: pytest.CaptureFixture):
    assert begin(folder) == 0
    said = capsys.readouterr().out
    assert "node 0 · generate: 9 images (" in said
    assert "node 0 · choose:" in said
    assert "limit: all 1 iterations (d_iter) are used up." in said
    assert said.rstrip().endswith(str(folder))
    assert list(nodes(folder)) == ["0", "1"]


def test_the_memory_plan_is_said_before_and_the_peak_after(folder: Path, capsys: pytest.CaptureFixture):
    begin(folder)
    said = capsys.readouterr().err
    assert said.index("plan of 9") < said.index("peak measured:")
    begin(folder)
    assert "plan of" not in capsys.readouterr().err, "nothing is left to do"


def test_quiet_says_only_the_outcome(folder: Path, capsys: pytest.CaptureFixture):
    begin(folder, "--quiet")
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_same_command_goes_on_after_ctrl_c(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: Any):
    import chosen_one_nb.steps.refine

    real = chosen_one_nb.steps.refine.refine

    def interrupt(*args: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(chosen_one_nb.steps.refine, "refine", interrupt)
    assert begin(folder) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    monkeypatch.setattr(chosen_one_nb.steps.refine, "refine", real)
    assert begin(folder) == 0
    assert "generate: 9 images" in capsys.readouterr().out
    assert cli.main(["run", "--folder", str(folder)]) == 0


def test_more_iterations_go_on_past_the_limit(folder: Path):
    begin(folder)
    assert cli.main(["run", "--folder", str(folder), "--iterations", "3"]) == 0
    assert list(nodes(folder)) == ["0", "1", "2", "3"]


def test_asking_without_a_terminal_waits_for_a_choice(folder: Path, capsys: pytest.CaptureFixture):
    assert begin(folder, "--ask") == 4
    assert "Choose: --choose CLUSTER" in capsys.readouterr().out
    assert cli.main(["run", "--folder", str(folder), "--choose-images", "1,4,5", "--exclude", "4", "--note", "these",
                     "--ask"]) == 0  # fmt: skip
    decision = Run.open(folder, read_only=True).node("0").decision
    assert (decision.images, decision.note, decision.by) == ((1, 5), "these", "person")
    assert nodes(folder)["1"][-1] == "check"


def test_asking_on_a_terminal(folder: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    answers = iter(["what?", "1"])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    assert begin(folder, "--ask") == 0
    said = capsys.readouterr().out
    assert "cluster  images  cohesion" in said
    assert "proposed" in said
    assert "Expected a number, Enter or q, got 'what?'" in said
    assert Run.open(folder, read_only=True).root.decision.cluster == 1


@pytest.mark.parametrize(("answer", "code"), [("", 0), ("q", 4), ("99", 1)])
def test_answers_to_the_question(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    assert begin(folder, "--ask") == code


def test_choosing_at_a_refined_node_begins_a_branch(folder: Path):
    begin(folder)
    assert cli.main(["run", "--folder", str(folder), "--node", "0", "--choose", "1", "--note", "less hat"]) == 0
    assert list(nodes(folder)) == ["0", "1", "0b", "1b"]


def test_a_collapse_has_its_own_code(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from chosen_one_nb.steps import converge

    monkeypatch.setattr(converge, "health", lambda now, first, settings: converge.Health(
        "sound" if now.features is first.features else "collapsed", ["All alike."], []))  # fmt: skip
    monkeypatch.setattr(converge, "verdict", lambda convergence, health: converge.Verdict(
        "collapsed" if health.reasons else "not yet", "All alike."))  # fmt: skip
    assert begin(folder) == 3


ERRORS = {
    "empty prompt": (["run", "", "--folder", "F"], "Expected a prompt"),
    "blank prompt": (["run", "   ", "--folder", "F"], "expected a description"),
    "placeholder": (["run", "a <v> fox", "--folder", "F"], "placeholder"),
    "no prompt": (["run"], "Expected a prompt, or --folder"),
    "unknown setting": (["run", "a fox", "--folder", "F", "--set", "colour=1"], "colour: no such setting"),
    "bad value": (["run", "a fox", "--folder", "F", "--set", "n_images=-3"], "n_images: expected"),
    "nan": (["run", "a fox", "--folder", "F", "--set", "convergence=NaN"], "convergence: expected"),
    "unknown preset": (["run", "a fox", "--folder", "F", "--preset", "best"], "preset: expected one of"),
    "too few images": (["run", "a fox", "--folder", "F", "--set", "n_images=4"], "n_images: expected more than"),
    "no run to show": (["show", "F"], "holds no run"),
}


@pytest.mark.parametrize(
    "arguments",
    [
        *(["run", "a fox", *wrong] for wrong in (["--workers", "0"], ["--iterations", "-1"], ["--choose", "0.7"])),
        *(["show", "F", *wrong] for wrong in (["--tile", "0"], ["--tile", "100000"], ["--seeds", "-1"])),
        *(["sweep", "plan.json", *wrong] for wrong in (["--threads", "-1"], ["--workers", "9" * 5000])),
    ],
)
def test_numbers_beyond_their_limits_are_refused(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "expected a whole number from" in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_that_lacks_letters_loses_no_line(
    tmp_path: Path, models: Any, monkeypatch: pytest.MonkeyPatch, encoding: str
):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding=encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert begin(tmp_path / "キツネ") == 0
    for stream in streams.values():
        stream.flush()
    said = {name: stream.buffer.getvalue().decode(encoding) for name, stream in streams.items()}
    assert "node 0" in said["stdout"]
    assert "generate: 9 images" in said["stdout"]
    assert ascii("キツネ")[1:-1] in said["stdout"]
    assert "UnicodeEncodeError" not in said["stderr"]


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_one_sentence(name: str, folder: Path, capsys: pytest.CaptureFixture):
    arguments, match = ERRORS[name]
    assert cli.main([str(folder) if part == "F" else part for part in arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert match in said
    assert len(said.splitlines()) == 1
    assert not folder.exists()


def test_another_prompt_or_other_settings_are_refused(folder: Path, capsys: pytest.CaptureFixture):
    begin(folder)
    assert cli.main(["run", "a cat", "--folder", str(folder)]) == 1
    assert "holds a run of 'a sticker of a fox', not of 'a cat'" in capsys.readouterr().err
    assert cli.main(["run", "--folder", str(folder), "--set", "n_images=12"]) == 1
    assert "n_images=9 (asked: 12)" in capsys.readouterr().err
    assert cli.main(["run", "--folder", str(folder), "--set", "n_images=9"]) == 0


def test_a_damaged_file_is_made_again_from_the_shell(folder: Path, capsys: pytest.CaptureFixture):
    begin(folder)
    place = folder / "nodes" / "0" / "features.npy"
    whole = place.read_bytes()
    place.write_bytes(whole[:50])
    assert cli.main(["show", str(folder), "--no-contexts"]) == 1
    assert f"`python -m chosen_one_nb run --folder {folder} --node 0 --redo embed`" in capsys.readouterr().err
    assert cli.main(["run", "--folder", str(folder), "--node", "0", "--redo", "embed", "--quiet"]) == 0
    assert place.read_bytes() == whole
    assert cli.main(["show", str(folder), "--no-contexts"]) == 0
    assert cli.main(["run", "--folder", str(folder), "--node", "0", "--redo", "paint"]) == 1
    assert "Expected a finished stage of node 0, got 'paint'" in capsys.readouterr().err


def test_an_unexpected_error_is_named_and_debug_shows_it(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.embed

    monkeypatch.setattr(chosen_one_nb.steps.embed, "embed", lambda *a, **k: {}["x"])
    assert begin(folder) == 1
    assert capsys.readouterr().err.strip().endswith("KeyError: 'x' (unexpected; --debug shows where it arose)")
    assert begin(folder, "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["dance"], ["run", "a", "--choose", "x"], ["run", "--exclude", "a,b"]])
def test_a_command_line_not_understood(arguments: list[str], capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_settings_come_in_one_option_or_several(capsys: pytest.CaptureFixture):
    given = cli.parser().parse_args(["run", "a fox", "--set", "n_images=9", "sampler=ddim", "--set", "seed=3"])
    assert given.set == [("n_images", 9), ("sampler", "ddim"), ("seed", 3)]
    with pytest.raises(SystemExit):
        cli.parser().parse_args(["run", "--set", "seed=3", "a fox"])
    assert "argument --set: expected NAME=VALUE, such as n_images=32, got 'a fox'" in capsys.readouterr().err


def test_help_is_quick_and_has_examples():
    for arguments in ([], ["run"], ["show"]):
        command = [sys.executable, "-X", "importtime", "-m", "chosen_one_nb", *arguments, "--help"]
        found = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
        assert found.returncode == 0
        assert 'run "a sticker of a fox" --folder runs/fox' in found.stdout
        assert "exit codes:" in found.stdout
        assert " torch\n" not in found.stderr


def test_progress_shows_bars_on_a_terminal_only(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch):
    begin(folder)
    assert "left" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    cli.main(["run", "--folder", str(folder), "--iterations", "2"])
    said = capsys.readouterr().err
    assert "generate" in said
    assert "images" in said
    assert "left" in said


def test_show_writes_images_and_a_page(folder: Path, capsys: pytest.CaptureFixture, models: Any):
    begin(folder)
    capsys.readouterr()
    assert cli.main(["show", str(folder)]) == 0
    assert sorted(path.name for path in (folder / "show").iterdir()) == [
        "contexts.png", "distance.png", "gallery-0.png", "gallery-1.png", "report.html"]  # fmt: skip
    assert Image.open(folder / "show/contexts.png").size == (8 * 132 + 4, 28 + 4 * 148)
    assert capsys.readouterr().out.rstrip().endswith("report.html")
    models.drawn.clear()
    cli.main(["show", str(folder), "--quiet"])
    assert models.drawn == []
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_show_in_other_contexts_elsewhere(folder: Path, tmp_path: Path, models: Any):
    begin(folder)
    models.drawn.clear()
    cli.main(["show", str(folder), "--out", str(tmp_path / "out"), "--contexts", "on the moon,in bed", "--seeds", "2"])
    assert models.drawn == [(f"{FOX} <v> on the moon", 2), (f"{FOX} <v> in bed", 2)]
    assert (tmp_path / "out/report.html").exists()


def test_show_without_drawing(folder: Path, models: Any):
    begin(folder)
    models.drawn.clear()
    assert cli.main(["show", str(folder), "--no-contexts"]) == 0
    assert models.drawn == []
    assert not (folder / "show/contexts.png").exists()


def test_show_while_another_process_works(folder: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    begin(folder)

    def busy(self: store.Lock) -> None:
        raise store.RunInUse("in use by process 7")

    monkeypatch.setattr(store.Lock, "acquire", busy)
    assert cli.main(["show", str(folder), "--out", str(tmp_path / "out")]) == 0
    assert "note: in use by process 7" in capsys.readouterr().err
    assert (tmp_path / "out/gallery-0.png").exists()
    assert cli.main(["run", "--folder", str(folder)]) == 1


def test_a_limit_holds_whichever_node_is_looked_at(folder: Path):
    begin(folder)
    again = ["run", "--folder", str(folder), "--node", "0", "--iterations", "1"]
    assert cli.main(again) == 0
    assert list(nodes(folder)) == ["0", "1"]
    assert cli.main([*again[:-1], "2"]) == 0
    assert list(nodes(folder)) == ["0", "1", "2"]


def test_a_refused_choice_leaves_the_run_where_it_was(folder: Path, capsys: pytest.CaptureFixture):
    begin(folder)
    assert cli.main(["run", "--folder", str(folder), "--node", "0", "--choose", "99"]) == 1
    assert "cluster: expected a whole number from 0 to" in capsys.readouterr().err
    assert Run.open(folder, read_only=True).current.id == "1"


@pytest.mark.parametrize(("arguments", "match"), [
    (["run", FOX, "--folder", "F/new", "--exclude", "1"], "--exclude: expected --choose or --choose-images with it"),
    (["run", FOX, "--folder", "F/new", "--note", "why"], "--note: expected --choose or --choose-images with it"),
    (["export", "F", "--images", "a.png", "--to", "F/out"], "--images: expected a character's folder with it"),
    (["export", "F/nodes/0/theta", "--node", "1", "--to", "F/out"], "--node: expected a run's folder with it"),
    (["show", "F", "--no-contexts", "--seeds", "2"], "--seeds: expected images to be drawn, so no --no-contexts"),
    (["show", "F", "--no-contexts", "--contexts", "at sea"], "--contexts: expected images to be drawn"),
    (["sweep", "plan.json", "--address", "tcp://x"], "--address: expected --backend with it"),
])  # fmt: skip
def test_an_option_that_would_be_ignored_is_refused(folder: Path, capsys: Any, arguments: list[str], match: str):
    begin(folder)
    assert cli.main([part.replace("F/", f"{folder}/") if part != "F" else str(folder) for part in arguments]) == 1
    assert match in capsys.readouterr().err
    assert not (folder / "new").exists()
    assert not (folder / "out").exists()


def test_a_run_on_a_read_only_disk_is_shown_elsewhere(
    folder: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    begin(folder)
    before = sorted(path for path in folder.rglob("*"))

    def refuse(self: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.FileLock, "acquire", refuse)
    out = tmp_path / "out"
    contexts = ["--contexts", "on the moon", "--seeds", "1"]
    assert cli.main(["show", str(folder), "--out", str(out), *contexts]) == 0
    assert "may not be written (Permission denied)" in capsys.readouterr().err
    assert Image.open(out / "contexts.png").size[0] > 100  # drawn and shown, though not kept
    assert "on the moon" in (out / "report.html").read_text()
    assert Run.open(folder, read_only=True).report(out / "again.html").exists()
    assert sorted(path for path in folder.rglob("*")) == before
