"""The Chosen One in a notebook: from a prompt to one consistent character, every stage open to look at.

`import chosen_one_nb` is quick and loads neither torch nor plotly; the names below are fetched when first
used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import load_models
    from chosen_one_nb.run.run import Run
    from chosen_one_nb.settings import Settings
    from chosen_one_nb.widgets.explorer import Explorer

__version__ = "0.2.0"
__all__ = ["Character", "Explorer", "Run", "Settings", "__version__", "load_models"]

_HOMES = {
    "Character": "chosen_one_nb.character",
    "Explorer": "chosen_one_nb.widgets.explorer",
    "Run": "chosen_one_nb.run.run",
    "Settings": "chosen_one_nb.settings",
    "load_models": "chosen_one_nb.models.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'chosen_one_nb' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
