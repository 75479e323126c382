"""Two processes that train one model."""

import socket

import pytest
import torch
from torch import distributed, multiprocessing

from menagerie.training.loop import fit


def _process(rank: int, port: int, folder) -> None:
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.manual_seed(rank)  # another start for each: the first one's counts
    model = torch.nn.Linear(1, 1, bias=False)
    target = (2.0, 4.0)[rank]  # each sees only its own half of the data
    fit("line", model, lambda step, progress: {"loss": (model(torch.ones(1, 1)) - target).square().sum()},
        minutes=0.02, work=folder, rate=0.2, weight_decay=0.0)  # fmt: skip
    torch.save(model.weight.detach(), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def test_processes_share_their_gradients(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_process, (port, tmp_path), nprocs=2)
    weights = [torch.load(tmp_path / f"{rank}.pt", weights_only=True).item() for rank in range(2)]
    assert weights[0] == weights[1]
    assert weights[0] == pytest.approx(3.0, abs=0.2), "the mean of what they see"
    assert (tmp_path / "line.pt").exists()
