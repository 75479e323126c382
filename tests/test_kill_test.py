"""Work that is killed at random moments and gone on with ends as if it had not been: a share of tools/kill_test.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# In a process of its own, which has no threads yet that a fork could not take along; on steps that take no time.
KILL = """
import sys
import pytest
from helpers import fakes
from tools import kill_test
fakes.install(pytest.MonkeyPatch())
sys.exit(kill_test.main(sys.argv[1:], fakes.fake_models()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_runs_and_explorers_survive_kills() -> None:
    command = [sys.executable, "-W", "ignore", "-c", KILL, "--kills", "6", "--kinds", "run", "explorer"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert "all           6 of    6" in done.stdout
