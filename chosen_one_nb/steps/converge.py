"""Step 5, converge: is this gallery one character (section 3.3), and is it still a healthy one?

    stop when  mean over pairs of || s1 - s2 ||  <=  d_conv

Distance alone cannot tell one identity from one blot, so a gallery's health is watched too: by its
images' plain statistics, its likeness to the prompt, its distance from what the base model draws, and the
variety left in it, each against the first gallery. Nothing here knows what the images show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from PIL import Image
from scipy.spatial.distance import cdist, pdist

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.embed import in_space
from chosen_one_nb.steps.image_statistics import image_statistics, thumbnails

__all__ = [
    "Convergence",
    "Health",
    "Look",
    "Sign",
    "Verdict",
    "check",
    "health",
    "look",
    "mean_pairwise_distance",
    "image_statistics",
    "thumbnails",
    "verdict",
]

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
class Look:
    """What health needs of one gallery: arrays by image, no images.

    Attributes
    ----------
    features : ndarray of shape (N, D)
        As `embed` gives them.
    statistics : dict of str to ndarray of shape (N,)
        From `image_statistics`.
    thumbnails : ndarray of shape (N, 768)
        From `thumbnails`.
    prompt_similarity : ndarray of shape (N,) or None
        Cosine of CLIP's image and text vectors; None without CLIP.
    """

    features: np.ndarray
    statistics: dict[str, np.ndarray]
    thumbnails: np.ndarray
    prompt_similarity: np.ndarray | None = None


@dataclass(frozen=True)
class Sign:
    """One thing watched: its value, its limit, whether it is beyond it, and a sentence that says so.

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
    """Whether a gallery still shows the prompt: "sound" or "collapsed", with reasons and all signs."""

    state: Literal["sound", "collapsed"]
    reasons: list[str]
    signs: list[Sign]

    @property
    def statistics(self) -> dict[str, float]:
        """The signs' values by name."""
        return {sign.name: sign.value for sign in self.signs}


@dataclass(frozen=True)
class Verdict:
    """What a gallery means for the run: "converged", "not yet" or "collapsed", and why in words."""

    state: Literal["converged", "not yet", "collapsed"]
    reason: str


class PromptEyes(Protocol):
    """What `look` needs of CLIP."""

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Images -> (N, D) unit vectors."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Texts -> (T, D) unit vectors."""


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
    now, then = (mean_pairwise_distance(in_space(array, settings)) for array in (features, first))
    threshold = settings.convergence * (then if settings.convergence_mode == "relative" else 1)
    return Convergence(now, then, now / then if then > 0 else 0.0, threshold, now <= threshold)


def look(
    images: Sequence[Image.Image],
    features: np.ndarray,
    *,
    clip: PromptEyes | None = None,
    prompt: str | None = None,
) -> Look:
    """Measure what health needs of a gallery.

    Parameters
    ----------
    images : sequence of PIL.Image, length N
    features : ndarray of shape (N, D)
    clip : Clip, optional
        For prompt similarity, with a prompt.
    prompt : str, optional
        The run's plain prompt, without token.

    Returns
    -------
    Look
    """
    similarity = None if clip is None or prompt is None else clip.images(images) @ clip.texts([prompt])[0]
    return Look(features, image_statistics(images), thumbnails(images), similarity)


def health(now: Look, first: Look, settings: Settings) -> Health:
    """Tell a sound gallery from a collapsed one by comparison with the first.

    Parameters
    ----------
    now, first : Look
        Of the gallery and of the run's first gallery.
    settings : Settings
        The limits; None reports a value without judging by it.

    Returns
    -------
    Health
        Collapsed if any sign is beyond its limit:

        - each image statistic: |mean now - mean first| / standard deviation of the first <=
          statistic_limit. One character may sit anywhere within the first gallery's range, but not outside
          it;
        - prompt similarity: its fall, in the first's standard deviations, <= prompt_limit;
        - drift: mean distance of a feature to the nearest one of the first gallery, over that gallery's own
          mean distance to the nearest other, <= drift_limit;
        - variety of features and of thumbnails: mean pairwise distance over the first's >= variety_floor.
    """
    signs = [
        _statistic_sign(name, now.statistics[name], first.statistics[name], settings.statistic_limit)
        for name in first.statistics
    ]
    if now.prompt_similarity is not None and first.prompt_similarity is not None:
        signs.append(_prompt_sign(now.prompt_similarity, first.prompt_similarity, settings.prompt_limit))
    features = in_space(now.features, settings), in_space(first.features, settings)
    signs.append(_drift_sign(*features, settings.drift_limit))
    signs.append(_variety_sign("variety", *features, settings.variety_floor))
    signs.append(_variety_sign("image variety", now.thumbnails, first.thumbnails, settings.variety_floor))
    reasons = [sign.text for sign in signs if sign.beyond]
    return Health("collapsed" if reasons else "sound", reasons, signs)


def verdict(convergence: Convergence, health: Health) -> Verdict:
    """Join the stop rule and health to one word for the run; collapse counts before convergence."""
    told = (
        f"Mean pairwise distance {convergence.distance:.3g} is {convergence.ratio:.0%} of the first "
        f"gallery's; the threshold is {convergence.threshold:.3g}."
    )
    if health.state == "collapsed":
        return Verdict("collapsed", f"{' '.join(health.reasons)} {told}")
    return Verdict("converged" if convergence.converged else "not yet", told)


def _statistic_sign(name: str, now: np.ndarray, first: np.ndarray, limit: float | None) -> Sign:
    shift = float((now.mean() - first.mean()) / max(first.std(), SMALLEST_SPREAD["image"]))
    way = "rose" if shift > 0 else "fell"
    return Sign(
        name,
        shift,
        limit,
        limit is not None and abs(shift) > limit,
        float(now.mean()),
        float(first.mean()),
        f"The images' {name} {way} from {first.mean():.2f} to {now.mean():.2f}, {abs(shift):.1f} standard "
        f"deviations of the first gallery ({_limit(limit)}).",
    )


def _prompt_sign(now: np.ndarray, first: np.ndarray, limit: float | None) -> Sign:
    fall = float((first.mean() - now.mean()) / max(first.std(), SMALLEST_SPREAD["prompt"]))
    return Sign(
        "prompt",
        fall,
        limit,
        limit is not None and fall > limit,
        float(now.mean()),
        float(first.mean()),
        f"Likeness to the prompt {'fell' if fall > 0 else 'rose'} from {first.mean():.2f} to {now.mean():.2f}, "
        f"{abs(fall):.1f} standard deviations of the first gallery ({_limit(limit)}).",
    )


def _drift_sign(now: np.ndarray, first: np.ndarray, limit: float | None) -> Sign:
    """Distance to the nearest image of the first gallery, other than the same one."""
    own = cdist(first, first)
    np.fill_diagonal(own, np.inf)
    own_nearest = float(own.min(1).mean()) if len(first) > 1 else 0.0
    same = now.shape == first.shape and np.array_equal(now, first)
    nearest = own_nearest if same else float(cdist(now, first).min(1).mean())
    drift = nearest / own_nearest if own_nearest > 0 else 1.0
    return Sign(
        "drift",
        drift,
        limit,
        limit is not None and drift > limit,
        nearest,
        own_nearest,
        f"The images are {drift:.1f} times as far from any image of the first gallery as those are from "
        f"each other ({_limit(limit)}): this is nothing the base model draws for the prompt.",
    )


def _variety_sign(name: str, now: np.ndarray, first: np.ndarray, floor: float | None) -> Sign:
    """Mean pairwise distance over the first's; nothing to lose if the first has none."""
    distance, before = mean_pairwise_distance(now), mean_pairwise_distance(first)
    ratio = distance / before if before > 0 else 1.0
    return Sign(
        name,
        ratio,
        floor,
        floor is not None and ratio < floor,
        distance,
        before,
        f"The {name} fell to {ratio:.0%} of the first gallery's ({_limit(floor)}): "
        "the images repeat one image, scene included.",
    )


def _limit(limit: float | None) -> str:
    return "no limit set" if limit is None else f"limit {limit:g}"
