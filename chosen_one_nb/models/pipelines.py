"""Pipelines of Stable Diffusion XL's and 1.x's classes, from diffusers folders and single-file checkpoints.

Both kinds go through the same code; which one it is stands in the folder's `model_index.json` or in the names of
the checkpoint's tensors.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.models.hub import LORA_FILE, UNET_FILE, ModelError, Source, refuse_pickle

__all__ = ["compile_blocks", "load_pipeline", "modules", "uncompiled"]

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

UNCHANGED_IMAGES: dict[str, dict[str, Any]] = {
    PIPELINES[0]: {"add_watermarker": False},
    PIPELINES[1]: {"safety_checker": None, "requires_safety_checker": False},
}
"""Neither a watermark nor a safety checker: both change images that are to be compared."""

BETAS = ("linear", "scaled_linear", "squaredcos_cap_v2")
"""The noise schedules that every sampler of the kit, and training, can take over."""

PREDICTIONS = ("epsilon", "v_prediction", "sample")

EDM_MARKERS = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
"""Tensors by which single files say that they were trained with EDM's noise (Playground v2.5; CosXL)."""

VARIANTS = 64
"""Compiled forms that a block may have: sizes x with or without Θ x batch sizes; PyTorch gives up at 8 by default."""


def load_pipeline(
    source: Source, dtype: torch.dtype, config: str | Path | None = None, distilled: str | Path | None = None
) -> tuple[Any, dict[str, str]]:
    """Load a pipeline on the CPU, frozen and silent.

    Parameters
    ----------
    source : Source
        A diffusers folder, a single-file checkpoint, or either on the Hub.
    dtype : torch.dtype
    config : str or Path, optional
        For a single-file checkpoint, which holds no tokenizers: a pipeline whose configuration it goes with.
    distilled : str or Path, optional
        A distilled LoRA or UNet that becomes part of it, by folder, file or Hub id.

    Returns
    -------
    pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
    origins : dict of str to str
        Where "name" (the pipeline), "config" and "distilled" came from, commits included; without what was not needed.

    Raises
    ------
    ModelError
        If it is missing, incomplete, a pickle, of another class, asks for code of its own, or was trained with other
        noise than the kit draws and trains with (EDM, flow matching).
    """
    fetched = source.fetch(half=dtype != torch.float32)
    origins = {"name": str(source.pinned(fetched))}
    if fetched.is_file():
        pipeline, origins["config"] = _from_file(source, fetched, dtype, config)
    else:
        pipeline = _from_folder(source, fetched, dtype)
    _check_scheduler(source, pipeline.scheduler)
    if distilled is not None:
        origins["distilled"] = _distil(pipeline, Source.of(distilled, source.offline))
    for part in modules(pipeline):
        part.eval().requires_grad_(False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, origins


def _check_scheduler(source: Source, scheduler: Any) -> None:
    """Refuse noise that is no DDPM's: a sampler made of its configuration would fill the gaps with its own defaults."""
    config = scheduler.config
    kind, betas = type(scheduler).__name__, config.get("trained_betas") or config.get("beta_schedule")
    continuous = config.get("timestep_type") == "continuous" or config.get("use_flow_sigmas")
    if continuous or betas is None or (isinstance(betas, str) and betas not in BETAS):
        got = f"{kind} with beta schedule {betas}" if isinstance(betas, str) else kind
        raise _other_noise(source, got + (" of continuous times" if continuous else ""))
    if config.get("prediction_type", "epsilon") not in PREDICTIONS:
        raise ModelError(
            f"{source}: expected a model that predicts {', '.join(PREDICTIONS)}, got {config.prediction_type!r} in the "
            "configuration of its scheduler. The kit cannot draw or train with it."
        )


def _other_noise(source: object, got: str) -> ModelError:
    return ModelError(
        f"{source}: expected a model trained with DDPM's noise (a scheduler with beta schedule {', '.join(BETAS)}), "
        f"got {got}. The kit can neither draw nor train with EDM or flow matching; take another model, such as SDXL "
        "base or one fine-tuned from it."
    )


def modules(pipeline: Any) -> list[Any]:
    """Return the parts of a pipeline that have weights."""
    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def compile_blocks(unet: Any, device: torch.device, how: bool | str | Callable[..., Any] = True) -> None:
    """Have a UNet's transformer blocks compiled when they are first called, in place, once for all characters.

    Each kind and size of block is compiled once (regional compilation), not the UNet as a whole. Θ stands inside of
    them as LoRA layers whose weights are inputs of the compiled code: the base model is compiled once and the model
    with Θ once, and neither putting another Θ of the same rank on nor taking it off compiles again. Images agree with
    those of uncompiled blocks up to rounding. Training runs uncompiled.

    Parameters
    ----------
    unet : UNet2DConditionModel
    device : torch.device
        Where it will work.
    how : bool, str or callable
        True is PyTorch's own backend, Inductor; else a backend of `torch.compile`. False does nothing.

    Raises
    ------
    ModelError
        If the backend is not there, or Inductor finds no compiler.
    """
    if how is False:
        return
    backend = "inductor" if how is True else how
    if isinstance(backend, str) and backend not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise ModelError(f"compile: expected True or a backend of torch.compile ({known}), got {how!r}.")
    if backend == "inductor" and not _has_compiler(device):
        missing = "a C++ compiler (g++ or clang++)" if device.type == "cpu" else "Triton (pip install triton)"
        raise ModelError(f"compile: expected {missing}, found none. Install it, or load without compile.")
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS)
    unet.compile_repeated_blocks(backend=backend, fullgraph=True)


def uncompiled() -> AbstractContextManager[Any]:
    """Run compiled blocks as they were written, for a with-block."""
    return torch.compiler.set_stance("force_eager")


def _distil(pipeline: Any, source: Source) -> str:
    """Make a distilled LoRA or UNet part of a pipeline for good, and return where it came from.

    It is a folder or Hub id with `pytorch_lora_weights.safetensors` (LoRA) or `diffusion_pytorch_model.safetensors`
    (UNet), or a .safetensors file of either.
    """
    from safetensors.torch import load_file

    fetched = source.fetch()
    candidates = [fetched] if fetched.is_file() else [fetched / LORA_FILE, fetched / UNET_FILE]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        name_it = " Name the file itself: folder/file.safetensors, or owner/name/file.safetensors on the Hub."
        raise source.lacks(f"{LORA_FILE} (a LoRA) or {UNET_FILE} (a UNet)", name_it)
    refuse_pickle(file)
    with source.loading("a distilled LoRA or UNet of the same base"):
        weights = load_file(file)
        if any("lora" in key for key in weights):  # by its path: alpha stands in the file's metadata
            named = {"weight_name": file.name, "use_safetensors": True, "local_files_only": True}
            pipeline.load_lora_weights(str(file.parent), **named)
            pipeline.fuse_lora(components=["unet"])
            pipeline.unload_lora_weights()
        else:
            pipeline.unet.load_state_dict(weights, strict=True)
    return str(source.pinned(fetched))


def _from_folder(source: Source, folder: Path, dtype: torch.dtype) -> Any:
    index_file = folder / "model_index.json"
    if not index_file.is_file():
        name_it = " Or name a checkpoint in it: .../file.safetensors."
        raise source.lacks("a diffusers pipeline (model_index.json)", name_it)
    with source.loading("a diffusers pipeline"):
        import diffusers

        index = json.loads(index_file.read_text(encoding="utf-8"))
        kind = _stock_class(source, index)
        names = [file.name for file in (folder / "unet").glob("*.safetensors")]
        plain = [name for name in names if not any(mark in name for mark in (".fp16.", ".non_ema."))]
        half = any(".fp16." in name for name in names) and (dtype != torch.float32 or not plain)
        return getattr(diffusers, kind).from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            variant="fp16" if half else None, **UNCHANGED_IMAGES[kind],
        )  # fmt: skip


def _stock_class(source: Source, index: dict[str, Any]) -> str:
    """The class of a pipeline; refuses those of another one, and those that bring code of their own."""
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ModelError(f"{source}: expected a pipeline of class {' or '.join(PIPELINES)}, got {kind}.")
    parts = {name: part for name, part in index.items() if isinstance(part, list)}
    strange = [f"{name}: {part[0]}.{part[1]}" for name, part in parts.items() if part[0] not in LIBRARIES]
    if strange:
        raise ModelError(
            f"{source}: expected parts of diffusers and transformers only, got {', '.join(strange)}. Code from a "
            "model's repository is never run."
        )
    return kind


def _from_file(source: Source, file: Path, dtype: torch.dtype, config: str | Path | None) -> tuple[Any, str]:
    """A single-file checkpoint, and whose configuration it was loaded with."""
    from safetensors import safe_open

    refuse_pickle(file)
    with source.loading("a whole checkpoint"), safe_open(file, framework="pt") as opened:
        names = set(opened.keys())
        kind, usual = _class_of_names(file, names)
    if edm := sorted(names.intersection(EDM_MARKERS)):
        raise _other_noise(file, f"a file that is marked {edm[0]}")
    origin = Source.of(config or usual, source.offline)
    fetched = origin.fetch(weights=False)
    with source.loading(f"a checkpoint of {kind}'s shape, as {origin} configures it,"):
        import diffusers

        pipeline = getattr(diffusers, kind).from_single_file(
            str(file), config=str(fetched), dtype=dtype, local_files_only=True, **UNCHANGED_IMAGES[kind]
        )
    # what the file lacks is left without weights, and without a word
    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    empty = [f"{name}.{key}" for name, part in parts.items() for key, t in part.state_dict().items() if t.is_meta]
    if empty:
        raise ModelError(
            f"{file}: expected a whole checkpoint, got one that lacks {len(empty)} tensors, such as {empty[0]}. "
            "Fetch it again; a UNet alone is loaded by distilled=."
        )
    pipeline.scheduler = _as_marked(pipeline.scheduler, names)
    return pipeline, str(origin.pinned(fetched))


def _as_marked(scheduler: Any, names: set[str]) -> Any:
    """Return the scheduler that a single file asks for by its markers, which go before the configuration beside it.

    A tensor `v_pred` says that the model predicts v, `ztsnr` that its noisiest level is pure noise (arXiv 2305.08891),
    from which sampling must then begin.
    """
    from diffusers import EulerDiscreteScheduler

    marked = {"prediction_type": "v_prediction"} if "v_pred" in names else {}
    if "ztsnr" in names:
        marked |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return EulerDiscreteScheduler.from_config(scheduler.config, **marked) if marked else scheduler


def _class_of_names(file: Path, names: Iterable[str]) -> tuple[str, str]:
    """The class of a checkpoint by its tensors' names, and whose configuration it goes with."""
    names = list(names)
    for start, found in SINGLE_FILE.items():
        if any(name.startswith(start) for name in names):
            return found
    raise ModelError(
        f"{file}: expected a checkpoint of Stable Diffusion XL or 1.x with its text encoders, got tensors "
        f"{', '.join(sorted(names)[:3]) or 'none'}. A LoRA is read by export.read, a distilled UNet by distilled=."
    )


def _has_compiler(device: torch.device) -> bool:
    """Whether Inductor can make code for a device."""
    if device.type == "cuda":
        return importlib.util.find_spec("triton") is not None
    if device.type == "cpu":
        return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"))
    return True
