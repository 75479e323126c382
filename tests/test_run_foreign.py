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
    assert "order: expected a valid integer, got" in refused(folder)


def test_settings_of_a_file_pass_the_settings(folder: Path):
    path = folder / "nodes/0/node.json"
    change(path, settings=json.loads(path.read_text())["settings"] | {"sampling_steps": "__import__('os')"})
    assert "settings: sampling_steps: expected int, got" in refused(folder)


def sealed(folder: Path, stage: str, name: str, write: Callable[[Path], store.Stamp]) -> None:
    """Change a file of the first node and its stamp with it, as somebody would who means it."""
    path = folder / "nodes/0/node.json"
    stages = json.loads(path.read_text())["stages"]
    stages.setdefault(stage, {"time": "", "seconds": 0, "files": {}})["files"][name] = write(folder / "nodes/0" / name)
    change(path, stages=stages)


@pytest.mark.parametrize(
    ("stage", "name", "value", "read"),
    [
        ("check", "check.json", [], lambda node: node.check),
        ("check", "check.json", {"health": {"checks": [1]}}, lambda node: node.check),
        ("embed", "features.npy", np.zeros(3, np.float32), lambda node: node.embedding.features),
        ("embed", "features.npy", np.array([["a"]] * 9), lambda node: node.embedding.features),
        ("embed", "measures.npz", {"a": np.zeros(3)}, lambda node: node.embedding.measures),
        ("embed", "features.npy", np.full((9, 6), np.nan, np.float32), lambda node: node.embedding.features),
        ("refine", "losses.json", {"a": 1}, lambda node: node.losses),
        ("refine", "losses.json", [], lambda node: node.losses),
        ("generate", "broken.json", {"9": "pixels"}, lambda node: node.intact),
        ("generate", "broken.json", {"a": "pixels"}, lambda node: node.intact),
        ("generate", "broken.json", {"1": "<b>"}, lambda node: node.broken),
        ("generate", "broken.json", {str(i): "pixels" for i in range(9)}, lambda node: node.broken),
        ("generate", "broken.json", None, lambda node: node.broken),
        ("generate", "gallery/003.npy", np.full((3, 8), np.nan), lambda node: node.images.latents([3])),
        ("segmentation", "segmentation.json", None, lambda node: node.embedding.segmentation),
        ("segmentation", "segmentation.json", {"threshold": "0", "separation": 1}, lambda n: n.embedding.segmentation),
        ("segmentation", "segmentation.json", {"reason": 3}, lambda node: node.embedding.segmentation),
    ],
)
def test_contents_of_another_kind_are_told_with_what_to_do(
    folder: Path, stage: str, name: str, value: Any, read: Callable[[Any], Any]
):
    sealed(folder, stage, name, lambda path: store.write_files(path.parent, {path.name: value})[path.name])
    with pytest.raises(StoreError, match=rf"damaged.*redo_stage\('{stage}', '0'\)"):
        read(Run.open(folder, read_only=True).root)


def test_a_forged_list_of_broken_images_is_made_again_as_its_error_says(folder: Path):
    sealed(folder, "generate", "broken.json", lambda path: store.write_json(path, {"99": "pixels"}))
    with Run.open(folder, fakes.fake_models()) as run:
        with pytest.raises(StoreError, match=r"broken.json: expected some of 9 images, got \[99\].*redo_stage"):
            _ = run.root.broken
        run.redo_stage("generate", "0")
        assert run.root.broken == {}
        assert run.models.drawn == [], "sound images are kept"


def forged_clusters(folder: Path, **entries: Any) -> None:
    """Change the first clusters of the first node, and their stamps in every edit."""
    place, edits = folder / "nodes/0", json.loads((folder / "nodes/0/edits.json").read_text())
    parts = {name: store.read_file(place / f"clusters-0.{name}") for name in ("json", "npz")}
    for name, value in entries.items():
        parts["json" if name in ("proposed", "reason") else "npz"][name] = value
    stamps = store.write_files(place, {f"clusters-0.{name}": part for name, part in parts.items()})
    for edit in edits["edits"]:
        edit["stamps"] = stamps
    store.write_json(place / "edits.json", edits)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"proposed": "0"}, "0: expected a valid integer"),
        ({"proposed": -1}, "greater than or equal to 0"),
        ({"proposed": 77}, "labels: expected whole numbers below"),
        ({"reason": None}, "1: expected a valid string"),
        ({"labels": np.full(9, -1)}, "labels: expected whole numbers"),
        ({"labels": np.zeros(9)}, "labels: expected whole numbers"),
        ({"labels": np.zeros(8, int)}, r"labels: expected finite numbers of shape \(9,\)"),
        ({"medoids": np.array([0, 1, 9])}, "medoids: expected whole numbers below 9"),
        ({"centroids": np.zeros((1, 6))}, "centroids: expected finite numbers of shape"),
        ({"cohesion": np.array(["a", "b", "c"])}, "cohesion: expected finite numbers"),
        ({"sizes": np.array(3)}, "len"),
    ],
)
def test_clusters_that_do_not_go_together_are_told(folder: Path, entries: dict[str, Any], said: str):
    forged_clusters(folder, **entries)
    with Run.open(folder, fakes.fake_models()) as run:
        with pytest.raises(StoreError, match=rf"{said}.*redo_stage\('cluster', '0'\)"):
            _ = run.root.clusters
        run.redo_stage("cluster", "0")
        assert run.root.clusters.k == 3


def test_an_archive_that_grows_is_refused(tmp_path: Path):
    np.savez_compressed(tmp_path / "bomb.npz", zeros=np.zeros(10**7))
    with pytest.raises(StoreError, match=r"bomb\.npz is damaged: expected a whole \.npz archive \(entries of 80,000"):
        store.read_arrays(tmp_path / "bomb.npz")
