"""What images are compared by: a feature extractor for galleries, and CLIP for prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.models import open_clip
from chosen_one_nb.models.hub import ModelError, Source
from chosen_one_nb.models.images import as_rgb
from chosen_one_nb.models.memory import batches, on_device

__all__ = ["Clip", "FeatureExtractor", "Features"]

OPEN_CLIP = "open_clip"
EXTRACTORS = {
    "dinov2": "Dinov2Model",
    "dinov2_with_registers": "Dinov2WithRegistersModel",
    "vit": "ViTModel",
    "clip": "CLIPVisionModelWithProjection",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    OPEN_CLIP: "CLIPVisionModelWithProjection",
}
"""Classes of transformers by the `model_type` of a configuration."""

TOKENIZERS = ("tokenizer.json", "vocab.json")
SMALLER = "Not one image fits: close other programs, take a smaller extractor, or load_models(..., low_memory=True)."


@dataclass(frozen=True)
class Features:
    """Features of N images.

    Attributes
    ----------
    cls : ndarray of shape (N, D), float32
        One vector per image, as the model gives it (not brought to unit length).
    patches : ndarray of shape (N, P, D), float16, or None
        One vector per patch, row by row, if they were asked for.
    grid : (int, int)
        Patches down and across: h * w = P.
    """

    cls: np.ndarray
    patches: np.ndarray | None
    grid: tuple[int, int]


class _ImageModel:
    """A frozen model with the checkpoint's own preprocessing, by Pillow (pitfall 18)."""

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        self.model, self.processor, self.name = model.eval().requires_grad_(False), processor, name
        self.device: torch.device = model.device
        """Where it works; it may rest elsewhere."""

    def _pixels(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """B images of any size -> (B, 3, H, W)."""
        pixels = self.processor([as_rgb(image) for image in images], return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.device, self.model.dtype)


class FeatureExtractor(_ImageModel):
    """DINOv2, DINOv1, CLIP's or OpenCLIP's image tower behind one contract: images in, features out.

    Parameters
    ----------
    model : Dinov2Model, Dinov2WithRegistersModel, ViTModel or CLIPVisionModelWithProjection
    processor : image processor
    name : str
        Where it came from.
    """

    def __init__(self, model: Any, processor: Any, name: str) -> None:
        super().__init__(model, processor, name)
        self.projected = hasattr(model, "visual_projection")
        self.width: int = model.config.projection_dim if self.projected else model.config.hidden_size
        self._skip = 1 + getattr(model.config, "num_register_tokens", 0)

    @classmethod
    def load(cls, source: str | Path, *, dtype: torch.dtype | None = None, offline: bool = False) -> FeatureExtractor:
        """Load an extractor from a folder or the Hub.

        Parameters
        ----------
        source : str or Path
        dtype : torch.dtype, optional
            None is float32.
        offline : bool
            Look in folders and the Hub's cache only.

        Raises
        ------
        ModelError
            If there is none, it is of another kind, or its weights are not safetensors.
        """
        origin, folder, kind = _fetched(source, offline)
        if kind not in EXTRACTORS:
            raise ModelError(f"{source}: expected a feature extractor of type {', '.join(EXTRACTORS)}, got {kind!r}.")
        return cls(*_loaded(EXTRACTORS[kind], kind, origin, folder, dtype), str(origin.pinned(folder)))

    def __call__(
        self,
        images: Sequence[Image.Image],
        *,
        batch_size: int = 32,
        patches: bool = False,
        on_batch: Callable[[int], None] | None = None,
    ) -> Features:
        """Extract the features of images of any size.

        Parameters
        ----------
        images : sequence of PIL.Image, length N
        batch_size : int
            Images at once.
        patches : bool
            Whether to return the patch tokens too.
        on_batch : callable, optional
            Called with the number of images done, after each batch; an error it raises stops the extraction.

        Returns
        -------
        Features
        """
        parts = [Features(np.zeros((0, self.width), np.float32), None, (0, 0))]
        with on_device(self.device, self.model):
            for indices, part in batches(images, batch_size, lambda some: self._extract(some, patches), SMALLER):
                parts.append(part)
                if on_batch is not None:
                    on_batch(indices.stop)
        tokens = [part.patches for part in parts if part.patches is not None]
        whole = np.concatenate([part.cls for part in parts])
        return Features(whole, np.concatenate(tokens) if tokens else None, parts[-1].grid)

    @torch.no_grad()
    def _extract(self, images: Sequence[Image.Image], patches: bool) -> Features:
        pixels = self._pixels(images)
        out = self.model(pixels)
        sequence = out.last_hidden_state  # (B, 1 + registers + P, D')
        vectors = out.image_embeds if self.projected else out.pooler_output
        vectors = sequence[:, 0] if vectors is None else vectors  # DINOv1 has no pooler
        tokens = sequence[:, self._skip :].float().cpu().numpy().astype(np.float16) if patches else None
        return Features(vectors.float().cpu().numpy(), tokens, _grid(pixels, self.model.config.patch_size))


class Clip(_ImageModel):
    """CLIP's two towers: unit vectors of images and of texts, whose product is the prompt similarity.

    Parameters
    ----------
    model : CLIPModel
    processor : image processor
    tokenizer : CLIPTokenizer
    name : str
    """

    def __init__(self, model: Any, processor: Any, tokenizer: Any, name: str) -> None:
        super().__init__(model, processor, name)
        self.tokenizer, self.width = tokenizer, int(model.config.projection_dim)

    @classmethod
    def load(cls, source: str | Path, *, dtype: torch.dtype | None = None, offline: bool = False) -> Clip:
        """Load CLIP or OpenCLIP with its tokenizer, as `FeatureExtractor.load` does."""
        from transformers import CLIPTokenizer

        origin, folder, kind = _fetched(source, offline)
        if kind not in ("clip", OPEN_CLIP):
            raise ModelError(f"{source}: expected a CLIP model (model_type 'clip'), got {kind!r}.")
        model, processor = _loaded("CLIPModel", kind, origin, folder, dtype)
        if not any((folder / name).is_file() for name in TOKENIZERS):
            shared = " OpenAI's and OpenCLIP's share that of openai/clip-vit-large-patch14: copy its tokenizer.json."
            raise origin.lacks(f"a tokenizer ({' or '.join(TOKENIZERS)})", shared)
        with origin.loading("a tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return cls(model, processor, tokenizer, str(origin.pinned(folder)))

    def images(self, images: Sequence[Image.Image]) -> np.ndarray:
        """Return (N, D) float32 unit vectors of images."""
        return self._unit_vectors(images, lambda part: self.model.get_image_features(self._pixels(part)).pooler_output)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return (T, D) float32 unit vectors of texts; what is too long for the model is cut off."""
        limit = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        how = {"padding": "max_length", "max_length": limit, "truncation": True, "return_tensors": "pt"}

        def features(part: Sequence[str]) -> torch.Tensor:
            return self.model.get_text_features(**self.tokenizer(list(part), **how).to(self.model.device)).pooler_output

        return self._unit_vectors(texts, features, 64)

    def patches(self, images: Sequence[Image.Image]) -> tuple[np.ndarray, tuple[int, int]]:
        """Return a vector for each patch of images, in the space of the texts.

        CLIP was only ever asked about whole images; its patch tokens, taken through the same last norm and
        projection, are a rough but useful witness of where something is.

        Returns
        -------
        ndarray of shape (N, P, D), float32
            Unit vectors, patches row by row.
        (int, int)
            Patches down and across: h * w = P.
        """
        blank = Image.new("RGB", (8, 8))
        grid = _grid(self._pixels(images[:1] or [blank]), self.model.config.vision_config.patch_size)
        found = self._unit_vectors(images, self._patch_features)
        return found.reshape(-1, grid[0] * grid[1], self.width), grid

    def _patch_features(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """B images -> (B, P, D) through the last norm and the projection, which CLIP itself gives CLS only."""
        tower = self.model.vision_model
        tokens = tower(pixel_values=self._pixels(images)).last_hidden_state[:, 1:]
        return self.model.visual_projection(tower.post_layernorm(tokens))

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that it was trained with: 100 in OpenAI's models."""
        return float(self.model.logit_scale.exp())

    @torch.no_grad()
    def _unit_vectors(self, items: Sequence[Any], features: Callable[[Any], Any], size: int = 32) -> np.ndarray:
        with on_device(self.device, self.model):
            parts = batches(items, size, features, SMALLER)
            vectors = [torch.nn.functional.normalize(part.float(), dim=-1).cpu().numpy() for _, part in parts]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)


def _fetched(source: str | Path, offline: bool) -> tuple[Source, Path, str]:
    """Where a model comes from, the folder it lies in, and its `model_type`; `OPEN_CLIP` in OpenCLIP's form only."""
    origin = Source.of(source, offline)
    folder = origin.fetch()
    file = folder / "config.json"
    if not file.is_file():
        if (folder / open_clip.CONFIG).is_file():
            return origin, folder, OPEN_CLIP
        raise origin.lacks("a model folder with a config.json")
    with origin.loading("a configuration"):
        return origin, folder, str(dict(json.loads(file.read_text(encoding="utf-8"))).get("model_type"))


def _loaded(name: str, kind: str, origin: Source, folder: Path, dtype: torch.dtype | None) -> tuple[Any, Any]:
    """A model of a class of transformers and its preprocessing, from the transformers form or OpenCLIP's own."""
    import transformers

    model_class = getattr(transformers, name)
    if kind == OPEN_CLIP:
        return open_clip.load(model_class, origin, folder, dtype), open_clip.processor(origin, folder)
    more = {"add_pooling_layer": False} if kind == "vit" else {}
    with origin.loading(f"a {name}"):
        model = model_class.from_pretrained(
            folder, dtype=dtype or torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False,
            **more,
        )  # fmt: skip
    with origin.loading("a preprocessor_config.json"):  # may name a class of the folder's own code
        return model, transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True, trust_remote_code=False
        )


def _grid(pixels: torch.Tensor, patch: int) -> tuple[int, int]:
    return pixels.shape[-2] // patch, pixels.shape[-1] // patch
