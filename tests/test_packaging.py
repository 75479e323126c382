"""What installs the kit: pyproject, environment.yml and the constraints agree; importing is light."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
CONDA_NAMES = {"pytorch": "torch"}


def requirements() -> dict[str, str]:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dict(re.fullmatch(r"([a-z0-9-]+)(>=.+)", line).groups() for line in listed)


def test_environment_equals_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(environment) == {"name", "channels", "dependencies"}
    listed = [line for line in environment["dependencies"] if isinstance(line, str)]
    bounds = dict(re.fullmatch(r"([a-z0-9-]+)(.*)", line).groups() for line in listed)
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


FROM_ELSEWHERE = """
import importlib.util, sys
from pathlib import Path

sys.path[:] = [sys.argv[1], *(place for place in sys.path if not Path(place, "chosen_one_nb").is_dir())]
import chosen_one_nb
from chosen_one_nb import Run, cli

assert Path(chosen_one_nb.__file__).is_relative_to(sys.argv[1]), chosen_one_nb.__file__
assert not any(importlib.util.find_spec(name) for name in ("menagerie", "tools")), "more than the package"
"""
TINY_RUN = """
few = "n_images=2 target_cluster_size=2 min_cluster_size=1 sampling_steps=1 refine_steps=1 max_iterations=1"
sys.exit(cli.main(["run", "a fox", "--folder", "fox", "--quiet", "--set", "drift_limit=null", *few.split()]))
"""
EXAMPLE = """
run = Run.example()
assert len(run.root.images) == run.root.settings.n_images
assert "menagerie" in str(run.attributes.vocabulary_file), run.attributes.vocabulary_file
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what is here."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], check=True, cwd=ROOT)
    return next(folder.glob("*.whl"))


@pytest.mark.parametrize("script", [TINY_RUN, EXAMPLE], ids=["a run with the bundled models", "the example run"])
def test_an_installed_wheel_works_without_the_checkout(script: str, wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")  # as pip does
    done = subprocess.run([sys.executable, "-I", "-c", FROM_ELSEWHERE + script, tmp_path / "site"],
                          capture_output=True, text=True, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wheel_holds_the_package_its_types_and_its_data_only(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"chosen_one_nb", f"chosen_one_nb-{version()}.dist-info"}
    assert "chosen_one_nb/py.typed" in names
    held = {"/".join(name.split("/")[2:4]) for name in names if name.startswith("chosen_one_nb/data/")}
    poses = {f"poses/{path.name}" for path in (ROOT / "data" / "poses").glob("*.json")}
    assert len(poses) >= 10
    assert held == poses | {"attributes.json", "attributes_menagerie.json", "menagerie/README.md", "menagerie/clip",
                            "menagerie/controlnet", "menagerie/dinov2", "menagerie/few_steps", "menagerie/ip_adapter",
                            "menagerie/pipeline", "runs/fox"}  # fmt: skip


def version() -> str:
    import chosen_one_nb

    return chosen_one_nb.__version__


def test_one_version_everywhere():
    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == version()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version()
