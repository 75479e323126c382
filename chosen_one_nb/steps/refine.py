"""Step 4, refine: chosen pictures -> Theta, by LoRA and textual inversion in one joint loop (section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.models import Models
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import CancelledCheck


def refine(models: Models, images: Sequence[Image.Image], settings: Settings, *, prompt: str, seed: int = 0,
           character: Character | None = None, latents: np.ndarray | None = None,
           prior: tuple[Sequence[Image.Image], np.ndarray | None] | None = None,
           on_step: Callable[[dict[str, Any]], None] | None = None,
           cancelled: CancelledCheck | None = None, provenance: dict[str, Any] | None = None) -> Character:
    raise NotImplementedError
