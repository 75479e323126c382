"""Foreground and scene, told apart by the feature extractor's patch tokens.

Two ways, both by the border prior: an image's rim (above and at the sides) is mostly scene. `border`: a patch is
foreground as far as it is unlike the rim of its own image, and where that is unclear, as far as that place is
foreground in the other images. `pca`: the first principal components of all patches separate what stands in front
from what lies behind (Oquab et al., DINOv2, arXiv 2304.07193, section 7.4); the rim tells which side is which. The
first also works with features that are far from DINOv2's, where a principal component may be the tint of the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from chosen_one_nb.analysis.statistics import auroc, varying
from chosen_one_nb.steps.embed import unit

__all__ = ["NO_PATCHES", "NotAvailable", "Segmentation", "among", "cut_out", "otsu", "resize", "segment"]

Method = Literal["border", "pca"]

COMPONENTS = 3  # principal components that may be the one that separates
GREY = 128  # what stands in the place of what was cut away
ONE_HUMP = 2 / np.pi  # of its variance, a normal distribution cut at its mean has between the two sides
NEAREST = 0.3  # of the rim, what a patch is compared with: a foreground cut off by the rim is on the rest of it


@dataclass(frozen=True)
class NotAvailable:
    """What stands in the place of a result that cannot be had: false, and `reason` says why in a sentence."""

    reason: str

    def __bool__(self) -> bool:
        """Be false, so that `if result:` reads well."""
        return False


NO_PATCHES = NotAvailable(
    "The feature extractor gives no patch tokens, so foreground and scene cannot be told "
    "apart; everything that needs whole images only is shown."
)


@dataclass(frozen=True)
class Segmentation:
    """The foreground in each image.

    Attributes
    ----------
    masks : ndarray of bool, shape (N, h, w)
        True on the foreground; at least one patch of each image is foreground, and at least one is scene.
    scores : ndarray of shape (N, h, w)
        What was cut at `threshold`: larger is more foreground.
    threshold : float
    foreground, scene : ndarray of shape (N, D)
        Features of each, of unit length: what to cluster on instead of whole images. The mean of its patch tokens;
        at first of tokens that know something of the rest of the image, since they attend to each other, and after
        `with_features` of those that the extractor gives to foreground and scene cut out.
    separation : float
        Share of the scores' variance that the cut explains, in [0, 1]: 0.64 for a single hump, above 0.75 two.
    """

    masks: np.ndarray
    scores: np.ndarray
    threshold: float
    foreground: np.ndarray
    scene: np.ndarray
    separation: float

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """Return the masks at another size, bool (N, height, width): of images, or of latents for a masked loss."""
        return resize(self.scores, size) > self.threshold

    def rows(self, images: Sequence[int] | slice | np.ndarray) -> Segmentation:
        """Return the same for some of the images."""
        return replace(self, **{name: getattr(self, name)[images] for name in PARTS})

    def among(self, images: Sequence[int], n: int) -> Segmentation:
        """Return the same for n images of which these are some; the others have no foreground and no features."""
        parts: dict[str, Any] = {name: among(getattr(self, name), images, n) for name in PARTS}
        return replace(self, **parts)

    def with_features(self, foregrounds: np.ndarray, scenes: np.ndarray) -> Segmentation:
        """Return the same with features from the patch tokens (N, P, D) of the images that `cut_out` gives.

        Their mean under the mask, not the class token: it tells more of what a foreground is like (colour, clothes)
        and is not concerned with the grey around it.
        """
        n, patches = len(self.masks), self.masks[0].size
        for name, tokens in (("foregrounds", foregrounds), ("scenes", scenes)):
            if tokens is None or tokens.shape[:2] != (n, patches):
                got = None if tokens is None else tokens.shape
                raise ValueError(f"expected patch tokens of {n} {name}, shape ({n}, {patches}, D), got {got}.")
        masks = self.masks.reshape(n, patches)
        return replace(self, foreground=_masked_mean(foregrounds, masks), scene=_masked_mean(scenes, ~masks))


PARTS = ("masks", "scores", "foreground", "scene")
"""What a segmentation has of each image."""


def among(rows: np.ndarray, images: Sequence[int], n: int) -> np.ndarray:
    """Return rows as those of some of n images, and zeros for the others."""
    whole = np.zeros((n, *rows.shape[1:]), rows.dtype)
    whole[images] = rows
    return whole


def segment(
    patches: np.ndarray | None,
    grid: tuple[int, int],
    *,
    method: Method = "border",
    threshold: Literal["otsu"] | float = "otsu",
    seed: int = 0,
) -> Segmentation | NotAvailable:
    """Split images into foreground and scene.

    Parameters
    ----------
    patches : ndarray of shape (N, P, D), or None
        Patch tokens row by row, as `FeatureExtractor` gives them.
    grid : (int, int)
        h, w with h * w = P.
    method : "border" or "pca"
        See the module.
    threshold : "otsu" or float
        Where to cut: where Otsu's method (1979) cuts the scores of all images, or a number (0 is the mean).
    seed : int
        Of the randomised PCA.

    Returns
    -------
    Segmentation or NotAvailable
        The latter without patches, without any patch that is not on the rim, or if all patches are the same.

    Raises
    ------
    ValueError
        If shapes do not agree, numbers are not finite, or the method is unknown.
    """
    if patches is None:
        return NO_PATCHES
    if method not in get_args(Method):
        raise ValueError(f"expected method 'border' or 'pca', got {method!r}.")
    tokens, rim = _checked(patches, grid), _rim(grid)
    if rim.all():
        return NotAvailable(f"{grid[0]} x {grid[1]} patches in an image are too few to tell foreground from scene.")
    if not varying(tokens.reshape(-1, tokens.shape[-1])).any():
        return NotAvailable("All patches of all images are the same: there is no foreground to find.")
    scores = _unlike_the_rim(tokens, rim) if method == "border" else _component(tokens, rim, seed)  # (N, P)
    cut, separation = otsu(scores.ravel())
    cut = cut if threshold == "otsu" else float(threshold)
    masks = _never_all_or_nothing(scores > cut, scores)
    foreground, scene = _masked_mean(tokens, masks), _masked_mean(tokens, ~masks)
    return Segmentation(masks.reshape(-1, *grid), scores.reshape(-1, *grid), cut, foreground, scene, separation)


def _checked(patches: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    tokens = np.asarray(patches, dtype=np.float32)
    if tokens.ndim != 3 or not len(tokens) or tokens.shape[1] != grid[0] * grid[1]:
        raise ValueError(f"expected patches of shape (N, {grid[0]} * {grid[1]}, D), got {tokens.shape}.")
    if not np.isfinite(tokens).all():
        raise ValueError("expected finite patches, got NaN or infinity. Embed the gallery again.")
    return tokens


def cut_out(images: Sequence[Any], found: Segmentation) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cut foregrounds and scenes out of images, the rest grey, so that the extractor can look at each alone.

    Parameters
    ----------
    images : sequence of N images
        PIL images, or uint8 arrays of shape (H, W, 3).
    found : Segmentation
        Of the same images.

    Returns
    -------
    foregrounds, scenes : list of ndarray of shape (H, W, 3), uint8
        For `Image.fromarray`, then the feature extractor, then `Segmentation.with_features`.
    """
    if len(images) != len(found.masks):
        raise ValueError(f"expected {len(found.masks)} images, got {len(images)}.")
    foregrounds, scenes = [], []
    for at, image in enumerate(images):
        pixels = np.asarray(image)[..., :3]
        mask = found.rows([at]).at(pixels.shape[:2])[0, ..., None]
        foregrounds.append(np.where(mask, pixels, np.uint8(GREY)))
        scenes.append(np.where(mask, np.uint8(GREY), pixels))
    return foregrounds, scenes


def _rim(grid: tuple[int, int]) -> np.ndarray:
    """The outermost patches above, left and right, bool (P,): below, foregrounds stand or are cut off."""
    rim = np.ones(grid, bool)
    rim[1:, 1:-1] = False
    return rim.ravel()


def _unlike_the_rim(tokens: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """How unlike the rim of its image each patch is, (N, P): mean 0 and variance 1 in each image.

    The mean of two votes: one on the tokens, one on the tokens less their image's mean, which shows small
    differences where an image has a strong tint. Where these fall into two clear kinds they decide alone; the less
    they do, the more the mean over all images has a say, up to as much as the image itself: foregrounds of one prompt
    stand in much the same place.
    """
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    votes = [_standard(_rim_distance(side, rim)) for side in (tokens, centred)]
    scores = _standard(votes[0] + votes[1])
    _, separation = otsu(scores.ravel())
    say = np.clip((1 - separation) / (1 - ONE_HUMP), 0, 1)
    return _standard(scores + say * scores.mean(axis=0))


def _rim_distance(tokens: np.ndarray, rim: np.ndarray) -> np.ndarray:
    """1 - mean cosine of each patch to the part of its image's rim that it is most like, (N, P)."""
    directions = unit(tokens)
    cosines = directions @ directions[:, rim].transpose(0, 2, 1)  # (N, P, R)
    own = np.flatnonzero(rim)
    cosines[:, own, np.arange(len(own))] = -np.inf  # a patch of the rim is not compared with itself
    count = min(max(1, round(NEAREST * len(own))), len(own) - 1)
    return 1 - np.partition(cosines, -count, axis=-1)[..., -count:].mean(axis=-1)


def _standard(scores: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 in each image; 0 where an image is all of one patch."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-6)


def _component(tokens: np.ndarray, rim: np.ndarray, seed: int) -> np.ndarray:
    """Scores of all patches on the principal component in which rim and inside differ most, inside up, (N, P)."""
    from sklearn.decomposition import PCA

    flat = tokens.reshape(-1, tokens.shape[-1])
    pca = PCA(min(COMPONENTS, *flat.shape), svd_solver="randomized", random_state=seed)
    scores = pca.fit_transform(flat)  # (N * P, c)
    chances = auroc(scores, np.tile(~rim, len(tokens)))
    best = int(np.argmax(np.abs(chances - 0.5)))
    return np.sign(chances[best] - 0.5 or 1.0) * scores[:, best].reshape(tokens.shape[:2])


def otsu(values: np.ndarray, bins: int = 256) -> tuple[float, float]:
    """Cut where the variance between the two sides is largest (Otsu 1979), and its share of the whole."""
    counts, edges = np.histogram(values, bins=bins)
    centres = (edges[:-1] + edges[1:]) / 2
    below, above = np.cumsum(counts), len(values) - np.cumsum(counts)
    mass = np.cumsum(counts * centres)
    mean_below = mass / np.maximum(below, 1)
    mean_above = (mass[-1] - mass) / np.maximum(above, 1)
    between = below * above * (mean_below - mean_above) ** 2.0
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))  # several in a gap: its middle
    whole = len(values) ** 2.0 * values.var()
    return float(edges[best + 1].mean()), float(between.max() / whole) if whole > 0 else 0.0


def _never_all_or_nothing(masks: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Let each image's highest patch be foreground and its lowest scene, (N, P)."""
    rows = np.arange(len(masks))
    masks = masks.copy()
    masks[rows, scores.argmax(axis=1)] = True
    masks[rows, scores.argmin(axis=1)] = False
    flat = ~masks.any(axis=1)  # all scores equal: argmax and argmin are one patch
    masks[flat, -1] = True
    return masks


def _masked_mean(tokens: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Mean token under each mask, of unit length, (N, D)."""
    weights = masks / masks.sum(axis=1, keepdims=True)
    return unit(np.einsum("np,npd->nd", weights.astype(np.float32), tokens))


def resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bring masks or heat maps (N, h, w) to another size bilinearly, (N, height, width) float32."""
    from scipy.ndimage import zoom

    maps = np.asarray(maps, dtype=np.float32)
    factors = (1, size[0] / maps.shape[1], size[1] / maps.shape[2])
    return zoom(maps, factors, order=1, mode="nearest", grid_mode=True)
