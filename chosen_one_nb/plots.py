"""Small charts as lists of shapes, drawn alike as SVG (for a page) and as an image (for a saved notebook).

A chart is made once, in points on a canvas with the origin at the top left; `svg` and `image` draw it.
Colour never stands alone: clusters carry numbers, collapse a cross, the choice a ring.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
"""Eight colours that colour-blind people can tell apart (Okabe and Ito); further clusters are grey."""

GREY, INK, FAINT = "#999999", "#333333", "#cccccc"
ALARM = "#D55E00"


@dataclass(frozen=True)
class Shape:
    """One thing on a canvas.

    Parameters
    ----------
    kind : {"line", "dot", "ring", "cross", "text"}
    points : tuple of (float, float)
        Two or more for a line, one for the others.
    colour : str
        ``#rrggbb``.
    size : float
        Width of a line, radius of a dot, height of letters.
    text : str
        What a text says, or what a dot is (its tooltip).
    dashed : bool
    anchor : {"start", "middle", "end"}
        Which part of a text its point is.
    """

    kind: str
    points: tuple[tuple[float, float], ...]
    colour: str = INK
    size: float = 1.5
    text: str = ""
    dashed: bool = False
    anchor: str = "middle"


@dataclass
class Chart:
    """Shapes on a canvas, and what they say in words.

    Parameters
    ----------
    width, height : int
        In points.
    words : str
        What the chart shows, for those who do not see it.
    shapes : list of Shape
    """

    width: int
    height: int
    words: str
    shapes: list[Shape] = field(default_factory=list)

    def add(self, kind: str, *points: tuple[float, float], **more: Any) -> None:
        """Put a `Shape` on the canvas."""
        self.shapes.append(Shape(kind, tuple((float(x), float(y)) for x, y in points), **more))


def colour_of(cluster: int) -> str:
    """Return the colour of a cluster's number; grey beyond the palette (and for none, -1)."""
    return PALETTE[cluster] if 0 <= cluster < len(PALETTE) else GREY


# --- charts


def curve_chart(rows: Sequence[Mapping[str, Any]], *, width: int = 480, height: int = 240) -> Chart:
    """Draw the mean pairwise distance by iteration against d_conv (section 3.3), branches included.

    Parameters
    ----------
    rows : sequence of mapping
        As of `Run.curve`: ``node``, ``parent``, ``iteration``, ``distance``, ``threshold``, ``state``.
    width, height : int
        In points.

    Returns
    -------
    Chart
    """
    said = "; ".join(f"{row['node']}: {row['distance']:.3g} ({row['state']})" for row in rows)
    chart = Chart(width, height, f"Mean pairwise distance by node: {said}." if rows else "Nothing measured yet.")
    if not rows:
        return chart
    top = 1.1 * max(max(row["distance"], row["threshold"]) for row in rows) or 1.0
    last = max(1, *(row["iteration"] for row in rows))

    def place(iteration: float, distance: float) -> tuple[float, float]:
        return 48 + (width - 72) * iteration / last, height - 32 - (height - 48) * distance / top

    _axes(chart, place, last, top)
    threshold = rows[-1]["threshold"]
    chart.add("line", place(0, threshold), place(last, threshold), colour=GREY, dashed=True)
    chart.add("text", place(last, threshold * 1.03), text="d_conv", colour=GREY, size=11, anchor="end")
    at = {row["node"]: place(row["iteration"], row["distance"]) for row in rows}
    for row in rows:
        if row["parent"] in at:
            chart.add("line", at[row["parent"]], at[row["node"]], colour=PALETTE[0], size=2)
    for row in rows:
        _curve_point(chart, at[row["node"]], row)
    return chart


def _axes(chart: Chart, place: Any, last: int, top: float) -> None:
    chart.add("line", place(0, top), place(0, 0), place(last, 0), colour=FAINT)
    for iteration in range(last + 1):
        x, y = place(iteration, 0)
        chart.add("text", (x, y + 14), text=str(iteration), size=11)
    for part in (0.0, 0.5, 1.0):
        x, y = place(0, part * top / 1.1)
        chart.add("text", (x - 6, y + 4), text=f"{part * top / 1.1:.2f}", size=11, anchor="end")
    chart.add("text", (chart.width / 2, chart.height - 4), text="iteration", size=11)


def _curve_point(chart: Chart, at: tuple[float, float], row: Mapping[str, Any]) -> None:
    words = f"node {row['node']}: {row['distance']:.3f}, {row['state']}"
    if row["state"] == "collapsed":
        chart.add("cross", at, colour=ALARM, size=5, text=words)
    else:
        chart.add("dot", at, colour=PALETTE[0], size=4, text=words)
    chart.add("text", (at[0] + 8, at[1] - 6), text=str(row["node"]), size=11, anchor="start")


def map_chart(
    places: np.ndarray,
    labels: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    chosen: Sequence[int] = (),
    *,
    bounds: tuple[np.ndarray, np.ndarray] | None = None,
    width: int = 360,
    height: int = 300,
) -> Chart:
    """Draw images as points of a map, coloured and numbered by cluster, the choice ringed.

    Parameters
    ----------
    places : (N, 2)
        Where each image lies.
    labels : (N,) int, optional
        Cluster of each image.
    kept : (K,) bool, optional
        Which clusters are large enough; the others are grey and named *dropped*.
    chosen : sequence of int
        Images to ring.
    bounds : (lowest, highest), each (2,), optional
        Of the map, so that several maps compare; None fits this one.
    width, height : int
        In points.

    Returns
    -------
    Chart
    """
    places = np.asarray(places, dtype=np.float64)
    labels = np.full(len(places), -1) if labels is None else np.asarray(labels)
    low, high = (places.min(0), places.max(0)) if bounds is None else bounds
    margin = np.array([24.0, 24.0])
    scale = (np.array([width, height]) - 2 * margin) / np.where(high > low, high - low, 1.0)
    at = margin + (places - low) * scale
    n_clusters = int(labels.max()) + 1 if len(labels) else 0
    chart = Chart(width, height, f"Map of {len(places)} images in {n_clusters} clusters; {len(chosen)} chosen.")
    dropped = [kept is not None and label >= 0 and not kept[label] for label in labels]
    for i, point in enumerate(at):
        colour = GREY if dropped[i] else colour_of(int(labels[i]))
        if i in set(chosen):
            chart.add("ring", point, colour=INK, size=7)
        chart.add("dot", point, colour=colour, size=4, text=f"image {i}, cluster {labels[i]}")
    for label in range(n_clusters):
        if (labels == label).any():
            name = f"{label} dropped" if kept is not None and not kept[label] else str(label)
            chart.add("text", at[labels == label].mean(0), text=name, size=14)
    return chart


def attribute_chart(table: Any, *, width: int = 640) -> Chart:
    """Draw how often images of a group have attributes (blue) and how often the others do (grey).

    Parameters
    ----------
    table : DataFrame
        Rows of `Inquiry.findings`: ``attribute``, ``answer``, ``share_in``, ``share_out``, ``p``.
    width : int
        In points; the height follows from the number of rows.

    Returns
    -------
    Chart
    """
    said = "; ".join(f"{row.attribute}: {row.share_in:.0%} here, {row.share_out:.0%} elsewhere"
                     for row in table.itertuples())  # fmt: skip
    chart = Chart(width, 26 * len(table) + 12, f"{said}." if said else "Nothing to draw.")
    left, length = 0.26 * width, 0.32 * width
    for at, row in enumerate(table.itertuples()):
        y = 20 + 26 * at
        chart.add("text", (left - 8, y + 3), text=row.attribute, size=12, anchor="end")
        for share, drop, colour in ((row.share_in, -3, PALETTE[0]), (row.share_out, 4, GREY)):
            if np.isfinite(share):
                chart.add("line", (left, y + drop), (left + max(1.0, length * share), y + drop), colour=colour, size=6)
        told = f"{row.share_in:.0%} here, {row.share_out:.0%} elsewhere" if np.isfinite(row.share_in) else "more surely"
        words = f"{told} · {row.answer}"
        chart.add("text", (left + length + 8, y + 3), text=words, size=11, anchor="start")
    return chart


def drift_chart(table: Any, *, width: int = 560, height: int = 240) -> Chart:
    """Draw how often attributes occur in gallery after gallery, with their bootstrap intervals.

    Parameters
    ----------
    table : DataFrame
        Of `drift.drift`: ``gallery``, ``attribute``, ``share``, ``low``, ``high``; some of its attributes.
    width, height : int
        In points; the names of the attributes take the right third.

    Returns
    -------
    Chart
    """
    galleries = list(dict.fromkeys(table["gallery"]))
    lines = [part for _, part in table.dropna(subset="share").groupby("column", sort=False)]
    said = "; ".join(f"{part['attribute'].iloc[0]}: " + ", ".join(f"{share:.0%}" for share in part["share"])
                     for part in lines)  # fmt: skip
    chart = Chart(width, height, f"Share of images by gallery: {said}." if lines else "Nothing to draw.")
    if not lines:
        return chart

    def place(at: float, share: float) -> tuple[float, float]:
        return 64 + (width * 0.62 - 64) * at / max(1, len(galleries) - 1), height - 28 - (height - 44) * share

    for share in (0.0, 0.5, 1.0):
        chart.add("line", place(0, share), place(len(galleries) - 1, share), colour=FAINT, size=1)
        x, y = place(0, share)
        chart.add("text", (x - 24, y + 4), text=f"{share:.0%}", size=11, anchor="end")
    for at, gallery in enumerate(galleries):
        x, y = place(at, 0)
        chart.add("text", (x, y + 16), text=gallery, size=11)
    ends = _apart([place(0, part["share"].iloc[-1])[1] for part in lines], 14)
    for number, (part, end) in enumerate(zip(lines, ends, strict=True)):
        aside = 8 * (number - (len(lines) - 1) / 2)  # so that intervals stand beside each other
        x = [place(galleries.index(gallery), 0)[0] + aside for gallery in part["gallery"]]
        _drift_line(chart, part, x, place, colour_of(number), (width * 0.62 + 44, end))
    return chart


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights down until each is a gap from the one above."""
    placed = np.array(heights, dtype=float)
    order = np.argsort(placed, kind="stable")
    for above, below in pairwise(order):
        placed[below] = max(placed[below], placed[above] + gap)
    return placed.tolist()


def _drift_line(chart: Chart, part: Any, x: list[float], place: Any, colour: str, end: tuple[float, float]) -> None:
    """One attribute: its shares, their intervals and its name."""
    points = [(at, place(0, share)[1]) for at, share in zip(x, part["share"], strict=True)]
    if len(points) > 1:
        chart.add("line", *points, colour=colour, size=2)
    for at, point, (_, row) in zip(x, points, part.iterrows(), strict=True):
        chart.add("line", (at, place(0, row["low"])[1]), (at, place(0, row["high"])[1]), colour=colour, size=1)
        chart.add("dot", point, colour=colour, size=4, text=f"{row['attribute']}, {row['gallery']}: {row['share']:.0%}")
    chart.add("line", points[-1], (end[0] - 4, end[1]), colour=FAINT, size=1)
    words = f"{part['attribute'].iloc[0]} {part['share'].iloc[-1]:.0%}"
    chart.add("text", (end[0], end[1] + 4), text=words, colour=colour, size=12, anchor="start")


def loss_chart(losses: Sequence[float], *, width: int = 240, height: int = 60) -> Chart:
    """Draw a loss by step as a line without axes."""
    values = np.asarray([value for value in losses if value is not None], dtype=np.float64)
    if len(values) < 2:
        return Chart(width, height, "No loss recorded.")
    chart = Chart(width, height, f"Loss over {len(values)} steps, from {values[0]:.3g} to {values[-1]:.3g}.")
    x = np.linspace(4, width - 4, len(values))
    spread = np.ptp(values) or 1.0
    y = height - 6 - (height - 12) * (values - values.min()) / spread
    chart.add("line", *zip(x, y, strict=True), colour=PALETTE[0])
    return chart


def principal_places(features: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Place the images of several galleries on one map: the first two principal components of all of them.

    Parameters
    ----------
    features : sequence of (N_i, D)

    Returns
    -------
    list of (N_i, 2)
        Signs are fixed (largest weight of each component positive): same features, same map.
    """
    every = np.concatenate([np.asarray(part, dtype=np.float64) for part in features])
    centre = every.mean(0)
    axes = np.linalg.svd(every - centre, full_matrices=False)[2][:2]
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(1)] < 0, -1.0, 1.0)[:, None]
    return [(np.asarray(part, dtype=np.float64) - centre) @ axes.T for part in features]


# --- drawing them


def svg(chart: Chart) -> str:
    """Draw a chart as an SVG element with a title for screen readers; all text in it is escaped."""
    shapes = "".join(_svg_shape(shape) for shape in chart.shapes)
    size = f'viewBox="0 0 {chart.width} {chart.height}" width="{chart.width}" height="{chart.height}"'
    words = f"<title>{escape(chart.words)}</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size}>{words}{shapes}</svg>'


def _svg_shape(shape: Shape) -> str:
    x, y = shape.points[0]
    colour = "currentColor" if shape.colour == INK else shape.colour
    title = f"<title>{escape(shape.text)}</title>" if shape.text else ""
    if shape.kind == "line":
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in shape.points)
        dash = ' stroke-dasharray="5 4"' if shape.dashed else ""
        return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{shape.size}"{dash}/>'
    if shape.kind == "text":
        style = f'font-size="{shape.size}" text-anchor="{shape.anchor}" fill="{colour}"'
        halo = 'paint-order="stroke" stroke="Canvas" stroke-width="3"'
        return f'<text x="{x:.1f}" y="{y:.1f}" {style} {halo}>{escape(shape.text)}</text>'
    if shape.kind == "cross":
        r, style = shape.size, f'stroke="{colour}" stroke-width="2.5"'
        path = f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}M{x - r:.1f} {y + r:.1f}l{2 * r} {-2 * r}"
        return f'<path d="{path}" {style}>{title}</path>'
    paint = f'fill="none" stroke="{colour}" stroke-width="1.5"' if shape.kind == "ring" else f'fill="{colour}"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{shape.size}" {paint}>{title}</circle>'


def chart_image(chart: Chart, *, scale: int = 2) -> Image.Image:
    """Draw a chart as an RGB image on white, ``scale`` pixels a point."""
    fine = 2 * scale  # drawn twice as fine, then reduced: smooth edges
    image = Image.new("RGB", (chart.width * fine, chart.height * fine), "white")
    pen = ImageDraw.Draw(image)
    for shape in chart.shapes:
        _draw_shape(pen, shape, fine)
    return image.resize((chart.width * scale, chart.height * scale), Image.Resampling.LANCZOS)


def _draw_shape(pen: ImageDraw.ImageDraw, shape: Shape, fine: int) -> None:
    points = [(x * fine, y * fine) for x, y in shape.points]
    (x, y), width = points[0], round(shape.size * fine)
    if shape.kind == "line":
        for a, b in pairwise(points):
            for start, end in _dashes(a, b, 6 * fine) if shape.dashed else [(a, b)]:
                pen.line([start, end], fill=shape.colour, width=width)
    elif shape.kind == "text":
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[shape.anchor]
        halo = {"stroke_width": fine, "stroke_fill": "white"}
        pen.text((x, y), shape.text, fill=shape.colour, font=font(width), anchor=anchor, **halo)
    elif shape.kind == "cross":
        for sign in (1, -1):
            pen.line(
                [(x - width, y - sign * width), (x + width, y + sign * width)],
                fill=shape.colour,
                width=2 * fine,
            )
    else:
        box = (x - width, y - width, x + width, y + width)
        ring = {"outline": shape.colour, "width": round(1.5 * fine)}
        pen.ellipse(box, **(ring if shape.kind == "ring" else {"fill": shape.colour}))


def _dashes(a: tuple[float, float], b: tuple[float, float], length: float) -> list[Any]:
    """Part a line into dashes as long as the gaps between them."""
    start, end = np.array(a), np.array(b)
    n = max(1, int(np.linalg.norm(end - start) // length))
    stops = [tuple(start + (end - start) * i / n) for i in range(n + 1)]
    return list(zip(stops[:-1:2], stops[1::2], strict=False))


def font(size: int) -> Any:
    """Return Pillow's own font at a size in pixels."""
    return ImageFont.load_default(size)
