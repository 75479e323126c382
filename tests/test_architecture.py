"""Who may import whom, and that nothing of the method looks at the truth."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "chosen_one_nb"
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules(*parts: str) -> list[Path]:
    return [path for path in MODULES if any(path.relative_to(PACKAGE).as_posix().startswith(part) for part in parts)]


@pytest.mark.parametrize("path", modules("steps/", "analysis/"), ids=lambda path: path.stem)
def test_steps_and_analysis_know_no_widgets_and_no_run(path):
    forbidden = ("ipywidgets", "anywidget", "chosen_one_nb.widgets", "chosen_one_nb.run.run", "chosen_one_nb.run.store")
    assert not {name for name in imports(path) if name.startswith(forbidden)}


@pytest.mark.parametrize("path", [p for p in MODULES if "widgets" not in p.parts], ids=lambda path: path.stem)
def test_nothing_below_the_widgets_imports_them(path):
    known = {"__init__.py", "cli.py"}
    names = {name for name in imports(path) if name.startswith(("chosen_one_nb.widgets", "ipywidgets", "anywidget"))}
    assert not names or path.name in known


@pytest.mark.parametrize("path", [p for p in MODULES if p], ids=lambda path: path.stem)
def test_the_method_never_looks_at_the_truth(path):
    assert not {name for name in imports(path) if name.startswith("menagerie")}


def test_no_branch_asks_for_the_miniature():
    for path in modules("steps/", "analysis/", "run/", "widgets/"):
        names = {node.id for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name)}
        assert not {name for name in names if "toy" in name.lower() or "menagerie" in name.lower()}, path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_pitfall_22_only_what_libraries_publish_is_imported(path):
    """What begins with an underscore may go in any release; two of PyTorch's own have no public place yet."""
    without = ("torch.utils._python_dispatch", "torch.utils._pytree", "chosen_one_nb", "__future__")
    foreign = {name for name in imports(path) if not name.startswith(without)}
    assert not [name for name in foreign if any(part.startswith("_") for part in name.split("."))]
