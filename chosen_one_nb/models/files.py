"""Load stock models from folders: safetensors only, with errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "OPEN_CLIP",
    "PICKLES",
    "ModelError",
    "convert_line",
    "explained",
    "image_processor",
    "load",
    "model_type",
    "quietly",
]

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""File endings that mean Python pickles, which can run code when opened."""

OPEN_CLIP = "open_clip"


class ModelError(Exception):
    """A model that cannot be used: the message says what was looked for, what was found, and what to do."""


def load(kind: Any, folder: Path, device: str | torch.device | None, dtype: torch.dtype | None, **more: Any) -> Any:
    """Load one transformers model from a folder's safetensors; float32 unless told otherwise."""
    with explained(folder, f"a {kind.__name__}"), quietly():
        model = kind.from_pretrained(
            folder, dtype=dtype or torch.float32, use_safetensors=True, local_files_only=True, **more
        )
    return model.to(device or "cpu")


def image_processor(folder: Path) -> Any:
    """Load a checkpoint's own preprocessing, by Pillow."""
    from transformers import AutoImageProcessor

    with explained(folder, "a preprocessor_config.json"), quietly():
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


def model_type(folder: Path) -> str:
    """Read `model_type` of a model's configuration; `OPEN_CLIP` where there is OpenCLIP's only."""
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "open_clip_config.json").is_file():
            return OPEN_CLIP
        raise ModelError(f"{folder}: expected a model folder with a config.json, found none. Check the path.")
    with explained(folder, "a configuration"):
        return str(json.loads(file.read_text(encoding="utf-8")).get("model_type"))


@contextmanager
def explained(place: Path, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise while loading into one `ModelError` with a way out."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{place}: expected {what} in safetensors files, could not load it: {error}\n"
            f"Check that the folder is complete. Weights in pickle files (.bin, .ckpt) are refused because they can "
            f"run code{_pickles_in(place)}"
        ) from error


def convert_line(file: str = "MODEL.bin") -> str:
    """Return how to turn a pickle into safetensors without running what it holds (`weights_only`)."""
    new = str(Path(file).with_suffix(".safetensors"))
    return (
        "Where you trust it, convert it once, which runs none of its code:\n"
        '    python -c "import torch; from safetensors.torch import save_file; '
        f"d = torch.load({file!r}, map_location='cpu', weights_only=True); d = d.get('state_dict', d); "
        f"save_file({{k: v.clone().contiguous() for k, v in d.items() if torch.is_tensor(v)}}, {new!r}, "
        "{'format': 'pt'})\""
    )


def _pickles_in(place: Path) -> str:
    """Say how to convert the pickles that are there, if any."""
    found = sorted(file for file in place.rglob("*") if file.suffix in PICKLES) if place.is_dir() else []
    return f"; {found[0]} is one. {convert_line(str(found[0]))}" if found else "."


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the libraries' loading bars and notices out of notebooks."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    places = (diffusers_logging, transformers_logging)
    levels = [place.get_verbosity() for place in places]
    for place in places:
        place.set_verbosity_error()
        place.disable_progress_bar()
    try:
        yield
    finally:
        for place, level in zip(places, levels, strict=True):
            place.set_verbosity(level)
            place.enable_progress_bar()
