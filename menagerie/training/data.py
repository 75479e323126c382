"""The renders that the miniature learns from, drawn once and kept as arrays; their captions as token ids."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from menagerie import world
from menagerie.training.context import TrainingContext
from menagerie.training.loop import with_progress

DETAILS = 2.0  # captions to learn from name a figure's details this many times as often as other captions do
POSED = 0.2  # of the renders to learn from have their arms posed, beside those that have it anyway
HELD_OUT = 2_000_000_000  # seeds from here on are never trained on
CHUNK = 250  # renders of one task


@dataclass(frozen=True)
class RenderSet:
    """Renders with their truths.

    Attributes
    ----------
    truths : list of dict, length n
    images : uint8 array (n, size, size, 3), memory-mapped
    masks : bool array (n, size, size), memory-mapped
        The characters.
    joints : float32 array (n, 14, 3), memory-mapped
        As of `world.Render`.
    """

    truths: list[dict]
    images: np.ndarray
    masks: np.ndarray
    joints: np.ndarray


class ImageStore:
    """Images that batches are drawn from: kept on a card, or read from memory-mapped files on the CPU."""

    def __init__(self, images: np.ndarray, device: str) -> None:
        self.images: np.ndarray | Tensor = images
        self.device = device
        if device != "cpu":
            self.images = torch.empty(images.shape, dtype=torch.uint8, device=device)
            for start in range(0, len(images), 4096):  # never a second copy of all of them
                part = np.ascontiguousarray(images[start : start + 4096])
                self.images[start : start + 4096] = torch.from_numpy(part).to(device)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, chosen: Tensor) -> Tensor:
        """Images of numbers (B,) as floats (B, 3, H, W) in [-1, 1], channels last in memory."""
        if isinstance(self.images, np.ndarray):
            return as_tensor(self.images[chosen.numpy()])
        return _scaled(self.images[chosen])


def as_tensor(images: np.ndarray) -> Tensor:
    """Turn uint8 images (B, H, W, 3) into floats (B, 3, H, W) in [-1, 1], channels last in memory."""
    return _scaled(torch.from_numpy(np.array(images)))


def _scaled(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def draw(seed: int, size: int) -> world.Render:
    """Draw the character of one seed. To learn from, posed arms are drawn more often than the world has them."""
    rng = Random(seed)
    posed = seed < HELD_OUT and rng.random() < POSED
    fixed = {"arms": rng.choice(world.ATTRIBUTES["arms"][1:])} if posed else {}
    return world.render(world.sample(rng, **fixed), size)


def _parallel(name: str, task: Callable, items: Sequence) -> list:
    """Results of a task on all processors, told of as they come."""
    with ProcessPoolExecutor(min(len(items), len(os.sched_getaffinity(0)))) as pool:
        return list(with_progress(name, pool.map(task, items), len(items)))


def _draw_chunk(start: int, folder: Path, n: int, size: int) -> None:
    """Draw the renders of one task into the arrays; its truths, written last, say that it is done."""
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ("images", "masks", "joints")}
    truths = []
    for i in range(start, min(start + CHUNK, n)):
        render = draw(i, size)
        arrays["images"][i], arrays["masks"][i], arrays["joints"][i] = render.image, render.mask, render.joints
        truths.append(render.truth)
    for array in arrays.values():
        array.flush()
    new = folder / "truths" / f"{start:08d}.tmp"
    new.write_text(json.dumps(truths))
    new.replace(new.with_suffix(".json"))


def renders(work: Path, n: int, size: int) -> RenderSet:
    """Return ``n`` training renders, drawing on the first call those that are not in ``work`` yet."""
    folder = work / f"renders_{size}_{n}"
    (folder / "truths").mkdir(parents=True, exist_ok=True)
    shapes = {"images": ((n, size, size, 3), np.uint8), "masks": ((n, size, size), np.bool_),
              "joints": ((n, len(world.JOINTS), 3), np.float32)}  # fmt: skip
    for name, (shape, kind) in shapes.items():
        if not (folder / f"{name}.npy").exists():
            np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=kind, shape=shape).flush()
    starts = [i for i in range(0, n, CHUNK) if not (folder / "truths" / f"{i:08d}.json").exists()]
    if starts:
        _parallel("renders", partial(_draw_chunk, folder=folder, n=n, size=size), starts)
    truths = [truth for i in range(0, n, CHUNK) for truth in json.loads((folder / f"truths/{i:08d}.json").read_text())]
    return RenderSet(truths, *(np.load(folder / f"{name}.npy", mmap_mode="r") for name in shapes))


def renders_of(context: TrainingContext) -> RenderSet:
    """The renders of a recipe."""
    return renders(context.work, context.recipe.n_renders, context.recipe.image_size)


def _caption_chunk(part: tuple[int, list[dict]], each: int, tokenizer: CLIPTokenizer) -> np.ndarray:
    seed, truths = part
    rng = Random(seed)
    texts = [world.caption(truth, rng, details=DETAILS).text for truth in truths for _ in range(each)]
    found = tokenizer(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
    return found.astype(np.int16).reshape(len(truths), each, -1)


def captions(context: TrainingContext, truths: list[dict], tokenizer: CLIPTokenizer) -> Tensor:
    """Return some captions of every render as token ids on the device, int16 (n, each, length).

    They are made beforehand, by several processes, and kept in the work folder, because on a GPU the grammar and the
    tokenizer would be slower than the training step that needs them.
    """
    each = context.recipe.n_captions
    file = context.work / f"captions_{len(truths)}_{each}_{len(tokenizer)}_{tokenizer.model_max_length}.npy"
    if not file.exists():
        parts = [(start, truths[start : start + 1000]) for start in range(0, len(truths), 1000)]
        found = np.concatenate(_parallel("captions", partial(_caption_chunk, each=each, tokenizer=tokenizer), parts))
        save_array(file, found)
    return torch.from_numpy(np.load(file)).to(context.device)


def one_of_each(heard: Tensor) -> Tensor:
    """One caption of each row, by chance: (B, each, length) -> int64 (B, length)."""
    chosen = torch.randint(heard.shape[1], (len(heard),), device=heard.device)
    return heard[torch.arange(len(heard), device=heard.device), chosen].long()


def save_array(file: Path, array: np.ndarray) -> None:
    """Write an array, whole or not at all."""
    mine = file.with_suffix(f".{os.getpid()}.npy")  # another process may be writing the same
    try:
        np.save(mine, array)
        mine.replace(file)
    finally:
        mine.unlink(missing_ok=True)


def held_out(n: int, size: int) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """Draw ``n`` renders that no training sees: truths, images (n, size, size, 3) uint8, masks (n, size, size)."""
    drawn = [draw(HELD_OUT + i, size) for i in range(n)]
    images, masks = np.stack([render.image for render in drawn]), np.stack([render.mask for render in drawn])
    return [render.truth for render in drawn], images, masks
