"""Where the data is that comes with the package: the miniature, the example run, the attribute vocabularies."""

from __future__ import annotations

from pathlib import Path

__all__ = ["bundled"]


def bundled(*parts: str) -> Path:
    """Return a path in the bundled data: inside the package in a wheel, beside it in a checkout.

    Examples
    --------
    >>> bundled("menagerie", "clip", "config.json").is_file()
    True
    """
    package = Path(__file__).parents[1]
    inside = package / "data"
    return (inside if inside.is_dir() else package.parent / "data").joinpath(*parts)
