"""How fast the steps run here, against what the machine can do and against straight use of the stock classes.

In one run: the matrix product's speed (the yardstick), the kit's own steps, and the same work by straight use: the
stock pipeline called once per image, and a plain training loop that encodes images and captions anew at every
step. Operations come from `chosen_one_nb.run.cost_estimate`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.models.load import Models
from chosen_one_nb.models.memory import on_device
from chosen_one_nb.models.pipelines import uncompiled
from chosen_one_nb.run import store
from chosen_one_nb.run.cost_estimate import CostEstimate, estimate_cost, gigabytes
from chosen_one_nb.run.images import ImageFolder
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.embed import embed
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest, image_seeds
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.latents import decode, latent_size
from chosen_one_nb.steps.lora import apply_lora, initial_lora
from chosen_one_nb.steps.prompts import encoders
from chosen_one_nb.steps.refine import refine
from chosen_one_nb.steps.training_set import TrainingSet
from chosen_one_nb.sweep.workers import WorkerPool
from tools.bench.memory_profile import MeasuredMemory

__all__ = ["Bench", "Row", "arithmetic", "bench", "gallery_flops", "matmul_speed", "total_flops"]

PROMPT = "a sticker of a fox"
SHARED = "gallery, shared"


@dataclass(frozen=True)
class Row:
    """One measured stage.

    Attributes
    ----------
    stage, work : str
    seconds : float
        By the clock.
    busy : float
        Seconds of processor time, all threads together, where the processor did the work; by the clock otherwise.
        On a machine that is busy with other things this is the fair figure.
    flops : float
    peak : int or None
        Bytes at most meanwhile; None where it was not measured.
    """

    stage: str
    work: str
    seconds: float
    busy: float
    flops: float
    peak: int | None = None


@dataclass(frozen=True)
class Bench:
    """What was measured.

    Attributes
    ----------
    rows : tuple of Row
    yardstick : float
        Operations per second of a large matrix product here, per processor second on the CPU.
    title : str
    threads : int
        Processor threads of PyTorch, in all rows but that of workers, which have one each.
    """

    rows: tuple[Row, ...]
    yardstick: float
    title: str
    threads: int

    def __getitem__(self, stage: str) -> Row:
        return next(row for row in self.rows if row.stage == stage)

    def times_ideal(self, stage: str) -> float:
        """How many times as long a stage took as its operations at the yardstick's speed would."""
        row = self[stage]
        return row.busy / (row.flops / self.yardstick)

    def gain(self, stage: str) -> float:
        """How many times as long straight use took for the same work."""
        return self[f"straight {stage}"].busy / self[stage].busy

    def __str__(self) -> str:
        head = ("stage", "work", "seconds", "busy", "TFLOP", "GFLOP/s", "of peak", "memory")
        rows = [head, *(self._cells(row) for row in self.rows)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        shared = [self._of_workers(row) for row in self.rows if row.stage == SHARED]
        both = [sum(self[f"{start}{name}"].busy for name in ("gallery", "refine")) for start in ("", "straight ")]
        return "\n".join(
            [
                self.title,
                f"matrix product: {self.yardstick / 1e9:.1f} GFLOP/s (the peak that 'of peak' refers to)",
                *lines,
                f"gallery: {self.times_ideal('gallery'):.2f} times FLOPs / peak",
                f"against straight use: gallery {self.gain('gallery'):.1f}x, refine {self.gain('refine'):.1f}x, "
                f"both {both[1] / both[0]:.1f}x",
                *shared,
            ]
        )

    def _of_workers(self, row: Row) -> str:
        alone = self["straight gallery"].seconds
        return f"by the clock, {row.work}: {alone / row.seconds:.1f}x straight use, which had {self.threads} threads"

    def _cells(self, row: Row) -> tuple[str, ...]:
        speed = row.flops / row.busy if row.busy else 0.0
        memory = gigabytes(row.peak) if row.peak is not None else ""
        return (
            row.stage, row.work, f"{row.seconds:.2f}", f"{row.busy:.2f}", f"{row.flops / 1e12:.3g}",
            f"{speed / 1e9:.1f}", f"{speed / self.yardstick:.0%}", memory,
        )  # fmt: skip


def bench(
    models: Models,
    settings: Settings,
    *,
    straight: int = 4,
    workers: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Bench:
    """Measure an iteration's stages, and the same work by straight use.

    Parameters
    ----------
    models : Models
        Left as they were.
    settings : Settings
        `n_images` and `refine_steps` say how much is measured.
    straight : int
        Images and training steps of straight use that are measured; its rows are scaled to the same work.
    workers : int, optional
        Also draw the gallery by this many processes of one thread each, which load the models by name.
    say : callable, optional
        Told what is being measured.

    Returns
    -------
    Bench
    """
    tell = say or (lambda text: None)
    tell("counting operations")
    costs = estimate_cost(models, settings)
    tell("matrix product")
    yardstick = matmul_speed(models.device, models.pipeline.unet.dtype)
    seeds = image_seeds(settings, 0)
    batch = max(2, settings.batch_size)
    first = generate(
        models, SamplingRequest(PROMPT, seeds[:batch], settings.replace(sampling_steps=1))
    )  # what only first calls take
    embed(models, first.images, settings)
    alone = settings.replace(prior_share=0.0)  # the loop it is compared with has no first gallery
    refine(models, TrainingSet(PROMPT, first.images[:2], first.latents[:2]), alone.replace(refine_steps=1))
    rows: list[Row] = []

    def row(stage: str, work: str, flops: float, do: Callable[[], Any]) -> Any:
        """Measure a piece of work as a row of the table; give what it returns."""
        tell(stage)
        found, *measured = _timed(models.device, do)
        rows.append(Row(stage, work, measured[0], measured[1], flops, measured[2]))
        return found

    work = f"{settings.n_images} images"
    gallery = row(
        "gallery", work, gallery_flops(costs), lambda: generate(models, SamplingRequest(PROMPT, seeds, settings))
    )
    latents = torch.as_tensor(gallery.latents, device=models.device)
    row("  decode", work, costs["decode"].flops, lambda: decode(models, latents))
    row("embed", work, costs["embed"].flops, lambda: embed(models, gallery.images, settings))
    few = gallery.images[: max(1, settings.target_cluster_size)]
    row("refine", costs["refine"].work, costs["refine"].flops, lambda: refine(
        models, TrainingSet(PROMPT, few, gallery.latents[: len(few)]), alone))  # fmt: skip
    rows += _straight(models, settings, costs, gallery, straight, tell)
    if workers:
        tell(SHARED)
        rows.append(_shared_out(models, settings, costs, workers))
    return Bench(tuple(rows), yardstick, costs.title, torch.get_num_threads())


def matmul_speed(device: torch.device, dtype: torch.dtype, *, n: int | None = None) -> float:
    """Measure a square matrix product: operations per second, per processor second on the CPU; best of five."""
    n = n or (1024 if device.type == "cpu" else 8192)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    a @ b
    times = []
    for _ in range(5):
        _, _, busy, _ = _timed(device, lambda: [a @ b for _ in range(4)])
        times.append(busy / 4)
    return 2 * n**3 / min(times)


def gallery_flops(costs: CostEstimate) -> float:
    """Operations of a gallery: encode, denoise, decode."""
    return sum(costs[name].flops for name in ("encode", "denoise", "decode"))


def total_flops(costs: CostEstimate) -> float:
    """Operations of a gallery, its embedding, and a refinement."""
    return gallery_flops(costs) + costs["embed"].flops + costs["refine"].flops


def arithmetic(costs: CostEstimate, speeds: dict[str, float]) -> str:
    """Tell what the gallery, the refinement and the embedding would take at given speeds.

    Parameters
    ----------
    costs : CostEstimate
    speeds : dict of str to float
        Operations per second, by what to call them.
    """
    lines = []
    for name, speed in speeds.items():
        work = {"gallery": gallery_flops(costs), "embed": costs["embed"].flops, "refine": costs["refine"].flops}
        parts = [f"{what} {flops / speed:,.1f} s" for what, flops in work.items()]
        lines.append(f"at {speed / 1e12:g} TFLOP/s ({name}): {', '.join(parts)}")
    return "\n".join(lines)


def _shared_out(models: Models, settings: Settings, costs: CostEstimate, n: int) -> Row:
    """The gallery by n workers, to the last image's file; from when their models are loaded."""
    few = settings.replace(n_images=max(2, n), batch_size=1, min_cluster_size=0, target_cluster_size=1)
    with tempfile.TemporaryDirectory() as folder, WorkerPool(n) as pool:
        place = Path(folder)
        for name, asked in (("few", few), ("all", settings)):
            target = ImageFolder(store.make_folder(place / name) / "gallery", place / name, models.fingerprint)
            begun = time.perf_counter()
            drawing = SamplingRequest(PROMPT, image_seeds(asked, 0), asked)
            pool.draw(drawing, target, lambda: models, Callbacks())
            seconds = time.perf_counter() - begun
    return Row(SHARED, f"{settings.n_images} images by {n} workers", seconds, n * seconds, gallery_flops(costs))


def _timed(device: torch.device, do: Callable[[], Any]) -> tuple[Any, float, float, int | None]:
    """Do something: (result, seconds by the clock, busy seconds, peak bytes)."""
    _wait(device)
    with MeasuredMemory(device) as memory:
        clock, busy = time.perf_counter(), time.process_time()
        found = do()
        _wait(device)
        clock, busy = time.perf_counter() - clock, time.process_time() - busy
    return found, clock, busy if device.type == "cpu" else clock, memory.peak


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


# --- straight use


def _straight(
    models: Models, settings: Settings, costs: CostEstimate, gallery: Gallery, n: int, tell: Callable[[str], None]
) -> list[Row]:
    """The same work as most people would write it, measured on a part and scaled."""
    s, images, steps = settings, min(n, settings.n_images), min(n, settings.refine_steps)
    home = models.device
    with ExitStack() as stack:
        stack.enter_context(uncompiled())
        if models.low_memory:
            parts = [part for part in models.pipeline.components.values() if isinstance(part, torch.nn.Module)]
            stack.enter_context(on_device(home, *parts))
        tell("straight gallery")
        _one_by_one(models.pipeline, s, 1)
        _, *drawn = _timed(home, lambda: _one_by_one(models.pipeline, s, images))
        tell("straight refine")
        _, *learnt = _timed(home, lambda: _plain_training(models, gallery.images, s, steps))
    scale, again = s.n_images / images, s.refine_steps / steps
    return [
        Row("straight gallery", f"from {images} images", drawn[0] * scale, drawn[1] * scale, gallery_flops(costs),
            drawn[2]),
        Row("straight refine", f"from {steps} steps", learnt[0] * again, learnt[1] * again, costs["refine"].flops,
            learnt[2]),
    ]  # fmt: skip


def _one_by_one(pipeline: Any, settings: Settings, n: int) -> None:
    """One stock call per image."""
    side, _ = latent_size(pipeline, settings.image_size)
    for seed in range(n):
        pipeline(
            PROMPT, num_inference_steps=settings.sampling_steps, guidance_scale=settings.guidance_scale,
            height=side, width=side, generator=torch.Generator().manual_seed(seed),
        )  # fmt: skip


def _plain_training(models: Models, images: list[Image.Image], settings: Settings, steps: int) -> None:
    """LoRA and textual inversion as the usual scripts do them: whole tables trained, all encoded at every step."""
    from diffusers import DDPMScheduler

    pipeline, device = models.pipeline, models.device
    unet, vae, dtype = pipeline.unet, pipeline.vae, pipeline.unet.dtype
    tables = [getattr(pipeline, name).get_input_embeddings().weight for _, name, _ in encoders(pipeline)]
    before = [table.detach().clone() for table in tables]
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    rng, g = np.random.default_rng(0), torch.Generator().manual_seed(0)
    side, _ = latent_size(pipeline, settings.image_size)
    try:
        weights = initial_lora(unet, settings.lora_rank, g)
        with apply_lora(unet, weights, rank=settings.lora_rank, alpha=settings.lora_rank, dtype=torch.float32) as worn:
            for table in tables:
                table.requires_grad_(True)
            optimizer = torch.optim.AdamW([*worn.values(), *tables], lr=1e-4)
            for _ in range(steps):
                chosen = [images[i] for i in rng.integers(len(images), size=settings.refine_batch_size)]
                pixels = pipeline.image_processor.preprocess(chosen, height=side, width=side).to(device, vae.dtype)
                with torch.no_grad():
                    latents = vae.encode(pixels).latent_dist.sample().float() * vae.config.scaling_factor
                encoded = pipeline.encode_prompt(
                    [PROMPT] * len(chosen), device=device, num_images_per_prompt=1, do_classifier_free_guidance=False
                )
                times = torch.randint(scheduler.config.num_train_timesteps, (len(chosen),), device=device)
                noise = torch.randn_like(latents)
                noisy = scheduler.add_noise(latents, noise, times).to(dtype)
                added = None
                if len(encoded) == 4:
                    ids = torch.tensor([[side, side, 0, 0, side, side]] * len(chosen), device=device, dtype=dtype)
                    added = {"text_embeds": encoded[2], "time_ids": ids}
                guess = unet(noisy, times, encoder_hidden_states=encoded[0], added_cond_kwargs=added).sample
                torch.nn.functional.mse_loss(guess.float(), noise).backward()
                optimizer.step()
                optimizer.zero_grad()
    finally:
        with torch.no_grad():
            for table, kept in zip(tables, before, strict=True):
                table.requires_grad_(False)
                table.grad = None
                table.copy_(kept)
