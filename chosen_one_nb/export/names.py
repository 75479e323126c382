"""What tools call the attention layers of a UNet: diffusers' names, kohya's, and those of the SGM code.

diffusers   `down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0`
kohya       `lora_unet_` and the same with underscores, as sd-scripts does for SD 1.x
kohya, SGM  `lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_out_0`, as sd-scripts does for SDXL,
            whose UNet it takes from Stability AI's generative-models

In SGM names a down block of L layers takes L + 1 places (the last samples down) after the first convolution,
and an up block of L + 1 layers takes L + 1 places; attention stands at index 1 of its place, behind the
residual layer. SDXL has L = 2.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["SDXL_LAYERS", "Layer", "layers_per_block"]

SDXL_LAYERS = 2
"""`layers_per_block` of SDXL's UNet (and of SD 1.x)."""

_INSIDE = r"transformer_blocks{s}(?P<depth>\d+){s}(?P<attention>attn[12]){s}to_(?P<to>q|k|v|out{s}0)"
_BLOCK = r"(?:down_blocks{s}(?P<down>\d+)|mid_block|up_blocks{s}(?P<up>\d+))"
_DIFFUSERS = _BLOCK + r"{s}attentions{s}(?P<layer>\d+)"
_SGM = r"(?:input_blocks_(?P<down>\d+)|middle_block|output_blocks_(?P<up>\d+))_1"

_DOTTED = re.compile((_DIFFUSERS + r"{s}" + _INSIDE).replace("{s}", r"\."))
_UNDERSCORED = re.compile(("lora_unet_" + _DIFFUSERS + r"{s}" + _INSIDE).replace("{s}", "_"))
_PLACED = re.compile(("lora_unet_" + _SGM + r"_" + _INSIDE).replace("{s}", "_"))


@dataclass(frozen=True)
class Layer:
    """One attention projection of a UNet: what every naming says in its own way.

    Attributes
    ----------
    part : "down", "mid" or "up"
    block : int
        Number of the block in its part; 0 in the middle.
    layer : int
        Number of the transformer in the block.
    depth : int
        Number of the transformer block in the transformer.
    projection : str
        "attn1.to_q", ..., "attn2.to_out.0".
    """

    part: str
    block: int
    layer: int
    depth: int
    projection: str

    @classmethod
    def parse(cls, name: str, layers: int = SDXL_LAYERS) -> Layer | None:
        """Read a name of any of the three kinds; None if it is none of an attention projection.

        Parameters
        ----------
        name : str
            Without `.lora_down.weight` and the like.
        layers : int
            Layers per block of the UNet, which SGM names do not tell.

        Examples
        --------
        >>> Layer.parse("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q").diffusers
        'down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q'
        """
        for pattern in (_DOTTED, _UNDERSCORED, _PLACED):
            found = pattern.fullmatch(name)
            if found:
                return cls._of(found, layers if pattern is _PLACED else None)
        return None

    @classmethod
    def _of(cls, found: re.Match[str], layers: int | None) -> Layer:
        part = "down" if found["down"] else "up" if found["up"] else "mid"
        number = int(found["down"] or found["up"] or 0)
        projection = f"{found['attention']}.to_{found['to'].replace('_', '.')}"
        if layers is None:
            place = (number, int(found["layer"]))
        elif part == "mid":
            place = (0, 0)
        else:
            place = divmod(number - (part == "down"), layers + 1)
        return cls(part, *place, int(found["depth"]), projection)

    @property
    def diffusers(self) -> str:
        """The name in diffusers' UNet2DConditionModel."""
        block = "mid_block" if self.part == "mid" else f"{self.part}_blocks.{self.block}"
        return f"{block}.attentions.{self.layer}.transformer_blocks.{self.depth}.{self.projection}"

    @property
    def underscored(self) -> str:
        """The name in kohya files that follow diffusers."""
        return "lora_unet_" + self.diffusers.replace(".", "_")

    def sgm(self, layers: int = SDXL_LAYERS) -> str:
        """Return the name in kohya files that follow the SGM code, of a UNet with `layers` per block."""
        number = self.block * (layers + 1) + self.layer
        place = {"down": f"input_blocks_{number + 1}", "mid": "middle_block", "up": f"output_blocks_{number}"}
        inside = f"transformer_blocks_{self.depth}_{self.projection.replace('.', '_')}"
        return f"lora_unet_{place[self.part]}_1_{inside}"


def layers_per_block(names: Iterable[str]) -> int:
    """Tell a UNet's layers per block from diffusers' names of all its attention projections.

    An up block has one layer more than a down block. Without either, SDXL's 2 is returned.
    """
    found = [layer for layer in map(Layer.parse, names) if layer]
    counts = [layer.layer + (layer.part == "down") for layer in found if layer.part != "mid"]
    return max(counts, default=SDXL_LAYERS)
