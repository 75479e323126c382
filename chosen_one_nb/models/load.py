"""The generator, the feature extractor and CLIP: bundled, from a folder or file, or from the Hub.

Only safetensors files and stock classes are loaded: no pickles, no code from a model's repository.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from chosen_one_nb.models.features import Clip, FeatureExtractor, Features
from chosen_one_nb.models.hub import KNOWN, ModelError, Source, absolute, model_set
from chosen_one_nb.models.memory import best_device, best_dtype, device_memory, keep_freed_memory, move
from chosen_one_nb.models.pipelines import compile_blocks, load_pipeline, modules
from chosen_one_nb.settings import SAMPLING, Settings

__all__ = [
    "KNOWN", "Clip", "FeatureExtractor", "Features", "ModelError", "Models", "fingerprint", "load_models", "settle",
    "warn_unless_distilled", "weight_bytes",
]  # fmt: skip

OWN = "few_steps"  # folder in a model set: the LoRA that distilled="own" stands for
ENOUGH = 1 << 20  # bytes of a file's beginning and end that tell it from another one
ROOM = 2  # device memory that is plenty: this many times the weights


@dataclass
class Models:
    """A generator with what its images are compared by.

    Attributes
    ----------
    pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
    extractor : FeatureExtractor
        What galleries are compared by.
    clip : Clip or None
        For prompt similarity; without it, health watches one statistic less.
    name : str
        What `load_models` was asked for; a folder or file by its absolute path.
    fingerprint : str
        SHA-256 over the configurations and the beginnings and sizes of the weights: a run says which models
        made it.
    recipe : dict
        The arguments of `load_models` that give these models again, Hub ids with the commit they were loaded at.
    device : torch.device
        Where they work.
    low_memory : bool
        Whether they rest on the CPU, and each stage has only its own parts on the device.
    machine : dict
        The arguments of `load_models` that say where and how they work: device (its kind: a worker's own may have
        another number), dtype, low_memory, compile, offline. With `recipe`, all of them.
    """

    pipeline: Any
    extractor: FeatureExtractor
    clip: Clip | None
    name: str
    fingerprint: str
    recipe: dict[str, str] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    low_memory: bool = False
    machine: dict[str, Any] = field(default_factory=dict)


def load_models(
    name: str | Path = "menagerie",
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    extractor: FeatureExtractor | str | Path | None = None,
    clip: Clip | str | Path | None = None,
    distilled: str | Path | None = None,
    config: str | Path | None = None,
    low_memory: bool | None = None,
    compile: bool | str = False,
    offline: bool = False,
) -> Models:
    """Load a generator, a feature extractor and CLIP.

    Parameters
    ----------
    name : str or Path
        "menagerie" (bundled), "sdxl" (from the Hub), a folder that is a model set (pipeline/, dinov2/, clip/), a
        diffusers pipeline folder (model_index.json), a single-file checkpoint (.safetensors), or a Hub id of one,
        `owner/name@revision` for a certain commit, tag or branch.
    device : str, optional
        "cpu", "cuda", "mps"; None takes CUDA if there is one, else MPS, else the CPU.
    dtype : torch.dtype or str, optional
        None is float32 on the CPU, even if the files are half precision, and bfloat16 (or float16) elsewhere.
    extractor, clip : instance, str or Path, optional
        To replace those of a model set, or to supply them to a bare pipeline. Models may share instances.
    distilled : str or Path, optional
        A LoRA or UNet distilled to few steps, for `Settings.sampled("flash")`: folder, file or Hub id, or "own" for
        `few_steps/` of the model set, as the miniature has. It becomes part of the generator, in training too, and
        changes the distribution that images are drawn from.
    config : str or Path, optional
        For a single-file checkpoint, which holds no tokenizers: a pipeline whose configuration it goes with; None
        takes the published one of its kind, from the Hub.
    low_memory : bool, optional
        One switch: parts rest on the CPU until their stage comes, images are decoded one by one, training
        recomputes activations and keeps its optimiser in 8 bits where bitsandbytes is installed. None switches it
        on where the device has less than twice the weights' room.
    compile : bool or str
        True has the UNet's transformer blocks compiled (by Inductor; a name is another backend of `torch.compile`)
        when they first draw: that takes its time once per process, and lasts while Θ is put on and taken off.
        Images agree with those of uncompiled blocks up to rounding; training runs uncompiled.
    offline : bool
        Look in folders and the Hub's cache only.

    Returns
    -------
    Models

    Raises
    ------
    ModelError
        If something is missing, of the wrong kind, not safetensors, or out of reach; or nothing here can compile.
    """
    place = _device(device)
    kind = _dtype(dtype) or best_dtype(place)
    name = absolute(name)
    source, extractor_source, clip_source = _sources(name, extractor, clip, offline)
    own = model_set(name) / OWN if distilled == "own" else None
    pipeline, recipe = load_pipeline(source, kind, config, own or distilled)
    seeing = _ready(FeatureExtractor, extractor_source, kind, offline)
    reading = _ready(Clip, clip_source, kind, offline)
    whole = fingerprint([*recipe.values(), seeing.name, reading and reading.name])
    recipe |= {"name": name} if Path(recipe["name"]).exists() else {}  # else a Hub id, as the commit that was loaded
    recipe |= {"distilled": "own"} if own else {}
    named = {"extractor": (extractor, seeing), "clip": (clip, reading)}.items()
    recipe |= {key: model.name for key, (given, model) in named if model and (given or name in KNOWN)}
    if low_memory is None:
        low_memory = _cramped(place, pipeline, seeing, reading)
    settle(place, pipeline, seeing, reading, low_memory)
    compile_blocks(pipeline.unet, place, compile)
    machine = {"device": place.type, "dtype": str(kind).removeprefix("torch."), "low_memory": low_memory,
               "compile": compile, "offline": offline}  # fmt: skip
    return Models(pipeline, seeing, reading, name, whole, recipe, place, low_memory, machine)


def fingerprint(sources: Sequence[str | Path | None]) -> str:
    """Return a SHA-256 over model folders and files: name, size, first and last MiB of each file.

    What is on the Hub counts by its id and commit.
    """
    digest = hashlib.sha256()
    for source in sources:
        if source is None or not Path(source).exists():
            digest.update(f"{source} ".encode())
            continue
        place = Path(source)
        for file in [place] if place.is_file() else sorted(place.rglob("*")):
            if file.suffix in (".json", ".txt", ".safetensors"):
                name, size = file.name if file == place else file.relative_to(place).as_posix(), file.stat().st_size
                digest.update(f"{name} {size}".encode())
                with file.open("rb") as stream:
                    digest.update(stream.read(ENOUGH))
                    stream.seek(max(0, size - ENOUGH))
                    digest.update(stream.read())
    return digest.hexdigest()


def warn_unless_distilled(models: Models, settings: Settings) -> None:
    """Warn where settings draw as `Settings.sampled("flash")` does, with models that were not given distilled weights.

    Models that are distilled as they come cannot be told from others, so this is no error.
    """
    flash = all(getattr(settings, name) == SAMPLING["flash"][name] for name in ("sampler", "sampling_steps"))
    if flash and "distilled" not in models.recipe:
        warnings.warn(
            "sampling flash: 4 steps without guidance draw blurs unless the models are distilled to few steps. Load "
            'them with load_models(..., distilled=...), or take sampled("fast").',
            RuntimeWarning,
            stacklevel=3,
        )


def weight_bytes(*parts: Any) -> int:
    """Return the bytes that models' parameters and buffers hold; None is skipped."""
    return sum(part.get_memory_footprint() for part in parts if part is not None)


def _sources(name: str, extractor: Any, clip: Any, offline: bool) -> tuple[Source, Any, Any]:
    """Where pipeline, extractor and CLIP are: the latter two as given, else what the name stands for."""
    own_pipeline, own_extractor, own_clip = _stands_for(name)
    source = Source.of(own_pipeline, offline)  # first: a name that stands for nothing is said before what else it lacks
    if extractor is None and own_extractor is None:
        raise ModelError(
            f"{name}: this is a pipeline without a feature extractor. Pass one, for example "
            "load_models(..., extractor='facebook/dinov2-base', clip='openai/clip-vit-base-patch32')."
        )
    return source, own_extractor if extractor is None else extractor, own_clip if clip is None else clip


def _stands_for(name: str) -> tuple[str | Path, str | Path | None, str | Path | None]:
    """Where pipeline, extractor and clip of a name are; None for what it does not say."""
    if name in KNOWN:
        return KNOWN[name]
    folder = model_set(name)
    if (folder / "pipeline").is_dir():
        extractor, clip = (part if part.is_dir() else None for part in (folder / "dinov2", folder / "clip"))
        return folder / "pipeline", extractor, clip
    if (folder / "model_index.json").is_file() or folder.is_file():
        return folder, None, None
    if folder.exists() or name == "menagerie":
        raise ModelError(
            f"{folder}: expected a model set (folders pipeline/, dinov2/, clip/) or a diffusers pipeline "
            "(model_index.json), found neither. Check the path, or fetch the model again."
        )
    if "/" not in name:
        raise ModelError(
            f"{name}: no such folder, and not a Hub id (owner/name) or one of {', '.join(('menagerie', *KNOWN))}."
        )
    return name, None, None


def _device(device: torch.device | str | None) -> torch.device:
    try:
        place = best_device() if device is None else torch.device(device)
        # An allocation, since a kind that PyTorch knows need not be in this build or this machine.
        if place.type in ("cpu", "cuda", "mps") and torch.zeros(1, device=place).numel():
            return place
    except (AssertionError, RuntimeError, TypeError):
        pass
    raise ModelError(f"device: expected cpu, or a cuda or mps that this machine has, got {device!r}.")


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if dtype is not None and found not in (torch.float32, torch.float16, torch.bfloat16):
        raise ModelError(f"dtype: expected float32, bfloat16 or float16, got {dtype!r}.")
    return found


def _ready(kind: Any, given: Any, dtype: torch.dtype, offline: bool) -> Any:
    """An extractor or CLIP as it was given, loaded where it is a folder or Hub id."""
    return given if given is None or isinstance(given, kind) else kind.load(given, dtype=dtype, offline=offline)


def _cramped(device: torch.device, pipeline: Any, extractor: Any, clip: Any) -> bool:
    """Whether an accelerator has too little memory for everything at once."""
    there = device_memory(device) if device.type != "cpu" else None
    weights = weight_bytes(*modules(pipeline), extractor.model, clip and clip.model)
    return there is not None and there < ROOM * weights


def settle(device: torch.device, pipeline: Any, extractor: Any, clip: Any, low_memory: bool) -> None:
    """Put every part where it rests, in the layout the device likes; raises `OutOfMemory` where it does not fit."""
    if device.type == "cpu":
        keep_freed_memory()
    else:  # on the CPU it was no quicker: 19 ms against 18 ms per image and step
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.vae.to(memory_format=torch.channels_last)
    seers = [other for other in (extractor, clip) if other is not None]
    for module in (*modules(pipeline), *(other.model for other in seers)):
        move(module, torch.device("cpu") if low_memory else device)
    for other in seers:
        other.device = device
