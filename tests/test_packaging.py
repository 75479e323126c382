"""What installs the kit: pyproject, environment.yml and the constraints agree; importing is light."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"pytorch": "torch"}


def requirements() -> dict[str, str]:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(re.fullmatch(r"([a-z-]+)(>=.+)", line).groups() for line in listed)


def test_environment_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    listed = [line for line in environment["dependencies"] if isinstance(line, str)]
    bounds = dict(re.fullmatch(r"([a-z-]+)(.*)", line).groups() for line in listed)
    assert bounds.pop("python") == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert bounds.pop("pip") == ""
    assert {CONDA_NAMES.get(name, name): bound for name, bound in bounds.items()} == requirements()


def test_constraints_pin_every_requirement():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    assert set(requirements()) <= set(pins)


def test_importing_loads_neither_torch_nor_plotly():
    code = "import sys, chosen_one_nb; print(sorted({'torch', 'plotly', 'umap', 'ipywidgets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
