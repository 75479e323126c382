"""The same features laid out nine times: what changes from map to map is not in the data."""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from .page import FAINT, Page, fitted
from .signs import INK, Marks

if TYPE_CHECKING:
    from chosen_one_nb.looking.maps import Map

SIDE, GAP = 120, 26


def variants_picture(maps: Sequence[Map], marks: Marks) -> Image.Image:
    """Draw small maps in a row per number of neighbours, a column per seed.

    Parameters
    ----------
    maps : sequence of Map
        As `chosen_one_nb.looking.maps.sensitivity` gives them.
    marks : Marks
        Of the points; numbers instead of colours are drawn in grey.
    """
    columns = len({made.seed for made in maps})
    page = Page(columns * (SIDE + 8) + 8, -(-len(maps) // columns) * (SIDE + GAP) + 8)
    for i, made in enumerate(maps):
        corner = (8 + (i % columns) * (SIDE + 8), 4 + (i // columns) * (SIDE + GAP))
        _draw(page, made, marks, corner)
    return page.finished(page.height)


def _draw(page: Page, made: Map, marks: Marks, corner: tuple[int, int]) -> None:
    page.box((*corner, corner[0] + SIDE, corner[1] + SIDE), "#D8D8D8")
    spots = fitted(made.positions, corner, SIDE, edge=8)
    for at, colour, symbol in zip(spots, marks.colour, marks.symbol, strict=True):
        page.mark(at, symbol, colour if isinstance(colour, str) else INK, 2.6)
    page.text(
        (corner[0], corner[1] + SIDE + 3),
        f"{made.n_neighbors} neighbours, seed {made.seed}",
        size=11,
        colour=FAINT,
    )


def as_html(image: Image.Image, alt: str) -> str:
    """Write a picture as an HTML image; `alt` must not hold markup."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = b64encode(buffer.getvalue()).decode()
    return f'<img alt="{alt}" src="data:image/png;base64,{data}" style="max-width:100%;border-radius:8px">'
