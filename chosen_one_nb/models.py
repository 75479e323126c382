"""The generator and the eyes (feature extractor, CLIP): from data/menagerie, a folder, or a Hub id.

Only safetensors files and stock classes are loaded: no pickles, no code from a model's repository.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.steps import CancelledCheck, Progress, raise_if_cancelled, report

__all__ = ["MENAGERIE", "Clip", "FeatureExtractor", "Features", "ModelError", "Models", "load_models"]

MENAGERIE = Path(__file__).parent.parent / "data" / "menagerie"
"""Folder of the bundled miniature."""

KNOWN = {
    "sdxl": ("stabilityai/stable-diffusion-xl-base-1.0", "facebook/dinov2-large", "openai/clip-vit-large-patch14"),
}
"""Short names: (pipeline, extractor, clip) on the Hub."""

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")


class ModelError(Exception):
    """A model that cannot be used: the message says what was looked for, what was found, and what to do."""


@dataclass(frozen=True)
class Features:
    """What the eyes saw of N pictures.

    Attributes
    ----------
    cls : ndarray of shape (N, D), float32
        One vector per picture, as the model gives it (not brought to unit length).
    patches : ndarray of shape (N, P, D), float16, or None
        One vector per patch, row by row, if they were asked for.
    grid : (int, int)
        Patches down and across: h * w = P.
    """

    cls: np.ndarray
    patches: np.ndarray | None
    grid: tuple[int, int]


class FeatureExtractor:
    """DINOv2, DINOv1 or CLIP's image tower behind one contract: pictures in, CLS features and patch tokens out.

    Pictures are prepared as the checkpoint's own `preprocessor_config.json` says (pitfall 18), by Pillow.

    Parameters
    ----------
    model : Dinov2Model, Dinov2WithRegistersModel, ViTModel or CLIPVisionModelWithProjection
    processor : image processor
    name : str
        Where it came from.
    """

    patch_tokens = True

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model, self.processor, self.name = model.eval().requires_grad_(False), processor, name
        self.projected = hasattr(model, "visual_projection")
        self.width: int = model.config.projection_dim if self.projected else model.config.hidden_size
        self._skip = 1 + getattr(model.config, "num_register_tokens", 0)

    @classmethod
    def load(cls, source: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> FeatureExtractor:
        """Load an extractor from a folder or the Hub.

        Raises
        ------
        ModelError
            If there is none, it is of another kind, or its weights are not safetensors.
        """
        import transformers

        classes = {"dinov2": "Dinov2Model", "dinov2_with_registers": "Dinov2WithRegistersModel", "vit": "ViTModel",
                   "clip": "CLIPVisionModelWithProjection", "clip_vision_model": "CLIPVisionModelWithProjection"}
        kind = _model_type(source)
        if kind not in classes:
            raise ModelError(f"{source}: expected a feature extractor of type {', '.join(classes)}, got {kind!r}.")
        more = {"add_pooling_layer": False} if kind == "vit" else {}
        model = _load(getattr(transformers, classes[kind]), source, device, dtype, **more)
        return cls(model, _image_processor(source), str(source))

    def __call__(self, images: Sequence[Image.Image], *, batch_size: int = 32, patches: bool = False,
                 cancelled: CancelledCheck | None = None, on_progress: Progress | None = None) -> Features:
        """Extract the features of pictures of any size.

        Parameters
        ----------
        images : sequence of PIL.Image, length N
        batch_size : int
            Pictures at once.
        patches : bool
            Whether to return the patch tokens too.
        cancelled, on_progress : callable, optional
            See `chosen_one_nb.steps`; asked and told after each batch.

        Returns
        -------
        Features
        """
        vectors, tokens, grid = [], [], (0, 0)
        for start in range(0, len(images), batch_size):
            raise_if_cancelled(cancelled)
            pixels = _pixels(self.processor, images[start:start + batch_size])
            vector, token = self._look(pixels)
            grid = _grid(pixels.shape, self.model.config.patch_size)
            vectors.append(vector)
            tokens.append(token.astype(np.float16) if patches else None)
            report(on_progress, "embed", min(start + batch_size, len(images)), len(images), "images")
        cls = np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)
        return Features(cls, np.concatenate(tokens) if patches and tokens else None, grid)

    @torch.no_grad()
    def _look(self, pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """(B, 3, H, W) -> CLS (B, D) and patch tokens (B, P, D'), float32."""
        out = self.model(pixels.to(self.model.device, self.model.dtype))
        sequence = out.last_hidden_state  # (B, 1 + registers + P, D')
        first = out.image_embeds if self.projected else _pooled(out, sequence)
        return first.float().cpu().numpy(), sequence[:, self._skip:].float().cpu().numpy()


class Clip:
    """CLIP's two towers: unit vectors of pictures and of texts, whose product is the prompt similarity.

    Parameters
    ----------
    model : CLIPModel
    processor : image processor
    tokenizer : CLIPTokenizer
    name : str
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any, name: str) -> None:
        self.model, self.processor, self.tokenizer = model.eval().requires_grad_(False), processor, tokenizer
        self.name, self.width = name, int(model.config.projection_dim)

    @classmethod
    def load(cls, source: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> Clip:
        """Load a CLIPModel with its tokenizer from a folder or the Hub; raises `ModelError` if that fails."""
        from transformers import CLIPModel, CLIPTokenizer

        kind = _model_type(source)
        if kind != "clip":
            raise ModelError(f"{source}: expected a CLIP model (model_type 'clip'), got {kind!r}.")
        model = _load(CLIPModel, source, device, dtype)
        with _explained(source, "a tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=_is_folder(source))
        return cls(model, _image_processor(source), tokenizer, str(source))

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], *, batch_size: int = 32) -> np.ndarray:
        """Return (N, D) float32 unit vectors of pictures."""
        return self._batches(images, batch_size, lambda part: self.model.get_image_features(
            pixel_values=_pixels(self.processor, part).to(self.model.device, self.model.dtype)))

    @torch.no_grad()
    def texts(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Return (T, D) float32 unit vectors of texts; what is too long for the model is cut off."""
        limit = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        return self._batches(texts, batch_size, lambda part: self.model.get_text_features(
            **self.tokenizer(list(part), padding="max_length", max_length=limit, truncation=True,
                             return_tensors="pt").to(self.model.device)))

    def _batches(self, items: Sequence[Any], size: int, look: Callable[[Sequence[Any]], Any]) -> np.ndarray:
        parts = [look(items[start:start + size]) for start in range(0, len(items), size)]
        vectors = [torch.nn.functional.normalize(_tensor(part).float(), dim=-1).cpu().numpy() for part in parts]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)


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
        SHA-256 over the configurations and the beginnings and sizes of the weights: a run says which models made it.
    """

    pipeline: Any
    extractor: FeatureExtractor
    clip: Clip | None
    name: str
    fingerprint: str


def load_models(name: str | Path = "menagerie", *, device: str | None = None, dtype: torch.dtype | None = None,
                extractor: FeatureExtractor | str | Path | None = None,
                clip: Clip | str | Path | None = None) -> Models:
    """Load a generator, a feature extractor and CLIP.

    Parameters
    ----------
    name : str or Path
        "menagerie" (bundled), "sdxl" (from the Hub), a folder that is a model set (pipeline/, dinov2/, clip/), a
        diffusers pipeline folder (model_index.json), or a Hub id of one.
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
    sources = _sources(name)
    eyes = [given if given is not None else found for given, found in zip((extractor, clip), sources[1:], strict=True)]
    if eyes[0] is None:
        raise ModelError(f"{name}: this is a pipeline without a feature extractor. Pass one, for example "
                         "load_models(..., extractor='facebook/dinov2-base', clip='openai/clip-vit-base-patch32').")
    pipeline = _load_pipeline(sources[0], device, dtype)
    loaded = (eyes[0] if isinstance(eyes[0], FeatureExtractor) else
              FeatureExtractor.load(eyes[0], device=device, dtype=dtype))
    texts = eyes[1] if eyes[1] is None or isinstance(eyes[1], Clip) else Clip.load(eyes[1], device=device, dtype=dtype)
    return Models(pipeline, loaded, texts, str(name), fingerprint([sources[0], *(_source(eye) for eye in eyes)]))


def fingerprint(sources: Sequence[str | Path | None]) -> str:
    """Return a SHA-256 over model folders: all of each JSON or text file, size and first MiB of each weight file.

    A Hub id counts by its name and the commit in the local cache.
    """
    digest = hashlib.sha256()
    for source in sources:
        if source is None or not _is_folder(source):
            digest.update(f"{source} {_commit(source)}".encode())
            continue
        for file in sorted(Path(source).rglob("*")):
            if file.suffix in (".json", ".txt", ".safetensors"):
                digest.update(f"{file.relative_to(source).as_posix()} {file.stat().st_size}".encode())
                with file.open("rb") as stream:
                    digest.update(stream.read(1 << 20))
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
        raise ModelError(f"{folder}: expected a model set (folders pipeline/, dinov2/, clip/) or a diffusers pipeline "
                         "(model_index.json), found neither. Check the path, or fetch the model again.")
    if str(name).count("/") != 1 or str(name).startswith((".", "~", os.sep)):
        raise ModelError(f"{name}: no such folder, and not a Hub id (owner/name) or one of "
                         f"{', '.join(('menagerie', *KNOWN))}.")
    return str(name), None, None


def _load_pipeline(source: str | Path, device: str, dtype: torch.dtype) -> Any:
    with _explained(source, "a diffusers pipeline"), _quietly():
        import diffusers

        kind = diffusers.DiffusionPipeline.load_config(source, local_files_only=_is_folder(source)).get("_class_name")
        if kind not in PIPELINES:
            raise ModelError(f"{source}: expected a pipeline of class {' or '.join(PIPELINES)}, got {kind}.")
        more = {"safety_checker": None, "requires_safety_checker": False} if kind == PIPELINES[1] else {
            "add_watermarker": False}
        pipeline = getattr(diffusers, kind).from_pretrained(
            source, dtype=dtype, use_safetensors=True, local_files_only=_is_folder(source), **more)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)):
        if part is not None:
            part.eval().requires_grad_(False)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _load(kind: Any, source: str | Path, device: str | None, dtype: torch.dtype | None, **more: Any) -> Any:
    """Load one transformers model from safetensors; float32 unless told otherwise."""
    with _explained(source, f"a {kind.__name__}"), _quietly():
        model = kind.from_pretrained(source, dtype=dtype or torch.float32, use_safetensors=True,
                                     local_files_only=_is_folder(source), **more)
    return model.to(device or "cpu")


def _image_processor(source: str | Path) -> Any:
    from transformers import AutoImageProcessor

    with _explained(source, "a preprocessor_config.json"), _quietly():
        return AutoImageProcessor.from_pretrained(source, backend="pil", local_files_only=_is_folder(source))


def _model_type(source: str | Path) -> str:
    """Read `model_type` of a model's configuration."""
    if _is_folder(source):
        file = Path(source) / "config.json"
        if not file.is_file():
            raise ModelError(f"{source}: expected a model folder with a config.json, found none. Check the path.")
        with _explained(source, "a configuration"):
            return str(json.loads(file.read_text(encoding="utf-8")).get("model_type"))
    if not (isinstance(source, str) and source.count("/") == 1 and not source.startswith((".", os.sep))):
        raise ModelError(f"{source}: no such folder, and not a Hub id (owner/name).")
    from transformers import AutoConfig

    with _explained(source, "a configuration"), _quietly():
        return str(AutoConfig.from_pretrained(source).model_type)


@contextmanager
def _explained(source: str | Path, what: str) -> Iterator[None]:
    """Turn whatever the libraries raise while loading into one `ModelError` with a way out."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        place = "Check that the folder is complete" if _is_folder(source) else (
            "Check the id and the network; a copy in a folder works without one")
        raise ModelError(f"{source}: expected {what} in safetensors files, could not load it: {error}\n{place}. "
                         "Weights in pickle files (.bin, .ckpt) are refused because they can run code.") from error


@contextmanager
def _quietly() -> Iterator[None]:
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


def _default_dtype(device: str) -> torch.dtype:
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.float32


def _is_folder(source: str | Path) -> bool:
    return Path(source).is_dir()


def _source(eye: Any) -> str | Path | None:
    return eye.name if isinstance(eye, FeatureExtractor | Clip) else eye


def _commit(source: str | Path | None) -> str:
    from huggingface_hub import try_to_load_from_cache

    for file in ("model_index.json", "config.json"):
        found = try_to_load_from_cache(str(source), file) if source and str(source).count("/") == 1 else None
        if isinstance(found, str):
            return Path(found).parent.name
    return ""


def _pixels(processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Prepare pictures as the checkpoint asks: (B, 3, H, W) float32."""
    return processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]


def _grid(shape: Sequence[int], patch: int) -> tuple[int, int]:
    return shape[-2] // patch, shape[-1] // patch


def _pooled(out: Any, sequence: torch.Tensor) -> torch.Tensor:
    """CLS: `pooler_output` where the model has one (DINOv2), the first token of the last layer otherwise."""
    pooled = getattr(out, "pooler_output", None)
    return sequence[:, 0] if pooled is None else pooled


def _tensor(out: Any) -> torch.Tensor:
    """Transformers 5 wraps CLIP features in an output object; the vector is its `pooler_output`."""
    return out if torch.is_tensor(out) else out.pooler_output
