"""Where the pictures of a run's iterations lie on the map: computed once, in the background, and kept.

All iterations on the way to the one that is shown are laid out together, so that a position means the same at every
step of the slider. PCA is there at once; UMAP takes its time and is swapped in when it is ready.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from .later import Later

if TYPE_CHECKING:
    from chosen_one_nb.run import Node
    from chosen_one_nb.settings import Settings

Method = Literal["umap", "pca"]


@dataclass(frozen=True)
class Layout:
    """Positions of the pictures of several iterations, laid out together.

    Parameters
    ----------
    method : {"umap", "pca"}
    xy : dict of str to ndarray of shape (N, 2)
        By the id of the node that owns the gallery.
    trust : float
        Trustworthiness of the map in [0, 1]: how far neighbours on the map are neighbours in feature space.
    continuity : float
        The other way round: how far true neighbours have stayed neighbours on the map.
    waiting : bool
        Whether this only stands in for a UMAP that is still being computed.
    """

    method: Method
    xy: dict[str, NDArray[np.floating]]
    trust: float
    continuity: float
    waiting: bool = False

    def others(self, gallery: str) -> NDArray[np.floating]:
        """Positions of all pictures but one gallery's, shape (M, 2)."""
        rest = [xy for name, xy in self.xy.items() if name != gallery]
        return np.concatenate(rest) if rest else np.zeros((0, 2))


class Layouts:
    """Give layouts, computing each once.

    Parameters
    ----------
    later : Later
        Where UMAP is computed.
    """

    def __init__(self, later: Later) -> None:
        self._later = later
        self._pca: dict[tuple[str, ...], Layout] = {}
        self._last_umap: Layout | None = None

    def get(self, nodes: list[Node], method: Method) -> Layout:
        """Lay out the galleries of some iterations together.

        Parameters
        ----------
        nodes : list of Node
            Embedded ones, in order.
        method : {"umap", "pca"}
            While a UMAP is being computed its PCA is given, marked as waiting.
        """
        key = tuple(node.gallery_of for node in nodes)
        features = {node.gallery_of: node.features for node in nodes}
        settings = nodes[0].settings
        if method == "umap":
            found = self._later.get(("umap", key), lambda: self._umap(features, settings))
            if found is not None:
                return found
        if key not in self._pca:
            self._pca[key] = lay_out(features, settings, "pca")
        return replace(self._pca[key], waiting=self._later.waiting(("umap", key)))

    def _umap(self, features: dict[str, NDArray[np.floating]], settings: Settings) -> Layout:
        self._last_umap = lay_out(features, settings, "umap", self._last_umap)
        return self._last_umap


def lay_out(features: dict[str, NDArray[np.floating]], settings: Settings, method: Method, start: Layout | None = None) -> Layout:
    """Lay several galleries out together."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import trustworthiness
    from chosen_one_nb.steps.embed import in_space
    x = np.concatenate([in_space(f, settings) for f in features.values()])
    if method == "umap":
        import umap, warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            xy = umap.UMAP(n_neighbors=min(15, len(x) - 1), random_state=0).fit_transform(x)
    else:
        xy = PCA(2).fit_transform(x)
    t = trustworthiness(x, xy, n_neighbors=5)
    out, at = {}, 0
    for name, f in features.items():
        out[name] = xy[at: at + len(f)]
        at += len(f)
    return Layout(method, out, t, t)
