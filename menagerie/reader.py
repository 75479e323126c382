"""The reader: a stock ResNet that names every attribute of an image. A ruler, never part of the method.

It reads what an image shows so that a generated character can be scored against what was asked. No module of
``chosen_one_nb`` may import it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from transformers import BitImageProcessorPil, ResNetForImageClassification


def values_of(labels: dict[int, str]) -> dict[str, list[str]]:
    """Attributes with their values, of labels that say "attribute=value".

    >>> values_of({0: "place=snow", 1: "place=city", 2: "style=photo"})
    {'place': ['snow', 'city'], 'style': ['photo']}
    """
    values: dict[str, list[str]] = {}
    for _, label in sorted(labels.items()):
        name, _, value = label.partition("=")
        values.setdefault(name, []).append(value)
    return values


class Reader:
    """Names the attributes of images.

    Parameters
    ----------
    folder : path
        Where the trained reader lies (``data/menagerie/reader``).
    size : int, optional
        Side in pixels that all images are reduced to before they are read, so that none is read better for being
        larger: to compare models of different sizes. None reads them as they are.

    Attributes
    ----------
    values : dict of str to list of str
        The attributes that it learnt to name, with their values; the world may hold more by now.
    """

    def __init__(self, folder: Path, size: int | None = None) -> None:
        self.size = size
        self.model = ResNetForImageClassification.from_pretrained(folder, torch_dtype=torch.float32).eval()
        self.model.to(memory_format=torch.channels_last)
        self.processor = BitImageProcessorPil.from_pretrained(folder)
        self.values = values_of(self.model.config.id2label)

    def pixels(self, images: list[Image.Image]) -> Tensor:
        """What the model is given of images of any sizes: (N, 3, side, side), of the side that it learnt at."""
        if self.size:
            images = [image.resize((self.size, self.size), Image.Resampling.BOX) for image in images]
        return self.processor(images, return_tensors="pt").pixel_values

    @torch.inference_mode()
    def probabilities(self, images: list[Image.Image], *, batch: int = 64) -> dict[str, np.ndarray]:
        """Probability of every value, per attribute: arrays (N, number of values), rows sum to 1."""
        parts: list[Tensor] = []
        for start in range(0, len(images), batch):
            pixels = self.pixels(images[start : start + batch])
            parts.append(self.model(pixels.contiguous(memory_format=torch.channels_last)).logits)
        split = torch.cat(parts).split([len(values) for values in self.values.values()], dim=1)
        return {name: part.softmax(1).numpy() for name, part in zip(self.values, split, strict=True)}

    def __call__(self, images: list[Image.Image]) -> pd.DataFrame:
        """The most probable value of every attribute: one row per image, one column per attribute."""
        found = self.probabilities(images)
        return pd.DataFrame({name: np.array(self.values[name])[p.argmax(1)] for name, p in found.items()})
