"""The explorer's present state as one still image: for saved notebooks, where no widget can be seen."""

from __future__ import annotations

from PIL import Image, ImageDraw, ImageOps

from chosen_one_nb.plots import contact_sheet, distance_plot, font, projection_plot, to_image
from chosen_one_nb.run.node import Node

from .figures import marker_of, ranked_members
from .map_panel import Layout
from .session import Session

WIDTH, TILE = 470, 52
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
    parts = [_line(session.run.prompt, 24), _line(_state(session), 14, FAINT)]
    if node.decision is not None and node.decision.note:
        parts.append(_line(f"Note: {node.decision.note}", 14, FAINT))
    if layout is not None:
        parts.append(_stack([_charts(session, layout), _stack(_clusters(node))], across=True, gap=24))
    elif len(node.images):
        parts.append(contact_sheet(list(node.images), columns=18, tile=TILE))
    else:
        parts.append(_line("No images yet."))
    return ImageOps.expand(_stack(parts), 20, "white")


def _state(session: Session) -> str:
    node, outcome = session.node, session.run.outcome
    said = [f"iteration {node.id}", f"{len(node.seeds)} images"]
    if node.check is not None:
        said.append(f"{node.check.verdict.state}: {node.check.verdict.reason}")
    elif outcome.node == node.id:
        said.append(outcome.reason)
    return " · ".join(said)


def _charts(session: Session, layout: Layout) -> Image.Image:
    node, clusters, curve = session.node, session.node.clusters, session.run.tables.curve()
    style = () if clusters is None else (clusters.labels, clusters.kept)
    chosen = node.decision.images if node.decision else ()
    points = layout.projection.of(node.gallery_of)
    charts = [
        to_image(projection_plot(points, *style, chosen=chosen, size=(WIDTH, 400)), scale=1),
        _line(layout.words.split(" · ")[0], 11, FAINT),
    ]
    charts += [to_image(distance_plot(curve, size=(WIDTH, 170)), scale=1)] if len(curve) else []
    return _stack(charts)


def _clusters(node: Node) -> list[Image.Image]:
    """A heading and a row of images per cluster, most cohesive first."""
    clusters = node.clusters
    if clusters is None:
        return [contact_sheet(list(node.images), columns=MOST_IMAGES, tile=TILE)]
    rows: list[Image.Image] = []
    for c in clusters.order[:MOST_CLUSTERS].tolist():
        members = ranked_members(clusters, c)[:MOST_IMAGES]
        excluded = [i in node.excluded for i in members]
        chosen = node.decision is not None and node.decision.cluster == c
        rows.append(_line(_about(node, c), 14, ACCENT if chosen else INK, dot=marker_of(clusters, c).colour))
        rows.append(
            contact_sheet(
                [node.images[i] for i in members],
                columns=MOST_IMAGES,
                tile=TILE,
                captions=["left out" if out else str(i) for i, out in zip(members, excluded, strict=True)],
                frames=[FAINT if out else None for out in excluded],
            )
        )
    if len(clusters.order) > MOST_CLUSTERS:
        rows.append(_line(f"and {len(clusters.order) - MOST_CLUSTERS} more clusters", 14, FAINT))
    return rows


def _about(node: Node, c: int) -> str:
    clusters, decision = node.clusters, node.decision
    words = [f"Cluster {c}", f"n = {clusters.sizes[c]}", f"cohesion {clusters.cohesion[c]:.3f}"]
    words += ["proposed"] if clusters.proposed == c else []
    words += [] if clusters.kept[c] else ["dropped"]
    words += [f"chosen by {decision.by}"] if decision is not None and decision.cluster == c else []
    return ", ".join(words)


def _line(text: str, size: int = 14, colour: str = INK, *, dot: str = "") -> Image.Image:
    """Draw a line of text on white, with a coloured dot before it if asked."""
    letters, indent = font(size), 18 if dot else 0
    image = Image.new("RGB", (int(letters.getlength(text)) + indent + 4, int(size * 1.5)), "white")
    pen = ImageDraw.Draw(image)
    pen.text((indent, size * 1.15), text, fill=colour, font=letters, anchor="ls")
    if dot:
        pen.ellipse((2, size * 0.35, 14, size * 0.35 + 12), fill=dot)
    return image


def _stack(images: list[Image.Image], *, across: bool = False, gap: int = 4) -> Image.Image:
    """Put images on white, one below or beside the other."""
    widths, heights = zip(*(image.size for image in images), strict=True)
    gaps = gap * len(images)
    size = (sum(widths) + gaps, max(heights)) if across else (max(widths), sum(heights) + gaps)
    sheet, at = Image.new("RGB", size, "white"), 0
    for image in images:
        sheet.paste(image, (at, 0) if across else (0, at))
        at += (image.width if across else image.height) + gap
    return sheet
