"""How weights are written and read: half precision on disk, float32 by default in memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import ModelMixin
from torch import nn
from transformers import PreTrainedModel

from menagerie.training.context import TrainingError


def save_half(model: PreTrainedModel | ModelMixin, folder: Path) -> None:
    """Save the weights of ``model`` as float16, under a configuration that loads them as float32.

    A stock ``from_pretrained`` without a dtype gives float32 for diffusers' classes and what the configuration says
    for those of transformers; were that float16, a pipeline would get text encoders of one precision and a UNet of
    another. ``model`` is half precision afterwards.
    """
    model.half().save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "dtype" in config:
        path.write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")


def load_weights(model: nn.Module, folder: Path) -> dict[str, int]:
    """Give ``model`` the weights that ``save_pretrained`` left in ``folder``, in the model's own precision.

    A model that has grown (by words or labels, which stand last) takes the rows that are there and keeps its own
    beyond.

    Returns
    -------
    dict of str to int
        The tensors that were shorter, and how many rows they had.

    Raises
    ------
    TrainingError
        If the folder holds a model of other sizes.
    """
    saved = type(model).from_pretrained(folder, torch_dtype=torch.float32)  # knows the names of the file's version
    grown = {}
    with torch.no_grad():
        weights = saved.state_dict()  # may hold a head that this model is built without
        for name, mine in model.state_dict().items():
            theirs = weights[name]
            if mine.shape[1:] != theirs.shape[1:] or len(mine.reshape(-1)) < theirs.numel():
                raise TrainingError(
                    f"{folder}: expected {name} of shape {tuple(mine.shape)}, got {tuple(theirs.shape)}; "
                    "a model of other sizes cannot go on: leave --from-saved away, or change the recipe with --set."
                )
            if mine.shape == theirs.shape:
                mine.copy_(theirs)
            else:
                mine[: len(theirs)] = theirs
                grown[name] = len(theirs)
    return grown
