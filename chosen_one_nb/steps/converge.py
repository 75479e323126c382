"""Step 5, converge: is this gallery one character (section 3.3), and is it still a healthy one?

    stop when  mean over pairs of || s1 - s2 ||  <=  d_conv

Distance alone cannot distinguish one identity from one blot, so a gallery's health is checked too: by its
images' plain statistics, its likeness to the prompt, its distance from what the base model draws, and the
variety left in it, each against the first gallery. Nothing here knows what the images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist, pdist

from chosen_one_nb.models.images import as_rgb
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.embed import in_space

__all__ = [
    "Convergence", "GalleryMeasures", "Health", "HealthCheck", "Verdict", "all_same", "check", "health",
    "image_statistics", "mean_pairwise_distance", "measure", "thumbnails", "verdict",
]  # fmt: skip

LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear red, green and blue (ITU-R BT.709)
THUMBNAIL = 16

SMALLEST_SPREAD = {"image": 0.04, "prompt": 0.02}
"""Of a statistic in [0, 1]: a first gallery alike in it is not a strict judge. A few per cent more of white paper, say,
come with a character's colour, however alike the first gallery was."""


@dataclass(frozen=True)
class Convergence:
    """How alike the images of a gallery are, against the threshold.

    Attributes
    ----------
    distance : float
        Mean pairwise Euclidean distance of the features, in the space of the settings.
    first_distance : float
        The first gallery's.
    ratio : float
        distance / first_distance (0 if that is 0).
    threshold : float
        d_conv as a distance: the setting itself, or times first_distance.
    converged : bool
        Whether distance <= threshold.
    """

    distance: float
    first_distance: float
    ratio: float
    threshold: float
    converged: bool


@dataclass(frozen=True)
class GalleryMeasures:
    """What `health` compares of a gallery: arrays by image, no images.

    Attributes
    ----------
    features : ndarray of shape (N, D)
        As `embed` gives them.
    statistics : dict of str to ndarray of shape (N,)
        From `image_statistics`.
    thumbnails : ndarray of shape (N, 768)
        From `thumbnails`.
    prompt_similarity : ndarray of shape (N,) or None
        Cosine of CLIP's vectors of each image and of the run's plain prompt; None without CLIP.
    """

    features: np.ndarray
    statistics: dict[str, np.ndarray]
    thumbnails: np.ndarray
    prompt_similarity: np.ndarray | None = None

    def rows(self, images: Sequence[int]) -> GalleryMeasures:
        """Return the same for some of the images."""
        statistics = {name: values[images] for name, values in self.statistics.items()}
        similarity = None if self.prompt_similarity is None else self.prompt_similarity[images]
        return GalleryMeasures(self.features[images], statistics, self.thumbnails[images], similarity)


@dataclass(frozen=True)
class HealthCheck:
    """One comparison with the first gallery: value, limit, whether it is beyond it, and a sentence that says so.

    A limit of None: the value is reported and never beyond. `now` and `first` are the two galleries' means that
    the value compares.
    """

    name: str
    value: float
    limit: float | None
    beyond: bool
    now: float
    first: float
    text: str


@dataclass(frozen=True)
class Health:
    """Whether a gallery still shows the prompt: "sound" or "collapsed", with reasons and all checks."""

    state: Literal["sound", "collapsed"]
    reasons: list[str]
    checks: list[HealthCheck]

    @property
    def values(self) -> dict[str, float]:
        """The checks' values by name."""
        return {check.name: check.value for check in self.checks}


@dataclass(frozen=True)
class Verdict:
    """What a gallery means for the run: "converged", "not yet" or "collapsed", and why in words."""

    state: Literal["converged", "not yet", "collapsed"]
    reason: str


def mean_pairwise_distance(features: np.ndarray) -> float:
    """Return the mean Euclidean distance over all pairs of N features as given (section 3.3).

    Over distinct pairs: the paper's zeros of each image with itself cancel in a ratio, and without them
    galleries of different sizes compare. 0 for a single image.

    Examples
    --------
    >>> mean_pairwise_distance(np.array([[0.0], [3.0], [3.0]]))
    2.0
    """
    return float(pdist(features).mean()) if len(features) > 1 else 0.0


def all_same(features: np.ndarray, settings: Settings) -> bool:
    """Whether N > 1 images are one and the same to the feature extractor, but for rounding."""
    points = in_space(features, settings)
    return len(points) > 1 and mean_pairwise_distance(points) <= 1e-6 * np.linalg.norm(points, axis=1).mean()


def check(features: np.ndarray, first: np.ndarray, settings: Settings) -> Convergence:
    """Compare a gallery's mean pairwise distance with d_conv (section 3.3).

    Parameters
    ----------
    features : ndarray of shape (N, D)
        Of the gallery, as `embed` gives them.
    first : ndarray of shape (M, D)
        Of the first gallery of the run; may be the same.
    settings : Settings
        d_conv, its mode, and the feature space.

    Returns
    -------
    Convergence
    """
    # Relative by default: how far features lie apart depends on the extractor and on the prompt.
    now, then = (mean_pairwise_distance(in_space(array, settings)) for array in (features, first))
    threshold = settings.convergence * (then if settings.convergence_mode == "relative" else 1)
    return Convergence(now, then, now / then if then > 0 else 0.0, threshold, now <= threshold)


def measure(
    images: Sequence[Image.Image], features: np.ndarray, prompt_similarity: np.ndarray | None = None
) -> GalleryMeasures:
    """Measure what `health` compares of N images, given their features (N, D) and likeness to the prompt (N,)."""
    return GalleryMeasures(features, image_statistics(images), thumbnails(images), prompt_similarity)


def image_statistics(images: Sequence[Image.Image]) -> dict[str, np.ndarray]:
    """Return plain statistics of images, each (N,): what blows up or fades as a model over-fits.

    - brightness: mean luminance, in [0, 1];
    - contrast: standard deviation of luminance;
    - saturation: mean of the largest minus the smallest colour channel;
    - colourfulness: Hasler and Suesstrunk's measure (Human Vision and Electronic Imaging, 2003), on [0, 1]
      channels;
    - detail: mean absolute difference of neighbouring luminances;
    - clipped: share of pixels with a channel fully on or off.
    """
    rows = [_statistics(np.asarray(as_rgb(image), dtype=np.float64) / 255) for image in images]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}


def thumbnails(images: Sequence[Image.Image]) -> np.ndarray:
    """Return images reduced to 16 x 16 RGB in [0, 1] and flattened: (N, 768)."""
    small = [as_rgb(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(tile, dtype=np.float32).ravel() / 255 for tile in small])


def _statistics(pixels: np.ndarray) -> dict[str, float]:
    """Statistics of one image (H, W, 3) in [0, 1]."""
    luminance = pixels @ LUMINANCE  # (H, W)
    red_green = pixels[..., 0] - pixels[..., 1]
    yellow_blue = (pixels[..., 0] + pixels[..., 1]) / 2 - pixels[..., 2]
    across, down = np.abs(np.diff(luminance, axis=1)), np.abs(np.diff(luminance, axis=0))
    return {
        "brightness": luminance.mean(),
        "contrast": luminance.std(),
        "saturation": (pixels.max(-1) - pixels.min(-1)).mean(),
        "colourfulness": np.hypot(red_green.std(), yellow_blue.std())
        + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()),
        "detail": (across.mean() + down.mean()) / 2,
        "clipped": ((pixels <= 1 / 255) | (pixels >= 254 / 255)).any(-1).mean(),
    }


def health(now: GalleryMeasures, first: GalleryMeasures, settings: Settings) -> Health:
    """Distinguish a sound gallery from a collapsed one by comparison with the first.

    Parameters
    ----------
    now, first : GalleryMeasures
        Of the gallery and of the run's first gallery.
    settings : Settings
        The limits; None reports a value without judging by it.

    Returns
    -------
    Health
        Collapsed if any check is beyond its limit:

        - each image statistic: |mean now - mean first| / standard deviation of the first <=
          statistic_limit. One character may sit anywhere within the first gallery's range, but not outside
          it;
        - prompt similarity: its fall, in the first's standard deviations, <= prompt_limit;
        - drift: mean distance of a feature to the nearest one of the first gallery, over that gallery's own
          mean distance to the nearest other, <= drift_limit;
        - variety of features and of thumbnails: mean pairwise distance over the first's >= variety_floor.
    """
    checks = [
        _shift_check(name, now.statistics[name], first.statistics[name], settings.statistic_limit)
        for name in first.statistics
    ]
    if now.prompt_similarity is not None and first.prompt_similarity is not None:
        checks.append(_shift_check("prompt", now.prompt_similarity, first.prompt_similarity, settings.prompt_limit))
    features = in_space(now.features, settings), in_space(first.features, settings)
    checks.append(_drift_check(*features, settings.drift_limit))
    checks.append(_variety_check("variety", *features, settings.variety_floor))
    checks.append(_variety_check("image variety", now.thumbnails, first.thumbnails, settings.variety_floor))
    reasons = [check.text for check in checks if check.beyond]
    return Health("collapsed" if reasons else "sound", reasons, checks)


def verdict(convergence: Convergence, health: Health) -> Verdict:
    """Join the stop rule and health to one word for the run; collapse counts before convergence."""
    distance = (
        f"Mean pairwise distance {convergence.distance:.3g} is {convergence.ratio:.0%} of the first "
        f"gallery's; the threshold is {convergence.threshold:.3g}."
    )
    # Why before: the images of a collapsed gallery are alike too, often more than those of a converged one.
    if health.state == "collapsed":
        return Verdict("collapsed", f"{' '.join(health.reasons)} {distance}")
    return Verdict("converged" if convergence.converged else "not yet", distance)


def _shift_check(name: str, now: np.ndarray, first: np.ndarray, limit: float | None) -> HealthCheck:
    """Shift of a mean in standard deviations of the first gallery; of the likeness to the prompt only a fall counts."""
    of_prompt = name == "prompt"
    what, smallest = ("Likeness to the prompt", "prompt") if of_prompt else (f"The images' {name}", "image")
    shift = float((now.mean() - first.mean()) / max(first.std(), SMALLEST_SPREAD[smallest]))
    text = (
        f"{what} {'rose' if shift > 0 else 'fell'} from {first.mean():.2f} to {now.mean():.2f}, {abs(shift):.1f} "
        f"standard deviations of the first gallery ({_limit(limit)})."
    )
    value = -shift if of_prompt else shift
    beyond = limit is not None and (value if of_prompt else abs(value)) > limit
    return HealthCheck(name, value, limit, beyond, float(now.mean()), float(first.mean()), text)


def _drift_check(now: np.ndarray, first: np.ndarray, limit: float | None) -> HealthCheck:
    """Distance to the nearest image of the first gallery, other than the same one."""
    # Nearest, not mean: a character is a small part of what the base model draws, and may lie anywhere in it.
    own = cdist(first, first)  # (M, M)
    np.fill_diagonal(own, np.inf)
    own_nearest = float(own.min(1).mean()) if len(first) > 1 else 0.0
    same = now.shape == first.shape and np.array_equal(now, first)
    nearest = own_nearest if same else float(cdist(now, first).min(1).mean())
    drift = nearest / own_nearest if own_nearest > 0 else 1.0
    text = (
        f"The images are {drift:.1f} times as far from any image of the first gallery as those are from "
        f"each other ({_limit(limit)}): this is nothing the base model draws for the prompt."
    )
    return HealthCheck("drift", drift, limit, limit is not None and drift > limit, nearest, own_nearest, text)


def _variety_check(name: str, now: np.ndarray, first: np.ndarray, floor: float | None) -> HealthCheck:
    """Mean pairwise distance over the first's; nothing to lose if the first has none."""
    distance, before = mean_pairwise_distance(now), mean_pairwise_distance(first)
    ratio = distance / before if before > 0 else 1.0
    text = (
        f"The {name} fell to {ratio:.0%} of the first gallery's ({_limit(floor)}): "
        "the images repeat one image, scene included."
    )
    return HealthCheck(name, ratio, floor, floor is not None and ratio < floor, distance, before, text)


def _limit(limit: float | None) -> str:
    return "no limit set" if limit is None else f"limit {limit:g}"
