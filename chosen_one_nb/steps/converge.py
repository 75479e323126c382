"""Step 5, converge: is this gallery one character (section 3.3), and is it still a healthy one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from chosen_one_nb.settings import Settings


@dataclass(frozen=True)
class Convergence:
    distance: float
    first_distance: float
    ratio: float
    threshold: float
    converged: bool


@dataclass(frozen=True)
class Health:
    state: str  # "sound" | "collapsed"
    reasons: list[str] = field(default_factory=list)
    statistics: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    state: str  # "converged" | "not yet" | "collapsed"
    reason: str
    convergence: Convergence
    health: Health


@dataclass(frozen=True)
class Look:
    """What health needs of one gallery, arrays only: features (N, D), statistics name -> (N,), thumbnails, prompt similarity."""

    features: np.ndarray  # (N, D)
    statistics: dict[str, np.ndarray]  # name -> (N,)
    thumbnails: np.ndarray  # (N, 16, 16, 3) in [0, 1]
    prompt_similarity: np.ndarray | None  # (N,)


def mean_pairwise_distance(features: np.ndarray) -> float:
    raise NotImplementedError


def check(features: np.ndarray, first: np.ndarray, settings: Settings) -> Convergence:
    raise NotImplementedError


def look(images: Sequence[Image.Image], features: np.ndarray, *, clip: Any = None, prompt: str | None = None) -> Look:
    raise NotImplementedError


def health(now: Look, first: Look, settings: Settings) -> Health:
    raise NotImplementedError


def verdict(convergence: Convergence, health: Health) -> Verdict:
    raise NotImplementedError
