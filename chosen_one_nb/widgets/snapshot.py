"""The explorer's present state as one still picture: for saved notebooks, where no widget can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image

from .judge import ranked_members
from .layouts import Layout
from .page import FAINT, TEXT, Page, fitted
from .signs import DROPPED, INK, sign_of

if TYPE_CHECKING:
    from .explorer import Explorer

WIDTH, MARGIN, MAP, THUMB, LINE = 1120, 24, 470, 52, 22
MOST_CLUSTERS = 8


def snapshot(explorer: Explorer) -> Image.Image:
    """Draw prompt, stage, map, clusters with their pictures, decision and distances on a white ground.

    Parameters
    ----------
    explorer : Explorer

    Returns
    -------
    PIL.Image.Image
        RGB, 1120 pixels wide.
    """
    node, layout = explorer.node, explorer.map.layout_now()
    page = Page(WIDTH, 2400)
    page.text((MARGIN, 18), explorer.run.prompt, size=24)
    page.text((MARGIN, 52), _state(explorer), colour=FAINT)
    top = 86
    if layout is None:
        bottom = _contact_sheet(page, node.images, top)
    else:
        _draw_map(page, explorer, layout, top)
        bottom = max(top + MAP + 30, _draw_clusters(page, explorer, (MARGIN + MAP + 28, top)))
    bottom = _draw_curve(page, explorer, bottom + 4)
    return page.finished(bottom + MARGIN)


def _state(explorer: Explorer) -> str:
    node, run = explorer.node, explorer.run
    said = [f"iteration {node.id}", f"{len(node.seeds)} pictures", node.state]
    if node.convergence:
        said.append(f"distance {node.convergence.ratio:.0%} of the first gallery's")
    if run.outcome.finished:
        said.append(str(run.outcome.state))
    return ", ".join(said)


def _contact_sheet(page: Page, images: Sequence[Image.Image], top: int) -> int:
    """All pictures in rows; where the pictures end."""
    columns = (WIDTH - 2 * MARGIN) // (THUMB + 4)
    for i, image in enumerate(images):
        page.picture((MARGIN + (i % columns) * (THUMB + 4), top + (i // columns) * (THUMB + 4)), image, THUMB)
    if not len(images):
        page.text((MARGIN, top), "No pictures yet.", colour=FAINT)
    return top + max(1, -(-len(images) // columns)) * (THUMB + 4)


def _draw_map(page: Page, explorer: Explorer, layout: Layout, top: int) -> None:
    node, clusters = explorer.node, explorer.node.clusters
    spots = fitted(layout.of(node.gallery_of), (MARGIN, top), MAP)
    page.box((MARGIN, top, MARGIN + MAP, top + MAP), "#D8D8D8")
    chosen = set(node.decision.images) if node.decision else set()
    for i, at in enumerate(spots):
        sign = sign_of(clusters, int(clusters.labels[i])) if clusters else None
        if i in chosen:
            page.mark(at, "circle", "#FFD9EC", 10)
        page.mark(at, sign.symbol if sign else "circle", sign.colour if sign else INK, 5.5)
    page.text(
        (MARGIN, top + MAP + 6),
        f"{layout.method.upper()} of the features · {layout.words}"[:90],
        size=12,
        colour=FAINT,
    )


def _draw_clusters(page: Page, explorer: Explorer, corner: tuple[int, int]) -> int:
    """A row of pictures per cluster, most cohesive first; where the rows end."""
    node, clusters = explorer.node, explorer.node.clusters
    if clusters is None:
        return corner[1]
    x, y = corner
    order = sorted((int(c) for c in clusters.order), key=lambda c: not clusters.kept[c])
    for c in order[:MOST_CLUSTERS]:
        _draw_cluster(page, node, c, (x, y))
        y += THUMB + LINE + 8
    if len(order) > MOST_CLUSTERS:
        page.text((x, y), f"and {len(order) - MOST_CLUSTERS} more clusters", colour=FAINT)
        y += LINE
    return y


def _draw_cluster(page: Page, node: Any, c: int, at: tuple[int, int]) -> None:
    clusters, (x, y), sign = node.clusters, at, sign_of(node.clusters, c)
    words = [f"Cluster {c}", f"n = {clusters.sizes[c]}", f"cohesion {clusters.cohesion[c]:.3f}"]
    words += ["proposed"] if clusters.proposed == c else []
    words += ["dropped"] if not clusters.kept[c] else []
    taken = node.decision is not None and node.decision.cluster == c
    words += [f"chosen by {node.decision.by}"] if taken else []
    page.mark((x + 7, y + 9), sign.symbol, sign.colour if clusters.kept[c] else DROPPED, 6)
    page.text((x + 20, y), ", ".join(words), colour="#0057A8" if taken else TEXT)
    most = (WIDTH - MARGIN - x) // (THUMB + 4)
    for i, index in enumerate(ranked_members(clusters, c)[:most]):
        page.picture((x + i * (THUMB + 4), y + LINE), node.images[index], THUMB, faint=index in node.excluded)


def _draw_curve(page: Page, explorer: Explorer, top: int) -> int:
    """Distances as a line of words: the curve needs no axes to be read."""
    rows = explorer.run.curve().to_dict("records")
    if rows:
        said = ", ".join(f"{row['node']}: {row['distance']:.3f} ({row['ratio']:.0%})" for row in rows)
        page.text(
            (MARGIN, top),
            f"Mean pairwise distance by iteration: {said}; d_conv {rows[0]['threshold']:.3f}",
            size=13,
        )
        top += LINE
    decision = explorer.node.decision
    if decision is not None and decision.note:
        page.text((MARGIN, top), f"Note: {decision.note}", size=13)
        top += LINE
    return top
