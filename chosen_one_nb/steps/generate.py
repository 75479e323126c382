"""Step 1, generate: prompt, character or none, and seeds -> images (section 3: S = {M_Theta(p; seed_n)}).

Every image has its own seed and its own noise, drawn on the CPU: the same image comes back alone, in
any batch and from any number of workers (pitfalls 15 and 16; in half precision up to rounding). The
samplers are deterministic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.models.batches import advised, batches
from chosen_one_nb.models.load import Models
from chosen_one_nb.models.offload import on_device
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import CancelledCheck, Progress, raise_if_cancelled, report
from chosen_one_nb.steps.latents import CHUNK, decode, latent_size
from chosen_one_nb.steps.prompts import Condition, check_prompt, condition, encoders

__all__ = ["Gallery", "generate", "image_seeds", "noise", "probe_seeds", "sampler"]

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}
"""Class of diffusers, and what it must not take over: another scheduler's noise, or clipping made for pixels."""

SMALLER = "Not one image fits: lower image_size, or load_models(..., low_memory=True)."

PROBE = 2**31 - 1  # the "iteration" of the seeds that every iteration is compared by


@dataclass(frozen=True)
class Gallery:
    """N images of one prompt.

    Attributes
    ----------
    images : list of PIL.Image, length N
    latents : ndarray of shape (N, C, h, w), float32
        What the images were decoded from, scaled as the UNet sees them; refine trains on these.
    seeds : ndarray of shape (N,), int64
    prompt : str
    """

    images: list[Image.Image]
    latents: np.ndarray
    seeds: np.ndarray
    prompt: str


OnBatch = Callable[[range, Gallery], None]


def image_seeds(settings: Settings, iteration: int, *, n: int | None = None) -> np.ndarray:
    """Return the seeds of an iteration's images: distinct, and always the same for the same settings.seed.

    Parameters
    ----------
    settings : Settings
        `seed` and `n_images` count.
    iteration : int
        From 0; each has seeds of its own.
    n : int, optional
        How many; None is `settings.n_images`. Asking for more leaves the first ones as they are.

    Returns
    -------
    ndarray of shape (n,), int64, in [0, 2**32)
    """
    n = settings.n_images if n is None else n
    words = np.random.SeedSequence([settings.seed, iteration]).generate_state(n + 16, np.uint32)
    _, first = np.unique(words, return_index=True)
    return words[np.sort(first)][:n].astype(np.int64)


def probe_seeds(settings: Settings, *, n: int = 8) -> np.ndarray:
    """Return n seeds that belong to no iteration, to compare iterations by the same images."""
    return image_seeds(settings, PROBE, n=n)


def noise(seeds: Sequence[int] | np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """Return standard normal noise (N, C, h, w) in float32, one CPU generator per seed."""
    return torch.stack([torch.randn(tuple(shape), generator=torch.Generator().manual_seed(int(s))) for s in seeds])


def generate(
    models: Models,
    prompt: str,
    seeds: Sequence[int] | np.ndarray,
    settings: Settings,
    *,
    character: Character | None = None,
    strength: float = 1.0,
    context: str = "",
    negative: str | None = None,
    on_progress: Progress | None = None,
    on_batch: OnBatch | None = None,
    cancelled: CancelledCheck | None = None,
) -> Gallery:
    """Draw one image per seed (section 3, the gallery S).

    Parameters
    ----------
    models : Models
    prompt : str
        Used as it is; `character.prompt()` gives one that holds the character's token.
    seeds : sequence of int, length N
        Such as `image_seeds(settings, iteration)`.
    settings : Settings
        Sampler, steps, guidance, image and batch size.
    character : Character, optional
        Put on the pipeline meanwhile; None draws with the base model.
    strength : float in [0, 1]
        Of the character.
    context : str
        More of the prompt, such as "at the beach", that counts `settings.context_weight` times: the text's embeddings
        are moved that far from those of the prompt alone towards those of both together, and past them if above 1.
    negative : str, optional
        What to steer away from; None is the model's own unconditional input.
    on_progress : callable, optional
        Told at each sampler step; unit "image steps", and `images` of `n_images` finished so far.
    on_batch : callable, optional
        Given a range of indices and their part of the gallery, as batches finish.
    cancelled : callable, optional
        Asked at each sampler step.

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
    seeds = np.asarray(seeds, dtype=np.int64)
    with torch.no_grad(), character.on(models.pipeline, strength) if character else nullcontext():
        forbidden = None if character else settings.token
        prompt = check_prompt(models.pipeline, prompt, forbidden=forbidden)
        whole = check_prompt(models.pipeline, f"{prompt} {context}", forbidden=forbidden)
        job = _Job(models, (prompt, whole), negative, seeds, settings, on_progress, cancelled)
        images: list[Image.Image] = []
        latents: list[np.ndarray] = []
        for indices, batch in batches(len(seeds), settings.batch_size, job.draw, SMALLER):
            decoded = decode(models.pipeline, batch, device=models.device, chunk=1 if models.low_memory else CHUNK)
            images += decoded
            latents.append(batch.float().cpu().numpy())
            if on_batch is not None:
                on_batch(indices, Gallery(decoded, latents[-1], seeds[indices.start : indices.stop], whole))
    return Gallery(images, np.concatenate(latents) if latents else np.zeros((0, *job.shape), np.float32), seeds, whole)


def sampler(pipeline: Any, name: str) -> Any:
    """Build a deterministic scheduler from the pipeline's own noise schedule and prediction type."""
    import diffusers

    kind, forced = SAMPLERS[name]
    return getattr(diffusers, kind).from_config(pipeline.scheduler.config, **forced)


class _Job:
    """One prompt's images: everything that is the same for all batches, computed once."""

    def __init__(
        self,
        models: Models,
        prompts: tuple[str, str],
        negative: str | None,
        seeds: np.ndarray,
        settings: Settings,
        on_progress: Progress | None,
        cancelled: CancelledCheck | None,
    ) -> None:
        pipeline = models.pipeline
        try:
            self.pixels, side = latent_size(pipeline, settings.image_size)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        self.pipeline, self.device, self.seeds, self.settings = pipeline, models.device, seeds, settings
        self.on_progress, self.cancelled = on_progress, cancelled
        self.shape = (pipeline.unet.config.in_channels, side, side)
        with advised(SMALLER), on_device(self.device, *(getattr(pipeline, name) for _, name, _ in encoders(pipeline))):
            self.text, self.opposite = self._texts(*prompts, negative)

    def _texts(self, prompt: str, whole: str, negative: str | None) -> tuple[Condition, Condition | None]:
        """Encode a prompt with its context, weighted, and what guidance contrasts it with."""
        text, opposite = condition(self.pipeline, whole, negative, guided=self.settings.guidance_scale > 1)
        if whole != prompt and self.settings.context_weight != 1:
            text = text.beyond(condition(self.pipeline, prompt)[0], self.settings.context_weight)
        return text, opposite

    def draw(self, indices: range) -> torch.Tensor:
        """Denoise one batch by the stock pipeline: indices -> latents (B, C, h, w)."""
        raise_if_cancelled(self.cancelled)
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
            report(
                self.on_progress,
                "generate",
                min(done, n * steps),
                n * steps,
                "image steps",
                images=indices.stop if step + 1 >= steps else indices.start,
                n_images=n,
            )
            raise_if_cancelled(self.cancelled)
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
