from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.store import Lock, RunInUse, StoreError

pytestmark = pytest.mark.usefixtures("real_fsync")

RED = Image.new("RGB", (4, 3), (255, 0, 0))


def test_what_is_written_is_read_back(tmp_path: Path):
    stamp = store.write_json(tmp_path / "a.json", {"prompt": "füchslein", "n": 3})
    assert store.read_json(tmp_path / "a.json", stamp) == {"prompt": "füchslein", "n": 3}
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    stamp = store.write_array(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(store.read_array(tmp_path / "a.npy", stamp), array)
    stamp = store.write_arrays(tmp_path / "a.npz", {"x": array, "y": np.array([True])})
    assert store.read_arrays(tmp_path / "a.npz", stamp)["y"].tolist() == [True]


def test_a_image_keeps_its_pixels_and_what_is_said_of_it(tmp_path: Path):
    stamp = store.write_image(tmp_path / "a.png", RED, {"seed": "7", "prompt": "лиса 🦊"})
    image = store.read_image(tmp_path / "a.png", stamp)
    assert image.tobytes() == RED.tobytes()
    assert image.info["seed"] == "7"
    assert image.info["prompt"] == "лиса 🦊"


def test_the_same_thing_written_twice_has_the_same_stamp(tmp_path: Path):
    arrays = {"x": np.arange(3)}
    assert store.write_arrays(tmp_path / "a.npz", arrays) == store.write_arrays(tmp_path / "b.npz", arrays)
    assert store.write_image(tmp_path / "a.png", RED, {}) == store.write_image(tmp_path / "b.png", RED, {})


def test_pickle_is_never_written_nor_read(tmp_path: Path):
    with pytest.raises(ValueError, match="allow_pickle"):
        store.write_array(tmp_path / "a.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "b.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"b\.npy is damaged"):
        store.read_array(tmp_path / "b.npy")


def _write_then(tmp_path: Path, name: str) -> tuple[Path, dict]:
    path = tmp_path / name
    writers = {
        "json": lambda: store.write_json(path, {"a": list(range(50))}),
        "npy": lambda: store.write_array(path, np.arange(50)),
        "npz": lambda: store.write_arrays(path, {"x": np.arange(50)}),
        "png": lambda: store.write_image(path, RED, {}),
    }
    return path, writers[name.split(".")[1]]()


READ = {"json": store.read_json, "npy": store.read_array, "npz": store.read_arrays, "png": store.read_image}


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("checked", [True, False])
def test_a_truncated_file_is_named(tmp_path: Path, kind: str, checked: bool):
    path, stamp = _write_then(tmp_path, f"a.{kind}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StoreError, match=rf"a\.{kind} is damaged: expected") as caught:
        READ[kind](path, stamp if checked else None)
    assert caught.value.path == path


@pytest.mark.parametrize("kind", READ)
def test_a_changed_byte_is_noticed(tmp_path: Path, kind: str):
    path, stamp = _write_then(tmp_path, f"a.{kind}")
    data = bytearray(path.read_bytes())
    data[-15] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="checksum differs"):
        READ[kind](path, stamp)


@pytest.mark.parametrize("kind", READ)
def test_a_missing_file_is_named(tmp_path: Path, kind: str):
    with pytest.raises(StoreError, match=rf"a\.{kind} is missing"):
        READ[kind](tmp_path / f"a.{kind}")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_the_system_refuses_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    path = tmp_path / "a.json"
    store.write_json(path, "old")

    def refuse(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StoreError, match=r"what was stored before is untouched"):
        store.write_json(path, "new")
    monkeypatch.undo()
    assert store.read_json(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"The disk is full: .*a\.json needs 6 bytes"):
        store.write_json(tmp_path / "a.json", "abc")


def test_ctrl_c_while_writing_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.json"
    store.write_json(path, "old")

    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.write_json(path, "new")
    assert store.read_json(path) == "old"


def test_a_folder_that_is_gone_is_told(tmp_path: Path):
    with pytest.raises(StoreError, match="is gone"):
        store.write_json(tmp_path / "gone" / "a.json", 1)


def test_sweeping_takes_what_was_half_written_and_nothing_else(tmp_path: Path):
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / ".a.png.part").write_bytes(b"half")
    (tmp_path / "nodes" / ".theta.part").mkdir()
    (tmp_path / "nodes" / ".theta.part" / "x").write_bytes(b"half")
    store.write_json(tmp_path / "nodes" / "a.json", 1)
    store.sweep(tmp_path)
    assert [path.name for path in (tmp_path / "nodes").iterdir()] == ["a.json"]


def test_a_log_keeps_its_whole_lines(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    store.append_line(path, {"action": "choose"})
    store.append_line(path, {"action": "undo"})
    with open(path, "ab") as file:
        file.write(b'{"action": "torn')
    assert [line["action"] for line in store.read_lines(path)] == ["choose", "undo"]
    assert store.read_lines(tmp_path / "none.jsonl") == []


def test_a_line_after_a_torn_one_is_not_lost(tmp_path: Path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"action": "torn')
    store.append_line(path, {"action": "undo"})
    assert [line["action"] for line in store.read_lines(path)] == ["undo"]


def test_plain_makes_json_of_numpy_and_nan():
    found = store.plain({"a": np.float32(0.5), "b": (np.int64(1), float("nan")), "c": np.array([True]), 3: None})
    assert json.loads(json.dumps(found, allow_nan=False)) == {"a": 0.5, "b": [1, None], "c": [True], "3": None}


# --- the lock

HOLD = """
import sys, time
from pathlib import Path
from chosen_one_nb.run.store import Lock
lock = Lock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_has_the_folder(tmp_path: Path, holder: subprocess.Popen):
    with pytest.raises(RunInUse, match=rf"in use by process {holder.pid} on .*read_only=True"):
        Lock(tmp_path).acquire()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path, holder: subprocess.Popen):
    holder.kill()
    holder.wait()
    lock = Lock(tmp_path)
    lock.acquire()
    assert store.read_json(tmp_path / "lock.json")["pid"] == os.getpid()
    lock.release()
    assert not (tmp_path / "lock.json").exists()


def test_a_lock_file_left_by_an_old_process_does_not_lock(tmp_path: Path):
    (tmp_path / ".lock").touch()
    store.write_json(tmp_path / "lock.json", {"pid": 1, "host": "elsewhere", "since": "2020-01-01T00:00:00Z"})
    lock = Lock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()


def test_a_lock_whose_holder_cannot_be_read_still_holds(tmp_path: Path, holder: subprocess.Popen):
    (tmp_path / "lock.json").write_text("{")
    with pytest.raises(RunInUse, match="in use by another process"):
        Lock(tmp_path).acquire()
