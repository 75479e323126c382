"""Step 3, cluster: features -> clusters, their cohesion, and the proposed choice (section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chosen_one_nb.settings import Settings


@dataclass(frozen=True)
class Clusters:
    labels: np.ndarray  # (N,) int
    centroids: np.ndarray  # (K, D)
    sizes: np.ndarray  # (K,)
    cohesion: np.ndarray  # (K,)
    cohesion_corrected: np.ndarray  # (K,)
    distances: np.ndarray  # (N,) to own centroid
    medoids: np.ndarray  # (K,) image index
    kept: np.ndarray  # (K,) bool
    order: np.ndarray  # (K,) most cohesive first
    proposed: int | None
    reason: str

    def members(self, cluster: int) -> np.ndarray:
        return np.flatnonzero(self.labels == cluster)


@dataclass(frozen=True)
class Stability:
    win_rate: np.ndarray  # (K,)
    none_rate: float
    together: np.ndarray  # (N, N)
    resamples: int


def cluster(features: np.ndarray, settings: Settings, *, k: int | None = None) -> Clusters:
    raise NotImplementedError


def clusters_from_labels(features: np.ndarray, labels: np.ndarray, settings: Settings) -> Clusters:
    raise NotImplementedError


def stability(features: np.ndarray, settings: Settings, *, clusters: Clusters | None = None, resamples: int = 50,
              share: float = 0.8, seed: int = 0) -> Stability:
    raise NotImplementedError


def random_group_cohesion(features: np.ndarray, size: int, settings: Settings, *, draws: int = 500,
                          seed: int = 0) -> np.ndarray:
    raise NotImplementedError


def silhouettes(features: np.ndarray, labels: np.ndarray, settings: Settings) -> np.ndarray:
    raise NotImplementedError
