"""Pipelines of Stable Diffusion XL's and 1.x's classes, from diffusers folders and single-file checkpoints.

Both kinds go through the same code; which one it is stands in the folder's `model_index.json` or in the names of
the checkpoint's tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.models.files import PICKLES, ModelError, convert_line, explained, quietly
from chosen_one_nb.models.hub import Source

__all__ = ["PIPELINES", "distil", "load_pipeline"]

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")
LIBRARIES = ("diffusers", "transformers", "stable_diffusion", None)
"""Whose classes a pipeline may be made of."""

SINGLE_FILE = {
    "conditioner.embedders.1.model.transformer.resblocks.": (
        PIPELINES[0],
        "stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b",
    ),
    "cond_stage_model.transformer.": (
        PIPELINES[1],
        "stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
    ),
}
"""By what tensors' names begin with: the class of a single-file checkpoint, and whose configuration it goes with."""

LORA_FILE = "pytorch_lora_weights.safetensors"
UNET_FILE = "diffusion_pytorch_model.safetensors"


def load_pipeline(place: str | Path, dtype: torch.dtype, config: str | Path | None = None) -> tuple[Any, list[str]]:
    """Load a pipeline on the CPU, frozen and silent.

    Parameters
    ----------
    place : str or Path
        A diffusers folder, a single-file checkpoint, or a Hub id of either.
    dtype : torch.dtype
    config : str or Path, optional
        For a single-file checkpoint.

    Returns
    -------
    pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
    made_of : list of str
        Where it came from, commits included.

    Raises
    ------
    ModelError
        If it is missing, incomplete, a pickle, of another class, or asks for code of its own.
    """
    source = Source.of(place)
    fetched = source.fetch(half=dtype != torch.float32)
    more: list[str] = []
    with source.completed():
        if fetched.is_file():
            pipeline, more = _from_file(fetched, dtype, config)
        else:
            pipeline = _from_folder(fetched, dtype)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, [str(source.pinned(fetched)), *more]


def distil(pipeline: Any, place: str | Path) -> str:
    """Make a distilled LoRA or UNet part of a pipeline for good, and return where it came from.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        As loaded: nothing worn yet.
    place : str or Path
        A folder or Hub id with `pytorch_lora_weights.safetensors` (LoRA) or `diffusion_pytorch_model.safetensors`
        (UNet), or a .safetensors file of either.

    Raises
    ------
    ModelError
        If it is neither, or of another base.
    """
    source = Source.of(place)
    fetched = source.fetch()
    with source.completed():
        file = _file_of(fetched)
        with explained(fetched, "a distilled LoRA or UNet of the same base"):
            _put_into(pipeline, file)
    pipeline.unet.eval().requires_grad_(False)
    return str(source.pinned(fetched))


def _put_into(pipeline: Any, file: Path) -> None:
    """Fuse a LoRA into a pipeline's UNet, or replace the UNet's weights."""
    from safetensors.torch import load_file

    with quietly():
        weights = load_file(file)
        if any("lora" in key for key in weights):  # by its path: alpha stands in the file's metadata
            pipeline.load_lora_weights(
                str(file.parent), weight_name=file.name, use_safetensors=True, local_files_only=True
            )
            pipeline.fuse_lora(components=["unet"])
            pipeline.unload_lora_weights()
        else:
            pipeline.unet.load_state_dict(weights, strict=True)


def _file_of(fetched: Path) -> Path:
    if fetched.is_file():
        return _no_pickle(fetched)
    for name in (LORA_FILE, UNET_FILE):
        if (fetched / name).is_file():
            return fetched / name
    raise ModelError(
        f"{fetched}: expected {LORA_FILE} (a LoRA) or {UNET_FILE} (a UNet), found neither. Name the file itself: "
        "folder/file.safetensors, or owner/name/file.safetensors on the Hub."
    )


def _no_pickle(file: Path) -> Path:
    if file.suffix.lower() in PICKLES:
        raise ModelError(
            f"{file}: expected a .safetensors file, got a pickle; pickle files are refused because they can run code. "
            f"{convert_line(str(file))}"
        )
    return file


def _from_folder(folder: Path, dtype: torch.dtype) -> Any:
    with explained(folder, "a diffusers pipeline"), quietly():
        import diffusers

        if not (folder / "model_index.json").is_file():
            raise ModelError(
                f"{folder}: expected a diffusers pipeline (model_index.json), found none. Check the id or path, or "
                "name a checkpoint in it: .../file.safetensors."
            )
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        _check_stock(folder, index)
        return getattr(diffusers, index["_class_name"]).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, variant=_variant(folder, dtype),
            **_plain(index["_class_name"]),
        )  # fmt: skip


def _check_stock(folder: Path, index: dict[str, Any]) -> None:
    """Refuse pipelines of another class, and those that bring code of their own."""
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ModelError(f"{folder}: expected a pipeline of class {' or '.join(PIPELINES)}, got {kind}.")
    strange = [
        f"{name}: {part[0]}.{part[1]}"
        for name, part in index.items()
        if isinstance(part, list) and part[0] not in LIBRARIES
    ]
    if strange:
        raise ModelError(
            f"{folder}: expected parts of diffusers and transformers only, got {', '.join(strange)}. Code from a "
            "model's repository is never run."
        )


def _plain(kind: str) -> dict[str, Any]:
    """Neither a safety checker nor a watermark: both change images that are to be compared."""
    if kind == PIPELINES[0]:
        return {"add_watermarker": False}
    return {"safety_checker": None, "requires_safety_checker": False}


def _variant(folder: Path, dtype: torch.dtype) -> str | None:
    """Take the fp16 files where half precision is wanted or nothing else is there."""
    names = [file.name for file in (folder / "unet").glob("*.safetensors")]
    half = [name for name in names if ".fp16." in name]
    plain = [name for name in names if not any(mark in name for mark in (".fp16.", ".non_ema."))]
    return "fp16" if half and (dtype != torch.float32 or not plain) else None


def _from_file(file: Path, dtype: torch.dtype, config: str | Path | None) -> tuple[Any, list[str]]:
    from safetensors import safe_open

    _no_pickle(file)
    with explained(file, "a whole checkpoint"), safe_open(file, framework="pt") as opened:
        kind, usual = _kind(file, opened.keys())
    source = Source.of(config or usual)
    fetched = _configuration(source)
    with explained(file, f"a checkpoint of {kind}'s shape, as {source} configures it,"), quietly():
        import diffusers

        pipeline = getattr(diffusers, kind).from_single_file(
            str(file), config=str(fetched), dtype=dtype, local_files_only=True, **_plain(kind)
        )
    _check_whole(file, pipeline)
    return pipeline, [str(source.pinned(fetched))]


def _check_whole(file: Path, pipeline: Any) -> None:
    """Refuse a checkpoint that lacks tensors: diffusers leaves them without weights."""
    modules = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    empty = [f"{name}.{key}" for name, part in modules.items() for key, t in part.state_dict().items() if t.is_meta]
    if empty:
        raise ModelError(
            f"{file}: expected a whole checkpoint, got one that lacks {len(empty)} tensors, such as {empty[0]}. "
            "Fetch it again; a UNet alone is loaded by distilled=."
        )


def _kind(file: Path, names: Iterable[str]) -> tuple[str, str]:
    """The class of a checkpoint by its tensors' names, and whose configuration it goes with."""
    names = list(names)
    for start, found in SINGLE_FILE.items():
        if any(name.startswith(start) for name in names):
            return found
    raise ModelError(
        f"{file}: expected a checkpoint of Stable Diffusion XL or 1.x with its text encoders, got tensors "
        f"{', '.join(sorted(names)[:3]) or 'none'}. A LoRA is read by export.read, a distilled UNet by distilled=."
    )


def _configuration(source: Source) -> Path:
    """Fetch a pipeline's configuration and tokenizers, without its weights."""
    if not source.on_hub:
        return Path(source.place)
    return source.fetch(weights=False)
