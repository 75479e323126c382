"""A run as static images: a contact sheet per iteration, the distance curve, the character in contexts.

They need no widget and no browser, so they stand in saved notebooks; `python -m chosen_one_nb show` writes
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from chosen_one_nb.plots import chart_image, colour_of, curve_chart, font
from chosen_one_nb.run import store

if TYPE_CHECKING:
    from chosen_one_nb.analysis.counterfactual import Counterfactual
    from chosen_one_nb.run.node import Node
    from chosen_one_nb.run.run import Run

GAP = 4
LETTERS = 12
CHOSEN = "#009E73"


def contact_sheet(
    images: Sequence[Image.Image],
    *,
    columns: int | None = None,
    tile: int = 96,
    captions: Sequence[str] | None = None,
    frames: Sequence[str | None] | None = None,
    title: str = "",
) -> Image.Image:
    """Put images in rows on white.

    Parameters
    ----------
    images : sequence of PIL.Image
    columns : int, optional
        Images in a row; None makes the sheet about twice as wide as high.
    tile : int
        Side of each, in pixels.
    captions : sequence of str, optional
        A line under each.
    frames : sequence of str or None, optional
        Colour of a frame around each; None for no frame.
    title : str
        A line above.

    Returns
    -------
    PIL.Image
        RGB.
    """
    columns = columns or max(1, round((2 * len(images)) ** 0.5))
    rows = max(1, -(-len(images) // columns))
    step = (tile + GAP, tile + GAP + (LETTERS + 4 if captions else 0))
    top = LETTERS * 2 if title else 0
    sheet = Image.new("RGB", (columns * step[0] + GAP, top + rows * step[1] + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP, LETTERS * 1.5), title, fill="#333333", font=font(LETTERS + 2), anchor="ls")
    for i, image in enumerate(images):
        x, y = GAP + (i % columns) * step[0], top + GAP + (i // columns) * step[1]
        sheet.paste(fitted(image, tile), (x, y))
        if frames and frames[i]:
            pen.rectangle((x - 2, y - 2, x + tile + 1, y + tile + 1), outline=frames[i], width=3)
        if captions:
            pen.text((x, y + tile + LETTERS), captions[i], fill="#333333", font=font(LETTERS), anchor="ls")
    return sheet


def fitted(image: Image.Image, side: int) -> Image.Image:
    """Return an image as an RGB square of ``side`` pixels; small ones are enlarged without blur."""
    small = image.width < side and side % image.width == 0
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((side, side), how)


def gallery_sheet(node: Node, *, tile: int = 96) -> Image.Image:
    """Show a node's gallery: index and cluster under each image, the chosen ones framed and named.

    Sorted by cluster, most cohesive first, once there are clusters.
    """
    order = list(range(len(node.images)))
    captions, frames = [str(i) for i in order], None
    clusters, decision = node.clusters, node.decision
    if clusters is not None:
        chosen = set(decision.images if decision else ())
        rank = {int(cluster): place for place, cluster in enumerate(clusters.order)}
        order.sort(key=lambda i: (rank[int(clusters.labels[i])], clusters.distances[i]))
        captions = [f"{i} · {clusters.labels[i]}{' chosen' if i in chosen else ''}" for i in order]
        frames = [CHOSEN if i in chosen else None for i in order]
    images = [node.images[i] for i in order]
    return contact_sheet(images, tile=tile, captions=captions, frames=frames, title=sentence(node))


def or_dash(value: float, form: str) -> str:
    """Write a number, or a dash where there is none: a single image has no corrected cohesion.

    >>> or_dash(0.25, ".3f"), or_dash(float("nan"), ".3f")
    ('0.250', '–')
    """
    return "–" if np.isnan(value) else f"{value:{form}}"


def sentence(node: Node) -> str:
    """Say in a line what a node is."""
    parts = [f"Node {node.id}, iteration {node.iteration}"]
    if node.convergence:
        parts.append(f"distance {node.convergence.distance:.3f} ({node.convergence.ratio:.0%} of the first)")
    if node.decision:
        what = "images by hand" if node.decision.cluster is None else f"cluster {node.decision.cluster}"
        parts.append(f"{len(node.decision.images)} chosen: {what}, by {node.decision.by}")
    return " · ".join([*parts, node.state])


def curve_image(run: Run, *, scale: int = 2) -> Image.Image:
    """Draw the distance curve of all branches against d_conv."""
    return chart_image(curve_chart(run.curve().to_dict("records")), scale=scale)


def context_sheet(by_context: Mapping[str, Sequence[Image.Image]], *, tile: int = 128, title: str = "") -> Image.Image:
    """Show by_context by context: a column each, the context under its by_context.

    Parameters
    ----------
    by_context : mapping of str to sequence of PIL.Image
        As of `Run.contexts`.
    tile : int
        Side of each image, in pixels.
    title : str
        A line above.
    """
    rows = max((len(column) for column in by_context.values()), default=0)
    blank, images, captions = Image.new("RGB", (tile, tile), "white"), [], []
    for row in range(rows):
        images += [column[row] if row < len(column) else blank for column in by_context.values()]
        captions += [context if row == len(column) - 1 else "" for context, column in by_context.items()]
    return contact_sheet(images, columns=len(by_context), tile=tile, captions=captions, title=title)


def counterfactual_sheet(proof: Counterfactual, *, tile: int = 64) -> Image.Image:
    """Show what came of asking for opposites: a row for each, the base model's images and, after a gap, Θ's.

    Parameters
    ----------
    proof : Counterfactual
        Of `Run.counterfactual`; images that stand at the same place on either side have the same seed.
    tile : int
        Side of each image, in pixels.

    Returns
    -------
    PIL.Image
        RGB; only a title where nothing was asked for.
    """
    half = max((len(base) for base, _ in proof.images.values()), default=0)
    blank, images, captions = Image.new("RGB", (tile, tile), "white"), [], []
    for opposite, sides in proof.images.items():
        for side, words in zip(sides, (f"{opposite}: base model", "the character"), strict=True):
            images += [*side, *[blank] * (half + 1 - len(side))]
            captions += [words, *[""] * half]
    title = f"Asked: {', '.join(proof.images)}" if proof.images else "Nothing to prove: no opposite is known."
    return contact_sheet(images, columns=2 * (half + 1), tile=tile, captions=captions, title=title)


def map_sheet(
    positions: np.ndarray, images: Sequence[Image.Image], labels: Sequence[int] = (), *, size: int = 640, tile: int = 44
) -> Image.Image:
    """Put each image at its place on a map of the features.

    Parameters
    ----------
    positions : ndarray of shape (N, 2)
        As `chosen_one_nb.analysis.projection.project` gives them; the second axis points upwards.
    images : sequence of N PIL.Image
    labels : sequence of N int, optional
        Clusters: an image's frame has its cluster's colour.
    size : int
        Width and height in pixels.
    tile : int
        Side of each image, in pixels.

    Returns
    -------
    PIL.Image
        RGB.
    """
    room = size - tile - 2 * GAP
    low, span = positions.min(axis=0), max(float(np.ptp(positions, axis=0).max()), 1e-9)
    places = ((positions - low) / span * room + GAP).round().astype(int)
    sheet = Image.new("RGB", (size, size), "white")
    pen = ImageDraw.Draw(sheet)
    for i, (x, y) in enumerate(places):
        corner = int(x), int(size - tile - y)
        sheet.paste(fitted(images[i], tile), corner)
        if len(labels):
            box = (corner[0] - 2, corner[1] - 2, corner[0] + tile + 1, corner[1] + tile + 1)
            pen.rectangle(box, outline=colour_of(int(labels[i])), width=3)
    return sheet


def before_and_after(first: Sequence[Image.Image], after: Sequence[Image.Image], *, tile: int = 96) -> Image.Image:
    """Show a row of first-gallery images above a row of the character."""
    return contact_sheet([*first, *after], columns=max(len(first), 1), tile=tile)


def write_all(run: Run, folder: Path, *, tile: int = 96) -> list[Path]:
    """Write what a run shows into a folder: sheets, the curve, contexts drawn so far, the HTML page.

    Parameters
    ----------
    run : Run
    folder : Path
        Made if need be.
    tile : int
        Side of the images on the sheets, in pixels.

    Returns
    -------
    list of Path
        ``gallery-0.png``, ..., ``distance.png``, ``contexts.png`` (if drawn), ``report.html``.
    """
    sheets = {f"gallery-{node.id}.png": gallery_sheet(node, tile=tile) for node in run.nodes.values() if node.images}
    sheets["distance.png"] = curve_image(run)
    if drawn := run.drawn_contexts():
        sheets["contexts.png"] = context_sheet(drawn, title=run.prompt)
    store.make_folder(folder)
    for name, sheet in sheets.items():
        store.write_image(folder / name, sheet, {"run": run.prompt})
    return [*(folder / name for name in sheets), run.report(folder / "report.html")]
