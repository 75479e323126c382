"""The truth about a gallery: did it collapse? Told by the reader, which the method and its health check never see.

A gallery has collapsed when its images are strange to the world (their features in the reader lie off the cloud of
renders, farther than the first gallery's), when what the prompt asks for is gone, or when everything that the prompt
leaves open in the scene is the same in all of them. Between collapsed and sound there are galleries that are neither.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.covariance import LedoitWolf

from menagerie import world
from menagerie.reader import Reader
from menagerie.training.data import held_out

SOUND = {"strange": 0.7, "lost": 0.35, "frozen": 0.8}
COLLAPSED = {"strange": 1.0, "lost": 0.5, "frozen": 0.9}
"""Up to the first limits a gallery is sound, from any of the second on it has collapsed; set by eye on sheets."""


@dataclass(frozen=True)
class Verdict:
    """What the reader makes of a gallery, against the first one.

    Attributes
    ----------
    strange : float
        How much farther from the renders its images lie on average (Mahalanobis), in standard deviations of the
        first gallery's images.
    lost : float
        Share of the first gallery's probability of what the prompt asks for that is gone; 0 if it asks for nothing.
    frozen : float
        Mean over open scene attributes of the chance that two images agree.
    """

    strange: float
    lost: float
    frozen: float

    @property
    def state(self) -> str:
        """One of "collapsed", "sound" or "unclear"."""
        if any(getattr(self, name) >= limit for name, limit in COLLAPSED.items()):
            return "collapsed"
        return "sound" if all(getattr(self, name) <= limit for name, limit in SOUND.items()) else "unclear"


class Judge:
    """Tells collapsed galleries from sound ones.

    Parameters
    ----------
    reader : Reader
    size : int
        Side of the images, in pixels.
    n : int
        Renders to compare with.
    """

    def __init__(self, reader: Reader, size: int, *, n: int = 400) -> None:
        self.reader = reader
        _, images, _ = held_out(n, size)
        renders = self.features([Image.fromarray(image) for image in images])
        self.cloud = LedoitWolf().fit(renders)

    @torch.inference_mode()
    def features(self, images: list[Image.Image]) -> np.ndarray:
        """The reader's last features before it names anything: (N, D)."""
        return self.reader.model.resnet(self.reader.pixels(images)).pooler_output.flatten(1).numpy()

    def __call__(self, images: list[Image.Image], first: list[Image.Image], prompt: str) -> Verdict:
        """Judge a gallery of a prompt against its first one."""
        asked = world.named_in(prompt)
        now, then = (self.reader.probabilities(gallery) for gallery in (images, first))
        lost = 0.0 if not asked.keys() & now.keys() else 1 - present(now, asked) / max(present(then, asked), 1e-6)
        far, usual = self._distances(images), self._distances(first)
        return Verdict(float((far.mean() - usual.mean()) / usual.std()), lost, frozen(now, asked))

    def _distances(self, images: list[Image.Image]) -> np.ndarray:
        return np.sqrt(self.cloud.mahalanobis(self.features(images)))


def present(probabilities: dict[str, np.ndarray], asked: dict[str, str]) -> float:
    """Mean probability of the asked values.

    >>> present({"style": np.array([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0]])}, {"style": "sticker"})
    0.5
    """
    found = [
        probabilities[name][:, world.ATTRIBUTES[name].index(value)].mean()
        for name, value in asked.items()
        if name in probabilities
    ]
    return float(np.mean(found))


def frozen(probabilities: dict[str, np.ndarray], asked: dict[str, str]) -> float:
    """Mean over the scene's open attributes of the chance that two different images agree."""
    shares = []
    for name in world.SCENE:
        if name not in asked and name in probabilities:
            values = probabilities[name].argmax(1)
            n, counts = len(values), np.bincount(values)
            shares.append((counts * (counts - 1)).sum() / (n * (n - 1)))
    return float(np.mean(shares))


def load_judge(models: Path, reader: Path) -> Judge:
    """Load the judge for a model folder, whose ``recipe.json`` says how large images are."""
    return Judge(Reader(reader), json.loads((models / "recipe.json").read_text())["image_size"])
