"""Step 1, generate: prompt, character or none, and seeds -> pictures (section 3: S = {M_Theta(p; seed_n)})."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.models import Models
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import CancelledCheck, Progress

OnImages = Callable[[list[tuple[int, Image.Image]]], None]


@dataclass(frozen=True)
class Gallery:
    """N pictures of one prompt: `images`, `latents` (N, C, h, w) float32 as the UNet sees them, `seeds` (N,) int64."""

    images: list[Image.Image]
    latents: np.ndarray
    seeds: np.ndarray
    prompt: str


def image_seeds(settings: Settings, iteration: int, *, n: int | None = None) -> np.ndarray:
    """Return the seeds of an iteration's pictures, (N,) int64: distinct, and the same for the same settings.seed."""
    n = settings.n_images if n is None else n
    words = np.random.SeedSequence([settings.seed, iteration]).generate_state(n + 16, np.uint32)
    _, first = np.unique(words, return_index=True)
    return words[np.sort(first)][:n].astype(np.int64)


def generate(models: Models, prompt: str, seeds: Sequence[int] | np.ndarray, settings: Settings, *,
             character: Character | None = None, strength: float = 1.0, negative: str | None = None,
             on_progress: Progress | None = None, on_images: OnImages | None = None,
             cancelled: CancelledCheck | None = None) -> Gallery:
    raise NotImplementedError
