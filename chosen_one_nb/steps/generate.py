"""Step 1, generate: prompt, character or none, and seeds -> images (section 3: S = {M_Theta(p; seed_n)}).

An image comes back the same alone, in any batch and from any number of workers; in half precision up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.models.load import Models
from chosen_one_nb.models.memory import advised, batches, on_device
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest
from chosen_one_nb.steps.latents import decode, latent_size
from chosen_one_nb.steps.prompts import Condition, check_prompt, condition, condition_pair, encoders

__all__ = ["Steering", "generate", "noise", "sampler"]

# Why (pitfall 16): deterministic ones only. A stochastic sampler draws noise at every step, for a batch as a whole.
SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""Class of diffusers, and what it must not take over: another scheduler's noise, or clipping made for pixels."""

SMALLER = "Not one image fits: lower image_size, or load_models(..., low_memory=True)."

OnBatch = Callable[[range, Gallery], None]
AfterStep = Callable[[Any, int, range, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Steering:
    """What steers sampling beside the text.

    Attributes
    ----------
    pipeline : DiffusionPipeline, optional
        Samples instead of the models' own; made of the same components.
    arguments : dict
        More arguments of its call.
    modules : tuple of nn.Module
        What it needs on the device beside the UNet.
    after_step : callable, optional
        Called as (pipeline, step, indices, latents) after each sampler step: the latents (B, C, h, w) of images
        `indices` are at the next noise level. Returns those to go on from.
    contexts : sequence of str
        One for each image, in the place of the request's: images of one batch in several contexts.
    """

    pipeline: Any = None
    arguments: dict[str, Any] = field(default_factory=dict)
    modules: tuple[Any, ...] = ()
    after_step: AfterStep | None = None
    contexts: Sequence[str] = ()


UNSTEERED = Steering()


def noise(seeds: Sequence[int] | np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal noise (N, C, h, w) in float32."""
    # Why (pitfall 15): one generator per image, on the CPU. With one for all, the noise of an image would depend on its
    # place in the batch, and on the device.
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(s))) for s in seeds])


def generate(
    models: Models,
    request: SamplingRequest,
    callbacks: Callbacks = NO_CALLBACKS,
    *,
    on_batch: OnBatch | None = None,
    steering: Steering = UNSTEERED,
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
    steering : Steering, optional
        What beside the text has a say in what is drawn.

    Returns
    -------
    Gallery

    Raises
    ------
    PromptError, SettingsError
        For a prompt the model cannot take, or an image size it cannot draw.
    Cancelled
        When `cancelled` returns True.

    Notes
    -----
    A batch that does not fit in memory is tried again at half its size, down to single images.
    """
    character, seeds = request.character, request.seeds
    with torch.no_grad(), character.on(models.pipeline, request.strength) if character else nullcontext():
        sampling = _Sampling(models, request, callbacks, steering)
        images: list[Image.Image] = []
        latents: list[np.ndarray] = []
        for indices, batch in batches(range(len(seeds)), request.settings.batch_size, sampling.batch, SMALLER):
            decoded = decode(models, batch)
            images += decoded
            latents.append(batch.float().cpu().numpy())
            if callbacks.on_images is not None:
                callbacks.on_images(list(zip(indices, decoded, strict=True)))
            if on_batch is not None:
                on_batch(indices, Gallery(decoded, latents[-1], seeds[indices.start : indices.stop], sampling.prompt))
    whole = np.concatenate(latents) if latents else np.zeros((0, *sampling.shape), np.float32)
    return Gallery(images, whole, seeds, sampling.prompt)


def sampler(pipeline: Any, name: str) -> Any:
    """Build a deterministic scheduler from the pipeline's own noise schedule and prediction type."""
    import diffusers

    kind, forced = SAMPLERS[name]
    return getattr(diffusers, kind).from_config(pipeline.scheduler.config, **forced)


class _Sampling:
    """One request: what is the same for all batches is computed once."""

    def __init__(self, models: Models, request: SamplingRequest, callbacks: Callbacks, steering: Steering) -> None:
        self.pipeline, self.device, self.callbacks = models.pipeline, models.device, callbacks
        self.steering, self.drawing = steering, steering.pipeline or models.pipeline
        self.settings, self.seeds = request.settings, request.seeds
        forbidden = None if request.character else request.settings.token
        prompt = check_prompt(self.pipeline, request.prompt, forbidden=forbidden)
        contexts = dict.fromkeys(steering.contexts or [request.context])
        texts = [check_prompt(self.pipeline, f"{prompt} {context}", forbidden=forbidden) for context in contexts]
        self.prompt = texts[0]
        self.pixels, side = latent_size(self.pipeline, self.settings.image_size)
        self.shape = (self.pipeline.unet.config.in_channels, side, side)
        text_encoders = [getattr(self.pipeline, name) for _, name, _ in encoders(self.pipeline)]
        with advised(SMALLER), on_device(self.device, *text_encoders):
            pairs = [self._conditions(prompt, text, request.negative) for text in texts]
        self.opposite = pairs[0][1]
        by_context = {context: text for context, (text, _) in zip(contexts, pairs, strict=True)}
        self.texts = [by_context[context] for context in steering.contexts or [request.context] * len(self.seeds)]

    def _conditions(self, prompt: str, whole: str, negative: str | None) -> tuple[Condition, Condition | None]:
        """Encode a prompt with its context, weighted, and what guidance contrasts it with."""
        if self.settings.guidance_scale > 1:
            text, opposite = condition_pair(self.pipeline, whole, negative)
        else:
            text, opposite = condition(self.pipeline, whole), None
        # Prompt and context are encoded together and apart: their difference is what the context adds.
        if whole != prompt and self.settings.context_weight != 1:
            text = text.beyond(condition(self.pipeline, prompt), self.settings.context_weight)
        return text, opposite

    def batch(self, indices: range) -> torch.Tensor:
        """Denoise one batch by the stock pipeline: indices -> latents (B, C, h, w)."""
        self.callbacks.raise_if_cancelled()
        n = len(indices)
        # By the stock pipeline, so that an exported character draws the same elsewhere.
        parts = (self.pipeline.unet, *self.steering.modules)
        with on_device(self.device, *parts), _scheduler(self.drawing, self.settings.sampler):
            start = noise(self.seeds[indices.start : indices.stop], self.shape)  # (B, C, h, w)
            return self.drawing(
                **Condition.of(self.texts[indices.start : indices.stop]).arguments(n),
                **(self.opposite.arguments(n, "negative_") if self.opposite else {}),
                height=self.pixels,
                width=self.pixels,
                latents=start.to(self.device, self.pipeline.unet.dtype),
                output_type="latent",
                num_inference_steps=self.settings.sampling_steps,
                guidance_scale=self.settings.guidance_scale,
                **self._rescale(),
                **self.steering.arguments,
                callback_on_step_end=self._after_step(indices),
            ).images

    def _rescale(self) -> dict[str, float]:
        """The argument for it, which not every stock pipeline has: left out at 0, where it does nothing."""
        return {"guidance_rescale": phi} if (phi := self.settings.guidance_rescale) else {}

    def _after_step(self, indices: range) -> Callable[..., dict[str, Any]]:
        steps, n = self.settings.sampling_steps, len(self.seeds)

        def after_step(pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            done = min(indices.start * steps + len(indices) * (step + 1), n * steps)
            finished = indices.stop if step + 1 >= steps else indices.start
            self.callbacks.report("generate", done, n * steps, "image steps", images=finished, n_images=n)
            self.callbacks.raise_if_cancelled()
            steer = self.steering.after_step
            return {} if steer is None else {"latents": steer(pipeline, step, indices, tensors["latents"])}

        return after_step


@contextmanager
def _scheduler(pipeline: Any, name: str) -> Iterator[None]:
    """Replace the pipeline's scheduler for the length of a with-block."""
    own = pipeline.scheduler
    try:
        pipeline.scheduler = sampler(pipeline, name)
        yield
    finally:
        pipeline.scheduler = own
