"""What a character adds to a pipeline, put on and taken off without a trace: token rows and LoRA layers.

Both work by replacing a module with a wrapper that holds the original; taking off puts the original object
back, so nothing of the base model is ever written to (pitfalls 3, 12, 13 and 14 of refine's table).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from chosen_one_nb.steps.prompts import encoders

__all__ = ["AdapterError", "NewRows", "fresh_lora", "read_lora", "token_names", "apply_lora", "add_tokens"]

TARGETS = r".*attn[12]\.(to_q|to_k|to_v|to_out\.0)"
"""The UNet's self- (attn1) and cross-attention (attn2) projections: what the paper's section 3.2 adapts."""

ADAPTER = "chosen_one"


class AdapterError(Exception):
    """A character that does not fit a pipeline, or a pipeline that already wears one."""


class NewRows(nn.Module):
    """An embedding table with a few new rows behind it, which alone can be trained (pitfalls 2 and 3).

    Parameters
    ----------
    base : nn.Embedding
        The table (V, D); kept as it is.
    first : int
        Token id of the first new row; the others follow.
    rows : Tensor or Parameter of shape (n, D)
        Usually float32, over a base of any precision.
    """

    def __init__(self, base: nn.Module, first: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.base, self.first = base, first
        rows = rows if isinstance(rows, nn.Parameter) else nn.Parameter(rows, requires_grad=False)
        self.new = nn.ParameterList([rows])  # after base, which tells the encoder's dtype

    @property
    def rows(self) -> nn.Parameter:
        """The new rows (n, D)."""
        return self.new[0]

    @property
    def weight(self) -> torch.Tensor:
        """The base table, for code that asks an embedding for its weight."""
        return self.base.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, T) -> vectors (B, T, D)."""
        new = (ids >= self.first) & (ids < self.first + len(self.rows))  # (B, T)
        known = self.base(ids.masked_fill(new, 0))  # (B, T, D)
        learned = self.rows[(ids - self.first).clamp(0, len(self.rows) - 1)]  # (B, T, D)
        return torch.where(new[..., None], learned.to(known.dtype), known)


def token_names(token: str, n: int) -> list[str]:
    """Names of a token's n rows, as diffusers expands them in a prompt: "<v>", "<v>_1", ..."""
    return [token, *(f"{token}_{i}" for i in range(1, n))]


@contextmanager
def add_tokens(pipeline: Any, token: str, rows: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Teach a pipeline's tokenizers and text encoders a new word for the length of a with-block.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    token : str
        The word.
    rows : mapping of str to Tensor (n, D)
        By encoder key (`clip_l`, `clip_g`); Parameters are trained in place.

    Raises
    ------
    AdapterError
        If keys or widths do not fit the encoders, or a tokenizer knows the word already.
    """
    names = encoders(pipeline)
    if sorted(rows) != sorted(key for key, _, _ in names):
        raise AdapterError(
            f"token rows: expected one entry for each of {[key for key, _, _ in names]}, got "
            f"{sorted(rows)}. This character was made with another kind of model."
        )
    with ExitStack() as stack:
        for key, encoder, tokenizer in names:
            stack.enter_context(_new_word(pipeline, tokenizer, getattr(pipeline, encoder), token, rows[key]))
        yield


@contextmanager
def _new_word(pipeline: Any, name: str, encoder: Any, token: str, rows: torch.Tensor) -> Iterator[None]:
    """Wear one encoder's rows: a tokenizer that knows the word, the rows behind the table, pooling at EOS."""
    plain, table = getattr(pipeline, name), encoder.get_input_embeddings()
    if rows.shape[-1] != table.weight.shape[-1]:
        raise AdapterError(
            f"token rows: expected width {table.weight.shape[-1]} for this text encoder, got "
            f"{rows.shape[-1]}. This character was made with another kind of model."
        )
    taught, first = _taught(plain, token_names(token, len(rows)))
    with _pooled_at_eos(encoder, plain.eos_token_id):
        try:
            setattr(pipeline, name, taught)
            encoder.set_input_embeddings(NewRows(table, first, rows))
            yield
        finally:
            setattr(pipeline, name, plain)
            encoder.set_input_embeddings(table)


_TAUGHT: WeakKeyDictionary[Any, tuple[tuple[str, ...], Any]] = WeakKeyDictionary()


def _taught(tokenizer: Any, names: list[str]) -> tuple[Any, int]:
    """Return a copy of the tokenizer that knows the names, and the first one's id; the last copy is kept."""
    from transformers import AddedToken

    known = tokenizer.get_vocab()
    if any(name in known for name in names):
        raise AdapterError(
            f"token {names[0]!r}: the tokenizer knows this word already. Take the other character off "
            "first, or choose another token."
        )
    if _TAUGHT.get(tokenizer, ((), None))[0] != tuple(names):
        taught = copy.deepcopy(tokenizer)
        taught.add_tokens([AddedToken(name, normalized=False, special=False) for name in names])
        _TAUGHT[tokenizer] = (tuple(names), taught)
    taught = _TAUGHT[tokenizer][1]
    return taught, taught.convert_tokens_to_ids(names[0])


@contextmanager
def _pooled_at_eos(encoder: Any, eos: int) -> Iterator[None]:
    """Pool at the end token although a new word has a higher id (pitfall 1).

    Hub configurations say `eos_token_id: 2`, for which transformers pools at the highest id of the text.
    Without new words both are the same place.
    """
    told = [
        (module, module.eos_token_id)
        for module in encoder.modules()
        if isinstance(getattr(module, "eos_token_id", None), int)
    ]
    try:
        for module, _ in told:
            module.eos_token_id = eos
        yield
    finally:
        for module, before in told:
            module.eos_token_id = before


def _targets(unet: nn.Module) -> dict[str, nn.Linear]:
    """The attention projections by name."""
    return {name: module for name, module in unet.named_modules() if re.fullmatch(TARGETS, name)}


def fresh_lora(unet: nn.Module, rank: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return LoRA weights that change nothing yet: A gaussian with spread 1 / rank, B zero; float32.

    Parameters
    ----------
    unet : UNet2DConditionModel
    rank : int
        Width r of A (r, in) and B (out, r).
    generator : torch.Generator
        On the CPU.
    """
    weights = {}
    for name, layer in _targets(unet).items():
        weights[f"{name}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=generator) / rank
        weights[f"{name}.lora_B.weight"] = torch.zeros(layer.out_features, rank)
    return weights


@contextmanager
def apply_lora(
    unet: nn.Module,
    weights: Mapping[str, torch.Tensor],
    *,
    rank: int,
    alpha: float,
    dtype: torch.dtype | None = None,
) -> Iterator[list[nn.Parameter]]:
    """Put LoRA layers around the UNet's attention projections for the length of a with-block.

    Parameters
    ----------
    unet : UNet2DConditionModel
    weights : mapping of str to Tensor
        peft keys without prefix, `...attn1.to_q.lora_A.weight`. Layers that a LoRA leaves out, as other trainers'
        may, are worn with zeros: they add nothing, and stay as they are in training.
    rank, alpha : int, float
        The layers add alpha / rank * B A.
    dtype : torch.dtype, optional
        None is the UNet's own, for sampling; training asks for float32 (pitfalls 5 and 7).

    Yields
    ------
    list of Parameter
        The LoRA parameters, requiring gradients.

    Raises
    ------
    AdapterError
        If the weights do not fit the UNet, or it wears an adapter already.
    """
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    weights = _with_all_layers(unet, weights, rank)
    _check_fits(unet, weights, rank)
    flags = [(parameter, parameter.requires_grad) for parameter in unet.parameters()]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=TARGETS)
    place = {"device": unet.device, "dtype": dtype or unet.dtype, "copy": True}
    try:
        inject_adapter_in_model(config, unet, ADAPTER, low_cpu_mem_usage=True)
        here = {key: weight.detach().to(**place) for key, weight in weights.items()}
        set_peft_model_state_dict(unet, here, ADAPTER, low_cpu_mem_usage=True)
        yield _exact(unet, here)
    finally:
        _take_off(unet)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def read_lora(unet: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the worn LoRA weights out: peft keys without prefix, float32 on the CPU."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(unet, adapter_name=ADAPTER)
    return {key: weight.detach().float().cpu().clone().contiguous() for key, weight in state.items()}


def _exact(unet: nn.Module, weights: Mapping[str, torch.Tensor]) -> list[nn.Parameter]:
    """Give the worn layers these very tensors: peft has rounded them to the base's precision (pitfall 7)."""
    worn = {name: parameter for name, parameter in unet.named_parameters() if f".{ADAPTER}." in name}
    for name, parameter in worn.items():
        parameter.data = weights[name.replace(f".{ADAPTER}.", ".")]
        parameter.requires_grad_(True)
    return list(worn.values())


def _with_all_layers(unet: nn.Module, weights: Mapping[str, torch.Tensor], rank: int) -> dict[str, torch.Tensor]:
    """Add zeros for layers of which neither half is there, to a LoRA that has some of this UNet's."""
    shapes = _shapes(unet, rank)
    layers = {key.rsplit(".lora_", 1)[0] for key in weights}
    if not layers & {key.rsplit(".lora_", 1)[0] for key in shapes}:
        return dict(weights)
    left_out = {key: shape for key, shape in shapes.items() if key.rsplit(".lora_", 1)[0] not in layers}
    return {**weights, **{key: torch.zeros(shape) for key, shape in left_out.items()}}


def _shapes(unet: nn.Module, rank: int) -> dict[str, tuple[int, int]]:
    """The shape of each half of a LoRA of this UNet."""
    shapes = {}
    for name, layer in _targets(unet).items():
        shapes[f"{name}.lora_A.weight"] = (rank, layer.in_features)
        shapes[f"{name}.lora_B.weight"] = (layer.out_features, rank)
    return shapes


def _check_fits(unet: nn.Module, weights: Mapping[str, torch.Tensor], rank: int) -> None:
    if getattr(unet, "peft_config", None):
        raise AdapterError(
            f"the UNet already wears an adapter ({', '.join(unet.peft_config)}). Take it off first: "
            "leave the with-block, or call pipeline.unload_lora_weights()."
        )
    expected = _shapes(unet, rank)
    got = {key: tuple(weight.shape) for key, weight in weights.items()}
    if got != expected:
        wrong = sorted(key for key in {*got, *expected} if got.get(key) != expected.get(key))
        raise AdapterError(
            f"LoRA weights: {len(wrong)} of {len(expected)} do not fit this UNet, first {wrong[0]}: "
            f"expected {expected.get(wrong[0])}, got {got.get(wrong[0])}. "
            "This character was made with another kind of model."
        )


def _take_off(unet: nn.Module) -> None:
    """Put every wrapped layer's original back."""
    for parent in list(unet.modules()):
        for name, layer in list(parent.named_children()):
            if hasattr(layer, "lora_A"):
                setattr(parent, name, layer.get_base_layer())
    if hasattr(unet, "peft_config"):
        del unet.peft_config
