"""Where models rest and where they work: the device at hand, and parts lent to it one at a time.

With enough memory every part stays on the device and nothing here moves. In low-memory mode all parts rest on the
CPU, and each stage has only its own on the device: the text encoders while the prompt is encoded, then the UNet,
then the VAE, then the eyes.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from chosen_one_nb.models.batches import advised

__all__ = ["on_device", "best_device", "best_dtype", "device_memory", "move", "release"]

SMALLER = (
    "The models do not fit beside what is there: close other programs that use the device, take half precision "
    "(dtype='bfloat16'), or load_models(..., low_memory=True)."
)


def best_device() -> torch.device:
    """Return CUDA if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def best_dtype(device: torch.device) -> torch.dtype:
    """Return bfloat16 on CUDA and MPS where they can, else float16; float32 on the CPU.

    bfloat16 has float32's range: neither the VAE nor a gradient overflows.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "mps":
        return torch.bfloat16 if torch.backends.mps.is_macos_or_newer(14, 0) else torch.float16
    return torch.float32


def device_memory(device: torch.device) -> int | None:
    """Return the bytes of memory that models may fill there; None where it is not known."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


@contextmanager
def on_device(device: torch.device, *modules: Any) -> Iterator[None]:
    """Have modules on a device for a with-block; those that rested elsewhere go back, and its memory is freed.

    Parameters
    ----------
    device : torch.device
    *modules : nn.Module or None
        None is skipped: not every pipeline has every part.

    Raises
    ------
    OutOfMemory
        If one of them does not fit there.
    """
    away = [(module, module.device) for module in modules if module is not None and not _same(module.device, device)]
    try:
        for module, _ in away:
            move(module, device)
        yield
    finally:
        for module, home in away:
            module.to(home)
        if away:
            release(device)


def move(module: Any, device: torch.device) -> None:
    """Put a module on a device, or say what to do where it has no room."""
    with advised(SMALLER):
        module.to(device)


def release(device: torch.device) -> None:
    """Give memory that no tensor holds any more back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)
