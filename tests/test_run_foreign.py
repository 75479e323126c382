"""A run from somebody else: whatever its files say, nothing outside it is touched, and what is wrong is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import fakes, runs

from chosen_one_nb.run import store
from chosen_one_nb.run.run import Run
from chosen_one_nb.run.store import StoreError

pytestmark = runs.SMALL_CLUSTERS
quick_steps, finished = runs.quick_steps, runs.finished


@pytest.fixture
def folder(tmp_path: Path, finished: tuple[Path, dict[str, Any]]) -> Path:
    return shutil.copytree(finished[0], tmp_path / "run")


def change(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def refused(folder: Path) -> str:
    """What opening a run says, for looking and for writing."""
    with pytest.raises(StoreError) as looking:
        Run.open(folder, read_only=True)
    with pytest.raises(StoreError) as writing:
        Run.open(folder, fakes.fake_models())
    assert str(looking.value) == str(writing.value)
    return str(looking.value)


def test_ids_that_lead_out_of_the_run_are_refused(folder: Path):
    victim = folder.parent / "victim"
    shutil.copytree(folder / "nodes/0", victim)
    before = {path: path.read_bytes() for path in victim.rglob("*") if path.is_file()}
    change(folder / "nodes/0/node.json", id="../../victim", gallery_of="../../victim", stages={})
    assert "id: expected it to match pattern" in refused(folder)
    assert {path: path.read_bytes() for path in victim.rglob("*") if path.is_file()} == before


def test_an_id_is_that_of_its_folder(folder: Path):
    change(folder / "nodes/1/node.json", id="1b", gallery_of="1b")
    assert "expected the id '1', as its folder, got '1b'" in refused(folder)


def test_files_named_outside_the_node_are_refused(folder: Path):
    path = folder / "nodes/0/edits.json"
    kept = json.loads(path.read_text())
    kept["edits"][0]["stamps"]["../../../secret.json"] = {"sha256": "", "bytes": 0}
    path.write_text(json.dumps(kept))
    assert "edits.json is damaged" in refused(folder)


def test_a_link_out_of_the_run_is_not_written_through(folder: Path, tmp_path: Path):
    (tmp_path / "elsewhere.jsonl").write_text("mine")
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    with pytest.raises(StoreError, match=r"log\.jsonl leads out of the run"):
        Run.open(folder)
    assert (tmp_path / "elsewhere.jsonl").read_text() == "mine"


def test_a_circle_of_parents_is_refused(folder: Path):
    change(folder / "nodes/0/node.json", parent="2", iteration=3)
    assert "node 0: expected its parent (2) and the gallery's node (0) among those made before it" in refused(folder)


def asked_to_move(folder: Path) -> Path | None:
    """The folder that opening a run says to move away; None where it does not."""
    try:
        Run.open(folder, read_only=True)
    except StoreError as error:
        return next((path for path in (folder / "nodes").iterdir() if f"move {path}" in str(error)), None)
    return None


@pytest.mark.parametrize("damaged", ["0", "1", "2"])
def test_a_damaged_node_that_is_moved_away_is_made_again(folder: Path, tmp_path: Path, damaged: str):
    """The advice is followed, move by move, until the run can be gone on with."""
    (folder / "nodes" / damaged / "node.json").write_text("{")
    while moved := asked_to_move(folder):
        moved.rename(tmp_path / f"away-{moved.name}")
    with Run.open(folder, fakes.fake_models()) as run:
        run.until_converged()
        assert list(run.nodes) == ["0", "1", "2"]


WRONG = {
    "run.json": ["[]", "{}", '{"format": 2, "prompt": 3}', "null"],
    "nodes/0/node.json": ["[]", "{}", '"x"', '{"id": "0"}'],
    "nodes/0/edits.json": [
        "[]",
        "{}",
        '{"position": 5, "edits": []}',
        '{"edits": 3}',
        '{"edits": [{"action": "choose"}]}',
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_json_of_the_wrong_shape_is_one_sentence(folder: Path, name: str, text: str):
    (folder / name).write_text(text)
    said = refused(folder)
    assert f"{folder / name} is damaged: " in said
    assert "Put back a sound copy" in said


@pytest.mark.parametrize("value", ["3", 0.5, None, [1, 2]])
def test_numbers_are_not_converted(folder: Path, value: Any):
    change(folder / "nodes/0/node.json", order=value)
    assert "order: expected it to be a valid integer, got" in refused(folder)


def test_settings_of_a_file_pass_the_settings(folder: Path):
    path = folder / "nodes/0/node.json"
    change(path, settings=json.loads(path.read_text())["settings"] | {"sampling_steps": "__import__('os')"})
    assert "settings: sampling_steps: expected int, got" in refused(folder)


def sealed(folder: Path, stage: str, name: str, write: Callable[[Path], store.Stamp]) -> None:
    """Change a file of the first node and its stamp with it, as somebody would who means it."""
    path = folder / "nodes/0/node.json"
    stages = json.loads(path.read_text())["stages"]
    stages[stage]["files"][name] = write(folder / "nodes/0" / name)
    change(path, stages=stages)


@pytest.mark.parametrize(
    ("stage", "name", "value", "read"),
    [
        ("check", "check.json", [], lambda node: node.check),
        ("check", "check.json", {"health": {"checks": [1]}}, lambda node: node.check),
        ("embed", "features.npy", np.zeros(3, np.float32), lambda node: node.embedding.features),
        ("embed", "features.npy", np.array([["a"]] * 9), lambda node: node.embedding.features),
        ("embed", "measures.npz", {"a": np.zeros(3)}, lambda node: node.embedding.measures),
        ("refine", "losses.json", {"a": 1}, lambda node: node.losses),
    ],
)
def test_contents_of_another_kind_are_told_with_what_to_do(
    folder: Path, stage: str, name: str, value: Any, read: Callable[[Any], Any]
):
    sealed(folder, stage, name, lambda path: store.write_files(path.parent, {path.name: value})[path.name])
    with pytest.raises(StoreError, match=rf"damaged.*redo_stage\('{stage}', '0'\)"):
        read(Run.open(folder, read_only=True).root)


def test_an_archive_that_grows_is_refused(tmp_path: Path):
    np.savez_compressed(tmp_path / "bomb.npz", zeros=np.zeros(10**7))
    with pytest.raises(StoreError, match=r"bomb\.npz is damaged: expected a whole \.npz archive \(entries of 80,000"):
        store.read_arrays(tmp_path / "bomb.npz")
