"""Count operations and memory of PyTorch code, without doing any of it when the tensors are on "meta"."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Meter", "fused_attention"]


class Meter(TorchDispatchMode):
    """Counts, inside a with-block, floating point operations and the bytes of new tensors.

    By the formulas of PyTorch's own `FlopCounterMode`: a multiplication and an addition count as two; matrix products,
    convolutions and attention are counted, what goes element by element is not.

    Attributes
    ----------
    flops : int
    peak : int
        Largest number of bytes that tensors made inside the block have held at a time.
    """

    # FlopCounterMode itself hooks every module, and its hooks hold tensors: with gradient checkpointing the peak was
    # seven times too high. The formulas alone are what is wanted.

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.peak = self._now = 0
        self._live: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=out)
        given = {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if storage._cdata not in given | self._live:  # a view is not new
                self._add(storage)
        return out

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self._live.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key, size).atexit = False

    def _drop(self, key: int, size: int) -> None:
        self._live.discard(key)
        self._now -= size


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextmanager
def fused_attention() -> Iterator[None]:
    """Count attention on "meta" as its fused kernels work: the fallback there would make the (T, T) matrix."""
    real = functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        if query.device.type != "meta":
            return real(query, key, value, *args, **more)
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, query.requires_grad)[0]

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = real
