"""Write the API pages from the docstrings: ``python tools/api_pages.py site``."""

from __future__ import annotations

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import chosen_one_nb


def main(folder: Path) -> None:
    """Write a page for each module of the package; pdoc alone would list only what ``__all__`` names."""
    for name in chosen_one_nb.__all__:  # fetched when first used, so pdoc would not find them
        setattr(chosen_one_nb, name, getattr(chosen_one_nb, name))
    parts = [module.name for module in pkgutil.iter_modules(chosen_one_nb.__path__) if module.name != "__main__"]
    chosen_one_nb.__all__ += parts
    warnings.filterwarnings("error", "Found .* does not resolve")  # a page that lacks something
    pdoc.render.configure(docformat="numpy")
    pdoc.pdoc(chosen_one_nb.__name__, output_directory=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
