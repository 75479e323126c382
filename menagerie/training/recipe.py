"""The sizes of the miniature models: one dataclass, so that a larger menagerie is a matter of arguments."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

CPU_MINUTES = {"text": 10, "vae": 60, "clip": 40, "dino": 40, "dinov1": 30, "reader": 40, "unet": 180,
               "controlnet": 45, "ip_adapter": 35, "few_steps": 45}  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Every number that shapes the bundled models.

    Two presets make models of the same sizes: ``cpu`` in an evening of two processor cores, ``gpu`` in less than half
    an hour of a card. All models together stay below 55 MB in half precision, so that they can be bundled.
    Widths are channels, depths are layers, sizes are pixels.
    """

    image_size: int = 128
    n_renders: int = 24_000
    n_captions: int = 8  # per render
    seed: int = 0
    text_length: int = 32

    latent_channels: int = 12
    vae_channels: tuple[int, ...] = (24, 48, 96, 128)
    vae_layers: int = 2  # per level
    vae_batch: int = 8

    text_widths: tuple[int, int] = (96, 128)
    text_depth: int = 3
    text_batch: int = 128
    vision_width: int = 160
    vision_depth: int = 6
    vision_patch: int = 8
    clip_batch: int = 32

    dino_width: int = 160  # of the extractor and of its DINOv1 twin, as the next three
    dino_depth: int = 6
    dino_patch: int = 16
    dino_prototypes: int = 1024
    dino_batch: int = 48
    dinov1_batch: int = 24

    reader_size: int = 128
    reader_channels: tuple[int, ...] = (32, 64, 128, 192)
    reader_batch: int = 32

    unet_channels: tuple[int, ...] = (48, 96, 192)
    unet_batch: int = 32
    controlnet_batch: int = 24
    ip_adapter_batch: int = 24
    reference_pairs: int = 90  # per cent of references in another scene than the target; 0 is the author's recipe
    n_trajectories: int = 12_000
    few_steps_batch: int = 32
    few_steps_rank: int = 32

    minutes: dict[str, float] = dataclasses.field(default_factory=lambda: dict(CPU_MINUTES))

    @classmethod
    def preset(cls, name: str) -> Recipe:
        """Return the recipe called ``cpu`` or ``gpu``.

        Raises
        ------
        ValueError
            If there is no such preset.
        """
        if name == "cpu":
            return cls()
        if name == "gpu":
            return cls(
                n_renders=160_000, vae_batch=64, text_batch=512, clip_batch=384, dino_batch=256, dinov1_batch=128,
                reader_batch=256, unet_batch=512, controlnet_batch=384, ip_adapter_batch=384,
                n_trajectories=48_000, few_steps_batch=256,
                minutes={"text": 1, "vae": 6, "clip": 2, "dino": 5, "dinov1": 2, "reader": 1.5, "unet": 6.5,
                         "controlnet": 2, "ip_adapter": 1, "few_steps": 2},
            )  # fmt: skip
        raise ValueError(f"preset: expected 'cpu' or 'gpu', got {name!r}.")

    def replace(self, **changes: object) -> Recipe:
        """Return a copy with some numbers changed."""
        return dataclasses.replace(self, **changes)

    def with_words(self, words: list[str]) -> Recipe:
        """Return a copy changed by ``name=number`` or ``name=number,number`` words of a command line.

        Raises
        ------
        ValueError
            If a word is not of that form or names no number of the recipe.
        """
        names = {field.name for field in dataclasses.fields(self)} - {"minutes"}
        changes: dict[str, object] = {}
        for word in words:
            name, _, value = word.partition("=")
            if name not in names or not value.replace(",", "").isdigit():
                raise ValueError(f"expected name=number with a name out of {sorted(names)}, got {word!r}.")
            numbers = tuple(int(part) for part in value.split(","))
            changes[name] = numbers if isinstance(getattr(self, name), tuple) else numbers[0]
        return self.replace(**changes)

    def save(self, path: Path) -> None:
        """Write the recipe as JSON."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe written by :meth:`save`."""
        raw = json.loads(path.read_text())
        return cls(**{key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()})
