"""The world's attributes as numbers, for the models that are trained to name them."""

from __future__ import annotations

import torch
from torch import Tensor

from menagerie import world

LABELS = [f"{attribute}={value}" for attribute, values in world.ATTRIBUTES.items() for value in values]
SIZES = [len(values) for values in world.ATTRIBUTES.values()]


def targets(truths: list[dict]) -> Tensor:
    """Index of each attribute's value, in the world's order: int64 (N, number of attributes)."""
    rows = [[values.index(truth[name]) for name, values in world.ATTRIBUTES.items()] for truth in truths]
    return torch.tensor(rows)
