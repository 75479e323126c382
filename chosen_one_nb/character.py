"""A character Theta = (LoRA, token rows): put on a pipeline, taken off, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


class CharacterError(Exception):
    """A character file that cannot be read, or a pipeline it does not fit."""


@dataclass
class Character:
    lora: dict[str, torch.Tensor]
    tokens: dict[str, torch.Tensor]
    token: str
    caption: str
    rank: int
    alpha: float
    initial: dict[str, torch.Tensor] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def prompt(self, context: str = "") -> str:
        return f"{self.caption} {context}".strip()

    def save(self, folder: str | Path) -> Path:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: str | Path) -> Character:
        raise NotImplementedError

    @contextmanager
    def on(self, pipeline: Any, strength: float = 1.0) -> Iterator[Any]:
        raise NotImplementedError
