"""Measure the bundled miniature on renders and prompts it never saw: ``python -m menagerie.measure``.

Prints one row per figure. The reader is the ruler here; it is measured first, so that one knows how far to trust
the rows that depend on it.
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
from chosen_one_nb.models.load import Models, load_models
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.embed import unit
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from menagerie import world
from menagerie.reader import Reader
from menagerie.training import vae as autoencoder
from menagerie.training.data import HELD_OUT, held_out

Row = tuple[str, str, float]
MANY = 4  # attributes asked for at once, which make a caption that was hardly ever written before


def as_images(images: np.ndarray) -> list[Image.Image]:
    """Turn uint8 images (N, H, W, 3) into PIL images."""
    return [Image.fromarray(image) for image in images]


def prompts(n: int, seed: int = HELD_OUT + 1) -> list[world.Caption]:
    """Draw ``n`` captions of characters that no training saw.

    Each asks for at least `MANY` attributes: shorter ones ("a sticker of a fox") stand word for word among the
    captions that the generator learnt from.
    """
    rng, found = Random(seed), []
    while len(found) < n:
        caption = world.caption(world.sample(rng), rng)
        if len(caption.named) >= MANY:
            found.append(caption)
    return found


def vae_rows(folder: Path, n: int, size: int) -> list[Row]:
    """PSNR in dB of held-out renders through the autoencoder, from the mean squared error over all of them."""
    _, images, _ = held_out(n, size)
    vae = AutoencoderKL.from_pretrained(folder / "pipeline" / "vae", torch_dtype=torch.float32).eval()
    again = autoencoder.decode(vae, autoencoder.encode(vae, images, "cpu"), "cpu")
    error = np.square(images.astype(np.float64) - again).mean() / 255**2
    return [("vae", "PSNR of held-out renders, dB", -10 * float(np.log10(error)))]


def reader_rows(folder: Path, n: int, size: int) -> list[Row]:
    """Share of held-out renders that the reader reads right, per attribute, with their mean and the worst."""
    truths, images, _ = held_out(n, size)
    read = Reader(folder / "reader")(as_images(images))
    wanted = pd.DataFrame(truths)[list(read)]
    right = (read == wanted).mean()
    rows = [("reader", f"  {name}", float(share)) for name, share in right.items()]
    return [("reader", "worst attribute", float(right.min())), ("reader", "mean", float(right.mean())), *rows]


def asked_rows(models: Models, folder: Path, n: int, settings: Settings) -> list[Row]:
    """Share of asked attributes that the reader finds in the image, mean over attribute kinds."""
    asked = prompts(n)
    requests = [SamplingRequest(caption.text, [i], settings) for i, caption in enumerate(asked)]
    images = [generate(models, request).images[0] for request in requests]
    read = Reader(folder / "reader")(images)
    hits: dict[str, list[bool]] = {}
    for i, caption in enumerate(asked):
        for name in caption.named.keys() & read.columns:
            hits.setdefault(name, []).append(read[name][i] == caption.named[name])
    shares = {name: float(np.mean(found)) for name, found in hits.items()}
    rows = [("asked", f"  {name} (n={len(hits[name])})", share) for name, share in shares.items()]
    return [("asked", "asked attribute present, mean over kinds", float(np.mean(list(shares.values())))), *rows]


def entropy(values: pd.Series) -> float:
    """Entropy in nats of the values' frequencies."""
    share = values.value_counts(normalize=True)
    return float(-(share * np.log(share)).sum())


def open_rows(
    models: Models, folder: Path, n: int, settings: Settings, prompt: str = "a cartoon of a cat"
) -> list[Row]:
    """Entropy of what the prompt leaves open over ``n`` images, relative to that of ``n`` renders of the world."""
    asked = world.named_in(prompt)
    gallery = generate(models, SamplingRequest(prompt, np.arange(n), settings))
    read = Reader(folder / "reader")(gallery.images)
    rng = Random(HELD_OUT)
    there = pd.DataFrame([world.sample(rng, **asked) for _ in range(n)])
    open_names = [name for name in read if name not in asked]
    ratios = {name: entropy(read[name]) / entropy(there[name]) for name in open_names}
    rows = [("open", f"  {name}", ratio) for name, ratio in ratios.items()]
    return [("open", f"entropy left open by {prompt!r}, relative", float(np.mean(list(ratios.values())))), *rows]


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
        ("dino", name, closer(unit(seen.cls))),
        ("dino", f"{name}, foregrounds cut out", closer(found.with_features(cut, cut).foreground)),
    ]


def closer(features: np.ndarray) -> float:
    """How often the first of three features (3 n, D) is nearer to the second than to the third.

    >>> closer(np.array([[0.0], [1.0], [2.0], [0.0], [5.0], [4.0]]))
    0.5
    """
    first, same, other = features[0::3], features[1::3], features[2::3]
    return float((np.linalg.norm(first - same, axis=1) < np.linalg.norm(first - other, axis=1)).mean())


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
        share = float(((got & coarse).sum((1, 2)) / union).mean())
        rows.append(("dino", f"{name} against the foreground, IoU", share))
    return rows


def clip_rows(models: Models, n: int, size: int) -> list[Row]:
    """How often an image finds its own caption among 32."""
    rng = Random(HELD_OUT + 3)
    truths = [world.sample(rng) for _ in range(n)]
    texts = models.clip.texts([world.caption(truth, rng).text for truth in truths])
    images = models.clip.images([world.render(truth, size).image for truth in truths])
    groups = np.arange(n // 32 * 32).reshape(-1, 32)
    right = [(images[g] @ texts[g].T).argmax(1) == np.arange(32) for g in groups]
    return [("clip", "right caption among 32", float(np.mean(right)))]


def speed_rows(models: Models, settings: Settings) -> list[Row]:
    """Seconds for 128 images with the settings' sampler, on the cores at hand."""
    start = time.perf_counter()
    generate(models, SamplingRequest("a sticker of a fox", np.arange(128), settings))
    return [("speed", f"seconds for 128 images, {torch.get_num_threads()} threads", time.perf_counter() - start)]


def main(argv: list[str] | None = None) -> None:
    """Measure the chosen parts and print the table; ``--json`` also writes it."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.measure", description=__doc__)
    parts = ("vae", "reader", "clip", "dino", "asked", "open", "speed")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--folder", type=Path, default=Path("data/menagerie"))
    parser.add_argument("--n", type=int, default=500, help="renders, prompts or images per figure")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(argv)
    settings = Settings.preset("menagerie")
    size = json.loads((given.folder / "recipe.json").read_text())["image_size"]
    needs_models = set(given.parts) - {"vae", "reader"}
    models = load_models(str(given.folder)) if needs_models else None
    measures: dict[str, Callable[[], list[Row]]] = {
        "vae": lambda: vae_rows(given.folder, given.n, size),
        "reader": lambda: reader_rows(given.folder, given.n, size),
        "clip": lambda: clip_rows(models, given.n, size),
        "dino": lambda: identity_rows(models, given.n, size) + mask_rows(models, given.n, size),
        "asked": lambda: asked_rows(models, given.folder, given.n, settings),
        "open": lambda: open_rows(models, given.folder, given.n, settings),
        "speed": lambda: speed_rows(models, settings),
    }
    rows = [row for part in given.parts for row in measures[part]()]
    table = pd.DataFrame(rows, columns=["part", "figure", "value"])
    print(table.to_string(index=False, float_format="{:.3f}".format))
    if given.json:
        given.json.write_text(table.to_json(orient="records", indent=1))


if __name__ == "__main__":
    main()
