"""The benchmark: what it measures, and its command line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tools.bench import __main__ as command
from tools.bench.__main__ import main
from tools.bench.measure import bench


def test_a_bench_of_tiny_models(models: Any, quick: Any) -> None:
    before = {key: value.clone() for key, value in models.pipeline.text_encoder.state_dict().items()}
    found = bench(models, quick.replace(refine_steps=2, sampling_steps=2), straight=1, workers=2)
    assert [row.stage for row in found.rows] == [
        "gallery", "  decode", "embed", "refine", "straight gallery", "straight refine", "gallery, shared",
    ]  # fmt: skip
    assert re.search(
        rf"by the clock, .* by 2 workers: [\d.]+x straight use, which had {found.threads} threads", str(found)
    )
    assert all(row.busy > 0 and row.flops > 0 for row in found.rows)
    assert all(row.peak for row in found.rows[:-1])
    assert found.gain("gallery") > 1
    assert "times FLOPs / peak" in str(found)
    after = models.pipeline.text_encoder.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert not any(parameter.requires_grad for parameter in models.pipeline.text_encoder.parameters())


def test_straight_use_does_the_same_work(models: Any, quick: Any, monkeypatch: Any) -> None:
    """Images of the size asked for, drawn and learnt from; and the embedding is not timed at its first call."""
    from tools.bench import measure as benching

    sides, seen, unet = [], [], models.pipeline.unet
    inner, look = unet.forward, benching.embed
    monkeypatch.setattr(unet, "forward", lambda x, *a, **k: sides.append(x.shape[-1]) or inner(x, *a, **k))
    monkeypatch.setattr(benching, "embed", lambda *a, **k: seen.append(1) or look(*a, **k))
    bench(models, quick.replace(refine_steps=1, sampling_steps=1, image_size=48), straight=1)
    assert set(sides) == {12}
    assert len(seen) == 2


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
        (["--random", "sd15", "--workers", "2"], "processes load models by name, and random ones have none"),
    ],
)
def test_what_is_not_known_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_speeds_are_numbers_above_0(capsys: pytest.CaptureFixture) -> None:
    for text in ("-1", "0", "nan", "fast"):
        with pytest.raises(SystemExit):
            main(["--tflops", text])
        assert f"expected a number above 0, got {text!r}" in capsys.readouterr().err


def test_the_folder_is_a_command() -> None:
    done = subprocess.run([sys.executable, "tools/bench", "--help"], capture_output=True, text=True, check=True,
                          cwd=Path(__file__).parents[1])  # fmt: skip
    assert "python tools/bench --random sdxl" in done.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card here")
def test_the_script_for_a_card_says_that_there_is_none() -> None:
    script = Path(__file__).parents[1] / "tools" / "bench" / "gpu.sh"
    done = subprocess.run(["sh", script], env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"}, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 1
    assert "expected a CUDA card, found none" in done.stderr
