"""Count operations and memory of PyTorch code, without doing any of it when the tensors are on "meta"."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

__all__ = ["Meter"]


class Meter:
    """Counts, inside a with-block, floating point operations and the memory of new tensors.

    A multiplication and an addition count as two; matrix products, convolutions and attention are counted, what
    goes element by element is not. Attention is counted as its fused kernels work: without the (T, T) matrix in
    memory, which the fallback on "meta" would make.

    Attributes
    ----------
    flops : int
    peak : int
        Largest number of bytes that tensors made inside the block have held at a time.
    """

    def __init__(self) -> None:
        self.flops = self.peak = self._now = 0
        self._live: set[int] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Meter:
        self._stack.enter_context(_fused_attention(self))
        self._stack.enter_context(_Watch(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _track(self, tensor: torch.Tensor) -> None:
        """Count a tensor's storage from now until nothing holds it."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live:
            return
        self._live.add(key)
        size = storage.nbytes()
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._drop, key, size).atexit = False

    def _drop(self, key: int, size: int) -> None:
        self._live.discard(key)
        self._now -= size


class _Watch(TorchDispatchMode):
    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self.meter = meter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.meter.flops += count(*args, **(kwargs or {}), out_val=out)
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if tensor.untyped_storage()._cdata not in given:  # a view is not new
                self.meter._track(tensor)
        return out


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextmanager
def _fused_attention(meter: Meter) -> Iterator[None]:
    """Stand in for scaled_dot_product_attention on "meta": shapes and operations only, also where it is recomputed."""
    real = functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        if query.device.type != "meta":
            return real(query, key, value, *args, **more)
        return _Attention.apply(query, key, value, meter)

    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = real


class _Attention(torch.autograd.Function):
    """Attention of the right shape that only counts: once its work forth, twice back."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, meter: Meter) -> torch.Tensor:
        ctx.meter, ctx.work = meter, 2 * query.numel() * key.shape[-2] * 2  # Q K^T and its product with V
        meter.flops += ctx.work
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:
        query, key, value, _ = ctx.saved_tensors
        ctx.meter.flops += 2 * ctx.work
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value), None
