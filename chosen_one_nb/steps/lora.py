"""LoRA on the UNet's attention projections, for the length of a with-block (section 3.2, theta).

peft replaces each projection by a layer that holds the original; afterwards the original object is put back, so
nothing of the base model is ever written to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from chosen_one_nb.steps import AdapterError

__all__ = ["TARGETS", "apply_frozen", "apply_lora", "frozen", "initial_lora"]

TARGETS = r".*attn[12]\.(to_q|to_k|to_v|to_out\.0)"
"""The UNet's self- (attn1) and cross-attention (attn2) projections: what the paper adapts."""

ADAPTER = "chosen_one"
_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
_PARTS = ("unet", "text_encoder", "text_encoder_2")  # of a pipeline, that a LoRA may be for

Shapes = dict[str, tuple[int, int]]


def initial_lora(unet: Any, rank: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return LoRA weights that change nothing yet: A gaussian with standard deviation 1 / rank, B zero; float32.

    Parameters
    ----------
    unet : UNet2DConditionModel
    rank : int
        Width r of A (r, in) and B (out, r).
    generator : torch.Generator
        On the CPU.
    """
    return {
        key: torch.randn(shape, generator=generator) / rank if key.endswith(".lora_A.weight") else torch.zeros(shape)
        for key, shape in _shapes(unet, rank).items()
    }


@contextmanager
def apply_lora(
    unet: Any,
    weights: Mapping[str, torch.Tensor],
    *,
    rank: int,
    alpha: float,
    dtype: torch.dtype | None = None,
) -> Iterator[dict[str, nn.Parameter]]:
    """Put LoRA layers around the UNet's attention projections for the length of a with-block.

    Parameters
    ----------
    unet : UNet2DConditionModel
    weights : mapping of str to Tensor
        peft keys without prefix, `...attn1.to_q.lora_A.weight`. Layers that a LoRA leaves out, as other trainers' may,
        get zeros: they add nothing, and stay as they are in training.
    rank, alpha : int, float
        The layers add alpha / rank * B A.
    dtype : torch.dtype, optional
        None is the UNet's own, for sampling; training asks for float32.

    Yields
    ------
    dict of str to Parameter
        The LoRA parameters by key, requiring gradients.

    Raises
    ------
    AdapterError
        If the weights do not fit the UNet, or it has an adapter already.
    """
    from peft import LoraConfig, inject_adapter_in_model

    shapes = _shapes(unet, rank)
    weights = _with_all_layers(weights, shapes)
    _check_fits(unet, weights, shapes)
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS)  # type: ignore[arg-type]  # any number does
    with frozen(unet):
        try:
            # Low memory leaves peft's own weights on "meta": they are never drawn, and ours take their place.
            inject_adapter_in_model(config, unet, ADAPTER, low_cpu_mem_usage=True)
            # Why (pitfall 7): loaded by peft they would be rounded to the base's precision; assigned, they are exact.
            place: dict[str, Any] = {"device": unet.device, "dtype": dtype or unet.dtype, "copy": True}
            parameters = {key: nn.Parameter(weights[key].detach().to(**place)) for key in shapes}
            for key, parameter in parameters.items():
                unet.get_submodule(f"{key.removesuffix('.weight')}.{ADAPTER}").weight = parameter
            yield parameters
        finally:
            # Why (pitfalls 12, 13, 14): nothing is fused or unloaded, which is not exact and leaves things behind;
            # every original goes back to its place and the LoRA layers are dropped whole.
            _remove(unet)


class _Added(nn.Module):
    """A linear or convolutional layer with B A added to it, neither of which is trained."""

    def __init__(self, base: nn.Module, down: torch.Tensor, up: torch.Tensor) -> None:
        super().__init__()
        self.base = base
        self.down, self.up = (nn.Parameter(weight, requires_grad=False) for weight in (down, up))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the layer makes of x, (..., in) or (B, in, H, W), and what B A adds to it."""
        if isinstance(self.base, nn.Conv2d):
            base = self.base
            middle = functional.conv2d(x, self.down, None, base.stride, base.padding, base.dilation)
            return base(x) + functional.conv2d(middle, self.up)
        return self.base(x) + functional.linear(functional.linear(x, self.down), self.up)


@contextmanager
def apply_frozen(pipeline: Any, weights: Mapping[str, torch.Tensor], strength: float = 1.0) -> Iterator[None]:
    """Put LoRA layers that are not trained around any modules of a pipeline, for the length of a with-block.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    weights : mapping of str to Tensor
        `unet.<module>.lora_A.weight` (r, in) or (r, in, k, k) and `...lora_B.weight` (out, r) or (out, r, 1, 1); the
        rank may differ by module. `text_encoder.` and `text_encoder_2.` likewise.
    strength : float
        The layers add strength * B A.

    Raises
    ------
    AdapterError
        If a module is missing, or has other widths.
    """
    # A stack, so that a layer that does not fit takes off those before it.
    with ExitStack() as stack:
        for key in [key for key in weights if key.endswith(_DOWN)]:
            layer = key.removesuffix(_DOWN)
            parent, name, base = _module(pipeline, layer)
            if (other := weights.get(f"{layer}{_UP}")) is None:
                raise AdapterError(f"LoRA weights: expected {layer}{_UP} beside {key}, got none. Take another copy.")
            down, up = _fitted(layer, base, weights[key], other * strength)
            stack.callback(setattr, parent, name, base)
            setattr(parent, name, _Added(base, down, up))
        yield


def _module(pipeline: Any, layer: str) -> tuple[Any, str, Any]:
    """Find a module: (its parent, its name in there, itself)."""
    part, _, path = layer.partition(".")
    whole: Any = getattr(pipeline, part, None) if part in _PARTS else None
    if part != "unet" and not hasattr(whole, "text_model"):  # newer builds of CLIP's text encoder are flat
        path = path.removeprefix("text_model.")
    parent, _, name = path.rpartition(".")
    try:
        place = whole.get_submodule(parent)
        return place, name, place.get_submodule(name)
    except AttributeError:
        raise AdapterError(
            f"LoRA weights: expected modules of this pipeline, got {layer}, which it does not have. "
            "This character was made with another kind of model."
        ) from None


def _fitted(layer: str, base: Any, down: torch.Tensor, up: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return A and B where and as the layer is; a linear layer's may be written as of a 1 x 1 convolution, and back."""
    if isinstance(base, nn.Conv2d):
        down, up = (weight if weight.ndim == 4 else weight[..., None, None] for weight in (down, up))
        ours, theirs = (*base.weight.shape[:2], *base.kernel_size), (up.shape[0], *down.shape[1:])
    else:
        down, up = (weight.flatten(1) for weight in (down, up))
        ours, theirs = tuple(base.weight.shape), (up.shape[0], down.shape[1])
    if ours != theirs or len(down) != up.shape[1]:
        raise AdapterError(
            f"LoRA weights: expected {ours} for {layer}, got {theirs} of ranks {len(down)} and {up.shape[1]}. "
            "This character was made with another kind of model."
        )
    # Copies, so that no training can reach the character's own tensors.
    return down.to(base.weight, copy=True), up.to(base.weight, copy=True)


@contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Ask no gradients of modules' parameters for the length of a with-block."""
    flags = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def _remove(unet: Any) -> None:
    for parent in list(unet.modules()):
        for name, layer in list(parent.named_children()):
            if hasattr(layer, "lora_A"):
                setattr(parent, name, layer.get_base_layer())
    if hasattr(unet, "peft_config"):
        del unet.peft_config


def _shapes(unet: Any, rank: int) -> Shapes:
    """Shapes of all tensors of a LoRA of this UNet, in the order of its modules."""
    shapes: Shapes = {}
    # In this order the norm of all gradients is summed, whatever the order in a file: training repeats bit by bit.
    for name, layer in unet.named_modules():
        if re.fullmatch(TARGETS, name):
            shapes[f"{name}.lora_A.weight"] = (rank, layer.in_features)
            shapes[f"{name}.lora_B.weight"] = (layer.out_features, rank)
    return shapes


def _with_all_layers(weights: Mapping[str, torch.Tensor], shapes: Shapes) -> dict[str, torch.Tensor]:
    """Add zeros for layers of which neither A nor B is there, to a LoRA that has some of this UNet's."""
    # One that has none of them is of another kind of model, which `_check_fits` tells.
    layers, expected = ({key.rsplit(".lora_", 1)[0] for key in keys} for keys in (weights, shapes))
    missing = expected - layers if layers & expected else set()
    return {**weights, **{key: torch.zeros(s) for key, s in shapes.items() if key.rsplit(".lora_", 1)[0] in missing}}


def _check_fits(unet: Any, weights: Mapping[str, torch.Tensor], expected: Shapes) -> None:
    if getattr(unet, "peft_config", None):
        raise AdapterError(
            f"the UNet has an adapter already ({', '.join(unet.peft_config)}). Take it off first: "
            "leave the with-block, or call pipeline.unload_lora_weights()."
        )
    got = {key: tuple(weight.shape) for key, weight in weights.items()}
    if got != expected:
        wrong = sorted(key for key in {*got, *expected} if got.get(key) != expected.get(key))
        raise AdapterError(
            f"LoRA weights: {len(wrong)} of {len(expected)} do not fit this UNet, first {wrong[0]}: "
            f"expected {expected.get(wrong[0])}, got {got.get(wrong[0])}. "
            "This character was made with another kind of model."
        )
