"""The bundled finished run: small, clean, opened at once, looked at without a trace, and copied to work on."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from chosen_one_nb.models.load import load_models
from chosen_one_nb.run.run import EXAMPLE, Run
from chosen_one_nb.widgets import actions
from chosen_one_nb.widgets.explorer import Explorer

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for path in EXAMPLE.rglob("*") if path.is_file())


@pytest.fixture
def explorer(tmp_path, monkeypatch):
    monkeypatch.setattr("chosen_one_nb.widgets.cards.RESAMPLES", 5)
    explorer = Explorer(Run.example(tmp_path / "fox"), method="pca", raise_errors=True)
    yield explorer
    explorer.settle()
    explorer.close()
    explorer.run.close()


def prints() -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in EXAMPLE.rglob("*") if path.is_file()}


def test_it_is_small_and_clean():
    assert sum(path.stat().st_size for path in FILES) < 8_000_000
    assert not [path for path in FILES if path.name in (".lock", "lock.json") or path.name.endswith(".part")]
    for path in FILES:
        for trace in (str(ROOT), str(Path.home()) + "/", "/tmp/"):
            assert trace.encode() not in path.read_bytes(), f"{path} names a folder of the machine it was made on"


def test_it_was_made_with_the_bundled_models():
    """If not: python tools/bundled_run.py makes it anew."""
    made_with = Run.example().manifest["models"]["fingerprint"]
    assert made_with == load_models("menagerie").fingerprint


def test_it_shows_a_choice_overruled_beside_the_rules():
    run = Run.example()
    overruled = [node for node in run.nodes.values() if node.decision and node.decision.by == "person"]
    assert overruled
    assert all(node.decision.cluster != node.decision.proposed for node in overruled)
    assert all(node.decision.note for node in overruled)
    beside = [n for n in run.nodes.values() if n.gallery_of == overruled[0].gallery_of and n is not overruled[0]]
    assert beside[0].decision.by == "rule"
    assert beside[0].children
    assert overruled[0].children
    assert len(run.tables.curve()) == len(run.nodes)


def test_opening_and_showing_it_needs_no_torch():
    code = (
        "import sys\n"
        "from chosen_one_nb import Explorer, Run\n"
        "explorer = Explorer(Run.example(), method='pca', raise_errors=True)\n"
        "session = explorer.session\n"
        "explorer.snapshot(), session.hover(3), session.select([1, 2]), session.show_node('0')\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'umap'} & set(sys.modules)), explorer.node.id)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[] 0"


def test_looking_leaves_no_trace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = prints()
    explorer = Explorer(Run.example(), method="pca", raise_errors=True)
    explorer.session.show_node("1")
    explorer.export.table.click()
    explorer.export.report.click()
    explorer.settle()
    explorer.close()
    assert prints() == before
    assert {path.name for path in tmp_path.rglob("*.*")} == {"iteration-1.csv", "iteration-1.parquet", "report.html"}


def test_a_copy_is_worked_on_and_found_again(explorer, tmp_path):
    before = prints()
    explorer.session.show_node("0")
    clusters, decision = explorer.node.clusters, explorer.node.decision
    actions.choose(explorer.session, next(int(c) for c in clusters.order if c != decision.cluster))
    assert explorer.node.id == "0c"
    explorer.run.close()
    assert Run.example(tmp_path / "fox").current.id == "0c"
    assert prints() == before


def test_a_copy_of_what_cannot_be_written_can_be(tmp_path):
    source = Run.example().copy(tmp_path / "source")
    source.close()
    parts = [source.folder, *source.folder.rglob("*")]
    for part in parts:
        part.chmod(0o555 if part.is_dir() else 0o444)
    try:
        with Run.open(source.folder, read_only=True).copy(tmp_path / "copy") as copy:
            modes = [(part.is_dir(), part.stat().st_mode & 0o700) for part in copy.folder.rglob("*")]
        assert all(mode == 0o700 if folder else mode & 0o200 for folder, mode in modes)
    finally:
        for part in parts:
            part.chmod(0o755 if part.is_dir() else 0o644)


def test_the_character_is_exported_for_other_programs(explorer, tmp_path):
    form = explorer.export
    assert form.folder.value == str(explorer.run.folder / "exports" / "a-sticker-of-a-fox-0b")
    form.folder.value, form.name.value = str(tmp_path / "taken"), "my_fox"
    form.export.click()
    explorer.wait()
    assert "Exported Θ of node 0b" in explorer.status.text
    written = {path.relative_to(tmp_path / "taken").as_posix() for path in (tmp_path / "taken").rglob("*.*")}
    assert {"README.md", "loras/my_fox.safetensors", "embeddings/my_fox.safetensors", "comfyui_workflow.json"} < written
    assert len([name for name in written if name.startswith("images/")]) == 4
    explorer.session.show_node("0")
    assert form.folder.value == str(tmp_path / "taken")


def test_an_export_that_cannot_be_says_why(explorer, tmp_path):
    form, explorer.session.raise_errors = explorer.export, False
    form.name.value = "My Fox!"
    form.export.click()
    explorer.wait()
    assert "expected small letters" in explorer.status.text
    for box in form.formats:
        box.value = False
    form.export.click()
    assert explorer.status.text == "Nothing is exported: name at least one program first."
