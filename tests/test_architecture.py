"""Who may import whom: one direction, no circles, no class name twice, and nothing of the method looks at the truth."""

import ast
import graphlib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "chosen_one_nb"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """Absolute names of all that a file imports, under TYPE_CHECKING and inside functions too."""
    package = module_name(path).split(".") if path.name == "__init__.py" else module_name(path).split(".")[:-1]
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base} | {f"{base}.{alias.name}" for alias in node.names}
    return found


def imported_modules(path: Path) -> set[str]:
    """Modules of the package that a file imports; `from package import module` means the module alone."""
    names = {name for name in imports(path) if name in MODULES and name != module_name(path)}
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def files_in(*folders: str) -> list[Path]:
    return [path for path in FILES if path.relative_to(PACKAGE).parts[0] in folders]


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def test_there_are_no_circles_of_imports():
    order = graphlib.TopologicalSorter({name: imported_modules(path) for name, path in MODULES.items()})
    try:
        order.prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_no_class_name_stands_twice():
    homes = defaultdict(list)
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(name_of(path))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


@pytest.mark.parametrize("path", files_in("steps", "analysis"), ids=name_of)
def test_steps_and_analysis_know_no_widgets_and_no_run(path):
    forbidden = ("ipywidgets", "anywidget", "chosen_one_nb.widgets", "chosen_one_nb.run")
    assert not {name for name in imports(path) if name.startswith(forbidden)}


@pytest.mark.parametrize("path", [path for path in FILES if "widgets" not in path.parts], ids=name_of)
def test_nothing_below_the_widgets_imports_them(path):
    names = {name for name in imports(path) if name.startswith(("chosen_one_nb.widgets", "ipywidgets", "anywidget"))}
    assert not names or name_of(path) in ("__init__.py", "cli.py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_method_never_looks_at_the_truth(path):
    assert not {name for name in imports(path) if name.split(".")[0] in ("menagerie", "tools")}


def test_no_branch_asks_for_the_miniature():
    for path in files_in("steps", "analysis", "run", "widgets"):
        names = {node.id for node in ast.walk(TREES[path]) if isinstance(node, ast.Name)}
        assert not {name for name in names if "toy" in name.lower() or "menagerie" in name.lower()}, path


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_what_libraries_publish_is_imported(path):
    """What begins with an underscore may go in any release; two of PyTorch's own have no public place yet."""
    without = ("torch.utils._python_dispatch", "torch.utils._pytree", "chosen_one_nb", "__future__")
    foreign = {name for name in imports(path) if not name.startswith(without)}
    assert not [name for name in foreign if any(part.startswith("_") for part in name.split("."))]
