"""The maps of a run's iterations: each made once, in the background, and kept.

All iterations of the branch that is shown are laid out together, so that a position means the same at every step of
the slider. PCA is there at once; UMAP takes its time and is swapped in when it is ready.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from chosen_one_nb.run.node import compared, use_foreground

from .background import BackgroundCache

if TYPE_CHECKING:
    from chosen_one_nb.analysis.projection import Projection
    from chosen_one_nb.run.run import Node

Method = Literal["umap", "pca"]


@dataclass(frozen=True)
class Layout:
    """A map of several galleries, and what it stands for.

    Parameters
    ----------
    projection : Projection
        See `chosen_one_nb.analysis.projection.project`.
    foreground : bool
        Whether it is made of the foregrounds alone, cut out of their images.
    stand_in : str
        Why this is PCA although UMAP was asked for; empty otherwise.
    """

    projection: Projection
    foreground: bool = False
    stand_in: str = ""

    @property
    def galleries(self) -> tuple[str, ...]:
        """Ids of the nodes that own the galleries."""
        return tuple(dict.fromkeys(owner for owner, _ in self.projection.owners))

    def others(self, gallery: str) -> NDArray[np.floating]:
        """Return the positions of all images but one gallery's, shape (M, 2)."""
        return self.projection.positions[[owner != gallery for owner, _ in self.projection.owners]]

    @property
    def words(self) -> str:
        """How far the map can be trusted, as a sentence."""
        said = [self.stand_in, "the foregrounds alone, cut out of their images" * self.foreground, self.projection.note]
        for row in self.projection.quality.itertuples():
            pca = f" (PCA {row.pca_trustworthiness:.2f}, {row.pca_continuity:.2f})"
            said.append(
                f"trustworthiness {row.trustworthiness:.2f}, continuity {row.continuity:.2f} among {row.k} neighbours"
                + (pca if self.projection.method == "umap" else "")
            )
        return " · ".join(filter(None, said))


class Layouts:
    """Give maps, making each once.

    Parameters
    ----------
    background : BackgroundCache
        Where UMAP is computed.
    """

    def __init__(self, background: BackgroundCache) -> None:
        self._background = background
        self._pca: dict[tuple[bool | str, ...], Projection] = {}
        self._last: Projection | None = None

    def get(self, nodes: Sequence[Node], method: Method) -> Layout:
        """Lay out the galleries of some iterations together.

        Parameters
        ----------
        nodes : sequence of Node
            Embedded ones, in order.
        method : {"umap", "pca"}
            While a UMAP is being computed its PCA stands in for it.
        """
        from chosen_one_nb.analysis.projection import project

        foreground, stand_in = use_foreground(nodes), ""
        key = (foreground, *dict.fromkeys(node.gallery_of for node in nodes))
        if method == "umap":
            umap = self._background.get(("umap", *key), lambda: self._fit_umap(nodes))
            if umap is not None:
                return Layout(umap, foreground)
            error = self._background.error(("umap", *key))
            stand_in = f"PCA, because UMAP failed: {error}" if error else "PCA for now, UMAP is being fitted…"
        # at once; how far to trust it follows from the background
        pca = self._background.get(("pca", *key), lambda: project(compared(nodes), method="pca"))
        if pca is None and key not in self._pca:
            self._pca[key] = project(compared(nodes), method="pca", quality=False)
        return Layout(pca or self._pca[key], foreground, stand_in)

    def _fit_umap(self, nodes: Sequence[Node]) -> Projection:
        """Fit a UMAP, starting from the last one so that old points stay about where they were."""
        from chosen_one_nb.analysis.projection import project

        self._last = project(compared(nodes), method="umap", previous=self._last)
        return self._last
