"""Colours and signs by cluster: every colour has a second sign, so that no distinction hangs on hue alone.

The hues are Okabe and Ito's colour-blind safe palette without its black (invisible on a dark theme), by the cluster's
number, as in `chosen_one_nb.plots`. Clusters beyond them are grey, told apart by sign and number; dropped
ones are light and open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

ColourBy = Literal["cluster", "distance", "order", "kept"]

HUES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY, DROPPED, INK, LEFT_OUT = "#8A8A8A", "#B4B4B4", "#7F7F7F", "#D55E00"
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")
GLYPHS = ("●", "■", "◆", "▲", "✚", "★", "▼", "⬢")
DROPPED_SYMBOL, DROPPED_GLYPH = "circle-open", "○"


class ClustersLike(Protocol):
    """What signs need of clusters (see `chosen_one_nb.steps.cluster.Clusters`)."""

    labels: NDArray[np.int64]
    distances: NDArray[np.floating]
    kept: NDArray[np.bool_]


@dataclass(frozen=True)
class Marker:
    """How a cluster is drawn: its hue, its Plotly symbol and the same symbol as a letter."""

    colour: str
    symbol: str
    glyph: str


def marker_of(clusters: ClustersLike, cluster: int) -> Marker:
    """Give the sign of one cluster.

    Raises
    ------
    ValueError
        When there is no such cluster.
    """
    if not 0 <= cluster < len(clusters.kept):
        raise ValueError(f"Expected a cluster from 0 to {len(clusters.kept) - 1}, got {cluster}.")
    if not clusters.kept[cluster]:
        return Marker(DROPPED, DROPPED_SYMBOL, DROPPED_GLYPH)
    colour = HUES[cluster] if cluster < len(HUES) else GREY
    return Marker(colour, SYMBOLS[cluster % len(SYMBOLS)], GLYPHS[cluster % len(GLYPHS)])


@dataclass(frozen=True)
class Marks:
    """Colour and symbol of every point of a map.

    Parameters
    ----------
    colour : list of str or list of float
        Hex colours, or numbers for a colour scale, (N,).
    symbol : list of str
        Plotly symbols, (N,); always by cluster.
    scale : str
        Title of the colour scale; empty when `colour` holds hex colours.
    """

    colour: list[str] | list[float]
    symbol: list[str]
    scale: str = ""


def plain_marks(n: int) -> Marks:
    """Give the marks of `n` images that have not been clustered yet."""
    return Marks([INK] * n, ["circle"] * n)


def marks(clusters: ClustersLike, colour_by: ColourBy = "cluster", left_out: Sequence[int] = ()) -> Marks:
    """Give the colour and symbol of every image.

    Parameters
    ----------
    clusters : Clusters
        Of N images.
    colour_by : {"cluster", "distance", "order", "kept"}
        Colour by cluster, by distance to the own centroid, by the order of the seeds, or by whether the image's
        cluster is kept and the image not left out. The symbol stays with the cluster.
    left_out : sequence of int
        Images that the person left out.

    Raises
    ------
    ValueError
        For another `colour_by`.
    """
    signs = [marker_of(clusters, c) for c in range(len(clusters.kept))]
    symbols = [signs[label].symbol for label in clusters.labels]
    if colour_by == "cluster":
        return Marks([signs[label].colour for label in clusters.labels], symbols)
    if colour_by == "distance":
        return Marks([float(d) for d in clusters.distances], symbols, "distance to<br>own centroid")
    if colour_by == "order":
        return Marks([float(i) for i in range(len(clusters.labels))], symbols, "seed order")
    if colour_by == "kept":
        out = set(left_out)
        colours = [HUES[0] if clusters.kept[label] else DROPPED for label in clusters.labels]
        return Marks([LEFT_OUT if i in out else colour for i, colour in enumerate(colours)], symbols)
    raise ValueError(f"Expected colour_by to be 'cluster', 'distance', 'order' or 'kept', got {colour_by!r}.")


def tinted_marks(plain: Marks, name: str, values: list[float]) -> Marks:
    """Give the same marks coloured by how surely each image has something; the symbol stays with the cluster."""
    return Marks(values, plain.symbol, escape(name))
