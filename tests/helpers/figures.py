"""What a person does on a figure of the explorer, as figure.js tells the kernel of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def hover(figure: Any, index: int) -> None:
    """Move the pointer onto a point."""
    figure.hovered = index


def click(figure: Any, index: int) -> None:
    """Click a point."""
    figure._handle_custom_msg({"do": "click", "index": index}, [])


def lasso(figure: Any, indices: Iterable[int], how: str = "") -> None:
    """Draw a lasso around points; around none to take it away."""
    figure._handle_custom_msg({"do": "select", "indices": sorted(indices), "how": how}, [])
