"""What a run will cost, before it is run: operations, weights and memory of each stage.

Counted on copies of the models without weights, doing shapes only, by the very code that the steps use.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from chosen_one_nb.models.features import FeatureExtractor
from chosen_one_nb.models.files import quietly
from chosen_one_nb.models.load import Models, weight_bytes
from chosen_one_nb.models.offload import device_memory
from chosen_one_nb.run.flops import Meter
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.latents import CHUNK, latent_size
from chosen_one_nb.steps.lora import apply_lora, initial_lora
from chosen_one_nb.steps.loss import Batch, denoising_loss
from chosen_one_nb.steps.prompts import condition, condition_pair, encoders
from chosen_one_nb.steps.tokens import add_tokens

__all__ = ["Plan", "Stage", "plan"]

META = torch.device("meta")
PROMPT = "a photo"
ADAM = 2  # numbers that AdamW keeps per trained one, in float32


@dataclass(frozen=True)
class Stage:
    """One stage's share.

    Attributes
    ----------
    name : str
        encode, denoise, decode, embed or refine.
    work : str
        What is counted, such as "64 images x 15 steps".
    flops : float
        Of the whole stage.
    weights, activations : int
        Bytes on the device: of the models, and at most beyond them while a batch is worked on.
    """

    name: str
    work: str
    flops: float
    weights: int
    activations: int

    @property
    def peak(self) -> int:
        """Bytes on the device at most."""
        return self.weights + self.activations


@dataclass(frozen=True)
class Plan:
    """What one iteration of a run is expected to take.

    Attributes
    ----------
    stages : tuple of Stage
    title : str
        Models, precision, device, batch and image size.
    room : int or None
        Bytes of memory there are.
    low_memory : bool
    """

    stages: tuple[Stage, ...]
    title: str
    room: int | None
    low_memory: bool

    def __getitem__(self, name: str) -> Stage:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def peak(self) -> int:
        """Bytes at the largest stage."""
        return max(stage.peak for stage in self.stages)

    @property
    def gallery(self) -> float:
        """Operations of the gallery: encode, denoise, decode."""
        return sum(self[name].flops for name in ("encode", "denoise", "decode"))

    def advice(self) -> str:
        """Say whether it fits, and if not what to lower."""
        if self.room is None or self.peak < 0.95 * self.room:
            return "It fits." if self.room else ""
        worst = max(self.stages, key=lambda stage: stage.peak)
        lower = "refine_batch_size" if worst.name == "refine" else "batch_size"
        switch = "" if self.low_memory else ", or switch low memory on (low_memory=True, --low-memory)"
        return f"It may not fit: {worst.name} needs most. Lower {lower} or image_size{switch}."

    def __str__(self) -> str:
        rows = [("stage", "work", "TFLOP", "weights", "activations", "peak expected")]
        rows += [
            (s.name, s.work, f"{s.flops / 1e12:.3g}", *(gigabytes(part) for part in (s.weights, s.activations, s.peak)))
            for s in self.stages
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        room = f"; memory there: {gigabytes(self.room)}" if self.room else ""
        return "\n".join([self.title, *lines, f"peak expected: {gigabytes(self.peak)}{room}. {self.advice()}".strip()])


def gigabytes(n: float) -> str:
    """Write bytes for people."""
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def plan(models: Models, settings: Settings) -> Plan:
    """Count what an iteration takes with these models and settings.

    Parameters
    ----------
    models : Models
        Their weights are not looked at; they may be on "meta".
    settings : Settings

    Returns
    -------
    Plan
        Matrix products, convolutions and attention are counted. Activations are an estimate: libraries' workspaces
        and fragmentation come on top.
    """
    with quietly():
        shell = _Shell(models, settings)
        stages = (shell.encode(), shell.denoise(), shell.decode(), shell.embed(), shell.refine())
    kind = str(models.pipeline.unet.dtype).removeprefix("torch.")
    mode = ", low memory" if models.low_memory else ""
    where = "counted without weights" if models.device == META else f"on {models.device}"
    title = f"{models.name}: {kind}, {where}{mode}; images of {shell.pixels} x {shell.pixels}"
    return Plan(stages, title, None if models.device == META else device_memory(models.device), models.low_memory)


class _Shell:
    """Models without weights, and one method per stage that counts it."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self.models, self.settings = models, settings
        self.pixels, self.side = latent_size(models.pipeline, settings.image_size)
        parts = models.pipeline.components
        self.pipeline = copy.copy(models.pipeline)
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                setattr(self.pipeline, name, hollow(part))
        self.texts = [getattr(self.pipeline, name) for _, name, _ in encoders(self.pipeline)]
        self.guided = settings.guidance_scale > 1
        eyes = (models.extractor.model, models.clip and models.clip.model)
        self.everything = weight_bytes(*(part for part in parts.values() if isinstance(part, nn.Module)), *eyes)

    def _stage(self, name: str, work: str, times: float, do: Callable[[], Any], *parts: Any, more: int = 0) -> Stage:
        with Meter() as meter:
            kept = do()
        del kept
        weights = weight_bytes(*parts) if self.models.low_memory else self.everything
        return Stage(name, work, meter.flops * times, weights + more, meter.peak)

    def encode(self) -> Stage:
        with torch.no_grad():
            return self._stage(
                "encode", "the prompt, once", 1,
                lambda: (condition_pair if self.guided else condition)(self.pipeline, PROMPT), *self.texts,
            )  # fmt: skip

    def denoise(self) -> Stage:
        s = self.settings
        n = min(s.batch_size, s.n_images) * (2 if self.guided else 1)
        text = condition(self.pipeline, PROMPT).expand(n)
        added = self._added(text, n)
        latents = torch.empty(n, self.pipeline.unet.config.in_channels, self.side, self.side, **self._place())
        times = torch.zeros(n, device=META)
        with torch.no_grad():
            return self._stage(
                "denoise", f"{s.n_images} images x {s.sampling_steps} steps, {n} at once",
                s.n_images * s.sampling_steps * (2 if self.guided else 1) / n,
                lambda: self.pipeline.unet(latents, times, encoder_hidden_states=text.embeds, added_cond_kwargs=added),
                self.pipeline.unet,
            )  # fmt: skip

    def decode(self) -> Stage:
        vae, n = self.pipeline.vae, self.settings.n_images
        chunk = 1 if self.models.low_memory else min(CHUNK, n)
        kind = torch.float32 if vae.dtype == torch.float16 else vae.dtype
        vae = vae.to(kind)
        code = torch.empty(chunk, vae.config.latent_channels, self.side, self.side, device=META, dtype=kind)
        with torch.no_grad():
            return self._stage("decode", f"{n} images, {chunk} at once", n / chunk, lambda: vae.decode(code), vae)

    def embed(self) -> Stage:
        extractor, s = self.models.extractor, self.settings
        n, model = min(s.batch_size, s.n_images), hollow(extractor.model)
        side = _looked_at(extractor)
        pixels = torch.empty(n, 3, side, side, device=META, dtype=extractor.model.dtype)
        with torch.no_grad():
            return self._stage(
                "embed", f"{s.n_images} images of {side} x {side}, {n} at once", s.n_images / n,
                lambda: model(pixels), model,
            )  # fmt: skip

    def refine(self) -> Stage:
        """One training step as `refine` does it, times the steps; the trained numbers count as weights."""
        from diffusers import DDPMScheduler

        s, n, unet = self.settings, self.settings.refine_batch_size, self.pipeline.unet
        g = torch.Generator().manual_seed(0)
        widths = {key: getattr(self.pipeline, name).config.hidden_size for key, name, _ in encoders(self.pipeline)}
        rows = {key: nn.Parameter(torch.empty(s.token_vectors, w, device=META)) for key, w in widths.items()}
        weights = {key: weight.to(META) for key, weight in initial_lora(unet, s.lora_rank, g).items()}
        scheduler = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        latents = torch.empty(n, unet.config.in_channels, self.side, self.side, device=META)
        ids, times = torch.zeros(n, 6, device=META), torch.zeros(n, dtype=torch.long, device=META)
        batch = Batch(latents, latents, times, ids, torch.ones(n, 1, 1, 1, device=META), [PROMPT] * n, times)
        trained = sum(part.numel() for part in (*weights.values(), *rows.values()))
        with ExitStack() as stack:
            stack.enter_context(add_tokens(self.pipeline, s.token, rows))
            worn = stack.enter_context(
                apply_lora(unet, weights, rank=s.lora_rank, alpha=s.lora_rank, dtype=torch.float32)
            )
            if s.gradient_checkpointing or self.models.low_memory:
                unet.enable_gradient_checkpointing()
                unet.train()

            def step() -> None:
                text = condition(self.pipeline, s.caption(PROMPT)).expand(n)
                denoising_loss(unet, scheduler, batch, text).backward()

            found = self._stage(
                "refine", f"{s.refine_steps} steps, {n} at once", s.refine_steps, step, unet, *self.texts,
                more=4 * (1 + ADAM) * trained,
            )  # fmt: skip
            for part in worn.values():
                part.grad = None
        return found

    def _added(self, text: Any, n: int) -> dict[str, torch.Tensor] | None:
        if text.pooled is None:
            return None
        return {"text_embeds": text.pooled, "time_ids": torch.empty(n, 6, **self._place())}

    def _place(self) -> dict[str, Any]:
        return {"device": META, "dtype": self.pipeline.unet.dtype}


def hollow(module: nn.Module) -> nn.Module:
    """Return a copy of a model without weights: the same class, configuration and precision, on "meta"."""
    build = type(module).from_config if hasattr(type(module), "from_config") else type(module)
    with META:
        bare = build(module.config)
    return bare.to(module.dtype).eval().requires_grad_(False)


def _looked_at(extractor: FeatureExtractor) -> int:
    """Side in pixels of the images that an extractor's model gets."""
    size = getattr(extractor.processor, "crop_size", None) or extractor.processor.size
    sides = [size.get(key) for key in ("height", "width", "shortest_edge") if size.get(key)]
    patch = extractor.model.config.patch_size
    return math.ceil(max(sides) / patch) * patch
