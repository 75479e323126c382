"""Make the environment of this kit: ``python3 tools/set_up.py``. Doing it twice does nothing the second time.

Needs nothing but Python's own library. Every failure ends in one sentence that says what to do.
"""

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
PYTHON = ENVIRONMENT / ("Scripts" if sys.platform == "win32" else "bin") / "python"
STAMP = ENVIRONMENT / "set-up-of"
NEEDED_GB = 6


def fail(sentence: str) -> None:
    """End with a sentence on the error stream and exit status 1."""
    sys.exit(f"set-up: {sentence}")


def check() -> None:
    """Look for what would fail later: an old Python, one that cannot make environments, a full disk."""
    if sys.version_info < (3, 11):  # noqa: UP036, this file runs before anything has checked
        fail(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}. Try: make PYTHON=python3.12 lab")
    for module in ("venv", "ensurepip"):  # Debian's Python comes without
        if importlib.util.find_spec(module) is None:
            fail(f"this Python cannot make environments, its module {module} is missing. On Debian and Ubuntu: "
                 f"sudo apt install python3.{sys.version_info[1]}-venv, elsewhere take a Python from python.org; "
                 "then run it again.")  # fmt: skip
    free, held = shutil.disk_usage(ROOT).free / 1e9, gigabytes(ENVIRONMENT)
    if free + held < NEEDED_GB:
        fail(f"about {NEEDED_GB} GB of disk are needed here, {free:.1f} GB are free and {ENVIRONMENT.name} holds "
             f"{held:.1f} GB. Make room, then run it again.")  # fmt: skip


def gigabytes(folder: Path) -> float:
    """Size of what lies in a folder, in GB of a thousand million bytes; 0 where there is none."""
    return sum(path.lstat().st_size for path in folder.rglob("*")) / 1e9


def fingerprint() -> str:
    """A digest of everything that decides what is installed."""
    files = (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def install() -> None:
    """Create the environment, keeping what is there, and install the kit in the versions of constraints.txt."""
    import venv  # here, because not every Python has it: `check` says so first

    print(f"set-up: creating {ENVIRONMENT.name} with Python {sys.version.split()[0]}", flush=True)
    try:
        venv.create(ENVIRONMENT, with_pip=True, clear=False)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"creating {ENVIRONMENT} failed: {error}. Delete that folder and run it again.")
    print("set-up: installing the kit and what it needs (several minutes the first time)", flush=True)
    command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint",
               ROOT / "constraints.txt", "--editable", f"{ROOT}[test]"]  # fmt: skip
    if subprocess.run(command, check=False).returncode:
        fail("installing failed; pip's message above says why. Without a network connection it cannot work; "
             "otherwise mend what it names and run the same command again.")  # fmt: skip


def main() -> None:
    """Set up once; say so when there is nothing to do. What a failed try left is checked and gone on with."""
    if STAMP.exists() and STAMP.read_text() == fingerprint():
        print("set-up: nothing to do")
        return
    check()
    install()
    STAMP.write_text(fingerprint())
    print("set-up: done")


if __name__ == "__main__":
    main()
