"""How well the IP-Adapter shows characters that it never saw, read by the reader. Part of ``menagerie.measure``."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pandas as pd
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from chosen_one_nb.settings import Settings
from menagerie import world
from menagerie.reader import Reader
from menagerie.rows import Row, row
from menagerie.training.data import HELD_OUT, as_tensor
from menagerie.training.ip_adapter import FILE, left_out

SCALES = (0.0, 0.5, 1.0)


def unseen(n: int) -> list[world.Truth]:
    """Draw ``n`` truths of the characters that no adapter learnt from."""
    rng, found = Random(HELD_OUT + 7), []
    while len(found) < n:
        truth = world.sample(rng)
        if left_out(truth):
            found.append(truth)
    return found


def stock_pipeline(folder: Path) -> StableDiffusionXLPipeline:
    """The miniature as stock diffusers loads it, with its adapter on."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder / "pipeline")
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.load_ip_adapter(folder, subfolder="ip_adapter", weight_name=FILE, image_encoder_folder=None)
    pipeline.unet.eval().to(memory_format=torch.channels_last)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def drawn(pipeline: StableDiffusionXLPipeline, texts: list[str], features: Tensor, scale: float,
          settings: Settings) -> list[Image.Image]:  # fmt: skip
    """One image of each text by its reference's features (N, D); the seed is the number of the text."""
    pipeline.set_ip_adapter_scale(scale)
    images = []
    for i, (text, reference) in enumerate(zip(texts, features, strict=True)):
        embeds = torch.stack([torch.zeros_like(reference), reference])[:, None]  # without, with; one image each
        images += pipeline(
            text, ip_adapter_image_embeds=[embeds], generator=torch.Generator().manual_seed(i),
            num_inference_steps=settings.sampling_steps, guidance_scale=settings.guidance_scale,
        ).images  # fmt: skip
    return images


def adapter_rows(folder: Path, reader: Reader, n: int, settings: Settings) -> list[Row]:
    """Share of the reference's identity that is there, and of its place that leaks in where the text asks for another.

    No text says anything of who is shown. Scale 0 is text alone; at the largest scale, what is there of another
    reference's identity is what chance gives.
    """
    truths, rng = unseen(n), Random(0)
    scenes = [world.sample(rng) for _ in truths]
    texts = [world.caption_of({name: scene[name] for name in ("style", "place")}, rng) for scene in scenes]
    clip = CLIPVisionModelWithProjection.from_pretrained(folder / "clip", dtype=torch.float32).eval()
    size = clip.config.image_size
    with torch.no_grad():
        features = clip(as_tensor(np.stack([world.render(truth, size).image for truth in truths]))).image_embeds
    pipeline, names, rows = stock_pipeline(folder), list(world.IDENTITY), []
    identity, place = pd.DataFrame(truths)[names], pd.Series([truth["place"] for truth in truths])
    asked = pd.Series([scene["place"] for scene in scenes])
    other = place != asked
    for scale in SCALES:
        read = reader(drawn(pipeline, texts, features, scale, settings))
        rows += [
            row("adapter", f"reference's identity, scale {scale}", (read[names] == identity).to_numpy().mean(1)),
            row("adapter", "  kind and colour", (read[names] == identity)[["kind", "colour"]].to_numpy().mean(1)),
            row("adapter", "  asked place", read.place == asked),
            row(
                "adapter", f"  reference's place where another is asked (n={other.sum()})", (read.place == place)[other]
            ),
        ]
    chance = (read[names] == identity.shift(-1, fill_value="")).to_numpy()[:-1].mean(1)
    return [*rows, row("adapter", "another reference's identity, the same images", chance)]
