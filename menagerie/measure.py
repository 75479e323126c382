"""Measure the bundled miniature on renders and prompts it never saw: ``python -m menagerie.measure``.

Prints one row per figure, shares with their 95 % bootstrap interval over images. The reader is the ruler here; it is
measured first, so that one knows how far to trust the rows that depend on it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import torch
from diffusers import AutoencoderKL
from PIL import Image

from chosen_one_nb.analysis.segmentation import cut_out, segment
from chosen_one_nb.analysis.statistics import mean
from chosen_one_nb.models.load import Models, load_models
from chosen_one_nb.settings import SAMPLING, Settings
from chosen_one_nb.steps.embed import unit
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from menagerie import world
from menagerie.adapted import adapter_rows
from menagerie.reader import Reader
from menagerie.rows import NONE, Row, row
from menagerie.training import vae as autoencoder
from menagerie.training.data import HELD_OUT, held_out
from menagerie.uses import PANELS, control_rows, edit_rows, story_rows

MANY = 4  # attributes asked for at once, which make a caption that was hardly ever written before


def mean_over_kinds(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over columns (N, K) of each column's mean over its rows that are not NaN, in each resample; a statistic.

    A column without any such row in a resample is left out of it.
    """
    there = ~np.isnan(values)
    asked = counts @ there
    shares = np.divide(counts @ np.where(there, values, 0.0), asked, out=np.full(asked.shape, np.nan), where=asked > 0)
    return np.nanmean(shares, axis=1)


def as_images(images: np.ndarray) -> list[Image.Image]:
    """Turn uint8 images (N, H, W, 3) into PIL images."""
    return [Image.fromarray(image) for image in images]


def posed(caption: world.Caption) -> dict[str, str]:
    """What a caption asks of arms, legs and lean that is not the usual."""
    return {
        name: caption.named[name] for name, usual in world.NEUTRAL.items() if caption.named.get(name, usual) != usual
    }


def prompts(n: int, seed: int = HELD_OUT + 1, *, poses: bool = False) -> list[world.Caption]:
    """Draw ``n`` captions of characters that no training saw; with ``poses``, each asks for one (`posed`).

    Each asks for at least `MANY` attributes: shorter ones ("a sticker of a fox") stand word for word among the
    captions that the generator learnt from.
    """
    rng, found = Random(seed), []
    while len(found) < n:
        caption = world.caption(world.sample(rng), rng)
        if len(caption.named) >= MANY and (posed(caption) or not poses):
            found.append(caption)
    return found


def vae_rows(folder: Path, n: int, size: int) -> list[Row]:
    """PSNR in dB of held-out renders through the autoencoder, from the mean squared error over all of them."""
    _, images, _ = held_out(n, size)
    vae = AutoencoderKL.from_pretrained(folder / "pipeline" / "vae", torch_dtype=torch.float32).eval()
    again = autoencoder.decode(vae, autoencoder.encode(vae, images, "cpu"), "cpu")
    errors = np.square(images.astype(np.float64) - again).mean((1, 2, 3)) / 255**2

    def decibels(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        return -10 * np.log10(mean(values, counts))

    return [row("vae", "PSNR of held-out renders, dB", errors, decibels)]


def reader_rows(reader: Reader, n: int, size: int) -> list[Row]:
    """Share of held-out renders that the reader reads right, per attribute, with their mean and the worst."""
    truths, images, _ = held_out(n, size)
    read = reader(as_images(images))
    right = read == pd.DataFrame(truths)[list(read)]
    worst = right.mean().idxmin()
    return [
        row("reader", f"worst attribute ({worst})", right[worst]),
        row("reader", "mean", right, mean_over_kinds),
        *(row("reader", f"  {name}", right[name]) for name in right),
    ]


def drawn(models: Models, asked: list[world.Caption], settings: Settings) -> list[Image.Image]:
    """One image of each caption."""
    requests = [SamplingRequest(caption.text, [i], settings) for i, caption in enumerate(asked)]
    return [generate(models, request).images[0] for request in requests]


def hits(asked: list[dict[str, str]], read: pd.DataFrame) -> pd.DataFrame:
    """Whether the reader finds in each image what was asked for: 1 or 0, NaN where it was not; a column per kind."""
    wanted = pd.DataFrame(asked)
    known = [name for name in read if name in wanted]
    return (wanted[known] == read[known]).astype(float).where(wanted[known].notna())


def asked_rows(models: Models, reader: Reader, n: int, settings: Settings) -> list[Row]:
    """Share of asked attributes, poses aside, that the reader finds in the image, mean over attribute kinds."""
    asked = prompts(n)
    wanted = [{name: value for name, value in each.named.items() if name not in world.NEUTRAL} for each in asked]
    found = hits(wanted, reader(drawn(models, asked, settings)))
    worst = found.mean().idxmin()
    return [
        row("asked", "asked attribute present, mean over kinds", found, mean_over_kinds),
        row("asked", f"  worst kind ({worst})", found[worst].dropna()),
        *(row("asked", f"  {name} (n={found[name].count()})", found[name].dropna()) for name in found),
    ]


def pose_rows(models: Models, reader: Reader, n: int, settings: Settings) -> list[Row]:
    """Share of asked poses that the reader finds in the image, by kind and value, and the same where nobody asks."""
    asked = prompts(n, HELD_OUT + 4, poses=True)
    read = reader(drawn(models, asked, settings))
    if not set(world.NEUTRAL) <= set(read):
        return [("poses", "the reader knows no poses", NONE, NONE, NONE)]
    wanted = pd.DataFrame([posed(caption) for caption in asked])
    found = hits(wanted.to_dict("records"), read)
    rows = [row("poses", "pose asked for and there, mean over kinds", found, mean_over_kinds)]
    unasked = []
    for name in found:
        open_to_it = read[name][[name not in caption.named for caption in asked]]
        for value in world.ATTRIBUTES[name]:
            there = found[name][wanted[name] == value]
            if len(there):
                rows.append(row("poses", f"  {name} {value} (n={len(there)})", there))
                unasked.append((open_to_it == value).mean())
    return [*rows, ("poses", "  the same where nobody asks for it", float(np.mean(unasked)), NONE, NONE)]


def entropy(values: pd.Series) -> float:
    """Entropy in nats of the values' frequencies."""
    share = values.value_counts(normalize=True)
    return float(-(share * np.log(share)).sum())


def open_rows(
    models: Models, reader: Reader, n: int, settings: Settings, prompt: str = "a cartoon of a cat"
) -> list[Row]:
    """Entropy of what the prompt leaves open over ``n`` images, relative to that of ``n`` renders of the world."""
    asked = world.named_in(prompt)
    read = reader(generate(models, SamplingRequest(prompt, np.arange(n), settings)).images)
    rng = Random(HELD_OUT)
    there = pd.DataFrame([world.sample(rng, **asked) for _ in range(n)])
    ratios = {name: entropy(read[name]) / entropy(there[name]) for name in read if name not in asked}
    mean_ratio = float(np.mean(list(ratios.values())))
    return [
        ("open", f"entropy left open by {prompt!r}, relative", mean_ratio, NONE, NONE),
        *(("open", f"  {name}", ratio, NONE, NONE) for name, ratio in ratios.items()),
    ]


def identity_rows(models: Models, n: int, size: int) -> list[Row]:
    """How often one identity in two scenes is closer than one of them and another identity of the same kind.

    By the class token of whole images, and by foregrounds that the patch tokens find and the extractor then sees cut
    out, which is what the preset makes its clusters of.
    """
    rng = Random(HELD_OUT + 2)
    triples = []
    for _ in range(n):
        truth = world.sample(rng)
        other = world.sample(rng, kind=truth["kind"])
        triples += [truth, world.new_scene(truth, rng), other]
    drawn = [world.render(truth, size).image for truth in triples]
    seen = models.extractor(drawn, patches=True)
    found = segment(seen.patches, seen.grid)
    cut = models.extractor(as_images(cut_out(drawn, found)[0]), patches=True).patches
    name = "same identity closer than another of its kind"
    return [
        row("dino", name, closer(unit(seen.cls))),
        row("dino", f"{name}, foregrounds cut out", closer(found.with_features(cut, cut).foreground)),
    ]


def closer(features: np.ndarray) -> np.ndarray:
    """Whether the first of each three features (3 n, D) is nearer to the second than to the third: bool (n,).

    >>> closer(np.array([[0.0], [1.0], [2.0], [0.0], [5.0], [4.0]])).tolist()
    [True, False]
    """
    first, same, other = features[0::3], features[1::3], features[2::3]
    return np.linalg.norm(first - same, axis=1) < np.linalg.norm(first - other, axis=1)


def mask_rows(models: Models, n: int, size: int) -> list[Row]:
    """IoU of the foreground, found in the patch tokens in both ways, against the world's mask of it."""
    _, images, masks = held_out(n, size)
    found = models.extractor(as_images(images), patches=True)
    h, w = found.grid
    coarse = masks.reshape(n, h, size // h, w, size // w).mean((2, 4)) > 0.5
    rows = []
    for method, name in (("pca", "first components of patches"), ("border", "patches unlike the rim")):
        got = segment(found.patches, found.grid, method=method).masks
        union = (got | coarse).sum((1, 2)).clip(min=1)
        shares = (got & coarse).sum((1, 2)) / union
        rows.append(row("dino", f"{name} against the foreground, IoU", shares))
    return rows


def clip_rows(models: Models, n: int, size: int) -> list[Row]:
    """How often an image finds its own caption among 32."""
    rng = Random(HELD_OUT + 3)
    truths = [world.sample(rng) for _ in range(n)]
    texts = models.clip.texts([world.caption(truth, rng).text for truth in truths])
    images = models.clip.images([world.render(truth, size).image for truth in truths])
    groups = np.arange(n // 32 * 32).reshape(-1, 32)
    right = [(images[g] @ texts[g].T).argmax(1) == np.arange(32) for g in groups]
    return [row("clip", "right caption among 32", np.concatenate(right))]


def speed_rows(models: Models, settings: Settings) -> list[Row]:
    """Seconds for 128 images with the settings' sampler, on the cores at hand."""
    start, busy = time.perf_counter(), time.process_time()
    generate(models, SamplingRequest("a sticker of a fox", np.arange(128), settings))
    took, worked = time.perf_counter() - start, time.process_time() - busy
    return [
        ("speed", f"seconds for 128 images, {torch.get_num_threads()} threads", took, NONE, NONE),
        ("speed", "  the processor's own, which a busy machine does not lengthen", worked, NONE, NONE),
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure the chosen parts and print the table; ``--json`` also writes it."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.measure", description=__doc__)
    usual = ("vae", "reader", "clip", "dino", "asked", "poses", "open", "speed")
    parts = (*usual, "control", "story", "edit", "adapter")
    parser.add_argument("--parts", nargs="+", choices=parts, default=usual)
    parser.add_argument("--folder", type=Path, default=Path("data/menagerie"))
    parser.add_argument("--reader", type=Path, help="default: reader/ in the folder")
    parser.add_argument("--size", type=int, help="side that images are brought to before they are read")
    parser.add_argument("--n", type=int, default=500, help="renders, prompts or images per figure")
    parser.add_argument("--sampling", choices=SAMPLING, help="draw by a sampling preset, instead of the kit's usual")
    parser.add_argument("--distilled", help="LoRA that becomes part of the models, for --sampling flash")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    settings = Settings.preset("menagerie")
    settings = settings.sampled(given.sampling) if given.sampling else settings
    size = json.loads((given.folder / "recipe.json").read_text())["image_size"]
    needs_models = set(given.parts) - {"vae", "reader", "adapter"}
    models = load_models(str(given.folder), distilled=given.distilled) if needs_models else None
    reader = Reader(given.reader or given.folder / "reader", given.size)
    measures: dict[str, Callable[[], list[Row]]] = {
        "vae": lambda: vae_rows(given.folder, given.n, size),
        "reader": lambda: reader_rows(reader, given.n, size),
        "clip": lambda: clip_rows(models, given.n, size),
        "dino": lambda: identity_rows(models, given.n, size) + mask_rows(models, given.n, size),
        "asked": lambda: asked_rows(models, reader, given.n, settings),
        "poses": lambda: pose_rows(models, reader, given.n, settings),
        "open": lambda: open_rows(models, reader, given.n, settings),
        "speed": lambda: speed_rows(models, settings),
        "adapter": lambda: adapter_rows(given.folder, reader, given.n, settings),
        "control": lambda: control_rows(models, reader, given.n, settings),
        "story": lambda: story_rows(models, reader, max(1, given.n // len(PANELS)), settings),
        "edit": lambda: edit_rows(models, reader, given.n, settings),
    }
    rows = [row for part in given.parts for row in measures[part]()]
    table = pd.DataFrame(rows, columns=["part", "figure", "value", "low", "high"])
    print(table.to_string(index=False, float_format="{:.3f}".format, na_rep=""))
    if given.json:
        given.json.write_text(table.to_json(orient="records", indent=1))


if __name__ == "__main__":
    main()
