"""The training loop: budgets, checkpoints, what stops it, and two processes that train one model."""

import errno
import signal
import socket
import subprocess
import sys

import pytest
import torch
from helpers.recipe import tiny_context
from torch import multiprocessing, nn

from menagerie.training.context import TrainingError
from menagerie.training.loop import Schedule, fit, with_progress


class Line(nn.Module):
    """One weight that learns to be a target."""

    def __init__(self, width: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, target: torch.Tensor) -> dict[str, torch.Tensor]:
        self.steps += 1
        return {"loss": (self.weight - target).square().sum(), "gap": (self.weight - target).abs().max()}


def train(folder, minutes, *, line=None, target=3.0, **keys):
    line = line or Line()
    schedule = Schedule(minutes=minutes, rate=0.2, weight_decay=0.0)
    fit("line", line, lambda progress: (torch.tensor([target]),), schedule, tiny_context(folder, folder), **keys)
    return line


def test_learning_rate_warms_up_and_falls():
    schedule = Schedule(minutes=1, rate=1.0)
    assert schedule.learning_rate(0.0, 0) == pytest.approx(0.01)
    assert schedule.learning_rate(0.0, 200) == 1.0
    assert schedule.learning_rate(1.0, 200) == pytest.approx(0.02)


def test_training_goes_on_from_its_checkpoint(tmp_path):
    first = train(tmp_path, 0.01)
    second = train(tmp_path, 0.02)
    assert second.weight.item() == pytest.approx(3, abs=1)
    assert second.steps > first.steps > 0
    third = train(tmp_path, 0.02)
    assert third.steps == second.steps, "the budget is spent"
    assert torch.equal(third.weight, second.weight)


def test_what_is_saved_is_the_average_on_the_way(tmp_path):
    line = Line()

    def targets(progress):  # of one target alone, both would end at it
        return (torch.rand(1),)

    fit("line", line, targets, Schedule(minutes=0.01, rate=0.2), tiny_context(tmp_path, tmp_path))
    last = torch.load(tmp_path / "line.pt", weights_only=True)["model"]["weight"]
    assert line.weight.item() != last.item()


def test_a_stage_that_goes_on_has_another_seed(tmp_path):
    context = tiny_context(tmp_path, tmp_path)
    fresh = context.seed("line")
    torch.save({"step": 0}, tmp_path / "line.pt")
    assert context.seed("line") == fresh
    torch.save({"step": 7}, tmp_path / "line.pt")
    other = tiny_context(tmp_path, tmp_path, seed=7)
    assert len({fresh, context.seed("line"), other.seed("line"), other.seed("circle")}) == 4


def test_a_checkpoint_of_another_recipe_is_refused_and_kept(tmp_path):
    train(tmp_path, 0.0)
    before = (tmp_path / "line.pt").read_bytes()
    with pytest.raises(TrainingError, match="of another recipe; move it away"):
        train(tmp_path, 0.01, line=Line(2))
    assert (tmp_path / "line.pt").read_bytes() == before


def test_a_damaged_checkpoint_is_refused_and_kept(tmp_path):
    (tmp_path / "line.pt").write_bytes(b"half of a fi")
    with pytest.raises(TrainingError, match="expected a checkpoint, got a damaged file"):
        train(tmp_path, 0.01)
    assert (tmp_path / "line.pt").exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("PytorchStreamWriter failed")]
)
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, monkeypatch, error):
    train(tmp_path, 0.0)
    before = (tmp_path / "line.pt").read_bytes()

    def full(state, path):
        path.write_bytes(b"as much as there was room for")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="could not be written, is the disk full"):
        train(tmp_path, 0.01)
    assert (tmp_path / "line.pt").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["line.pt"]


def test_an_interrupt_saves_and_says_that_the_command_goes_on(tmp_path):
    line = Line()

    def interrupt(progress):
        if line.steps >= 5:
            raise KeyboardInterrupt

    with pytest.raises(TrainingError, match="line: stopped at step 4; the same command goes on from there"):
        train(tmp_path, 1.0, line=line, after_step=interrupt)
    assert torch.load(tmp_path / "line.pt", weights_only=True)["step"] == 4


ENDLESS = """
import sys; from pathlib import Path; import torch
sys.path[:0] = {path!r}
from test_menagerie_loop import Line, train
train(Path({folder!r}), 10.0, save_every=0.2, after_step=lambda progress: print("step", flush=True))
"""


def test_training_that_is_killed_goes_on(tmp_path):
    code = ENDLESS.format(path=sys.path, folder=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    while not (tmp_path / "line.pt").exists():
        assert process.stdout.readline(), "it ended by itself"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    reached = torch.load(tmp_path / "line.pt", weights_only=True)
    assert reached["step"] > 0
    line = train(tmp_path, (reached["seconds"] + 0.5) / 60)
    assert line.steps > reached["step"]


def test_values_are_checked_when_a_line_is_printed(tmp_path, monkeypatch):
    monkeypatch.setattr("menagerie.training.loop.TrainingLog.__init__.__defaults__", (0.0,))
    monkeypatch.setattr("menagerie.training.loop.SETTLED", 0)
    seen = []
    train(tmp_path, 0.02, check=seen.append)
    assert {"loss", "gap"} == set(seen[0])


def test_progress_says_how_much_is_left(monkeypatch, capsys):
    clock = iter([0.0, 30.0, 60.0, 90.0])
    monkeypatch.setattr("menagerie.training.loop.time.monotonic", lambda: next(clock))
    assert list(with_progress("renders", iter("abc"), 3)) == ["a", "b", "c"]
    assert capsys.readouterr().out.splitlines() == [
        "renders: 1 of 3 parts, 1:00 left",
        "renders: 2 of 3 parts, 0:30 left",
        "renders: 3 of 3 parts, 0:00 left",
    ]


def _process(rank: int, port: int, folder) -> None:
    import os

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    torch.manual_seed(rank)
    line = Line()
    nn.init.normal_(line.weight)  # another start for each: the first one's counts
    train(folder, 0.03, line=line, target=(2.0, 4.0)[rank])  # each sees only its own half of the data
    torch.save(line.weight.detach(), folder / f"{rank}.pt")


def test_processes_share_their_gradients(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_process, (port, tmp_path), nprocs=2)
    weights = [torch.load(tmp_path / f"{rank}.pt", weights_only=True).item() for rank in range(2)]
    assert weights[0] == weights[1]
    assert weights[0] == pytest.approx(3.0, abs=0.3), "the mean of what they see"
    assert (tmp_path / "line.pt").exists()
