"""Figure and scene, told apart by the feature extractor's patch tokens.

The first principal components of all patches of all pictures separate what stands in front from what lies
behind (Oquab et al., DINOv2, arXiv 2304.07193, section 7.4); a picture's border tells which side is which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from chosen_one_nb.looking.statistics import auroc

__all__ = ["NO_PATCHES", "Foreground", "NotAvailable", "find_figure", "resize"]

COMPONENTS = 3  # principal components that may be the one that separates


@dataclass(frozen=True)
class NotAvailable:
    """What stands in the place of a result that cannot be had; false, and says why.

    Attributes
    ----------
    reason : str
        A sentence for the reader.
    """

    reason: str

    def __bool__(self) -> bool:
        """Be false, so that `if result:` reads well."""
        return False


NO_PATCHES = NotAvailable("The feature extractor gives no patch tokens, so figure and scene cannot be told "
                          "apart; everything that needs whole pictures only is shown.")


@dataclass(frozen=True)
class Foreground:
    """The figure in each picture.

    Attributes
    ----------
    masks : ndarray of bool, shape (N, h, w)
        True on the figure; at least one patch of each picture is figure, and at least one is scene.
    heights : ndarray of shape (N, h, w)
        What was cut at `threshold`: larger is more figure.
    threshold : float
    figure, scene : ndarray of shape (N, D), float32
        Mean patch token of each, of unit length: what to cluster on instead of whole pictures.
    border : float
        In [0, 1]: chance that a patch inside lies higher than one on the border. Near 0.5 the split is a
        guess.
    """

    masks: np.ndarray
    heights: np.ndarray
    threshold: float
    figure: np.ndarray
    scene: np.ndarray
    border: float


def find_figure(patches: np.ndarray | None, grid: tuple[int, int], *,
                threshold: Literal["otsu"] | float = "otsu", seed: int = 0) -> Foreground | NotAvailable:
    """Split pictures into figure and scene.

    Parameters
    ----------
    patches : ndarray of shape (N, P, D), or None
        Patch tokens row by row, as `FeatureExtractor` gives them.
    grid : (int, int)
        h, w with h * w = P.
    threshold : "otsu" or float
        Where to cut the component: where Otsu's method (1979) cuts the values of all pictures, or a number (0
        is the mean over all patches).
    seed : int
        Of the randomised PCA.

    Returns
    -------
    Foreground or NotAvailable
        The latter without patches, with less than four of them per picture, or if all patches are the same.

    Raises
    ------
    ValueError
        If shapes do not agree or numbers are not finite.
    """
    if patches is None:
        return NO_PATCHES
    tokens = _checked(patches, grid)
    if tokens.shape[1] < 4:
        return NotAvailable(f"{tokens.shape[1]} patches in a picture are too few to tell figure from scene.")
    scores = _components(tokens, seed)  # (N, P, c)
    if scores is None:
        return NotAvailable("All patches of all pictures are the same: there is no figure to find.")
    heights, border = _towards_figure(scores, grid)  # (N, P)
    cut = _otsu(heights.ravel()) if threshold == "otsu" else float(threshold)
    masks = _never_all_or_nothing(heights > cut, heights)
    return Foreground(masks.reshape(-1, *grid), heights.reshape(-1, *grid), cut,
                      _masked_mean(tokens, masks), _masked_mean(tokens, ~masks), border)


def _checked(patches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    tokens = np.asarray(patches, dtype=np.float32)
    if tokens.ndim != 3 or not len(tokens) or tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"expected patches of shape (N, {grid[0]} * {grid[1]}, D), got {tokens.shape}.")
    if not np.isfinite(tokens).all():
        raise ValueError("expected finite patches, got NaN or infinity. Embed the gallery again.")
    return tokens


def _components(tokens: np.ndarray, seed: int) -> np.ndarray | None:
    """Scores of all patches on the first principal components, (N, P, c); None if nothing varies."""
    from sklearn.utils.extmath import randomized_svd

    flat = tokens.reshape(-1, tokens.shape[-1])
    flat = flat - flat.mean(axis=0)
    if np.abs(flat).max() < 1e-6:
        return None
    left, scale, _ = randomized_svd(flat, min(COMPONENTS, *flat.shape), random_state=seed)
    return (left * scale).reshape(*tokens.shape[:2], -1)


def _towards_figure(scores: np.ndarray, grid: tuple[int, int]) -> tuple[np.ndarray, float]:
    """Take the component in which inside and border differ most, and turn it so that the inside is high."""
    inside = np.zeros(grid, bool)
    margins = [max(1, side // 6) for side in grid]
    inside[margins[0]:-margins[0], margins[1]:-margins[1]] = True
    if not inside.any():  # a grid of two rows has no inside
        return scores[..., 0], 0.5
    where = np.broadcast_to(inside.ravel(), scores.shape[:2]).ravel()
    chances = auroc(scores.reshape(-1, scores.shape[-1]), where)
    best = int(np.argmax(np.abs(chances - 0.5)))
    sign = 1.0 if chances[best] >= 0.5 else -1.0
    return sign * scores[..., best], float(max(chances[best], 1 - chances[best]))


def _otsu(values: np.ndarray, bins: int = 256) -> float:
    """Cut where the variance between the two sides is largest (Otsu 1979)."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), len(values) - np.cumsum(counts)
    mass = np.cumsum(counts * centres)
    mean_below = mass / np.maximum(below, 1)
    mean_above = (mass[-1] - mass) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2.0
    return float(edges[int(np.argmax(between)) + 1])


def _never_all_or_nothing(masks: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Let each picture's highest patch be figure and its lowest scene, (N, P)."""
    rows = np.arange(len(masks))
    masks = masks.copy()
    masks[rows, heights.argmax(axis=1)] = True
    masks[rows, heights.argmin(axis=1)] = False
    flat = ~masks.any(axis=1)  # all heights equal: argmax and argmin are one patch
    masks[flat, -1] = True
    return masks


def _masked_mean(tokens: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean token under each mask, of unit length, (N, D)."""
    weights = masks / masks.sum(axis=1, keepdims=True)
    means = np.einsum("np,npd->nd", weights.astype(np.float32), tokens)
    return means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)


def resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring masks or heat maps to another size, bilinearly: to latents for a masked loss, to pixels for a
    picture.

    Parameters
    ----------
    maps : ndarray of shape (N, h, w)
    size : (int, int)
        Height and width.

    Returns
    -------
    ndarray of shape (N, height, width), float32
    """
    maps = np.asarray(maps, dtype=np.float32)
    for axis, length in ((1, size[0]), (2, size[1])):
        places = np.clip((np.arange(length) + 0.5) * maps.shape[axis] / length - 0.5, 0, maps.shape[axis] - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, maps.shape[axis] - 1)
        share = (places - low).astype(np.float32).reshape([-1 if at == axis else 1 for at in range(3)])
        maps = maps.take(low, axis) * (1 - share) + maps.take(high, axis) * share
    return maps
