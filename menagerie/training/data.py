"""The renders that the miniature learns from, drawn once and kept as one array."""

from __future__ import annotations

import json
import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

import numpy as np
from transformers import CLIPTokenizer

from menagerie import world
from menagerie.training.loop import with_progress

DETAILS = 2.0  # captions to learn from name a figure's details this many times as often as other captions do
POSED = 0.2  # of the renders to learn from have their arms posed, beside those that have it anyway
HELD_OUT = 2_000_000_000  # seeds from here on are never trained on


def draw(seed: int, size: int) -> tuple[dict, np.ndarray, np.ndarray]:
    """Draw the character of one seed: its truth, its image (size, size, 3) uint8 and its mask (size, size) bool.

    To learn from, posed arms are drawn more often than the world has them.
    """
    rng = Random(seed)
    posed = seed < HELD_OUT and rng.random() < POSED
    fixed = {"arms": rng.choice(world.ATTRIBUTES["arms"][1:])} if posed else {}
    render = world.render(world.sample(rng, **fixed), size)
    return render.truth, np.asarray(render.image), render.mask


def _draw_many(seeds: range, size: int) -> list[tuple[dict, np.ndarray, np.ndarray]]:
    return [draw(seed, size) for seed in seeds]


def renders(work: Path, n: int, size: int, *, workers: int | None = None) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """Return ``n`` training renders, drawing them on the first call and reading them from ``work`` afterwards.

    Returns
    -------
    truths : list of dict, length n
    images : uint8 array (n, size, size, 3), memory-mapped
    masks : bool array (n, size, size), memory-mapped
        The figures.
    """
    file = work / f"renders_{size}_{n}.json"
    arrays = [file.with_suffix(".npy"), file.with_suffix(".masks.npy")]
    if not file.exists():
        work.mkdir(parents=True, exist_ok=True)
        chunks = [range(start, min(start + 500, n)) for start in range(0, n, 500)]
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            parts = with_progress("renders", pool.map(_draw_many, chunks, [size] * len(chunks)), len(chunks))
            drawn = [item for part in parts for item in part]
        truths, *drawings = zip(*drawn, strict=True)
        for array, drawing in zip(arrays, drawings, strict=True):
            np.save(array, np.stack(drawing))
        file.write_text(json.dumps(truths))
    return json.loads(file.read_text()), *(np.load(array, mmap_mode="r") for array in arrays)


def _caption_many(truths: list[dict], seed: int, each: int, tokenizer: CLIPTokenizer) -> np.ndarray:
    rng = Random(seed)
    texts = [world.caption(truth, rng, details=DETAILS).text for truth in truths for _ in range(each)]
    found = tokenizer(texts, padding="max_length", truncation=True, return_tensors="np").input_ids
    return found.astype(np.int16).reshape(len(truths), each, -1)


def captions(
    work: Path, truths: list[dict], tokenizer: CLIPTokenizer, each: int, *, workers: int | None = None
) -> np.ndarray:
    """Return ``each`` captions of every render as token ids, int16 (n, each, length); written once to ``work``.

    They are made beforehand, by several processes, because on a GPU the grammar and the tokenizer would be slower
    than the training step that needs them.
    """
    file = work / f"captions_{len(truths)}_{each}_{tokenizer.model_max_length}.npy"
    if not file.exists():
        starts = range(0, len(truths), 1000)
        parts = [truths[start : start + 1000] for start in starts]
        with ProcessPoolExecutor(workers or os.cpu_count()) as pool:
            same = [each] * len(parts), [tokenizer] * len(parts)
            found = with_progress("captions", pool.map(_caption_many, parts, starts, *same), len(parts))
            np.save(file, np.concatenate(list(found)))
    return np.load(file, mmap_mode="r")


def held_out(n: int, size: int) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """Draw ``n`` renders that no training sees: truths, images (n, size, size, 3) uint8, masks (n, size, size)."""
    truths, images, masks = zip(*(draw(HELD_OUT + i, size) for i in range(n)), strict=True)
    return list(truths), np.stack(images), np.stack(masks)
