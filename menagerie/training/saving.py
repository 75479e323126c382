"""How weights are written and read: half precision on disk, float32 by default in memory."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import ModelMixin
from torch import nn
from transformers import PreTrainedModel


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


def load_weights(model: nn.Module, folder: Path) -> None:
    """Give ``model`` the weights that ``save_pretrained`` left in ``folder``, in the model's own precision."""
    saved = type(model).from_pretrained(folder, torch_dtype=torch.float32)  # knows the names of the file's version
    model.load_state_dict(saved.state_dict())
