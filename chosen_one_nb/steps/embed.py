"""Step 2, embed: pictures -> features (N, D), and patch tokens (N, P, D) on request (section 3.1: F = DINOv2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from chosen_one_nb.models import Features, Models
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import CancelledCheck, Progress

__all__ = ["Features", "embed"]


def embed(models: Models, images: Sequence[Image.Image], settings: Settings, *, patches: bool = False,
          on_progress: Progress | None = None, cancelled: CancelledCheck | None = None) -> Features:
    raise NotImplementedError
