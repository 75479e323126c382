"""`export` on the command line, and the machine's options of `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import fakes

from chosen_one_nb import export
from chosen_one_nb.character import Character
from chosen_one_nb.cli import main
from chosen_one_nb.run.run import Run


@pytest.fixture
def character(models: Any) -> Character:
    from chosen_one_nb.steps.lora import initial_lora

    lora = initial_lora(models.pipeline.unet, 2, torch.Generator().manual_seed(0))
    rows = {"clip_l": torch.randn(1, 16), "clip_g": torch.randn(1, 24)}
    return Character(lora, rows, "<v>", "a red fox <v>", 2, 2.0, provenance={"prompt": "a red fox"})


def test_a_character_is_exported(character: Character, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    character.save(tmp_path / "saved")
    arguments = ["export", str(tmp_path / "saved"), "--to", str(tmp_path / "out"), "--name", "red_fox"]
    assert main([*arguments, "--formats", "kohya"]) == 0
    there = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    assert there == {"README.md", "loras/red_fox.safetensors", "embeddings/red_fox.safetensors"}
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "out" / "README.md")
    assert main(["export", str(tmp_path / "out"), "--to", str(tmp_path / "again"), "--formats", "diffusers"]) == 0
    assert export.read(tmp_path / "again").token == "<v>"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--to", "{tmp}/out", "--formats", "onnx"], "formats: expected some of diffusers, kohya, comfyui"),
        (["--to", "{tmp}/file/out"], "expected a folder that can be written"),
        ([], "--to: expected a folder to write to"),
    ],
)
def test_an_export_that_cannot_be(
    character: Character, tmp_path: Path, capsys: pytest.CaptureFixture, more: list[str], message: str
) -> None:
    character.save(tmp_path / "saved")
    (tmp_path / "file").write_text("in the way")
    assert main(["export", str(tmp_path / "saved"), *(part.replace("{tmp}", str(tmp_path)) for part in more)]) == 1
    assert message in capsys.readouterr().err


def test_a_run_without_a_character_has_nothing_to_export(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    from chosen_one_nb.run import run

    monkeypatch.setattr(run, "check_prompt", lambda models, prompt, settings: prompt)
    Run.start("a fox", fakes.fake_models(), folder=tmp_path / "run").close()
    assert main(["export", str(tmp_path / "run")]) == 1
    assert "There is no character to export yet" in capsys.readouterr().err


def test_what_is_not_known_is_told(capsys: pytest.CaptureFixture) -> None:
    assert main(["run", "a fox", "--models", "o/pipe", "--extractor", "o/eyes", "--offline"]) == 1
    assert "hf download o/pipe --include" in capsys.readouterr().err
