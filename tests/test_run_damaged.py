"""Damaged files are named, and made again."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import fakes, runs

from chosen_one_nb.run.run import STAGES, Run, RunError
from chosen_one_nb.run.store import StoreError

pytestmark = runs.SMALL_CLUSTERS
quick_steps, models, run, finished, undisturbed = (
    runs.quick_steps,
    runs.models,
    runs.run,
    runs.finished,
    runs.undisturbed,
)


DAMAGE = {
    "generate": ["gallery/003.png", "gallery/003.npy"],
    "embed": ["features.npy", "measures.npz"],
    "check": ["check.json"],
    "cluster": ["clusters-0.npz", "clusters-0.json"],
    "refine": ["losses.json", "theta/pytorch_lora_weights.safetensors"],
}


def _read(run: Run, name: str) -> Any:
    node = run.root
    ways = {
        "gallery/003.png": lambda: list(node.images),
        "gallery/003.npy": lambda: node.images.latents([3]),
        "features.npy": lambda: node.embedding.features,
        "measures.npz": lambda: node.embedding.measures,
        "check.json": lambda: node.check,
        "clusters-0.npz": lambda: node.clusters,
        "clusters-0.json": lambda: node.clusters,
        "losses.json": lambda: node.losses,
        "theta/pytorch_lora_weights.safetensors": lambda: node.theta,
    }
    return ways[name]()


@pytest.mark.parametrize("how", ["truncated", "missing", "changed"])
@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, names in DAMAGE.items() for name in names])
def test_a_damaged_file_is_named_and_mended(
    tmp_path: Path, finished: tuple[Path, dict[str, Any]], stage: str, name: str, how: str
):
    whole, undisturbed = finished
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run/nodes/0" / name
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(data[: len(data) // 2] if how == "truncated" else data[:-9] + b"X" + data[-8:])
    with Run.open(tmp_path / "run", fakes.fake_models()) as run:
        with pytest.raises(StoreError, match=rf"{re.escape(path.name)} is (damaged|missing).*") as caught:
            _read(run, name)
        assert f"run.redo_stage('{stage}', '0')" in str(caught.value)
        run.redo_stage(stage, "0")
        _read(run, name)
        assert runs.shown(run) == undisturbed


def test_a_damaged_node_file_is_named(run: Run):
    run.next_iteration()
    run.close()
    path = run.folder / "nodes/0/node.json"
    path.write_text(path.read_text()[:100])
    with pytest.raises(StoreError, match=r"node\.json is damaged.*Put back a sound copy"):
        Run.open(run.folder)


def test_redoing_a_stage_that_comes_out_otherwise_drops_what_came_after(run: Run, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.embed as embedding

    run.next_iteration()
    real = embedding.embed
    other = lambda *a, **k: type("F", (), {"cls": real(*a, **k).cls + 1})  # noqa: E731
    monkeypatch.setattr(embedding, "embed", other)
    run.redo_stage("embed")
    assert run.current.stages_done == ("generate", "embed")
    assert run.next_stage == "check"


def test_redoing_keeps_what_other_nodes_were_made_from(run: Run, monkeypatch: pytest.MonkeyPatch):
    import chosen_one_nb.steps.embed as embedding

    run.next_iteration()
    run.step()
    real = embedding.embed
    monkeypatch.setattr(embedding, "embed", lambda *a, **k: type("F", (), {"cls": real(*a, **k).cls + 1}))
    run.redo_stage("embed", "0")
    assert run.root.stages_done == STAGES
    assert "differs" in set(run.tables.history()["action"])


def test_only_finished_stages_are_redone(run: Run):
    with pytest.raises(RunError, match="Expected a finished stage of node 0, got 'embed'"):
        run.redo_stage("embed")
    with pytest.raises(RunError, match="Expected a finished stage"):
        run.redo_stage("dance")
