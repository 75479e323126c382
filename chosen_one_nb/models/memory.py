"""Where models rest and where they work, and what is done when memory runs short.

With enough memory every part stays on the device and nothing here moves. In low-memory mode all parts rest on the
CPU, and each stage has only its own on the device: the text encoders while the prompt is encoded, then the UNet,
then the VAE, then the feature extractor. Batches shrink until they fit; where nothing smaller is left to try, the
error says what to lower.
"""

# accelerate's hooks (`enable_model_cpu_offload`) move a part when its `forward` is called, which neither a VAE's
# `decode` nor a LoRA that is read, written and trained in place goes through.

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch

__all__ = [
    "OutOfMemory", "advised", "batches", "best_device", "best_dtype", "device_memory", "free_memory",
    "is_out_of_memory", "keep_freed_memory", "move", "on_device",
]  # fmt: skip

T = TypeVar("T")

SMALLER = (
    "The models do not fit beside what is there: close other programs that use the device, take half precision "
    "(dtype='bfloat16'), or load_models(..., low_memory=True)."
)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's names and numbers, see mallopt(3)
NEVER = 2**31 - 1


class OutOfMemory(RuntimeError):
    """Memory ran out and nothing smaller is left to try: the message says which setting to lower."""


def batches(items: Any, size: int, do: Callable[[Any], T], advice: str) -> Iterator[tuple[range, T]]:
    """Do n things in batches of at most `size`; where memory runs out, go on with batches of half the size.

    Parameters
    ----------
    items : sequence, array or tensor of length n
    size : int
    do : callable
        Given a batch of items; called again for its halves when it runs out of memory.
    advice : str
        What to lower, where not even one thing fits.

    Yields
    ------
    (range, result)
        The batch's indices, in order, and what `do` returned; what was yielded is never done again.

    Raises
    ------
    OutOfMemory
        If a single thing does not fit.

    Examples
    --------
    >>> list(batches("abcde", 2, str.upper, ""))
    [(range(0, 2), 'AB'), (range(2, 4), 'CD'), (range(4, 5), 'E')]
    """
    start = 0
    while start < len(items):
        indices = range(start, min(start + size, len(items)))
        try:
            with advised(advice if len(indices) == 1 else None):
                done = do(items[indices.start : indices.stop])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        else:
            yield indices, done
            start = indices.stop
            continue
        free_memory()  # only here: in `except` the error's traceback holds the tensors that did not fit
        size = len(indices) // 2


@contextmanager
def advised(advice: str | None) -> Iterator[None]:
    """Turn an out-of-memory error into an `OutOfMemory` that says what to lower; None leaves it as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if advice is None or not is_out_of_memory(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemory(f"Out of memory. {advice} ({reason})") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise the errors of accelerators and of the CPU's allocator; not one that already says what to lower."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, OutOfMemory):
        return False
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error)


def free_memory() -> None:
    """Give memory that no tensor holds any more back to the device."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)


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
            free_memory()


def move(module: Any, device: torch.device) -> None:
    """Put a module on a device, or say what to do where it has no room."""
    with advised(SMALLER):
        module.to(device)


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)


def keep_freed_memory() -> None:
    """Have glibc reuse freed blocks of any size; elsewhere than on Linux with glibc nothing happens.

    By default glibc hands every large block straight back, and the next tensor of that size faults its pages in
    one by one. For small models on a CPU this costs more than the arithmetic: one training step of the bundled
    CLIP took 8.2 s without this and 1.9 s with it, on the same busy core.
    """
    with suppress(OSError, AttributeError):  # another system, or another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, NEVER)
        mallopt(M_TRIM_THRESHOLD, NEVER)
