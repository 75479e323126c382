"""What must be the same after something was put on a pipeline and taken off, and copies to try it on."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from typing import Any

import torch

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")


def trace(pipeline: Any) -> dict[str, Any]:
    """Everything of a pipeline that a character could leave behind, down to the bits of the weights."""
    found: dict[str, Any] = {"scheduler": id(pipeline.scheduler)}
    for name in PARTS:
        part = getattr(pipeline, name, None)
        if part is None:
            continue
        digest = hashlib.sha256()
        for key, tensor in part.state_dict().items():
            digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
        found[name] = digest.hexdigest()
        found[f"{name} flags"] = [(key, p.requires_grad, p.grad is None, id(p)) for key, p in part.named_parameters()]
        found[f"{name} modules"] = [
            (key, type(m), m.training, getattr(m, "eos_token_id", None), len(m._forward_hooks))
            for key, m in part.named_modules()
        ]
        found[f"{name} attributes"] = sorted(vars(part))
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer = getattr(pipeline, name, None)
        found[name] = None if tokenizer is None else (id(tokenizer), len(tokenizer))
    return found


def half(models: Any, dtype: torch.dtype) -> Any:
    """A copy of models in half precision; the originals stay as they are."""
    return dataclasses.replace(models, pipeline=copy.deepcopy(models.pipeline).to(dtype))
