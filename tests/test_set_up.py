"""``tools/set_up.py``: what cannot work is told at the start, a failed try is gone on with, and done is done."""

import importlib.util
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_an_old_python_is_told_so():
    code = (
        "import sys; sys.path.insert(0, 'tools'); sys.version_info = (3, 9, 0); sys.version = '3.9.0 (x)'\n"
        "import set_up; set_up.check()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed, this is 3.9.0" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """The tool on an empty folder with room on the disk, a venv that is only a folder, and a pip that succeeds.

    `tool.calls` lists what was done; `tool.rc` is what pip will answer.
    """
    spec = importlib.util.spec_from_file_location("set_up", ROOT / "tools" / "set_up.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.ENVIRONMENT, tool.STAMP = tmp_path / ".venv", tmp_path / ".venv" / "set-up-of"
    tool.calls, tool.rc = [], 0

    def create(folder, **keys):
        tool.calls.append("create")
        folder.mkdir(exist_ok=True)

    def pip(command, **keys):
        tool.calls.append("pip")
        return SimpleNamespace(returncode=tool.rc)

    monkeypatch.setattr(venv, "create", create)
    monkeypatch.setattr(subprocess, "run", pip)
    room(monkeypatch, 50.0)
    return tool


def room(monkeypatch, gigabytes):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=gigabytes * 1e9))


def test_the_second_time_there_is_nothing_to_do(tool, capsys):
    tool.main()
    assert tool.calls == ["create", "pip"]
    assert capsys.readouterr().out.endswith("set-up: done\n")
    tool.main()
    assert tool.calls == ["create", "pip"]
    assert capsys.readouterr().out == "set-up: nothing to do\n"


def test_other_constraints_are_installed_anew(tool, monkeypatch):
    tool.main()
    monkeypatch.setattr(tool, "fingerprint", lambda: "another")
    tool.main()
    assert tool.calls == ["create", "pip"] * 2


def test_a_failed_install_is_told_and_tried_again(tool):
    tool.rc = 1
    with pytest.raises(SystemExit, match="installing failed; pip's message above says why"):
        tool.main()
    assert not tool.STAMP.exists()
    tool.rc = 0
    tool.main()
    assert tool.calls == ["create", "pip"] * 2
    assert tool.STAMP.exists()


@pytest.mark.parametrize("there", [False, True])
def test_too_little_disk_is_told_before_anything_is_done(tool, monkeypatch, there):
    if there:
        tool.ENVIRONMENT.mkdir()  # of a first try that failed, or made by hand
    room(monkeypatch, 1.25)
    with pytest.raises(SystemExit, match=r"about 6 GB of disk are needed here, 1\.2 GB are free"):
        tool.main()
    assert tool.calls == []


def test_what_is_installed_already_needs_no_room_again(tool, monkeypatch):
    tool.ENVIRONMENT.mkdir()
    with (tool.ENVIRONMENT / "torch").open("wb") as file:
        file.truncate(5_000_000_000)  # holds nothing, so it takes no disk
    room(monkeypatch, 1.25)
    tool.main()
    assert tool.calls == ["create", "pip"]


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_environments_is_told_so(tool, monkeypatch, module):
    tool.ENVIRONMENT.mkdir()
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(SystemExit, match=rf"its module {module} is missing.*sudo apt install python3\.\d+-venv"):
        tool.main()
    assert tool.calls == []


def test_an_environment_that_cannot_be_made_is_told(tool, monkeypatch):
    def create(folder, **keys):
        raise subprocess.CalledProcessError(1, ["python", "-m", "ensurepip"])

    monkeypatch.setattr(venv, "create", create)
    with pytest.raises(SystemExit, match=r"creating .*\.venv failed: .*ensurepip.* Delete that folder"):
        tool.main()
    assert tool.calls == []
