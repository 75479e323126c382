"""The same features laid out nine times: what changes from map to map is not in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from chosen_one_nb.plots import projection_plot, to_svg

if TYPE_CHECKING:
    from chosen_one_nb.analysis.projection import Projection
    from chosen_one_nb.steps.cluster import Clusters

SIDE = 150


def variants_html(maps: Sequence[Projection], clusters: Clusters | None) -> str:
    """Draw small maps, a row per number of neighbours, a column per seed.

    Parameters
    ----------
    maps : sequence of Map
        As `chosen_one_nb.analysis.projection.sensitivity` gives them.
    clusters : Clusters or None
        For the colours.
    """
    columns = len({made.seed for made in maps})
    figures = "".join(
        f"<figure>{_small(made, clusters)}<figcaption>{_words(made)}</figcaption></figure>" for made in maps
    )
    return f'<div class="chosen-variants" style="grid-template-columns: repeat({columns}, {SIDE}px)">{figures}</div>'


def _small(made: Projection, clusters: Clusters | None) -> str:
    if clusters is None:
        return to_svg(projection_plot(made.positions, size=(SIDE, SIDE)))
    named = np.where(clusters.kept[clusters.labels], clusters.labels, -1)  # dropped ones grey and without a name
    return to_svg(projection_plot(made.positions, named, size=(SIDE, SIDE)))


def _words(made: Projection) -> str:
    return f"{made.n_neighbors} neighbours, seed {made.seed}"
