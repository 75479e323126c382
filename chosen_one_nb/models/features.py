"""The eyes: a feature extractor that galleries are compared by, and CLIP for prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.models import open_clip
from chosen_one_nb.models.batches import batches
from chosen_one_nb.models.files import OPEN_CLIP, ModelError, explained, image_processor, load, model_type
from chosen_one_nb.models.hub import Source
from chosen_one_nb.models.offload import on_device

__all__ = ["Clip", "FeatureExtractor", "Features"]

TOKENIZERS = ("tokenizer.json", "vocab.json")

SMALLER = "Not one image fits: close other programs, take a smaller extractor, or load_models(..., low_memory=True)."


@dataclass(frozen=True)
class Features:
    """What the eyes saw of N images.

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


class FeatureExtractor:
    """DINOv2, DINOv1, CLIP's or OpenCLIP's image tower behind one contract: images in, features out.

    Images are prepared as the checkpoint's own `preprocessor_config.json` says (pitfall 18), by Pillow.

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
        self.device: torch.device = model.device
        """Where it works; it may rest elsewhere."""

    @classmethod
    def load(
        cls, source: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None
    ) -> FeatureExtractor:
        """Load an extractor from a folder or the Hub.

        Raises
        ------
        ModelError
            If there is none, it is of another kind, or its weights are not safetensors.
        """
        import transformers

        classes = {
            "dinov2": "Dinov2Model",
            "dinov2_with_registers": "Dinov2WithRegistersModel",
            "vit": "ViTModel",
            "clip": "CLIPVisionModelWithProjection",
            "clip_vision_model": "CLIPVisionModelWithProjection",
            OPEN_CLIP: "CLIPVisionModelWithProjection",
        }
        origin = Source.of(source)
        folder = origin.fetch()
        kind = model_type(folder)
        if kind not in classes:
            raise ModelError(f"{source}: expected a feature extractor of type {', '.join(classes)}, got {kind!r}.")
        more = {"add_pooling_layer": False} if kind == "vit" else {}
        model, processor = _loaded(getattr(transformers, classes[kind]), kind, folder, device, dtype, **more)
        return cls(model, processor, str(origin.pinned(folder)))

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
        vectors, tokens, grid = [], [], (0, 0)
        with on_device(self.device, self.model):
            for indices, (vector, token, grid) in batches(  # noqa: B007 (the last grid is that of all)
                len(images), batch_size, lambda part: self._look(images[part.start : part.stop], patches), SMALLER
            ):
                vectors.append(vector)
                tokens.append(token)
                if on_batch is not None:
                    on_batch(indices.stop)
        cls = np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)
        return Features(cls, np.concatenate(tokens) if patches and tokens else None, grid)

    @torch.no_grad()
    def _look(
        self, images: Sequence[Image.Image], patches: bool
    ) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int]]:
        """Images (B) -> CLS (B, D) float32, patch tokens (B, P, D') float16 or None, and their grid."""
        pixels = _pixels(self.processor, images)
        out = self.model(pixels.to(self.model.device, self.model.dtype))
        sequence = out.last_hidden_state  # (B, 1 + registers + P, D')
        first = out.image_embeds if self.projected else _pooled(out, sequence)
        tokens = sequence[:, self._skip :].float().cpu().numpy().astype(np.float16) if patches else None
        return first.float().cpu().numpy(), tokens, _grid(pixels.shape, self.model.config.patch_size)


class Clip:
    """CLIP's two towers: unit vectors of images and of texts, whose product is the prompt similarity.

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
        self.device: torch.device = model.device
        """Where it works; it may rest elsewhere."""

    @classmethod
    def load(cls, source: str | Path, *, device: str | None = None, dtype: torch.dtype | None = None) -> Clip:
        """Load CLIP or OpenCLIP with its tokenizer from a folder or the Hub; raises `ModelError` if that fails."""
        from transformers import CLIPModel, CLIPTokenizer

        origin = Source.of(source)
        folder = origin.fetch()
        kind = model_type(folder)
        if kind not in ("clip", OPEN_CLIP):
            raise ModelError(f"{source}: expected a CLIP model (model_type 'clip'), got {kind!r}.")
        model, processor = _loaded(CLIPModel, kind, folder, device, dtype)
        if not any((folder / name).is_file() for name in TOKENIZERS):
            raise ModelError(
                f"{folder}: expected a tokenizer ({' or '.join(TOKENIZERS)}), found none. OpenAI's and OpenCLIP's "
                "models share that of openai/clip-vit-large-patch14: copy its tokenizer.json here."
            )
        with explained(folder, "a tokenizer"):
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        return cls(model, processor, tokenizer, str(origin.pinned(folder)))

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image], *, batch_size: int = 32) -> np.ndarray:
        """Return (N, D) float32 unit vectors of images."""
        return self._batches(
            images,
            batch_size,
            lambda part: self.model.get_image_features(
                pixel_values=_pixels(self.processor, part).to(self.model.device, self.model.dtype)
            ),
        )

    @torch.no_grad()
    def patches(self, images: Sequence[Image.Image], *, batch_size: int = 32) -> tuple[np.ndarray, tuple[int, int]]:
        """See what each patch of images says, in the space of the texts.

        CLIP was only ever asked about whole images; its patch tokens, taken through the same last norm and
        projection, are a rough but useful witness of where something is.

        Returns
        -------
        ndarray of shape (N, P, D), float32
            Unit vectors, patches row by row.
        (int, int)
            Patches down and across: h * w = P.
        """
        pixels = _pixels(self.processor, images[:1] or [Image.new("RGB", (8, 8))])
        grid = _grid(pixels.shape, self.model.config.vision_config.patch_size)
        found = self._batches(images, batch_size, self._look_at_patches)
        return found.reshape(-1, grid[0] * grid[1], self.width), grid

    def _look_at_patches(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Images -> patch tokens (B, P, D) through the last norm and the projection, which CLIP gives CLS only."""
        tower = self.model.vision_model
        pixels = _pixels(self.processor, images).to(self.model.device, self.model.dtype)
        return self.model.visual_projection(tower.post_layernorm(tower(pixel_values=pixels).last_hidden_state[:, 1:]))

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that it was trained with: 100 in OpenAI's models."""
        return float(self.model.logit_scale.exp())

    @torch.no_grad()
    def texts(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """Return (T, D) float32 unit vectors of texts; what is too long for the model is cut off."""
        limit = min(self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings)
        return self._batches(
            texts,
            batch_size,
            lambda part: self.model.get_text_features(
                **self.tokenizer(
                    list(part), padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
                ).to(self.model.device)
            ),
        )

    def _batches(self, items: Sequence[Any], size: int, look: Callable[[Sequence[Any]], Any]) -> np.ndarray:
        with on_device(self.device, self.model):
            parts = batches(len(items), size, lambda part: look(items[part.start : part.stop]), SMALLER)
            vectors = [torch.nn.functional.normalize(_tensor(part).float(), dim=-1).cpu().numpy() for _, part in parts]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)


def _loaded(
    kind: Any, form: str, folder: Path, device: str | None, dtype: torch.dtype | None, **more: Any
) -> tuple[Any, Any]:
    """A model and its preprocessing, from the transformers form or OpenCLIP's own."""
    if form == OPEN_CLIP:
        return open_clip.load(kind, folder, device, dtype), open_clip.processor(folder)
    return load(kind, folder, device, dtype, **more), image_processor(folder)


def _pixels(processor: Any, images: Sequence[Image.Image]) -> torch.Tensor:
    """Prepare images as the checkpoint asks: (B, 3, H, W) float32."""
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
