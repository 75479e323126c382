"""The generator and the eyes (feature extractor, CLIP): from data/menagerie, a folder, or a Hub id.

Only safetensors files and stock classes are loaded: no pickles, no code from a model's repository.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.eyes import Clip, FeatureExtractor, Features
from chosen_one_nb.loading import ModelError, explained, is_folder, is_hub_id, quietly
from chosen_one_nb.memory import keep_freed_memory

__all__ = [
    "MENAGERIE",
    "Clip",
    "FeatureExtractor",
    "Features",
    "ModelError",
    "Models",
    "fingerprint",
    "load_models",
]

MENAGERIE = Path(__file__).parent.parent / "data" / "menagerie"
"""Folder of the bundled miniature."""

KNOWN = {
    "sdxl": (
        "stabilityai/stable-diffusion-xl-base-1.0",
        "facebook/dinov2-large",
        "openai/clip-vit-large-patch14",
    )
}
"""Short names: (pipeline, extractor, clip) on the Hub."""

ENOUGH = 1 << 20  # bytes of a file's beginning and end that tell it from another one
PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")


@dataclass
class Models:
    """A generator with its eyes.

    Attributes
    ----------
    pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
    extractor : FeatureExtractor
        What galleries are compared by.
    clip : Clip or None
        For prompt similarity; without it, health watches one sign less.
    name : str
        What `load_models` was asked for.
    fingerprint : str
        SHA-256 over the configurations and the beginnings and sizes of the weights: a run says which models
        made it.
    """

    pipeline: Any
    extractor: FeatureExtractor
    clip: Clip | None
    name: str
    fingerprint: str


def load_models(
    name: str | Path = "menagerie",
    *,
    device: str | None = None,
    dtype: torch.dtype | None = None,
    extractor: FeatureExtractor | str | Path | None = None,
    clip: Clip | str | Path | None = None,
) -> Models:
    """Load a generator, a feature extractor and CLIP.

    Parameters
    ----------
    name : str or Path
        "menagerie" (bundled), "sdxl" (from the Hub), a folder that is a model set (pipeline/, dinov2/,
        clip/), a diffusers pipeline folder (model_index.json), or a Hub id of one.
    device : str, optional
        "cpu", "cuda", "mps"; None takes CUDA if there is one, else the CPU.
    dtype : torch.dtype, optional
        None is float32 on the CPU, even if the files are half precision, and bfloat16 (or float16) on CUDA.
    extractor, clip : instance, str or Path, optional
        To replace, or for a bare pipeline to supply, the eyes. Instances may be shared between models.

    Returns
    -------
    Models

    Raises
    ------
    ModelError
        If something is missing, of the wrong kind, not safetensors, or out of reach.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or _default_dtype(device)
    if device == "cpu":
        keep_freed_memory()
    sources = _sources(name)
    eyes = [
        given if given is not None else found
        for given, found in zip((extractor, clip), sources[1:], strict=True)
    ]
    if eyes[0] is None:
        raise ModelError(
            f"{name}: this is a pipeline without a feature extractor. Pass one, for example "
            "load_models(..., extractor='facebook/dinov2-base', clip='openai/clip-vit-base-patch32')."
        )
    pipeline = _load_pipeline(sources[0], device, dtype)
    loaded = (
        eyes[0]
        if isinstance(eyes[0], FeatureExtractor)
        else FeatureExtractor.load(eyes[0], device=device, dtype=dtype)
    )
    texts = (
        eyes[1]
        if eyes[1] is None or isinstance(eyes[1], Clip)
        else Clip.load(eyes[1], device=device, dtype=dtype)
    )
    return Models(
        pipeline, loaded, texts, str(name), fingerprint([sources[0], *(_source(eye) for eye in eyes)])
    )


def fingerprint(sources: Sequence[str | Path | None]) -> str:
    """Return a SHA-256 over model folders: name, size, first and last MiB of each file.

    A Hub id counts by its name and the commit in the local cache.
    """
    digest = hashlib.sha256()
    for source in sources:
        if source is None or not is_folder(source):
            digest.update(f"{source} {_commit(source)}".encode())
            continue
        for file in sorted(Path(source).rglob("*")):
            if file.suffix in (".json", ".txt", ".safetensors"):
                digest.update(f"{file.relative_to(source).as_posix()} {file.stat().st_size}".encode())
                with file.open("rb") as stream:
                    digest.update(stream.read(ENOUGH))
                    stream.seek(max(0, file.stat().st_size - ENOUGH))
                    digest.update(stream.read())
    return digest.hexdigest()


def _sources(name: str | Path) -> tuple[str | Path, str | Path | None, str | Path | None]:
    """Where pipeline, extractor and clip of a name are; None for what it does not say."""
    if str(name) in KNOWN:
        return KNOWN[str(name)]
    folder = MENAGERIE if str(name) == "menagerie" else Path(name)
    if (folder / "pipeline").is_dir():
        eyes = [folder / part if (folder / part).is_dir() else None for part in ("dinov2", "clip")]
        return folder / "pipeline", eyes[0], eyes[1]
    if (folder / "model_index.json").is_file():
        return folder, None, None
    if folder.exists() or str(name) == "menagerie":
        raise ModelError(
            f"{folder}: expected a model set (folders pipeline/, dinov2/, clip/) or a diffusers pipeline "
            "(model_index.json), found neither. Check the path, or fetch the model again."
        )
    if not is_hub_id(str(name)):
        raise ModelError(
            f"{name}: no such folder, and not a Hub id (owner/name) or one of "
            f"{', '.join(('menagerie', *KNOWN))}."
        )
    return str(name), None, None


def _load_pipeline(source: str | Path, device: str, dtype: torch.dtype) -> Any:
    with explained(source, "a diffusers pipeline"), quietly():
        import diffusers

        kind = diffusers.DiffusionPipeline.load_config(source, local_files_only=is_folder(source)).get(
            "_class_name"
        )
        if kind not in PIPELINES:
            raise ModelError(f"{source}: expected a pipeline of class {' or '.join(PIPELINES)}, got {kind}.")
        more = (
            {"safety_checker": None, "requires_safety_checker": False}
            if kind == PIPELINES[1]
            else {"add_watermarker": False}
        )
        pipeline = getattr(diffusers, kind).from_pretrained(
            source, dtype=dtype, use_safetensors=True, local_files_only=is_folder(source), **more
        )
    for part in (
        pipeline.unet,
        pipeline.vae,
        pipeline.text_encoder,
        getattr(pipeline, "text_encoder_2", None),
    ):
        if part is not None:
            part.eval().requires_grad_(False)
    if device != "cpu":  # on the CPU it was no quicker: 19 ms against 18 ms per picture and step
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _default_dtype(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32


def _source(eye: Any) -> str | Path | None:
    return eye.name if isinstance(eye, FeatureExtractor | Clip) else eye


def _commit(source: str | Path | None) -> str:
    from huggingface_hub import try_to_load_from_cache

    for file in ("model_index.json", "config.json"):
        found = try_to_load_from_cache(str(source), file) if source and is_hub_id(str(source)) else None
        if isinstance(found, str):
            return Path(found).parent.name
    return ""
