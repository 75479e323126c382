"""The most memory used meanwhile: the accelerator's own count, or the process's on the CPU."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import torch

__all__ = ["MeasuredMemory"]

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # see proc(5): sets the peak resident size back to what is resident now


class MeasuredMemory:
    """Measures, over a with-block, the most memory held at a time.

    Attributes
    ----------
    peak : int or None
        Bytes of tensors on CUDA, of the whole process on the CPU; after the block. None where neither is known.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak: int | None = None

    def __enter__(self) -> MeasuredMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        elif self.device.type == "cpu" and _CLEAR.exists():
            with contextlib.suppress(OSError):  # not allowed everywhere: then it is the peak since the process began
                _CLEAR.write_text(_RESET_PEAK)
        return self

    def __exit__(self, *error: object) -> None:
        if self.device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self.device)
        elif self.device.type == "mps":
            self.peak = torch.mps.driver_allocated_memory()
        else:
            self.peak = _resident_peak()


def _resident_peak() -> int | None:
    if _STATUS.exists():
        found = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) * 1024 if found else None
    try:
        import resource
    except ImportError:  # Windows
        return None
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
