"""Colours and symbols by cluster: every colour has a second sign, so that no distinction hangs on hue alone.

The hues are those of `chosen_one_nb.plots`, by the cluster's number. Clusters beyond them are grey, told apart by
symbol and number; dropped ones are light and open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from chosen_one_nb.plots import ALARM, DROPPED, GLYPHS, PALETTE, colour_of

if TYPE_CHECKING:
    from chosen_one_nb.steps.cluster import Clusters

ColourBy = Literal["cluster", "distance", "order", "kept"]

UNKNOWN, LEFT_OUT = "#7F7F7F", ALARM
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down", "hexagon")


@dataclass(frozen=True)
class Marker:
    """How a cluster is drawn: its colour, its Plotly symbol and the same symbol as a letter."""

    colour: str
    symbol: str
    glyph: str


def marker_of(clusters: Clusters, cluster: int) -> Marker:
    """Return how one cluster is drawn.

    Raises
    ------
    ValueError
        When there is no such cluster.
    """
    if not 0 <= cluster < len(clusters.kept):
        raise ValueError(f"Expected a cluster from 0 to {len(clusters.kept) - 1}, got {cluster}.")
    if not clusters.kept[cluster]:
        return Marker(DROPPED, "circle-open", "○")
    return Marker(colour_of(cluster), SYMBOLS[cluster % len(SYMBOLS)], GLYPHS[cluster % len(GLYPHS)])


def ranked_clusters(clusters: Clusters) -> list[int]:
    """Clusters that were kept, most cohesive first, then the dropped ones."""
    return sorted((int(c) for c in clusters.order), key=lambda c: not clusters.kept[c])


def ranked_members(clusters: Clusters, cluster: int) -> list[int]:
    """Members of a cluster, nearest to its centroid first."""
    members = np.flatnonzero(clusters.labels == cluster)
    return members[np.argsort(clusters.distances[members], kind="stable")].tolist()


@dataclass(frozen=True)
class PointStyle:
    """How the N points of a map are drawn.

    Parameters
    ----------
    colour : list of str or list of float
        Hex colours, or numbers for a colour scale, (N,).
    symbol : list of str
        Plotly symbols, (N,); always by cluster.
    scale : str
        Title of the colour scale; empty when `colour` holds hex colours.
    chosen, excluded : sequence of int
        Points drawn larger, and as crosses.
    """

    colour: list[str] | list[float]
    symbol: list[str]
    scale: str = ""
    chosen: Sequence[int] = ()
    excluded: Sequence[int] = ()


def point_style(
    clusters: Clusters | None, n: int, colour_by: ColourBy = "cluster", *,
    chosen: Sequence[int] = (), excluded: Sequence[int] = (),
) -> PointStyle:  # fmt: skip
    """Return how every image is drawn.

    Parameters
    ----------
    clusters : Clusters or None
        Of the N images; None before there are any.
    n : int
        N.
    colour_by : {"cluster", "distance", "order", "kept"}
        Colour by cluster, by distance to the own centroid, by the order of the seeds, or by whether the image's
        cluster is kept and the image not left out. The symbol stays with the cluster.
    chosen, excluded : sequence of int
        Images that were chosen, and that the person left out.

    Raises
    ------
    ValueError
        For another `colour_by`.
    """
    if clusters is None:
        return PointStyle([UNKNOWN] * n, ["circle"] * n, "", chosen, excluded)
    markers = [marker_of(clusters, c) for c in range(len(clusters.kept))]
    scale = ""
    match colour_by:
        case "cluster":
            colours = [markers[label].colour for label in clusters.labels]
        case "distance":
            colours, scale = clusters.distances.tolist(), "distance to<br>own centroid"
        case "order":
            colours, scale = list(range(n)), "seed order"
        case "kept":
            colours = [PALETTE[0] if clusters.kept[label] else DROPPED for label in clusters.labels]
            colours = [LEFT_OUT if i in excluded else colour for i, colour in enumerate(colours)]
        case _:
            raise ValueError(f"Expected colour_by to be 'cluster', 'distance', 'order' or 'kept', got {colour_by!r}.")
    return PointStyle(colours, [markers[label].symbol for label in clusters.labels], scale, chosen, excluded)
