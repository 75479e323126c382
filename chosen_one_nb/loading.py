"""Load stock models from folders or the Hub: safetensors only, with errors that say what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

__all__ = [
    "ModelError",
    "explained",
    "image_processor",
    "is_folder",
    "is_hub_id",
    "load",
    "model_type",
    "quietly",
]


class ModelError(Exception):
    """A model that cannot be used: the message says what was looked for, what was found, and what to do."""


def is_folder(source: str | Path) -> bool:
    """Tell a model's folder from a Hub id."""
    return Path(source).is_dir()


def is_hub_id(source: str | Path) -> bool:
    """Tell `owner/name` from a path."""
    return isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", "~", os.sep))


def load(kind: Any, source: str | Path, device: str | None, dtype: torch.dtype | None, **more: Any) -> Any:
    """Load one transformers model from safetensors; float32 unless told otherwise."""
    with explained(source, f"a {kind.__name__}"), quietly():
        model = kind.from_pretrained(
            source,
            dtype=dtype or torch.float32,
            use_safetensors=True,
            local_files_only=is_folder(source),
            **more,
        )
    return model.to(device or "cpu")


def image_processor(source: str | Path) -> Any:
    """Load a checkpoint's own preprocessing, by Pillow."""
    from transformers import AutoImageProcessor

    with explained(source, "a preprocessor_config.json"), quietly():
        return AutoImageProcessor.from_pretrained(source, backend="pil", local_files_only=is_folder(source))


def model_type(source: str | Path) -> str:
    """Read `model_type` of a model's configuration."""
    if is_folder(source):
        file = Path(source) / "config.json"
        if not file.is_file():
            raise ModelError(
                f"{source}: expected a model folder with a config.json, found none. Check the path."
            )
        with explained(source, "a configuration"):
            return str(json.loads(file.read_text(encoding="utf-8")).get("model_type"))
    if not is_hub_id(source):
        raise ModelError(f"{source}: no such folder, and not a Hub id (owner/name).")
    from transformers import AutoConfig

    with explained(source, "a configuration"), quietly():
        return str(AutoConfig.from_pretrained(source).model_type)


@contextmanager
def explained(source: str | Path, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise while loading into one `ModelError` with a way out."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        place = (
            "Check that the folder is complete"
            if is_folder(source)
            else ("Check the id and the network; a copy in a folder works without one")
        )
        raise ModelError(
            f"{source}: expected {what} in safetensors files, could not load it: {error}\n{place}. "
            "Weights in pickle files (.bin, .ckpt) are refused because they can run code."
        ) from error


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
