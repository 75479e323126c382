"""Compile the UNet's repeated blocks, once for all characters.

What is compiled are the transformer blocks, each kind and size once (regional compilation), not the UNet as a whole.
Θ stands inside of them as LoRA layers whose weights are inputs of the compiled code: the base model is compiled once
and the model with Θ once, and neither putting another Θ of the same rank on nor taking it off compiles again. Images
agree with those of uncompiled blocks up to rounding. Training runs uncompiled.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch

from chosen_one_nb.models.hub import ModelError

__all__ = ["compile_blocks", "uncompiled"]

VARIANTS = 64
"""Compiled forms that a block may have: sizes x with or without Θ x batch sizes; PyTorch gives up at 8 by default."""


def compile_blocks(unet: Any, device: torch.device, how: bool | str | Callable[..., Any] = True) -> None:
    """Have a UNet's transformer blocks compiled when they are first called, in place.

    Parameters
    ----------
    unet : UNet2DConditionModel
    device : torch.device
        Where it will work.
    how : bool, str or callable
        True is PyTorch's own backend, Inductor; else a backend of `torch.compile`. False does nothing.

    Raises
    ------
    ModelError
        If the backend is not there, or Inductor finds no compiler.
    """
    if how is False:
        return
    backend = "inductor" if how is True else how
    if isinstance(backend, str) and backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise ModelError(f"compile: expected True or a backend of torch.compile ({known}), got {how!r}.")
    if backend == "inductor" and not _has_compiler(device):
        missing = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "Triton (pip install triton)"
        raise ModelError(f"compile: expected {missing}, found none. Install it, or load without compile.")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    unet.compile_repeated_blocks(backend=backend, fullgraph=True)


def uncompiled() -> AbstractContextManager[Any]:
    """Run compiled blocks as they were written, for a with-block."""
    return torch.compiler.set_stance("force_eager")


def _has_compiler(device: torch.device) -> bool:
    """Whether Inductor can make code for a device."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    if device.type == "cpu":
        return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"))
    return True
