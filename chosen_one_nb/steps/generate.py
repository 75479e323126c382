"""Step 1, generate: prompt, character or none, and seeds -> images (section 3: S = {M_Theta(p; seed_n)}).

Every image has its own seed and its own noise, drawn on the CPU: the same image comes back alone, in
any batch and from any number of workers (pitfalls 15 and 16; in half precision up to rounding). The
samplers are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.models.batches import advised, batches
from chosen_one_nb.models.load import Models
from chosen_one_nb.models.offload import on_device
from chosen_one_nb.settings import SettingsError
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest
from chosen_one_nb.steps.latents import CHUNK, decode, latent_size
from chosen_one_nb.steps.prompts import Condition, check_prompt, condition, encoders

__all__ = ["generate", "noise", "sampler"]

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""Class of diffusers, and what it must not take over: another scheduler's noise, or clipping made for pixels."""

SMALLER = "Not one image fits: lower image_size, or load_models(..., low_memory=True)."

OnBatch = Callable[[range, Gallery], None]


def noise(seeds: Sequence[int] | np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal noise (N, C, h, w) in float32, one CPU generator per seed."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(s))) for s in seeds])


def generate(
    models: Models,
    request: SamplingRequest,
    callbacks: Callbacks = NO_CALLBACKS,
    *,
    on_batch: OnBatch | None = None,
) -> Gallery:
    """Sample one image per seed (section 3, the gallery S).

    Parameters
    ----------
    models : Models
    request : SamplingRequest
        Prompt, seeds, settings, and the character if there is one.
    callbacks : Callbacks, optional
        Progress at each sampler step, in "image steps", with `images` of `n_images` finished so far; images as
        batches finish; cancellation at each sampler step.
    on_batch : callable, optional
        Called with a range of indices and their part of the gallery, as batches finish.

    Returns
    -------
    Gallery

    Raises
    ------
    PromptError, SettingsError
        For a prompt the model cannot take, or an image size it cannot draw.
    Cancelled
        When asked to stop.

    Notes
    -----
    A batch that does not fit in memory is tried again at half its size, down to single images.
    """
    pipeline, seeds = models.pipeline, request.seeds
    with torch.no_grad(), request.character.on(pipeline, request.strength) if request.character else nullcontext():
        job = _Job(models, request, callbacks)
        images: list[Image.Image] = []
        latents: list[np.ndarray] = []
        for indices, batch in batches(len(seeds), request.settings.batch_size, job.draw, SMALLER):
            decoded = decode(pipeline, batch, device=models.device, chunk=1 if models.low_memory else CHUNK)
            images += decoded
            latents.append(batch.float().cpu().numpy())
            if callbacks.on_images is not None:
                callbacks.on_images(list(zip(indices, decoded, strict=True)))
            if on_batch is not None:
                on_batch(indices, Gallery(decoded, latents[-1], seeds[indices.start : indices.stop], job.prompt))
    whole = np.concatenate(latents) if latents else np.zeros((0, *job.shape), np.float32)
    return Gallery(images, whole, seeds, job.prompt)


def sampler(pipeline: Any, name: str) -> Any:
    """Build a deterministic scheduler from the pipeline's own noise schedule and prediction type."""
    import diffusers

    kind, forced = SAMPLERS[name]
    return getattr(diffusers, kind).from_config(pipeline.scheduler.config, **forced)


class _Job:
    """One request's images: everything that is the same for all batches, computed once."""

    def __init__(self, models: Models, request: SamplingRequest, callbacks: Callbacks) -> None:
        self.pipeline, self.device, self.callbacks = models.pipeline, models.device, callbacks
        self.settings, self.seeds = request.settings, request.seeds
        forbidden = None if request.character else request.settings.token
        prompt = check_prompt(self.pipeline, request.prompt, forbidden=forbidden)
        self.prompt = check_prompt(self.pipeline, f"{prompt} {request.context}", forbidden=forbidden)
        try:
            self.pixels, side = latent_size(self.pipeline, self.settings.image_size)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self.shape = (self.pipeline.unet.config.in_channels, side, side)
        text_encoders = [getattr(self.pipeline, name) for _, name, _ in encoders(self.pipeline)]
        with advised(SMALLER), on_device(self.device, *text_encoders):
            self.text, self.opposite = self._texts(prompt, request.negative)

    def _texts(self, prompt: str, negative: str | None) -> tuple[Condition, Condition | None]:
        """Encode a prompt with its context, weighted, and what guidance contrasts it with."""
        text, opposite = condition(self.pipeline, self.prompt, negative, guided=self.settings.guidance_scale > 1)
        if self.prompt != prompt and self.settings.context_weight != 1:
            text = text.beyond(condition(self.pipeline, prompt)[0], self.settings.context_weight)
        return text, opposite

    def draw(self, indices: range) -> torch.Tensor:
        """Denoise one batch by the stock pipeline: indices -> latents (B, C, h, w)."""
        self.callbacks.raise_if_cancelled()
        with on_device(self.device, self.pipeline.unet), _scheduled(self.pipeline, self.settings.sampler):
            start = noise(self.seeds[indices.start : indices.stop], self.shape)
            return self.pipeline(
                **_arguments(self.text, self.opposite, len(indices)),
                height=self.pixels,
                width=self.pixels,
                latents=start.to(self.device, self.pipeline.unet.dtype),
                output_type="latent",
                num_inference_steps=self.settings.sampling_steps,
                guidance_scale=self.settings.guidance_scale,
                guidance_rescale=self.settings.guidance_rescale,
                callback_on_step_end=self._watch(indices),
            ).images

    def _watch(self, indices: range) -> Callable[..., dict[str, Any]]:
        def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            steps, n = self.settings.sampling_steps, len(self.seeds)
            done = indices.start * steps + len(indices) * (step + 1)
            self.callbacks.report(
                "generate",
                min(done, n * steps),
                n * steps,
                "image steps",
                images=indices.stop if step + 1 >= steps else indices.start,
                n_images=n,
            )
            self.callbacks.raise_if_cancelled()
            return {}

        return after_step


def _arguments(text: Condition, opposite: Condition | None, n: int) -> dict[str, torch.Tensor]:
    """Name conditions, expanded to n images, as the pipelines' arguments."""
    named = {"": text.expand(n)} | ({"negative_": opposite.expand(n)} if opposite else {})
    arguments = {f"{prefix}prompt_embeds": part.embeds for prefix, part in named.items()}
    return arguments | {
        f"{prefix}pooled_prompt_embeds": part.pooled for prefix, part in named.items() if part.pooled is not None
    }


@contextmanager
def _scheduled(pipeline: Any, name: str) -> Iterator[None]:
    """Lend the pipeline a fresh sampler."""
    own = pipeline.scheduler
    try:
        pipeline.scheduler = sampler(pipeline, name)
        yield
    finally:
        pipeline.scheduler = own
