"""What tests of training share: a schedule by kind, images encoded as refine does it, equality of weights."""

from __future__ import annotations

from typing import Any

import torch

from chosen_one_nb.steps.loss import Batch
from chosen_one_nb.steps.training_set import Batches, EncodedImages, TrainingSet, captions, encode_images

PROMPT = "a red fox"


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def scheduler(kind: str) -> Any:
    """A noise schedule of a thousand levels whose model predicts "epsilon", "v_prediction" or "sample"."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(prediction_type=kind, beta_schedule="scaled_linear")


def encoded(models: Any, data: TrainingSet, settings: Any) -> EncodedImages:
    return encode_images(models, data, captions(models.pipeline, data.prompt, data), settings)


def next_batch(images: EncodedImages, settings: Any) -> Batch:
    return Batches([images], settings, 1000, seed=0).next()
