"""Safetensors files, read and written with errors that say what was expected, what came, and what to do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from chosen_one_nb.character import CharacterError
from chosen_one_nb.run.store import StoreError, write_bytes

__all__ = ["PICKLES", "body_hash", "names_in", "read", "write", "writable"]

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""File endings that mean Python pickles, which can run code when opened."""


def read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors, and its metadata.

    Raises
    ------
    CharacterError
        If it is missing, a pickle, truncated, or something else.
    """
    from safetensors import safe_open

    with _explained(file), safe_open(file, framework="pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}, dict(opened.metadata() or {})  # noqa: SIM118


def names_in(file: Path) -> list[str]:
    """Return the names of a safetensors file's tensors without reading the tensors."""
    from safetensors import safe_open

    with _explained(file), safe_open(file, framework="pt") as opened:
        return list(opened.keys())


@contextmanager
def _explained(file: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    if file.suffix.lower() in PICKLES:
        raise CharacterError(
            f"{file}: expected a .safetensors file, got a pickle, which could run code when opened. Where "
            "you trust it, turn it into one: safetensors.torch.save_file(torch.load(file, "
            "weights_only=True), ...)."
        )
    try:
        yield
    except (OSError, SafetensorError, ValueError) as error:
        size = f"{file.stat().st_size:,} bytes" if file.is_file() else "no file"
        raise CharacterError(
            f"{file}: expected a whole safetensors file, got {size} that cannot be read ({error}). It is "
            "missing, truncated or of another kind: download or copy it again."
        ) from error


def write(file: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file whole or not at all; its folder is made if need be."""
    from safetensors.torch import save

    whole = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, save(whole, metadata={"format": "pt", **metadata}))


def body_hash(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return the SHA-256 of what follows a safetensors header, which no metadata changes."""
    from safetensors.torch import save

    content = save({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()})
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Turn what the system refuses while writing below a folder into a `CharacterError`."""
    try:
        yield
    except (OSError, StoreError) as error:
        cause = error.__cause__ if isinstance(error, StoreError) and error.__cause__ else error
        raise CharacterError(
            f"{folder}: expected a folder that can be written, got: {cause}. Choose another folder, or mend "
            "this one's permissions or free space, and export again; the character itself is unchanged."
        ) from error
