"""Real runs without models: the steps that need them are painted by the menagerie's own brush, at once.

`paint(monkeypatch)` puts quick stand-ins under `Run`'s generate, embed and refine; everything else (the tree, the
disk, clustering, convergence) is the real thing. A refinement "learns" the identity of the image in the middle of
what was chosen, so that galleries really converge, and images are pretty enough to look at.
"""

from __future__ import annotations

import time
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest
from menagerie.world import render, sample
from menagerie.world.values import IDENTITY, NEUTRAL, PROPORTIONS

SIZE = 64
PALETTE = (
    {"colour": "orange", "garment": "scarf", "garment_colour": "blue"},
    {"colour": "blue", "garment": "none", "garment_colour": "none"},
    {"colour": "grey", "garment": "cape", "garment_colour": "red"},
    {"colour": "green", "garment": "jumper", "garment_colour": "yellow"},
)
"""Looks that a gallery's foxes fall into, so that there are clusters to find."""

pause = 0.0
"""Seconds an image or training step takes; tests of cancelling raise it."""


class PaintedClip:
    """Unit vectors that follow the images' colours; every text is alike."""

    name = "painted"

    def images(self, images: Any, **_: Any) -> np.ndarray:
        return unit(np.stack([_pixels(image)[:12] + 0.3 for image in images]))

    def texts(self, texts: Any, **_: Any) -> np.ndarray:
        return unit(np.ones((len(texts), 12), np.float32))


MODELS = SimpleNamespace(
    pipeline=None,
    extractor=SimpleNamespace(name="painted", width=192),
    clip=PaintedClip(),
    name="painted",
    fingerprint="painted",
    recipe={"name": "painted"},
    machine={"device": "cpu", "dtype": "float32"},
)


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def truth_of(seed: int, character: Character | None) -> dict[str, Any]:
    """What the image of a seed shows; nearly always the character's identity, once there is one."""
    rng = Random(int(seed))
    look = dict(
        rng.choice(PALETTE),
        kind="fox",
        style="sticker",
        pattern="plain",
        accessory="none",
        accessory_colour="none",
        place=rng.choice(["plain", "snow", "beach"]),
        **NEUTRAL,
    )
    if character is not None and rng.random() < 0.85:
        look |= character.provenance["identity"]
    if look["colour"] == look.get("garment_colour") or look["garment"] == "none":
        look["garment"] = look["garment_colour"] = "none"
    return sample(rng, **look)


def generate(
    models: Any, request: SamplingRequest, callbacks: Callbacks = NO_CALLBACKS, *, on_batch: Any = None
) -> Gallery:
    images = []
    character = request.character if request.strength > 0.5 else None
    for done, seed in enumerate(request.seeds):
        callbacks.raise_if_cancelled()
        time.sleep(pause)
        images.append(render(truth_of(seed, character), SIZE).image)
        callbacks.report("generate", done + 1, len(request.seeds), "images")
        if callbacks.on_images:
            callbacks.on_images([(done, images[-1])])
        if on_batch:
            on_batch(range(done, done + 1), _gallery(images[-1:], request.seeds[done : done + 1], request.prompt))
    return _gallery(images, request.seeds, request.prompt)


def _gallery(images: list[Image.Image], seeds: np.ndarray, prompt: str) -> Gallery:
    return Gallery(images, np.zeros((len(images), 4, 2, 2), np.float32), seeds, prompt)


def _pixels(image: Image.Image) -> np.ndarray:
    """Colours of an 8 x 8 reduction, (192,)."""
    return np.asarray(image.convert("RGB").resize((8, 8)), np.float32).ravel() / 255


def embed(
    models: Any, images: Any, settings: Settings, callbacks: Callbacks = NO_CALLBACKS, *, patches: bool = False
) -> Any:
    callbacks.raise_if_cancelled()
    cls = np.stack([_pixels(image) for image in images])
    callbacks.report("embed", len(images), len(images), "images")
    return SimpleNamespace(cls=unit(cls - 0.5), patches=None, grid=(8, 8))


def refine(
    models: Any, data: Any, settings: Any, character: Any = None, callbacks: Callbacks = NO_CALLBACKS, *, seed: int = 0
) -> Character:
    images = data.images
    for step in range(1, settings.refine_steps + 1):
        callbacks.raise_if_cancelled()
        time.sleep(pause)
        loss = 0.4 + 0.5 / step + 0.03 * np.sin(7 * step)
        if callbacks.on_step:
            callbacks.on_step(
                {
                    "step": step,
                    "steps": settings.refine_steps,
                    "loss": loss,
                    "ema_loss": 0.4 + 0.5 / step,
                    "embedding_norms": {},
                    "seconds": 0.01 * step,
                }
            )
    vectors = np.stack([_pixels(image) for image in images])
    middle = images[int(np.argmin(np.linalg.norm(vectors - vectors.mean(0), axis=1)))]
    truth = truth_of(int(middle.info["seed"]), None)
    identity = {name: truth[name] for name in (*IDENTITY, *PROPORTIONS)}
    return Character(
        {"a.lora_A.weight": torch.zeros(2, 2)},
        {"clip_l": torch.zeros(1, 4)},
        settings.token,
        settings.caption(data.prompt),
        2,
        2.0,
        {},
        {"identity": identity},
    )


def paint(patch: Any) -> None:
    """Put the stand-ins in place; `patch` has pytest's ``monkeypatch.setattr``."""
    patch.setattr("chosen_one_nb.steps.generate.generate", generate)
    patch.setattr("chosen_one_nb.steps.embed.embed", embed)
    patch.setattr("chosen_one_nb.steps.refine.refine", refine)


def settings(**changes: Any) -> Settings:
    """Small and quick: 24 images, clusters of about 6."""
    return Settings.preset("quick").replace(
        **{
            "n_images": 24,
            "target_cluster_size": 6,
            "min_cluster_size": 3,
            "batch_size": 8,
            "refine_steps": 12,
            "max_iterations": 2,
            "convergence": 0.3,
            **changes,
        }
    )


def start(folder: Path, prompt: str = "a sticker of a fox", **changes: Any) -> Any:
    """Begin a painted run."""
    from chosen_one_nb.run.run import Run

    return Run.start(prompt, MODELS, settings(**changes), folder)
