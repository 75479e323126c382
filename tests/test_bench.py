"""`python tools/bench` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tools.bench import __main__ as command
from tools.bench.__main__ import main


def test_bench_counts_and_measures(model_folder: Path, capsys: pytest.CaptureFixture) -> None:
    less = ["--preset", "quick", "--straight", "1", "--threads", str(torch.get_num_threads())]
    for change in ("n_images=2", "target_cluster_size=1", "min_cluster_size=1", "sampling_steps=1", "refine_steps=1"):
        less += ["--set", change]
    assert main(["--models", str(model_folder), "--plan", "--tflops", "1", "--sampling", "fast", *less]) == 0
    out = capsys.readouterr().out
    assert "sampling fast: 8 steps: another distribution" in out
    assert "peak expected" in out
    assert "at 1 TFLOP/s (1 asked for): gallery" in out
    assert "straight" not in out
    assert main(["--models", str(model_folder), *less]) == 0
    assert "against straight use: gallery" in capsys.readouterr().out


def test_what_would_take_too_long_is_only_counted(model_folder: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(command, "PATIENCE", 0.0)
    assert main(["--models", str(model_folder), "--preset", "quick"]) == 0
    out = capsys.readouterr().out
    assert "Not run: at this machine's best" in out
    assert "(a matrix product here): gallery" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--random", "flux"], "random models: expected one of sdxl, sd15, got 'flux'"),
        (["--sampling", "slow"], "sampling: expected one of full, standard, fast, flash, got 'slow'"),
    ],
)
def test_what_is_not_known_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
