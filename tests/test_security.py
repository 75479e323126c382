"""Nothing that comes from a file, a folder or a model runs as code; see docs/security.md."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import load_file

from chosen_one_nb import export
from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.export.content import ExportContent
from chosen_one_nb.export.writer import comfyui_workflow, readme
from chosen_one_nb.models.features import Clip, FeatureExtractor
from chosen_one_nb.models.hub import ModelError, Source, convert_line

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(path for folder in ("chosen_one_nb", "menagerie", "tools") for path in (ROOT / folder).rglob("*.py"))
EVIL = "__import__('os').system('touch ran') or 2"


def shared(**changes: Any) -> Character:
    """A character from somebody else."""
    layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"
    lora = {f"{layer}.lora_A.weight": torch.ones(2, 40), f"{layer}.lora_B.weight": torch.ones(8, 2)}
    rows = {"clip_l": torch.ones(1, 16), "clip_g": torch.ones(1, 24)}
    return Character(lora, rows, **{"token": "<v>", "caption": "a fox <v>", "rank": 2, "alpha": 2.0} | changes)


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def is_false(call: ast.Call, name: str) -> bool:
    values = [keyword.value for keyword in call.keywords if keyword.arg == name]
    return len(values) == 1 and isinstance(values[0], ast.Constant) and values[0].value is False


def test_no_loading_call_trusts_the_code_of_a_repository():
    """In the package every `from_pretrained` says so; elsewhere those of classes that choose a class by themselves."""
    loading = [
        (path, call) for path in SOURCES for call in calls(path) if called(call) in ("from_pretrained", "from_config")
    ]
    must = [
        (path, call)
        for path, call in loading
        if re.match(r"Auto[A-Z]", ast.unparse(call.func).split(".")[-2])
        or (path.is_relative_to(ROOT / "chosen_one_nb") and called(call) == "from_pretrained")
    ]
    assert len(must) >= 4
    assert [f"{path}:{call.lineno}" for path, call in must if not is_false(call, "trust_remote_code")] == []


def test_nothing_is_evaluated_or_unpickled():
    package = [(path, call) for path in SOURCES for call in calls(path) if path.is_relative_to(ROOT / "chosen_one_nb")]
    by_name = [(path, call) for path, call in package if isinstance(call.func, ast.Name)]
    found = [(path, call) for path, call in by_name if called(call) in ("eval", "exec", "compile", "__import__")]
    found += [(path, call) for path, call in package if called(call) in ("system", "popen", "unsafe_load")]
    loads = [
        (path, call) for path, call in package if ast.unparse(call.func) in ("np.load", "torch.load", "pickle.load")
    ]
    assert loads
    found += [(path, call) for path, call in loads if not is_false(call, "allow_pickle")]
    assert [f"{path}:{call.lineno}" for path, call in found] == []


@pytest.mark.parametrize(("part", "kind"), [("dinov2", FeatureExtractor), ("clip", Clip)])
def test_a_folder_that_brings_code_is_refused(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, kind: Any
):
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("asks whether to run code"))
    folder = shutil.copytree(model_folder / part, tmp_path / part)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config = {"image_processor_type": "Evil", "auto_map": {"AutoImageProcessor": "evil.Evil"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        kind.load(folder)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "provenance",
    [
        {"settings": {"sampling_steps": EVIL}},
        {"settings": {"sampler": EVIL}},
        {"settings": {"guidance_scale": EVIL}},
        {"settings": {"image_size": EVIL}},
        {"settings": [EVIL]},
        {"n_images": EVIL},
        {"load": EVIL, "model": "a/b"},
    ],
)
def test_a_shared_character_puts_no_code_into_an_export(tmp_path: Path, provenance: dict[str, Any]):
    character = shared(provenance=provenance)
    folder = character.save(tmp_path / "shared")
    with pytest.raises(CharacterError, match="provenance: "):
        export.write(Character.load(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_shared_image_puts_no_code_into_an_export(tmp_path: Path):
    chunks = PngInfo()
    for key, value in {"seed": "1", "settings": json.dumps({"sampling_steps": EVIL}), "prompt": EVIL}.items():
        chunks.add_text(key, value)
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png", pnginfo=chunks)
    folder = export.write(shared(), tmp_path / "out", images=[tmp_path / "image.png"])
    assert EVIL not in (folder / "README.md").read_text()
    assert EVIL not in (folder / "comfyui_workflow.json").read_text()


def test_one_image_is_one_and_of_any_kind(tmp_path: Path):
    Image.new("CMYK", (8, 8)).save(tmp_path / "mine.jpg")
    for images in (str(tmp_path / "mine.jpg"), [Image.new("CMYK", (8, 8))]):
        folder = export.write(shared(), tmp_path / "out", images=images)
        assert Image.open(folder / "images/1.png").mode == "RGB"


@pytest.mark.parametrize(
    ("formats", "name"), [(3, None), ("png", None), ([3], None), (["kohya"], 3), (["kohya"], "../x")]
)
def test_formats_and_names_that_are_none(tmp_path: Path, formats: Any, name: Any):
    with pytest.raises(CharacterError, match=r"^(formats|name): expected"):
        export.write(shared(), tmp_path / "out", formats, name=name)


def test_texts_of_a_character_are_values_in_its_programs():
    character = shared(token="<v>'+x+'", caption=f"a fox <v>'+x+' {EVIL}", provenance={"model": f'a"+{EVIL}'})
    content = ExportContent(character, "fox")
    lines = re.search(r"```python\n(.*?)\n```", readme(content, export.FORMATS), re.DOTALL)
    assert lines is not None
    names = {node.id for node in ast.walk(ast.parse(lines[1])) if isinstance(node, ast.Name)}
    assert "__import__" not in names
    assert "x" not in names
    assert comfyui_workflow(content)["7"]["inputs"]["steps"] == 35


def test_the_line_that_converts_a_pickle_works_for_nested_embeddings_of_any_name(tmp_path: Path):
    file = tmp_path / "a $(touch ran) `touch ran` \"; touch ran; '.pt"
    nested = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 64)}, "name": "x", "step": 1}
    torch.save(nested, file)
    line = convert_line(str(file)).splitlines()[1].strip().replace("python", sys.executable, 1)
    subprocess.run(["/bin/sh", "-c", line], cwd=tmp_path, check=True)
    assert load_file(file.with_suffix(".safetensors"))["emb_params"].shape == (1, 64)
    assert not (tmp_path / "ran").exists()


def test_the_line_that_downloads_quotes_what_it_is_given():
    assert Source("a/b", "$(touch ran)").download_line().endswith("--revision '$(touch ran)'")
