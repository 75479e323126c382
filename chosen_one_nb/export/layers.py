"""LoRA halves by layer: what every file format boils down to, checked and put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from chosen_one_nb.character import CharacterError

__all__ = ["LoraPair", "assemble", "apart", "cross_attention_width", "refuse"]


@dataclass
class LoraPair:
    """The LoRA of one layer: down (r, in) and up (out, r), adding alpha / r * up down; alpha None means r."""

    down: torch.Tensor | None = None
    up: torch.Tensor | None = None
    alpha: float | None = None


def apart(lora: Mapping[str, torch.Tensor], alpha: float) -> dict[str, LoraPair]:
    """Take a character's LoRA apart by layer.

    Parameters
    ----------
    lora : mapping of str to Tensor
        peft keys without prefix, `...attn1.to_q.lora_A.weight` (r, in) and `...lora_B.weight` (out, r).
    alpha : float

    Returns
    -------
    dict of str to LoraPair
        By diffusers' layer name, in its order.
    """
    names = dict.fromkeys(key.rsplit(".lora_", 1)[0] for key in lora)
    return {name: LoraPair(lora[f"{name}.lora_A.weight"], lora[f"{name}.lora_B.weight"], alpha) for name in names}


def assemble(halves: Mapping[str, LoraPair], file: Path) -> tuple[dict[str, torch.Tensor], int, float]:
    """Put halves together: (LoRA with peft keys in float32, rank, alpha).

    Where layers differ in alpha, it is folded into the upper halves and alpha becomes the rank.

    Raises
    ------
    CharacterError
        If a half is missing, or ranks or shapes disagree.
    """
    ranks = {name: _rank(name, half, file) for name, half in halves.items()}
    if len(set(ranks.values())) != 1:
        counts = {rank: list(ranks.values()).count(rank) for rank in sorted(set(ranks.values()))}
        raise CharacterError(
            f"{file}: expected a LoRA of one rank, got layers by rank {counts or 'none'}. A character holds "
            "one rank for all layers; resize the LoRA to one, or use the file in diffusers directly."
        )
    rank = next(iter(ranks.values()))
    alphas = {name: rank if half.alpha is None else half.alpha for name, half in halves.items()}
    alike = len(set(alphas.values())) == 1
    lora = {}
    for name, half in halves.items():
        assert half.down is not None
        assert half.up is not None
        lora[f"{name}.lora_A.weight"] = half.down.float()
        lora[f"{name}.lora_B.weight"] = half.up.float() * (1 if alike else alphas[name] / rank)
    return lora, rank, next(iter(alphas.values())) if alike else float(rank)


def _rank(name: str, half: LoraPair, file: Path) -> int:
    shapes = [None if part is None else tuple(part.shape) for part in (half.down, half.up)]
    down, up = shapes
    if down is None or up is None or len(down) != 2 or len(up) != 2 or down[0] != up[1]:
        raise CharacterError(
            f"{file}: expected matrices (r, in) and (out, r) for {name}, got {down} and {up}. The file is "
            "incomplete or not a plain LoRA; take another copy."
        )
    return down[0]


def cross_attention_width(lora: Mapping[str, torch.Tensor]) -> int | None:
    """Return the width of the text that a LoRA's cross-attention takes: 2048 in SDXL, 768 in SD 1.x."""
    widths = [weight.shape[1] for key, weight in lora.items() if key.endswith("attn2.to_k.lora_A.weight")]
    return widths[0] if widths else None


def refuse(names: list[str], file: Path) -> CharacterError:
    """Say that a LoRA holds layers which a character does not."""
    return CharacterError(
        f"{file}: expected a LoRA of the UNet's attention projections only (to_q, to_k, to_v, to_out of "
        f"attn1 and attn2), got also {len(names)} others, first {names[0]}. This kit's characters do not hold text "
        "encoder, convolution, feed-forward or DoRA weights; use the file in diffusers or A1111 directly."
    )
