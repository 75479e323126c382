"""What a run will cost, before it is run: operations, weights and memory of each stage.

Counted on copies of the models without weights, on the device "meta", by the very code that the steps use.
"""

from __future__ import annotations

import copy
import dataclasses
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from chosen_one_nb.models.hub import quietly
from chosen_one_nb.models.load import Models, weight_bytes
from chosen_one_nb.models.memory import device_memory
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.latents import chunk_size, in_float32, latent_size
from chosen_one_nb.steps.lora import apply_lora, initial_lora
from chosen_one_nb.steps.loss import Batch, denoising_loss
from chosen_one_nb.steps.prompts import condition, condition_pair, encoders
from chosen_one_nb.steps.tokens import add_tokens

__all__ = ["CostEstimate", "Meter", "StageCost", "estimate_cost", "gigabytes", "peak_memory"]

META = torch.device("meta")
PROMPT = "a photo"
ADAM = 2  # numbers that AdamW keeps per trained one, in float32


@dataclass(frozen=True)
class StageCost:
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
class CostEstimate:
    """What one iteration of a run is expected to take; `print` it.

    Attributes
    ----------
    stages : tuple of StageCost
    title : str
        Models, precision, device and image size.
    memory : int or None
        Bytes that the device has; None where that is not known.
    low_memory : bool
    """

    stages: tuple[StageCost, ...]
    title: str
    memory: int | None
    low_memory: bool

    def __getitem__(self, name: str) -> StageCost:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def peak(self) -> int:
        """Bytes at the largest stage."""
        return max(stage.peak for stage in self.stages)

    def advice(self) -> str:
        """Say whether it fits, and if not what to lower."""
        if self.memory is None or self.peak < 0.95 * self.memory:
            return "It fits." if self.memory else ""
        worst = max(self.stages, key=lambda stage: stage.peak)
        lower = "refine_batch_size" if worst.name == "refine" else "batch_size"
        switch = "" if self.low_memory else ", or switch low memory on (low_memory=True, --low-memory)"
        return f"It may not fit: {worst.name} needs most. Lower {lower} or image_size{switch}."

    def __str__(self) -> str:
        head = ("stage", "work", "TFLOP", "weights", "activations", "peak expected")
        rows = [
            (s.name, s.work, f"{s.flops / 1e12:.3g}", *map(gigabytes, (s.weights, s.activations, s.peak)))
            for s in self.stages
        ]
        table = pd.DataFrame(rows, columns=head).to_string(index=False)
        there = f"; memory there: {gigabytes(self.memory)}" if self.memory else ""
        return "\n".join([self.title, table, f"peak expected: {gigabytes(self.peak)}{there}. {self.advice()}".strip()])


def gigabytes(n: float) -> str:
    """Write bytes for people."""
    return f"{n / 1e9:.2f} GB" if n >= 1e8 else f"{n / 1e6:.1f} MB"


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes used so far: of tensors on CUDA, of the process on the CPU; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return None
    # In bytes on a Mac, in KiB elsewhere: see getrusage(2).
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def estimate_cost(models: Models, settings: Settings, controlnet: Any = None) -> CostEstimate:
    """Count what an iteration takes with these models and settings.

    Parameters
    ----------
    models : Models
        Their weights are not looked at; they may be on "meta".
    settings : Settings
    controlnet : ControlNetModel, optional
        Of poses, beside the models: adds a stage, one image drawn with it.

    Returns
    -------
    CostEstimate
        Matrix products, convolutions and attention are counted, a multiplication and an addition as two operations.
        Activations are an estimate: libraries' workspaces and fragmentation come on top.
    """
    with quietly(), _fused_attention():
        counter = _Counter(models, settings, controlnet)
        stages = [counter.encode(), counter.denoise(), counter.decode(), counter.embed(), counter.refine()]
        stages += [counter.pose(controlnet)] if controlnet else []
    dtype = str(models.pipeline.unet.dtype).removeprefix("torch.")
    mode = ", low memory" if models.low_memory else ""
    where = "counted without weights" if models.device == META else f"on {models.device}"
    title = f"{models.name}: {dtype}, {where}{mode}; images of {counter.pixels} x {counter.pixels}"
    memory = None if models.device == META else device_memory(models.device)
    return CostEstimate(tuple(stages), title, memory, models.low_memory)


class _Counter:
    """Models without weights, and one method per stage that counts it."""

    def __init__(self, models: Models, settings: Settings, controlnet: Any = None) -> None:
        self.models, self.settings = models, settings
        self.pixels, self.side = latent_size(models.pipeline, settings.image_size)
        self.pipeline = copy.copy(models.pipeline)
        parts = {name: part for name, part in models.pipeline.components.items() if isinstance(part, nn.Module)}
        for name, part in parts.items():
            setattr(self.pipeline, name, _without_weights(part))
        self.texts = [getattr(self.pipeline, name) for _, name, _ in encoders(self.pipeline)]
        self.guided = settings.guidance_scale > 1
        beside = (models.extractor.model, models.clip and models.clip.model, controlnet)
        self.all_weights = weight_bytes(*parts.values(), *beside)

    def _stage(self, name: str, work: str, times: float, do: Callable[[], Any], *parts: Any) -> StageCost:
        with Meter() as meter:
            # One batch stands for all: they have the same shapes.
            kept = do()  # what it returns counts as held until here
        del kept
        # With low memory a stage brings only the models it uses to the device; otherwise all of them stay there.
        weights = weight_bytes(*parts) if self.models.low_memory else self.all_weights
        return StageCost(name, work, meter.flops * times, weights, meter.peak)

    @torch.no_grad()
    def encode(self) -> StageCost:
        """The prompt through both text encoders, once."""
        encode = condition_pair if self.guided else condition
        return self._stage("encode", "the prompt, once", 1, lambda: encode(self.pipeline, PROMPT), *self.texts)

    @torch.no_grad()
    def denoise(self) -> StageCost:
        """One pass of the UNet on a batch, times the images and steps."""
        s, unet = self.settings, self.pipeline.unet
        # Guidance predicts the noise with the prompt and without it, in one batch of twice the size.
        n = min(s.batch_size, s.n_images) * (2 if self.guided else 1)
        inputs = self._inputs(n)
        return self._stage(
            "denoise", f"{s.n_images} images x {s.sampling_steps} steps, {n} at once",
            s.n_images * s.sampling_steps * (2 if self.guided else 1) / n,
            lambda: unet(**inputs), unet,
        )  # fmt: skip

    @torch.no_grad()
    def pose(self, controlnet: Any) -> StageCost:
        """One pass of a ControlNet and the UNet for one image, times the steps."""
        unet, steps, n = self.pipeline.unet, self.settings.sampling_steps, 2 if self.guided else 1
        inputs, bare = self._inputs(n), _without_weights(controlnet)
        hint = torch.empty(n, 3, self.pixels, self.pixels, device=META, dtype=unet.dtype)

        def once() -> Any:
            down, mid = bare(**inputs, controlnet_cond=hint, return_dict=False)
            return unet(**inputs, down_block_additional_residuals=down, mid_block_additional_residual=mid)

        return self._stage("pose", f"1 image x {steps} steps", steps, once, unet, controlnet)

    def _inputs(self, n: int) -> dict[str, Any]:
        """What the UNet is given for n images."""
        unet, text = self.pipeline.unet, condition(self.pipeline, PROMPT).expand(n)
        like = {"device": META, "dtype": unet.dtype}
        latents = torch.empty(n, unet.config.in_channels, self.side, self.side, **like)
        added = {"text_embeds": text.pooled, "time_ids": torch.empty(n, 6, **like)}
        embeds = {"encoder_hidden_states": text.embeds, "added_cond_kwargs": added}
        return {"sample": latents, "timestep": torch.zeros(n, **like), **embeds}

    @torch.no_grad()
    def decode(self) -> StageCost:
        """Latents to images, as few at once as `decode` takes."""
        n = self.settings.n_images
        # In few at once and in float32 where `decode` does so: it is this that sets the peak of a gallery.
        chunk = min(chunk_size(self.models), n)
        with in_float32(self.pipeline.vae) as vae:
            code = torch.empty(chunk, vae.config.latent_channels, self.side, self.side, device=META, dtype=vae.dtype)
            return self._stage("decode", f"{n} images, {chunk} at once", n / chunk, lambda: vae.decode(code), vae)

    @torch.no_grad()
    def embed(self) -> StageCost:
        """Images through the extractor."""
        extractor, s = self.models.extractor, self.settings
        n, model = min(s.batch_size, s.n_images), _without_weights(extractor.model)
        # The processor resizes as it likes, so it is asked rather than second-guessed.
        prepared = extractor.processor([Image.new("RGB", (self.pixels,) * 2)], return_tensors="pt")["pixel_values"]
        side = prepared.shape[-1]
        pixels = torch.empty(n, 3, side, side, device=META, dtype=extractor.model.dtype)
        work = f"{s.n_images} images of {side} x {side}, {n} at once"
        return self._stage("embed", work, s.n_images / n, lambda: model(pixels), model)

    def refine(self) -> StageCost:
        """One training step as `refine` does it, times the steps; the trained numbers count as weights."""
        from diffusers import DDPMScheduler

        s, n, unet = self.settings, self.settings.refine_batch_size, self.pipeline.unet
        widths = {key: getattr(self.pipeline, name).config.hidden_size for key, name, _ in encoders(self.pipeline)}
        rows = {key: nn.Parameter(torch.empty(s.token_vectors, w, device=META)) for key, w in widths.items()}
        weights = {key: weight.to(META) for key, weight in initial_lora(unet, s.lora_rank, torch.Generator()).items()}
        scheduler = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        latents = torch.empty(n, unet.config.in_channels, self.side, self.side, device=META)
        ids, times = torch.zeros(n, 6, device=META), torch.zeros(n, dtype=torch.long, device=META)
        batch = Batch(latents, latents, times, ids, torch.ones(n, 1, 1, 1, device=META), [PROMPT] * n, times)
        trained = sum(part.numel() for part in (*weights.values(), *rows.values()))
        if s.gradient_checkpointing or self.models.low_memory:
            unet.enable_gradient_checkpointing()
            unet.train()  # in evaluation nothing is recomputed
        lora = apply_lora(unet, weights, rank=s.lora_rank, alpha=s.lora_rank, dtype=torch.float32)
        with add_tokens(self.pipeline, s.token, rows), lora:

            def step() -> None:
                text = condition(self.pipeline, s.caption(PROMPT)).expand(n)
                denoising_loss(unet, scheduler, batch, text).backward()

            work = f"{s.refine_steps} steps, {n} at once"
            cost = self._stage("refine", work, s.refine_steps, step, unet, *self.texts)
        return dataclasses.replace(cost, weights=cost.weights + 4 * (1 + ADAM) * trained)


def _without_weights(module: Any) -> nn.Module:
    """A copy of a model on "meta": the same class, configuration and precision."""
    # On "meta" a tensor has a shape but no memory, so SDXL is counted in seconds where it would not fit.
    build = getattr(type(module), "from_config", type(module))
    with META:
        bare = build(module.config)
    return bare.to(dtype=module.dtype).eval().requires_grad_(False)


class Meter(TorchDispatchMode):
    """Counts, inside a with-block, floating point operations and the bytes of new tensors.

    By the formulas of PyTorch's own `FlopCounterMode`: a multiplication and an addition count as two; matrix products,
    convolutions and attention are counted, what goes element by element is not.

    Attributes
    ----------
    flops : int
    peak : int
        Largest number of bytes that tensors made inside the block have held at a time.
    """

    # FlopCounterMode itself hooks every module, and its hooks hold tensors: with gradient checkpointing the peak was
    # seven times too high. The formulas alone are what is wanted.

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.peak = self._now = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if formula := flop_registry.get(func._overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=out)
        known = self._live.keys() | {storage._cdata for storage in _storages((args, kwargs))}
        for storage in _storages(out):
            if (key := storage._cdata) not in known:  # a view is not new
                self._live[key] = storage.nbytes()
                self._now += storage.nbytes()
                self.peak = max(self.peak, self._now)
                weakref.finalize(storage, self._drop, key).atexit = False
        return out

    def _drop(self, key: int) -> None:
        self._now -= self._live.pop(key)


def _storages(tree: Any) -> list[torch.UntypedStorage]:
    return [leaf.untyped_storage() for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Count attention on "meta" as its fused kernels work: the fallback there would make the (T, T) matrix."""
    real = functional.scaled_dot_product_attention

    def fused(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:
        if not query.is_meta:
            return real(query, key, value, *args, **more)
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, query.requires_grad)[0]

    # A TorchFunctionMode would be off while checkpointed activations are computed again.
    functional.scaled_dot_product_attention = fused
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = real
