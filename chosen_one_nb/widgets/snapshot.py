"""The explorer's present state as one still image: for saved notebooks, where no widget can be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from chosen_one_nb.plots import contact_sheet, distance_plot, font, projection_plot, to_image

from .cluster_style import marker_of
from .judge import ranked_members
from .layouts import Layout
from .session import Session

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node


MARGIN, MAP, TILE = 20, (470, 400), 52
MOST_CLUSTERS, MOST_IMAGES = 7, 11
INK, FAINT, ACCENT = "#202020", "#6A6A6A", "#0057A8"


def snapshot(session: Session, layout: Layout | None) -> Image.Image:
    """Draw prompt, state, map, clusters with their images, decision and distance curve on white.

    Parameters
    ----------
    session : Session
    layout : Layout or None
        The map that is shown, None where there is none yet.

    Returns
    -------
    PIL.Image.Image
        RGB, about 1150 pixels wide.
    """
    node = session.node
    head = [_line(session.run.prompt, 24), _line(_state(session), 14, FAINT)]
    if node.decision is not None and node.decision.note:
        head.append(_line(f"Note: {node.decision.note}", 14, FAINT))
    if layout is None:
        below = [
            contact_sheet(list(node.images), columns=18, tile=TILE) if len(node.images) else _line("No images yet.")
        ]
        return _framed(_stacked([*head, *below]))
    left = [_map(session, layout), _line(layout.words.split(" · ")[0], 11, FAINT)]
    curve = session.run.curve()
    left += [to_image(distance_plot(curve, size=(MAP[0], 170)), scale=1)] if len(curve) else []
    return _framed(_stacked([*head, _side_by_side(_stacked(left), _stacked(_clusters(session.node)))]))


def _state(session: Session) -> str:
    node, outcome = session.node, session.run.outcome
    said = [f"iteration {node.id}", f"{len(node.seeds)} images"]
    if node.verdict is not None:
        said.append(f"{node.verdict.state}: {node.verdict.reason}")
    elif outcome.node == node.id:
        said.append(outcome.reason)
    return " · ".join(said)


def _map(session: Session, layout: Layout) -> Image.Image:
    node, clusters = session.node, session.node.clusters
    places = layout.of(node.gallery_of)
    chosen = node.decision.images if node.decision else ()
    labels, kept = (None, None) if clusters is None else (clusters.labels, clusters.kept)
    return to_image(projection_plot(places, labels, kept, chosen, size=MAP), scale=1)


def _clusters(node: Node) -> list[Image.Image]:
    """A heading and a row of images per cluster, most cohesive first."""
    clusters = node.clusters
    if clusters is None:
        return [contact_sheet(list(node.images), columns=MOST_IMAGES, tile=TILE)]
    rows: list[Image.Image] = []
    for c in [int(c) for c in clusters.order][:MOST_CLUSTERS]:
        members = ranked_members(clusters, c)[:MOST_IMAGES]
        frames = [FAINT if i in node.excluded else None for i in members]
        captions = ["left out" if i in node.excluded else str(i) for i in members]
        rows.append(_line(_about(node, c), 14, ACCENT if _taken(node, c) else INK, dot=marker_of(clusters, c).colour))
        rows.append(
            contact_sheet(
                [node.images[i] for i in members],
                columns=MOST_IMAGES,
                tile=TILE,
                captions=captions,
                frames=frames,
            )
        )
    if len(clusters.order) > MOST_CLUSTERS:
        rows.append(_line(f"and {len(clusters.order) - MOST_CLUSTERS} more clusters", 14, FAINT))
    return rows


def _taken(node: Node, c: int) -> bool:
    return node.decision is not None and node.decision.cluster == c


def _about(node: Node, c: int) -> str:
    clusters = node.clusters
    words = [f"Cluster {c}", f"n = {clusters.sizes[c]}", f"cohesion {clusters.cohesion[c]:.3f}"]
    words += ["proposed"] if clusters.proposed == c else []
    words += [] if clusters.kept[c] else ["dropped"]
    words += [f"chosen by {node.decision.by}"] if _taken(node, c) else []
    return ", ".join(words)


# --- putting together ------------------------------------------------------------------------------------------------


def _line(text: str, size: int = 14, colour: str = INK, *, dot: str = "") -> Image.Image:
    """One line of text on white, with a coloured dot before it if asked."""
    letters, indent = font(size), 18 if dot else 0
    image = Image.new("RGB", (int(letters.getlength(text)) + indent + 4, int(size * 1.5)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((indent, size * 1.15), text, fill=colour, font=letters, anchor="ls")
    if dot:
        pen.ellipse((2, size * 0.35, 14, size * 0.35 + 12), fill=dot)
    return image


def _stacked(images: list[Image.Image], gap: int = 4) -> Image.Image:
    sheet = Image.new(
        "RGB", (max(image.width for image in images), sum(image.height + gap for image in images)), "white"
    )
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height + gap
    return sheet


def _side_by_side(left: Image.Image, right: Image.Image, gap: int = 24) -> Image.Image:
    sheet = Image.new("RGB", (left.width + gap + right.width, max(left.height, right.height)), "white")
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + gap, 0))
    return sheet


def _framed(image: Image.Image) -> Image.Image:
    sheet = Image.new("RGB", (image.width + 2 * MARGIN, image.height + 2 * MARGIN), "white")
    sheet.paste(image, (MARGIN, MARGIN))
    return sheet
