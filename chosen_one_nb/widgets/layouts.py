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
    """A map of several galleries, and which of them are on it.

    Parameters
    ----------
    map : Projection
        See `chosen_one_nb.analysis.projection.project`.
    galleries : tuple of str
        Ids of the nodes that own them.
    foreground : bool
        Whether it is made of the foregrounds alone, cut out of their images.
    waiting : bool
        Whether this only stands in for a UMAP that is still being computed.
    trouble : str
        Why there is no UMAP; empty when nothing is wrong.
    """

    map: Projection
    galleries: tuple[str, ...]
    foreground: bool = False
    waiting: bool = False
    trouble: str = ""

    @property
    def method(self) -> Method:
        """How it was made."""
        return self.map.method

    @property
    def basis(self) -> tuple[str, tuple[str, ...], bool]:
        """What positions hang on: they compare between two layouts where this is the same."""
        return self.method, self.galleries, self.foreground

    def of(self, gallery: str) -> NDArray[np.floating]:
        """Positions of one gallery, shape (N, 2)."""
        return self.map.of(gallery)

    def others(self, gallery: str) -> NDArray[np.floating]:
        """Positions of all images but one gallery's, shape (M, 2)."""
        rows = [at for at, (owner, _) in enumerate(self.map.owners) if owner != gallery]
        return self.map.positions[rows]

    @property
    def words(self) -> str:
        """How far the map can be trusted, as a sentence."""
        said = ["the foregrounds alone, cut out of their images"] if self.foreground else []
        said += [self.map.note] if self.map.note else []
        for row in self.map.quality.itertuples():
            said.append(
                f"trustworthiness {row.trustworthiness:.2f}, continuity {row.continuity:.2f} among {row.k} neighbours"
                + (f" (PCA {row.pca_trustworthiness:.2f}, {row.pca_continuity:.2f})" if self.method == "umap" else "")
            )
        if self.waiting:
            said.insert(0, "PCA for now, UMAP is being fitted…")
        if self.trouble:
            said.insert(0, f"PCA, because UMAP failed: {self.trouble}")
        return " · ".join(said)


class Layouts:
    """Give maps, making each once.

    Parameters
    ----------
    background : BackgroundCache
        Where UMAP is computed.
    """

    def __init__(self, background: BackgroundCache) -> None:
        self._background = background
        self._pca: dict[tuple[str, ...], Projection] = {}
        self._last: Projection | None = None

    def get(self, nodes: Sequence[Node], method: Method) -> Layout:
        """Lay out the galleries of some iterations together.

        Parameters
        ----------
        nodes : sequence of Node
            Embedded ones, in order.
        method : {"umap", "pca"}
            While a UMAP is being computed its PCA is given, marked as waiting.
        """
        galleries = tuple(dict.fromkeys(node.gallery_of for node in nodes))
        foreground = use_foreground(nodes)
        key = (*galleries, "foreground" if foreground else "images")
        umap = ("umap", key)
        if method == "umap":
            found = self._background.get(umap, lambda: self._umap(compared(nodes)))
            if found is not None:
                return Layout(found, galleries, foreground)
        trouble = self._background.error(umap) if method == "umap" else None
        waiting = method == "umap" and self._background.waiting(umap)
        return Layout(self._at_once(nodes, key), galleries, foreground, waiting, str(trouble or ""))

    def _at_once(self, nodes: Sequence[Node], key: tuple[str, ...]) -> Projection:
        """PCA, at once; how far to trust it follows from the background."""
        from chosen_one_nb.analysis.projection import project

        if key not in self._pca:
            self._pca[key] = project(compared(nodes), method="pca", quality=False)
        trusted = self._background.get(("pca", key), lambda: project(compared(nodes), method="pca"))
        return trusted or self._pca[key]

    def _umap(self, galleries: dict[str, NDArray[np.floating]]) -> Projection:
        """Fit a UMAP, starting from the last one so that old points stay about where they were."""
        from chosen_one_nb.analysis.projection import project

        self._last = project(galleries, method="umap", previous=self._last)
        return self._last
