"""Step 2, embed: images -> features (N, D), and patch tokens on request (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks, NumericalError

if TYPE_CHECKING:  # a run that is only read must not load torch
    from chosen_one_nb.models.load import Features, Models

__all__ = ["check_finite", "embed", "in_space", "unit"]


def embed(
    models: Models,
    images: Sequence[Image.Image],
    settings: Settings,
    callbacks: Callbacks = NO_CALLBACKS,
    *,
    patches: bool = False,
) -> Features:
    """Extract the images' features (section 3.1, F).

    Parameters
    ----------
    models : Models
        Its `extractor` is used: DINOv2 by default, DINOv1 or CLIP for comparison (the paper's appendix A.4).
    images : sequence of PIL.Image, length N
    settings : Settings
        `batch_size`: images embedded at once.
    callbacks : Callbacks, optional
        Progress and cancellation, once per batch.
    patches : bool
        Whether to return one vector per patch too.

    Returns
    -------
    Features
        `cls` (N, D) float32 as the model gives it; `in_space` brings it to the space of the settings.

    Raises
    ------
    NumericalError
        If a feature is NaN or infinite.
    """

    def on_batch(done: int) -> None:
        callbacks.raise_if_cancelled()
        callbacks.report("embed", done, len(images), "images")

    found = models.extractor(images, batch_size=settings.batch_size, patches=patches, on_batch=on_batch)
    check_finite(found.cls, f"the feature extractor {models.extractor.name}")
    return found


def check_finite(features: np.ndarray, maker: str) -> None:
    """Raise a `NumericalError` if what a model makes of images, (N, ...), is not finite."""
    bad = [i for i, row in enumerate(features) if not np.isfinite(row).all()]
    if bad:
        raise NumericalError(
            f"Expected finite numbers from {maker}, got NaN or infinity for images {bad}. Load the models in "
            'float32 (load_models(..., dtype="float32"), in a shell --dtype float32), or take another file of it.'
        )


def unit(features: np.ndarray) -> np.ndarray:
    """Return features (..., D) at unit length, where squared distance is 2 - 2 cosine; zero stays zero.

    Examples
    --------
    >>> unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    length = np.linalg.norm(features, axis=-1, keepdims=True)
    return features / np.where(length > 0, length, 1)


def in_space(features: np.ndarray, settings: Settings) -> np.ndarray:
    """Return features (N, D) in float64, in the space of the settings: "unit" length or "raw".

    Raises
    ------
    ValueError
        If they are not a finite matrix with at least one row.
    """
    # Why float64: cohesion is a small difference of near features, and ties would depend on rounding.
    features = np.asarray(features, dtype=np.float64)
    if features.ndim != 2 or not len(features) or not np.isfinite(features).all():
        raise ValueError(
            "features: expected a finite array of shape (N, D) with N > 0, got shape "
            f"{features.shape} with {np.count_nonzero(~np.isfinite(features))} NaN or infinite entries. "
            "Embed the images again."
        )
    return unit(features) if settings.feature_space == "unit" else features
