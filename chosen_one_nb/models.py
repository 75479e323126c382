"""The generator and the eyes (feature extractor, CLIP): from data/menagerie, a folder, or a Hub id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.steps import CancelledCheck, Progress


class ModelError(Exception):
    """A model that cannot be used: the message says what was looked for, what was found, and what to do."""


@dataclass(frozen=True)
class Features:
    """What the eyes saw: `cls` (N, D) float32, `patches` (N, P, D) float16 or None, `grid` (h, w) with h * w = P."""

    cls: np.ndarray
    patches: np.ndarray | None
    grid: tuple[int, int]


class FeatureExtractor:
    """DINOv2, DINOv1 or CLIP's image tower behind one contract."""

    name: str
    width: int
    patch_tokens: bool

    def __call__(self, images: Sequence[Image.Image], *, batch_size: int = 32, patches: bool = False,
                 cancelled: CancelledCheck | None = None, on_progress: Progress | None = None) -> Features:
        raise NotImplementedError


class Clip:
    """CLIP's two towers: unit vectors of pictures and of texts."""

    def images(self, images: Sequence[Image.Image], *, batch_size: int = 32) -> np.ndarray:
        raise NotImplementedError

    def texts(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        raise NotImplementedError


@dataclass
class Models:
    """A generator with its eyes."""

    pipeline: Any
    extractor: FeatureExtractor
    clip: Clip | None
    name: str
    fingerprint: str


def load_models(name: str | Path = "menagerie", *, device: str | None = None, dtype: torch.dtype | None = None,
                extractor: FeatureExtractor | str | Path | None = None,
                clip: Clip | str | Path | None = None) -> Models:
    raise NotImplementedError
