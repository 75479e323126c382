"""Step 4, refine: chosen images -> Theta, by LoRA and textual inversion in one joint loop (section 3.2).

    L_rec = E over x in c*, noise and t of || noise - eps_Theta(z_t, t, text) ||^2
    Theta = (theta: LoRA, tau: token rows)

Known pitfalls, and where they are met (a test is named after each that is handled):

==  ======================================================  ================================================
 1  pooled text taken at the new token, not at the end      `adapters._pooled_at_eos`, training and sampling
 2  token rows frozen, or the wrong ones trained            only `NewRows.rows` requires gradients
 3  decay and momentum move the whole table                 the new rows are a parameter of their own
 4  the rows' norm drifts and overpowers the prompt         reported at each step; `embedding_rule`
 5  "attempting to unscale FP16 gradients"                  trainables are float32 over any base
 6  `.to(dtype)` on the shared UNet downcasts the LoRA      nothing casts the UNet
 7  a bfloat16 base makes a bfloat16 LoRA                   `apply_lora(dtype=float32)`
 8  the SDXL VAE overflows in float16                       `latents.in_float32`, coding and decoding
 9  cached latent with another one's caption or crop        `Samples` keeps them together by number
10  bugs of diffusers' advanced training script             not applicable: a loop of our own
11  `CLIPTextModel` lost `.text_model` in transformers 5    `get_input_embeddings()`; no LoRA on text
12  `unload_textual_inversion` leaves things behind         not used: copies and wrappers, taken off
13  repeated adapter loading grows memory                   wrappers are dropped whole
14  `fuse_lora` is not undone exactly                       never fused
15  one generator for a batch                               `generate.noise`: one per image
16  stochastic samplers; batch size changes images        deterministic; images are kept, not seeds
17  decoding needs most memory                              `latents.decode`: apart, in small chunks
18  wrong preprocessing for DINOv2                          the checkpoint's own, `eyes.FeatureExtractor`
19  features see framing and background                     `cluster_on`, `scene_weight`; looking/ shows it
20  flips, and captions from generic templates              no flips; the caption is made of the prompt
21  training tokenises otherwise than sampling              `prompts.condition`: the pipeline's own encoder
22  library drift                                           public functions, tested on tiny real classes
==  ======================================================  ================================================
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from chosen_one_nb.character import Character
from chosen_one_nb.models.batches import advised, is_out_of_memory
from chosen_one_nb.models.compiling import uncompiled
from chosen_one_nb.models.load import Models
from chosen_one_nb.models.offload import on_device, release
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.latents import CHUNK
from chosen_one_nb.steps.lora import add_tokens, apply_lora, fresh_lora, read_lora
from chosen_one_nb.steps.loss import denoising_loss
from chosen_one_nb.steps.prompts import Condition, PromptError, check_prompt, condition, encoders
from chosen_one_nb.steps.tokens import EmbeddingScale, initial_rows
from chosen_one_nb.steps.training_set import Samples, TrainingSet, endless, place_weights

__all__ = ["RefineError", "refine"]

SMALLER = (
    "Not even one image at a time can be learnt from: lower image_size, set gradient_checkpointing, or "
    "load_models(..., low_memory=True)."
)

Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[tuple[int, int]], torch.Tensor]


class RefineError(RuntimeError):
    """Training went wrong; the last good character stands."""


def refine(
    models: Models,
    data: TrainingSet,
    settings: Settings,
    character: Character | None = None,
    callbacks: Callbacks = NO_CALLBACKS,
    *,
    seed: int = 0,
) -> Character:
    """Learn a character from the chosen images (section 3.2, Theta).

    Parameters
    ----------
    models : Models
        Left bit-identical, also when cancelled or failing.
    data : TrainingSet
        The chosen cluster c*, and the first gallery as its `prior` if `prior_share` wants it.
    settings : Settings
        Rank, rates, steps, batch, caption, and the switches.
    character : Character, optional
        The last iteration's Theta, from which `carry_over="warm"` goes on; "reinit" does not look at it.
    callbacks : Callbacks, optional
        `on_step` is called after each step with a dict of `step` (from 1), `steps`, `loss`, `ema_loss`,
        `embedding_norms` (by encoder, relative to the vocabulary's mean norm) and `seconds`; `cancelled` is asked at
        each step.
    seed : int
        Of everything random here.

    Returns
    -------
    Character

    Raises
    ------
    PromptError, SettingsError
        For a caption too long, an unknown initial word, a rank that differs from the warm start's, a
        missing prior.
    RefineError
        If the loss is no longer a number.
    OutOfMemory
        If not even one image fits. A batch that does not fit goes through the UNet in halves, quarters and so on.
    Cancelled
        When asked to stop.

    Notes
    -----
    Where the token stands in captions, rates, steps and batch are not found in the paper. The optimiser (AdamW)
    starts anew each iteration.
    """
    pipeline = models.pipeline
    check_prompt(pipeline, data.prompt, forbidden=settings.token)
    _check_data(settings, data)
    start = _start(pipeline, settings, data.prompt, seed, character if settings.carry_over == "warm" else None)
    rows = {key: nn.Parameter(row.clone().to(models.device)) for key, row in start.tokens.items()}
    with ExitStack() as stack:
        stack.enter_context(advised(SMALLER))
        stack.enter_context(_frozen(pipeline))
        stack.enter_context(uncompiled())
        batches = _Batches(models, data, settings, seed)
        stack.enter_context(on_device(models.device, pipeline.unet, *_text_encoders(pipeline)))
        empty = _empty(pipeline)
        stack.enter_context(add_tokens(pipeline, start.token, rows))
        check_prompt(pipeline, start.caption)
        captions = _captions(pipeline, start.caption, data)
        priors = _captions(pipeline, data.prior.prompt, data.prior) if data.prior else []
        lora = stack.enter_context(
            apply_lora(pipeline.unet, start.lora, rank=start.rank, alpha=start.alpha, dtype=torch.float32)
        )
        stack.enter_context(_checkpointed(pipeline.unet, settings.gradient_checkpointing or models.low_memory))
        _train(models, lora, rows, batches, empty, (captions, priors), settings, callbacks)
        weights = read_lora(pipeline.unet)
    about = {
        "prompt": data.prompt,
        "model": models.name,
        "load": models.recipe,
        "fingerprint": models.fingerprint,
        "n_images": len(data.images),
        "seed": seed,
        "settings": settings.model_dump(),
        "captions": captions,
    }
    about |= {key: models.recipe[key] for key in ("distilled",) if key in models.recipe}
    tokens = {key: row.detach().cpu().clone() for key, row in rows.items()}
    return dataclasses.replace(start, lora=weights, tokens=tokens, provenance=about)


def _check_data(settings: Settings, data: TrainingSet) -> None:
    """Refuse settings that ask for what the training set does not have."""
    if settings.prior_share and data.prior is None:
        raise SettingsError(
            f"prior_share: {settings.prior_share} of each batch should come from the first gallery, "
            "but the training set has no prior. Pass one, or set prior_share to 0."
        )
    if settings.scene_weight < 1 and data.masks is None:
        raise SettingsError(
            f"scene_weight: {settings.scene_weight} asks where the foreground is in each of {len(data.images)} images, "
            "but the training set has no masks. Pass them, or set scene_weight to 1."
        )


def _start(pipeline: Any, settings: Settings, prompt: str, seed: int, character: Character | None) -> Character:
    """Theta before the first step: the last one, or a LoRA without effect and the initial word."""
    caption = settings.caption(prompt)
    if character is None:
        rows = initial_rows(pipeline, settings, prompt)
        lora = fresh_lora(pipeline.unet, settings.lora_rank, torch.Generator().manual_seed(seed))
        return Character(lora, rows, settings.token, caption, settings.lora_rank, float(settings.lora_rank), rows)
    vectors = len(next(iter(character.tokens.values())))
    if (character.rank, character.token, vectors) != (settings.lora_rank, settings.token, settings.token_vectors):
        raise SettingsError(
            "lora_rank, token, token_vectors: expected the character's "
            f"({character.rank}, {character.token!r}, {vectors}), got "
            f"({settings.lora_rank}, {settings.token!r}, {settings.token_vectors}). A warm start goes on "
            "with the same ones; set carry_over to 'reinit' to change them."
        )
    return dataclasses.replace(character, caption=caption)


def _captions(pipeline: Any, caption: str, data: TrainingSet) -> list[str]:
    """Add to the caption, for each image, as many of its descriptions as the tokenizers take."""
    captions = []
    for phrases in data.descriptions or [()] * len(data.images):
        longest = caption
        for phrase in phrases:
            try:
                longest = check_prompt(pipeline, f"{longest} {phrase}")
            except PromptError:
                break
        captions.append(longest)
    return captions


def _empty(pipeline: Any) -> Condition:
    """The condition that goes with no text at all."""
    with torch.no_grad():
        empty = condition(pipeline, "", guided=True)[1]
    assert empty is not None
    return empty


def _text_encoders(pipeline: Any) -> list[nn.Module]:
    return [getattr(pipeline, name) for _, name, _ in encoders(pipeline)]


@contextmanager
def _frozen(pipeline: Any) -> Iterator[None]:
    """Ask no gradients of the base model meanwhile."""
    parts = [pipeline.unet, pipeline.vae, *_text_encoders(pipeline)]
    flags = [(parameter, parameter.requires_grad) for part in parts for parameter in part.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


@contextmanager
def _checkpointed(unet: Any, wanted: bool) -> Iterator[None]:
    """Recompute activations meanwhile, if wanted; that asks for training mode and changes nothing else."""
    before = unet.training, unet.is_gradient_checkpointing
    try:
        if wanted:
            unet.enable_gradient_checkpointing()
            unet.train()
        yield
    finally:
        unet.train(before[0])
        if wanted and not before[1]:
            unet.disable_gradient_checkpointing()


class _Batches:
    """Endless batches: latents, micro-conditioning, and which of them are prior or go without caption."""

    def __init__(
        self,
        models: Models,
        data: TrainingSet,
        settings: Settings,
        seed: int,
    ) -> None:
        self.settings, self.generator = settings, torch.Generator().manual_seed(seed + 1)
        self.device = models.device
        sets = [data, data.prior] if settings.prior_share and data.prior is not None else [data]
        chunk = 1 if models.low_memory else CHUNK
        self.pools = [
            Samples.of(models.pipeline, each, settings.image_size, device=self.device, chunk=chunk) for each in sets
        ]
        size = self.pools[0].mean.shape[-2:]
        all_alike = torch.ones(len(data.images), 1, *size)
        self.weights = all_alike if data.masks is None else place_weights(data.masks, settings.scene_weight, size)
        self.orders = [endless(len(pool.mean), self.generator) for pool in self.pools]

    def next(self) -> Batch:
        """Return latents (B, C, h, w), time ids (B, 6), weights (B, 1, h, w), and two facts of each of B images.

        These are its pool (0 chosen, 1 prior) with its number there, and whether it goes without caption.
        """
        chance = torch.rand(2, self.settings.refine_batch_size, generator=self.generator)
        is_prior = chance[0] < (self.settings.prior_share if len(self.pools) > 1 else 0)
        which = [(pool, next(self.orders[pool])) for pool in is_prior.int().tolist()]
        drawn = [self._draw(pool, number) for pool, number in which]
        latents, ids, weights = (torch.cat(parts) for parts in zip(*drawn, strict=True))
        without = chance[1] < self.settings.caption_dropout
        return latents, ids, weights.to(self.device), which, without.to(self.device)

    def _draw(self, pool: int, number: int) -> tuple[torch.Tensor, ...]:
        """One image of a pool; those of the prior count as a whole."""
        weights = torch.ones_like(self.weights[:1]) if pool else self.weights[number : number + 1]
        return *self.pools[pool].draw([number], self.generator), weights


def _optimizer(groups: list[dict[str, Any]], models: Models) -> torch.optim.Optimizer:
    """AdamW; in low-memory mode with its state in 8 bits, where bitsandbytes is installed."""
    if models.low_memory and models.device.type == "cuda" and importlib.util.find_spec("bitsandbytes"):
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups)
    return torch.optim.AdamW(groups)


def _train(
    models: Models,
    lora: list[nn.Parameter],
    rows: dict[str, nn.Parameter],
    batches: _Batches,
    empty: Condition,
    captions: tuple[list[str], list[str]],
    settings: Settings,
    callbacks: Callbacks,
) -> None:
    """The joint loop: theta and tau move together."""
    from diffusers import DDPMScheduler

    pipeline = models.pipeline
    scheduler = DDPMScheduler.from_config(pipeline.scheduler.config)
    trained = [*lora, *rows.values()]
    optimizer = _optimizer(
        [
            {"params": lora, "lr": settings.lora_learning_rate, "weight_decay": settings.weight_decay},
            {"params": list(rows.values()), "lr": settings.token_learning_rate, "weight_decay": 0.0},
        ],
        models,
    )
    scaler = torch.amp.GradScaler(models.device.type, enabled=pipeline.unet.dtype == torch.float16)
    vocabulary, diary = EmbeddingScale(pipeline), _Diary(settings.refine_steps, callbacks.on_step)

    def backward(batch: Batch, unet: Any) -> torch.Tensor:
        latents, ids, weights, which, without = batch
        told = _each(pipeline, [captions[pool][number] for pool, number in which])
        text = empty.expand(len(which)).where(without, told)
        loss = denoising_loss(
            unet, scheduler, latents, text, ids, generator=batches.generator, gamma=settings.snr_gamma,
            floor=settings.noise_floor, weights=weights,
        )  # fmt: skip
        scaler.scale(loss).backward()
        return loss.detach()

    at_once = settings.refine_batch_size
    for _ in range(settings.refine_steps):
        callbacks.raise_if_cancelled()
        loss, at_once = _within_memory(backward, batches, pipeline.unet, at_once, trained)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        vocabulary.pull(rows, settings)
        diary.write(loss.item(), vocabulary.norms(rows))


def _within_memory(
    backward: Callable[[Batch, Any], torch.Tensor],
    batches: _Batches,
    unet: Any,
    at_once: int,
    trained: list[nn.Parameter],
) -> tuple[torch.Tensor, int]:
    """Do the next batch, with half as many images in the UNet at once whenever memory runs out.

    Returns the loss, and how many images fitted: later batches begin with as many.
    """
    batch, state = batches.next(), batches.generator.get_state()
    while True:
        try:
            return backward(batch, unet if at_once >= len(batch[0]) else _InParts(unet, at_once)), at_once
        except (RuntimeError, MemoryError) as error:
            if at_once == 1 or not is_out_of_memory(error):
                raise
        # outside of `except`, whose traceback holds the tensors that did not fit
        at_once //= 2
        batches.generator.set_state(state)  # to the same noise
        for parameter in trained:
            parameter.grad = None  # it may have run out in the midst of the backward pass
        release(batches.device)


class _InParts:
    """A UNet that takes a few images of a batch at a time.

    The activations of each part are dropped and computed again in the backward pass, so that those of one part are
    all that is ever held. Loss and gradients are the whole batch's, up to rounding; it costs one more forward pass.
    """

    def __init__(self, unet: Any, size: int) -> None:
        self.unet, self.size, self.dtype = unet, size, unet.dtype

    def __call__(
        self,
        noisy: torch.Tensor,
        times: torch.Tensor,
        *,
        encoder_hidden_states: torch.Tensor,
        return_dict: bool,
        added_cond_kwargs: dict[str, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor]:
        """As the UNet's: noisy latents (B, C, h, w), times (B,), texts (B, T, D) -> one tensor (B, C, h, w)."""
        guesses = []
        for start in range(0, len(noisy), self.size):
            part = slice(start, start + self.size)
            told = {"encoder_hidden_states": encoder_hidden_states[part], "return_dict": return_dict}
            if added_cond_kwargs is not None:
                told["added_cond_kwargs"] = {key: value[part] for key, value in added_cond_kwargs.items()}
            guesses += checkpoint(self.unet, noisy[part], times[part], use_reentrant=False, **told)
        return (torch.cat(guesses),)


def _each(pipeline: Any, captions: list[str]) -> Condition:
    """Encode the captions of a batch (B texts), each different one once."""
    different = list(dict.fromkeys(captions))
    return condition(pipeline, different)[0].rows([different.index(caption) for caption in captions])


class _Diary:
    """Tells `on_step` how training goes, and stops it when the loss is no longer a number."""

    def __init__(self, steps: int, on_step: Callable[[dict[str, Any]], None] | None) -> None:
        self.steps, self.on_step = steps, on_step
        self.step, self.ema, self.began = 0, None, time.monotonic()

    def write(self, loss: float, norms: dict[str, float]) -> None:
        """Note one step."""
        self.step += 1
        if not np.isfinite(loss):
            raise RefineError(
                f"refine: the loss became {loss} at step {self.step} of {self.steps}. Lower "
                "lora_learning_rate or token_learning_rate; the last good character is unchanged."
            )
        self.ema = loss if self.ema is None else 0.95 * self.ema + 0.05 * loss
        if self.on_step is not None:
            self.on_step(
                {
                    "step": self.step,
                    "steps": self.steps,
                    "loss": loss,
                    "ema_loss": self.ema,
                    "embedding_norms": norms,
                    "seconds": time.monotonic() - self.began,
                }
            )
