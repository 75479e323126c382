"""Steps that take no time: galleries of small fields of three colours, of which Θ makes one ever more likely.

They stand in for `generate`, `embed` and `refine` where a test is about how a run is kept; clustering and checking
are the real ones.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Features
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest

SIDE = 8
GROUPS = np.array([[220, 60, 40], [40, 200, 80], [60, 80, 220]])


def level(character: Character | None) -> float:
    """How far a character has come: 0 without one, 1 more per refinement."""
    return float(character.lora["level"][0]) if character else 0.0


def image(seed: int, far: float) -> Image.Image:
    """A noisy field of one of three colours; the further Θ has come, the likelier the first one."""
    rng = np.random.default_rng(seed)
    group = 0 if rng.random() < 1 - 0.5**far else seed % 3
    noise = rng.normal(0, 12, size=(SIDE, SIDE, 3)) + rng.normal(0, 25, size=(2, 1, 3)).repeat(SIDE // 2, axis=0)
    return Image.fromarray(np.clip(GROUPS[group] + noise, 0, 255).astype(np.uint8))


def generate(
    models: Any, request: SamplingRequest, callbacks: Callbacks = NO_CALLBACKS, *, on_batch: Any = None
) -> Gallery:
    images = []
    seeds, prompt, size = request.seeds, request.full_prompt, request.settings.batch_size
    models.drawn.append((prompt, len(seeds)))
    for i, seed in enumerate(seeds):
        callbacks.raise_if_cancelled()
        images.append(image(int(seed), request.strength * level(request.character)))
        callbacks.report("generate", i + 1, len(seeds), "image steps")
        if (i + 1) % size == 0 or i + 1 == len(seeds):
            start = i // size * size
            if callbacks.on_images:
                callbacks.on_images(list(enumerate(images))[start:])
            if on_batch:
                on_batch(range(start, i + 1), gallery(images[start:], seeds[start : i + 1], prompt))
    return gallery(images, seeds, prompt)


def gallery(images: list[Image.Image], seeds: Any, prompt: str) -> Gallery:
    latents = np.stack([np.asarray(image, dtype=np.float32).mean(axis=0) for image in images])
    return Gallery(images, latents, np.asarray(seeds), prompt)


def colours(images: Any) -> np.ndarray:
    """Mean colour of the two halves of each image, (N, 6) float32 in [0, 1]."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images]) / 255
    return pixels.reshape(len(pixels), 2, -1, 3).mean(axis=2).reshape(len(pixels), 6)


def embed(
    models: Any, images: Any, settings: Any, callbacks: Callbacks = NO_CALLBACKS, *, patches: bool = False
) -> Features:
    callbacks.raise_if_cancelled()
    callbacks.report("embed", len(images), len(images), "images")
    tokens = np.zeros((len(images), 4, 6), np.float16) if patches else None
    return Features(colours(images), tokens, (2, 2))


def refine(
    models: Any, data: Any, settings: Any, character: Any = None, callbacks: Callbacks = NO_CALLBACKS, *, seed: int = 0
) -> Character:
    models.refined.append({"data": data, "seed": seed})
    for step in range(1, settings.refine_steps + 1):
        callbacks.raise_if_cancelled()
        if callbacks.on_step:
            callbacks.on_step(
                {"step": step, "steps": settings.refine_steps, "loss": 1.0 / step, "ema_loss": 1.0 / step}
            )
    lora = {"level": torch.tensor([level(character) + 1.0, float(data.latents.sum())])}
    rows = {"clip_l": torch.zeros(1, 2)}
    return Character(lora, rows, settings.token, settings.caption(data.prompt), 1, 1.0, rows)


class FakeClip:
    """Colours as CLIP would see them: six numbers and a constant, at unit length."""

    def images(self, images: Any, **more: Any) -> np.ndarray:
        return self._unit(colours(images))

    def texts(self, texts: Any, **more: Any) -> np.ndarray:
        return self._unit(np.tile(np.array([1, 0.5, 0.5, 1, 0.5, 0.5], np.float32), (len(texts), 1)))

    @staticmethod
    def _unit(vectors: np.ndarray) -> np.ndarray:
        vectors = np.concatenate([vectors, np.full((len(vectors), 1), 0.5, np.float32)], axis=1)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fake_models(name: str = "fake", fingerprint: str = "f" * 64) -> Any:
    """Models that draw nothing but remember what was asked of them in `drawn` and `refined`."""
    pipeline, extractor = SimpleNamespace(), SimpleNamespace(name="colours", width=6, patch_tokens=True)
    return SimpleNamespace(
        pipeline=pipeline,
        extractor=extractor,
        clip=FakeClip(),
        name=name,
        fingerprint=fingerprint,
        recipe={"name": name},
        machine={"device": "cpu", "dtype": "float32"},
        device=torch.device("cpu"),
        drawn=[],
        refined=[],
    )


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fakes in the place of the slow steps."""
    import chosen_one_nb.steps.embed
    import chosen_one_nb.steps.generate
    import chosen_one_nb.steps.refine

    monkeypatch.setattr(chosen_one_nb.steps.generate, "generate", generate)
    monkeypatch.setattr(chosen_one_nb.steps.embed, "embed", embed)
    monkeypatch.setattr(chosen_one_nb.steps.refine, "refine", refine)
