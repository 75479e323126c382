"""Static figures and contact sheets: what stands in saved notebooks, in reports and in the explorer's snapshot.

The `*_plot` functions return a Matplotlib figure that `to_svg` and `to_image` draw; the `*_sheet` functions put images
in rows. Colour never stands alone: each cluster has a marker and its number as well.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from chosen_one_nb.models.images import as_rgb

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ALARM", "CHOSEN", "DROPPED", "GLYPHS", "GREY", "MARKERS", "PALETTE", "attribute_plot", "before_and_after",
    "colour_of", "comparison_plot", "contact_sheet", "context_sheet", "counterfactual_sheet", "distance_plot",
    "drift_plot", "font", "gallery_sheet", "heat_over", "image_map", "loss_plot", "or_dash", "pareto_front",
    "parts_over", "projection_plot", "sentence", "spread", "to_image", "to_svg",
]  # fmt: skip

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Okabe and Ito's colours, which colour-blind people can tell apart, without their black: invisible in the dark."""

GREY, DROPPED, INK, FAINT = "#8A8A8A", "#B4B4B4", "#333333", "#CCCCCC"
ALARM, CHOSEN = "#D55E00", "#009E73"
MARKERS = "osD^P*vh"
"""Matplotlib's markers of clusters by number; `GLYPHS` are the same as letters."""
GLYPHS = "●■◆▲✚★▼⬢"

Size = tuple[float, float]
"""Width and height in pixels."""
GAP, LETTERS = 4, 12  # of contact sheets, in pixels
POINTS_PER_INCH, LINE = 72, 13  # LINE is the height of a line of a figure's letters, in points
ABOVE: dict[str, Any] = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center", "va": "bottom",
         "fontsize": 13, "color": INK, "bbox": {"color": "white", "alpha": 0.6, "pad": 0.5}}  # fmt: skip


def colour_of(cluster: int) -> str:
    """Return the colour of a cluster's number; grey beyond the palette, and for none (-1)."""
    return PALETTE[cluster] if 0 <= cluster < len(PALETTE) else GREY


# --- figures


def to_svg(figure: Figure) -> str:
    """Draw a figure as an SVG element for a page: text as text, transparent, ink and paper in the page's own colours.

    Its label becomes the title that screen readers read, and the `url` of an artist its tooltip.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    # a salt, so that the same figure has the same ids; text as text, so that it can be searched and read aloud
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "chosen_one_nb"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg, link = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
    root = ElementTree.fromstring(buffer.getvalue())
    for metadata in root.findall(f"{svg}metadata"):
        root.remove(metadata)
    title = ElementTree.Element(f"{svg}title")
    title.text = str(figure.get_label())
    root.insert(0, title)
    for element in list(root.iter()):
        target = element.attrib.pop(link, None)
        if element.tag == f"{svg}a":
            element.tag = f"{svg}g"
            ElementTree.SubElement(element, f"{svg}title").text = target
        elif target:
            element.set("href", target)  # plain href: a page of HTML knows no xlink namespace
        if element.tag == f"{svg}g":
            element.attrib.pop("id", None)  # of no use, and the same in every figure of a page
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib.update(role="img", width=width, height=height)
    ElementTree.register_namespace("", svg[1:-1])
    text = ElementTree.tostring(root, encoding="unicode")
    return text.replace(INK, "currentColor").replace("#ffffff", "Canvas")  # as the page has it, light or dark


def to_image(figure: Figure, *, scale: float = 2) -> Image.Image:
    """Draw a figure as an RGB image on white, ``scale`` pixels for each of its own."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=POINTS_PER_INCH * scale)
    return Image.open(buffer).convert("RGB")


def _figure(alt: str, size: Size, *, framed: bool = True) -> tuple[Figure, Axes]:
    """Make a figure of one plot, described in words for those who do not see it."""
    from matplotlib.figure import Figure  # late: half a second that looking at a run's tables need not wait for

    figure = Figure((size[0] / POINTS_PER_INCH, size[1] / POINTS_PER_INCH), layout="constrained")
    figure.set_label(alt)
    axes = figure.subplots()
    axes.tick_params(labelsize=10, colors=INK, length=0)
    axes.spines[:].set_color(FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    if not framed:
        axes.set_axis_off()
    return figure, axes


def _empty(alt: str, size: Size) -> Figure:
    figure, axes = _figure(alt, size)
    figure.delaxes(axes)
    return figure


def distance_plot(
    curve: pd.DataFrame, branches: Mapping[str, Sequence[str]] | None = None, *, size: Size = (480, 240)
) -> Figure:
    """Plot the mean pairwise distance by iteration against d_conv (section 3.3).

    Parameters
    ----------
    curve : DataFrame
        A row per checked node: ``node``, ``parent``, ``iteration``, ``distance``, ``threshold``, ``state``.
    branches : mapping of str to sequence of str, optional
        Nodes in order, by name of the branch: each becomes a line of its own style with its name at the end. None
        draws the tree of all nodes, each with its number, and a cross where it collapsed.
    size : (float, float)

    Returns
    -------
    Figure
        Without axes where nothing has been measured.
    """
    if not len(curve):
        return _empty("Nothing measured yet.", size)
    rows: dict[str, Any] = {row["node"]: row for row in curve.to_dict("records")}
    said = "; ".join(f"{name}: {row['distance']:.3g} ({row['state']})" for name, row in rows.items())
    figure, axes = _figure(f"Mean pairwise distance by node: {said}.", size)
    threshold = curve["threshold"].iloc[-1]
    axes.axhline(threshold, color=GREY, linestyle="--", linewidth=1.5)
    axes.set_ylim(0, 1.1 * max(curve["distance"].max(), threshold) or 1)
    axes.set_xticks(range(max(2, curve["iteration"].max() + 1)))
    axes.set_xlabel("iteration", fontsize=10, color=INK)
    if branches is None:
        axes.margins(x=0.08)  # room for the names
        # below the line at the left: distances begin above it, so nothing else is written there
        axes.annotate("d_conv", (0, threshold), (4, -3), **_beside(axes, "left"), va="top", color=GREY)
        _tree(axes, rows)
    else:
        _branches(axes, rows, branches, threshold)
    return figure


def _beside(axes: Axes, side: str) -> dict[str, Any]:
    """Put a label at a height of the plot, `xy` being (share of the width, height)."""
    return {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": side, "fontsize": 10,
            "annotation_clip": False}  # fmt: skip


def _tree(axes: Axes, rows: Mapping[str, Any]) -> None:
    for name, row in rows.items():
        at = (row["iteration"], row["distance"])
        if row["parent"] in rows:
            before = rows[row["parent"]]
            axes.plot((before["iteration"], at[0]), (before["distance"], at[1]), color=PALETTE[0], linewidth=2)
        marker, colour = ("x", ALARM) if row["state"] == "collapsed" else ("o", PALETTE[0])
        point = axes.scatter(*at, s=50, marker=marker, color=colour, zorder=3)
        point.set_urls([f"node {name}: {row['distance']:.3f}, {row['state']}"])
    for iteration in dict.fromkeys(row["iteration"] for row in rows.values()):
        names: dict[float, str] = {}  # branches that share a gallery share a point
        for name, row in rows.items():
            if row["iteration"] == iteration:
                names[row["distance"]] = ", ".join(filter(None, (names.get(row["distance"]), name)))
        heights = spread(list(names), _letter_height(axes))
        for name, height in zip(names.values(), heights, strict=True):
            axes.annotate(name, (iteration, height), (8, 3), textcoords="offset points", fontsize=10, color=INK)


def _branches(axes: Axes, rows: Mapping[str, Any], branches: Mapping[str, Sequence[str]], threshold: float) -> None:
    ends = [("d_conv", threshold, GREY)]
    for number, (name, nodes) in enumerate(branches.items()):
        iterations, distances = ([rows[node][key] for node in nodes] for key in ("iteration", "distance"))
        colour, dashes = colour_of(number), ("-", "--", ":", "-.")[number % 4]
        axes.plot(iterations, distances, color=colour, linestyle=dashes, linewidth=2, marker=MARKERS[number])
        ends.append((f"{name} · {nodes[-1]}", distances[-1], colour))
    _label_ends(axes, ends)


def _label_ends(axes: Axes, ends: Sequence[tuple[str, float, str]]) -> None:
    """Write names at the right of a plot, by height and in a colour, one above the other where they would overlap."""
    heights = spread([height for _, height, _ in ends], _letter_height(axes))
    for (name, _, colour), height in zip(ends, heights, strict=True):
        axes.annotate(name, (1, height), (8, 0), **_beside(axes, "left"), va="center", color=colour)


def _letter_height(axes: Axes) -> float:
    """Return how high a line of letters is, in the units of the plot's height."""
    low, high = axes.get_ylim()
    tall = axes.figure.bbox.height / axes.figure.dpi * POINTS_PER_INCH - 40  # in points; 40 for what is below the plot
    return LINE / tall * (high - low)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights up, no more than need be, until each is a gap above the one below it; in the order given.

    >>> spread([10.0, 40.0, 12.0], gap=12)
    [10.0, 40.0, 22.0]
    """
    found = np.array(heights, dtype=float)
    for below, above in pairwise(np.argsort(found, kind="stable")):
        found[above] = max(found[above], found[below] + gap)
    return found.tolist()


def comparison_plot(
    points: Mapping[str, tuple[Any, Any]], names: tuple[str, str], *, size: Size = (560, 420)
) -> Figure:
    """Plot methods by two scores of which more is better, with intervals and the Pareto front as a step line.

    Parameters
    ----------
    points : mapping of str to (x, y)
        Each with `value`, `low` and `high`.
    names : (str, str)
        Of the axes.
    size : (float, float)
    """
    values = {name: (float(x["value"]), float(y["value"])) for name, (x, y) in points.items()}
    said = "; ".join(f"{name}: {x:.2f}, {y:.2f}" for name, (x, y) in values.items())
    figure, axes = _figure(f"Methods by {names[0]} and {names[1]}: {said}.", size)
    families = list(dict.fromkeys(name.partition(",")[0] for name in points))
    for name, (x, y) in points.items():
        family = families.index(name.partition(",")[0])
        colour, marker = PALETTE[family % len(PALETTE)], MARKERS[family % len(MARKERS)]
        at = values[name]
        spans = [[[max(0, part["value"] - part["low"])], [max(0, part["high"] - part["value"])]] for part in (x, y)]
        axes.errorbar(*at, xerr=spans[0], yerr=spans[1], fmt=marker, color=colour, elinewidth=0.7, alpha=0.9)
        axes.annotate(name, at, (6, 4), textcoords="offset points", fontsize=9, color=INK)
    if front := pareto_front(values):
        axes.step(
            *zip(*(values[name] for name in front), strict=True), where="pre", color=GREY, linewidth=1.2, zorder=0
        )
    axes.set_xlabel(f"{names[0]} →", fontsize=10, color=INK)
    axes.set_ylabel(f"{names[1]} →", fontsize=10, color=INK)
    axes.margins(0.12)
    return figure


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names of points that no other is above in both coordinates, by the first one.

    >>> pareto_front({"a": (0.0, 3.0), "b": (1.0, 2.0), "c": (0.5, 1.0)})
    ['a', 'b']
    """
    front, best = [], -np.inf
    for name, (_, y) in sorted(points.items(), key=lambda point: (-point[1][0], -point[1][1])):
        if y > best:
            front, best = [name, *front], y
    return front


def projection_plot(
    positions: np.ndarray,
    labels: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    chosen: Sequence[int] = (),
    *,
    size: Size = (360, 300),
) -> Figure:
    """Plot images as points of a map, with colour, marker and number of their cluster, the chosen ones ringed.

    Parameters
    ----------
    positions : ndarray of shape (N, 2)
        For example `Projection.positions`; the second axis points upwards.
    labels : ndarray of int, shape (N,), optional
        Cluster of each image; negative is none.
    kept : ndarray of bool, shape (K,), optional
        Which clusters are large enough; the others are light, open and called *dropped*.
    chosen : sequence of int
        Images to ring.
    size : (float, float)
    """
    positions = np.asarray(positions, dtype=float)
    labels = np.full(len(positions), -1) if labels is None else np.asarray(labels)
    clusters = np.unique(labels[labels >= 0])
    alt = f"Map of {len(positions)} images in {len(clusters)} clusters; {len(chosen)} chosen."
    figure, axes = _figure(alt, size, framed=False)
    axes.margins(0.08)
    x, y = positions.T
    axes.scatter(x[list(chosen)], y[list(chosen)], s=130, facecolors="none", edgecolors=INK)
    for cluster in np.unique(labels):
        members = np.flatnonzero(labels == cluster)
        dropped = cluster >= 0 and kept is not None and not kept[cluster]
        colour = DROPPED if dropped else colour_of(cluster)
        marker = "o" if dropped or cluster < 0 else MARKERS[cluster % len(MARKERS)]
        points = axes.scatter(
            x[members], y[members], s=36, marker=marker, edgecolors=colour, facecolors="none" if dropped else colour
        )
        points.set_urls([f"image {i}, cluster {cluster}" for i in members])
        if cluster >= 0:
            name = f"{cluster} dropped" if dropped else str(cluster)
            # above the centroid, not on it: a cluster of one would hide behind its own name
            axes.annotate(name, positions[members].mean(axis=0), **ABOVE)
    return figure


def attribute_plot(findings: pd.DataFrame, *, width: float = 640) -> Figure:
    """Plot how often images of a group have attributes (blue) and how often the others do (grey).

    Parameters
    ----------
    findings : DataFrame
        Rows of `Inquiry.findings`: ``attribute``, ``answer``, ``share_in``, ``share_out``.
    width : float
        In pixels; the height follows from the number of rows.
    """
    rows: list[Any] = list(findings.itertuples())
    size = (width, 26 * len(rows) + 24)
    if not rows:
        return _empty("Nothing to draw.", size)
    shares = [f"{row.share_in:.0%} here, {row.share_out:.0%} elsewhere" for row in rows]
    alt = "; ".join(f"{row.attribute}: {share}" for row, share in zip(rows, shares, strict=True))
    figure, axes = _figure(f"{alt}.", size)
    places = np.arange(len(rows))
    axes.barh(places - 0.17, findings["share_in"].fillna(0), 0.3, color=PALETTE[0])
    axes.barh(places + 0.17, findings["share_out"].fillna(0), 0.3, color=GREY)
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.set_yticks(places, [row.attribute for row in rows], color=INK)
    axes.spines["bottom"].set_visible(False)
    for place, row, share in zip(places, rows, shares, strict=True):
        words = f"{share if np.isfinite(row.share_in) else 'more surely'} · {row.answer}"
        axes.annotate(words, (1, place), (8, 0), **_beside(axes, "left"), va="center", color=INK)
    return figure


def drift_plot(drift: pd.DataFrame, *, size: Size = (560, 240)) -> Figure:
    """Plot how often attributes occur in gallery after gallery, with their bootstrap intervals.

    Parameters
    ----------
    drift : DataFrame
        As of `Inquiry.drift`: ``gallery``, ``column``, ``attribute``, ``share``, ``low``, ``high``.
    size : (float, float)

    Returns
    -------
    Figure
        Without axes where no share is known.
    """
    galleries = list(dict.fromkeys(drift["gallery"]))
    lines = [part for _, part in drift.dropna(subset="share").groupby("column", sort=False)]
    if not lines:
        return _empty("Nothing to draw.", size)
    said = [f"{part['attribute'].iloc[0]}: {', '.join(f'{share:.0%}' for share in part['share'])}" for part in lines]
    figure, axes = _figure(f"Share of images by gallery: {'; '.join(said)}.", size)
    axes.set(ylim=(0, 1), xticks=range(len(galleries)), xticklabels=galleries)
    axes.set_yticks((0, 0.5, 1), ("0%", "50%", "100%"))
    axes.grid(axis="y", color=FAINT)
    ends = []
    for number, part in enumerate(lines):
        aside = 0.02 * (number - (len(lines) - 1) / 2) * len(galleries)  # so that intervals stand beside each other
        places = [galleries.index(gallery) + aside for gallery in part["gallery"]]
        error = np.abs(part[["low", "high"]].to_numpy().T - part["share"].to_numpy())
        colour, marker = colour_of(number), MARKERS[number % len(MARKERS)]
        axes.errorbar(places, part["share"], error, color=colour, marker=marker, elinewidth=1, clip_on=False)
        last = part.iloc[-1]
        ends.append((f"{last.attribute} {last.share:.0%}", last.share, colour))
    _label_ends(axes, ends)
    return figure


def loss_plot(losses: Sequence[float | None], *, size: Size = (240, 60)) -> Figure:
    """Plot a loss by step as a line without axes; steps without a loss are left out."""
    values = [value for value in losses if value is not None]
    if len(values) < 2:
        return _empty("No loss recorded.", size)
    alt = f"Loss over {len(values)} steps, from {values[0]:.3g} to {values[-1]:.3g}."
    figure, axes = _figure(alt, size, framed=False)
    axes.plot(values, color=PALETTE[0], linewidth=1.5)
    return figure


# --- sheets of images


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
    pen.text((GAP, LETTERS * 1.5), title, fill=INK, font=font(LETTERS + 2), anchor="ls")
    for i, image in enumerate(images):
        x, y = GAP + (i % columns) * step[0], top + GAP + (i // columns) * step[1]
        _paste(sheet, image, (x, y), tile, frames[i] if frames else None)
        if captions:
            pen.text((x, y + tile + LETTERS), captions[i], fill=INK, font=font(LETTERS), anchor="ls")
    return sheet


def _paste(sheet: Image.Image, image: Image.Image, corner: tuple[int, int], tile: int, frame: str | None) -> None:
    """Paste an image as a square, framed if asked; small ones are enlarged without blur."""
    x, y = corner
    whole = image.width < tile and tile % image.width == 0
    how = Image.Resampling.NEAREST if whole else Image.Resampling.LANCZOS
    sheet.paste(as_rgb(image).resize((tile, tile), how), corner)
    if frame:
        ImageDraw.Draw(sheet).rectangle((x - 2, y - 2, x + tile + 1, y + tile + 1), outline=frame, width=3)


def font(size: int) -> Any:
    """Return Pillow's own font at a size in pixels."""
    return ImageFont.load_default(size)


def gallery_sheet(node: Any, *, tile: int = 96) -> Image.Image:
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


def sentence(node: Any) -> str:
    """Say in a line what a node is."""
    parts = [f"Node {node.id}, iteration {node.iteration}"]
    if node.check:
        found = node.check.convergence
        parts.append(f"distance {found.distance:.3f} ({found.ratio:.0%} of the first)")
    if node.decision:
        what = "images by hand" if node.decision.cluster is None else f"cluster {node.decision.cluster}"
        parts.append(f"{len(node.decision.images)} chosen: {what}, by {node.decision.by}")
    return " · ".join([*parts, node.state])


def or_dash(value: float, form: str) -> str:
    """Write a number, or a dash where there is none: a single image has no corrected cohesion.

    >>> or_dash(0.25, ".3f"), or_dash(float("nan"), ".3f")
    ('0.250', '–')
    """
    return "–" if np.isnan(value) else f"{value:{form}}"


def context_sheet(by_context: Mapping[str, Sequence[Image.Image]], *, tile: int = 128, title: str = "") -> Image.Image:
    """Show images by context: a column each, the context under its images.

    Parameters
    ----------
    by_context : mapping of str to sequence of PIL.Image
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


def counterfactual_sheet(
    by_opposite: Mapping[str, tuple[Sequence[Image.Image], Sequence[Image.Image]]], *, tile: int = 64
) -> Image.Image:
    """Show a counterfactual test: a row per opposite, the base model's images and, after a gap, the character's.

    Parameters
    ----------
    by_opposite : mapping of str to (sequence, sequence)
        `Counterfactual.images`: those at the same place on either side have the same seed.
    tile : int
        Side of each image, in pixels.

    Returns
    -------
    PIL.Image
        RGB; only a title where nothing was asked for.
    """
    half = max((len(base) for base, _ in by_opposite.values()), default=0)
    blank, images, captions = Image.new("RGB", (tile, tile), "white"), [], []
    for opposite, sides in by_opposite.items():
        for side, words in zip(sides, (f"{opposite}: base model", "the character"), strict=True):
            images += [*side, *[blank] * (half + 1 - len(side))]
            captions += [words, *[""] * half]
    title = f"Asked: {', '.join(by_opposite)}" if by_opposite else "Nothing to show: no opposite is known."
    return contact_sheet(images, columns=2 * (half + 1), tile=tile, captions=captions, title=title)


def image_map(
    positions: np.ndarray, images: Sequence[Image.Image], labels: Sequence[int] = (), *, size: int = 640, tile: int = 44
) -> Image.Image:
    """Put each image at its place on a map of the features.

    Parameters
    ----------
    positions : ndarray of shape (N, 2)
        `Projection.positions`; the second axis points upwards.
    images : sequence of N PIL.Image
    labels : sequence of N int, optional
        Clusters: an image's frame has its cluster's colour.
    size, tile : int
        Side of the map and of each image, in pixels.

    Returns
    -------
    PIL.Image
        RGB.
    """
    room = size - tile - 2 * GAP
    low, span = positions.min(axis=0), max(float(np.ptp(positions, axis=0).max()), 1e-9)
    places = ((positions - low) / span * room + GAP).round().astype(int)
    sheet = Image.new("RGB", (size, size), "white")
    for i, (x, y) in enumerate(places.tolist()):
        _paste(sheet, images[i], (x, size - tile - y), tile, colour_of(int(labels[i])) if len(labels) else None)
    return sheet


def before_and_after(first: Sequence[Image.Image], after: Sequence[Image.Image], *, tile: int = 96) -> Image.Image:
    """Show a row of first-gallery images above a row of the character."""
    return contact_sheet([*first, *after], columns=max(len(first), 1), tile=tile)


# --- laid over an image


def heat_over(image: Image.Image, heat: np.ndarray, *, side: int = 128, strength: float = 0.65) -> Image.Image:
    """Lay a heat map over an image.

    Parameters
    ----------
    image : PIL.Image
    heat : ndarray of shape (h, w)
        In [0, 1]: `localization.scaled` brings it there.
    side : int
        Of the result, in pixels.
    strength : float
        How much of the image the heat may hide.
    """
    from matplotlib import colormaps

    level = Image.fromarray(np.asarray(heat, np.float32)).resize((side, side), Image.Resampling.BILINEAR)
    colour = 255 * colormaps["magma"](np.asarray(level))[..., :3]  # brighter is more, for every eye and in print
    return Image.fromarray((_pale(image, side) * (1 - strength) + colour * strength).astype(np.uint8))


def parts_over(image: Image.Image, labels: np.ndarray, *, side: int = 128, strength: float = 0.6) -> Image.Image:
    """Paint the parts of a foreground over an image: the same part has the same colour in all images.

    Parameters
    ----------
    image : PIL.Image
    labels : ndarray of int, shape (h, w)
        Of `localization.cosegment`; -1 is scene and stays pale.
    side, strength
        As of `heat_over`.
    """
    pixels = _pale(image, side)
    rows, columns = (np.arange(side) * n // side for n in labels.shape)
    fine = np.asarray(labels)[np.ix_(rows, columns)]
    colours = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in PALETTE], float)
    painted = pixels * (1 - strength) + colours[fine % len(colours)] * strength
    return Image.fromarray(np.where(fine[..., None] >= 0, painted, pixels).astype(np.uint8))


def _pale(image: Image.Image, side: int) -> np.ndarray:
    """Half the colour of an image, so that what is laid over it stands out, (side, side, 3) float."""
    pixels = np.asarray(as_rgb(image).resize((side, side), Image.Resampling.BICUBIC), float)
    return (pixels + pixels.mean(axis=-1, keepdims=True)) / 2
