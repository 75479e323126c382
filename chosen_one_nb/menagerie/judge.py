"""The truth about a gallery: did it collapse? Told by the reader, which the method and its health check never see.

A gallery has collapsed when its pictures are strange to the world (the reader's features of them lie farther from
any render than the first gallery's do), when what the prompt asks for is gone, or when everything that the prompt
leaves open in the scene is the same in all of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.distance import cdist

from chosen_one_nb.menagerie import world
from chosen_one_nb.menagerie.data import held_out
from chosen_one_nb.menagerie.reader import Reader

STRANGE = 1.35  # times the first gallery's distance from the nearest renders
LOST = 0.5  # of the first gallery's probability of what is asked
FROZEN = 0.9  # chance that two pictures agree in what the prompt leaves open in the scene
NEAREST = 5  # renders that a picture is compared with


@dataclass(frozen=True)
class Judged:
    """What the reader makes of a gallery, against the first one.

    Attributes
    ----------
    strange : float
        Mean distance from the nearest renders, over the first gallery's.
    kept : float
        Mean probability of what the prompt asks for, over the first gallery's; 1 if it asks for nothing.
    frozen : float
        Mean over open scene attributes of the chance that two pictures agree.
    """

    strange: float
    kept: float
    frozen: float

    @property
    def collapsed(self) -> bool:
        """Whether any of the three says so."""
        return self.strange > STRANGE or self.kept < LOST or self.frozen > FROZEN


class Judge:
    """Tells collapsed galleries from sound ones.

    Parameters
    ----------
    reader : Reader
    size : int
        Side of the pictures, in pixels.
    n : int
        Renders to compare with.
    """

    def __init__(self, reader: Reader, size: int, *, n: int = 400) -> None:
        self.reader = reader
        _, images, _ = held_out(n, size)
        self.renders = self.features([Image.fromarray(image) for image in images])

    @torch.inference_mode()
    def features(self, images: list[Image.Image]) -> np.ndarray:
        """The reader's last features before it names anything: (N, D)."""
        pixels = self.reader.processor(images, return_tensors="pt").pixel_values
        return self.reader.model.resnet(pixels).pooler_output.flatten(1).numpy()

    def __call__(self, images: list[Image.Image], first: list[Image.Image], prompt: str) -> Judged:
        """Judge a gallery of a prompt against its first one."""
        asked = world.named_in(prompt)
        now, then = (self.reader.probabilities(gallery) for gallery in (images, first))
        kept = 1.0 if not asked else present(now, asked) / max(present(then, asked), 1e-6)
        return Judged(self._distance(images) / self._distance(first), kept, frozen(now, asked))

    def _distance(self, images: list[Image.Image]) -> float:
        return float(np.sort(cdist(self.features(images), self.renders), axis=1)[:, :NEAREST].mean())


def present(probabilities: dict[str, np.ndarray], asked: dict[str, str]) -> float:
    """Mean probability of the asked values.

    >>> present({"style": np.array([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])}, {"style": "sticker"})
    0.5
    """
    found = [probabilities[name][:, world.ATTRIBUTES[name].index(value)].mean() for name, value in asked.items()]
    return float(np.mean(found))


def frozen(probabilities: dict[str, np.ndarray], asked: dict[str, str]) -> float:
    """Mean over the scene's open attributes of the chance that two different pictures agree."""
    shares = []
    for name in world.SCENE:
        if name not in asked:
            values = probabilities[name].argmax(1)
            n, counts = len(values), np.bincount(values)
            shares.append((counts * (counts - 1)).sum() / (n * (n - 1)))
    return float(np.mean(shares))


def load_judge(models: Path, reader: Path) -> Judge:
    """Load the judge for a model folder, whose ``recipe.json`` says how large pictures are."""
    return Judge(Reader(reader), json.loads((models / "recipe.json").read_text())["image_size"])
