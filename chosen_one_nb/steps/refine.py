"""Step 4, refine: chosen images -> Theta, by LoRA and textual inversion in one joint loop (section 3.2).

    L_rec = E over x in c*, noise and t of || noise - eps_Theta(z_t, t, text) ||^2
    Theta = (theta: LoRA, tau: token rows)

The known pitfalls of such training are numbered in `docs/pitfalls.md`; a comment "Why" stands where each is handled.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Models
from chosen_one_nb.models.memory import advised, free_memory, is_out_of_memory, on_device
from chosen_one_nb.models.pipelines import uncompiled
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.lora import apply_frozen, apply_lora, frozen, initial_lora
from chosen_one_nb.steps.loss import Batch, denoising_loss
from chosen_one_nb.steps.prompts import check_prompt, condition, condition_pair, encoders
from chosen_one_nb.steps.tokens import EmbeddingScale, add_tokens, initial_rows
from chosen_one_nb.steps.training_set import Batches, EncodedImages, TrainingSet, captions, encode_images

__all__ = ["RefineError", "TrainingSet", "refine"]

SMALLER = (
    "Not even one image at a time fits in training: lower image_size, set gradient_checkpointing, or "
    "load_models(..., low_memory=True)."
)


KEPT = "the last good character is unchanged."
SLOWER = f"Lower lora_learning_rate or token_learning_rate; {KEPT}"
UPCAST = f'Images or base models give no numbers: load the models in float32, load_models(..., dtype="float32"); {KEPT}'


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
        The last iteration's, from which `carry_over="warm"` goes on; "reinit" does not look at it.
    callbacks : Callbacks, optional
        `on_step` is called after each step with a dict of `step` (from 1), `steps`, `loss`, `ema_loss`,
        `embedding_norms` (by encoder, relative to the vocabulary's mean norm) and `seconds`; `cancelled` is called
        before each step.
    seed : int
        Of everything random here.

    Returns
    -------
    Character

    Raises
    ------
    PromptError, SettingsError
        For a caption too long, an unknown initial word, a rank that differs from the warm start's, a
        missing prior or missing masks.
    RefineError
        If the loss or a weight is no longer a number.
    OutOfMemory
        If not even one image fits. A batch that does not fit goes through the UNet in halves, quarters and so on.
    Cancelled
        When `cancelled` returns True.

    Notes
    -----
    Where the token stands in captions, rates, steps and batch are not found in the paper. The optimiser (AdamW)
    starts anew each iteration.
    """
    pipeline = models.pipeline
    check_prompt(pipeline, data.prompt, forbidden=settings.token)
    _check_asked(settings, data)
    start = _start(pipeline, settings, data.prompt, seed, character if settings.carry_over == "warm" else None)
    rows = {key: nn.Parameter(row.clone().to(models.device)) for key, row in start.tokens.items()}
    text_encoders = [getattr(pipeline, name) for _, name, _ in encoders(pipeline)]
    # Gradients pass through the base models to Theta, but none are kept for their own weights: that would take as much
    # memory again. Training runs uncompiled: compiled blocks are made for sampling.
    with advised(SMALLER), uncompiled(), frozen(pipeline.unet, *text_encoders), ExitStack() as stack:
        pools = _encode(models, data, settings, start, rows)
        # Why (pitfall 6): moved before the LoRA is on, and never cast: `.to(dtype)` would cast the LoRA along.
        stack.enter_context(on_device(models.device, pipeline.unet, *text_encoders))
        stack.enter_context(add_tokens(pipeline, start.token, rows))
        # Why (pitfalls 5, 7): over a base of any precision float32 is trained. In half precision small steps are lost,
        # and float16 gradients cannot be unscaled.
        lora = stack.enter_context(
            apply_lora(pipeline.unet, start.lora, rank=start.rank, alpha=start.alpha, dtype=torch.float32)
        )
        # What the character it begins from has beside attention goes through training as a part of the base.
        stack.enter_context(apply_frozen(pipeline, start.frozen))
        if settings.gradient_checkpointing or models.low_memory:
            stack.enter_context(_checkpointed(pipeline.unet))
        # Another seed than that of the LoRA's first weights, which would repeat as noise.
        batches = Batches(pools, settings, pipeline.scheduler.config.num_train_timesteps, seed + 1)
        _Trainer(models, lora, rows, settings).run(batches, callbacks)
    provenance = _provenance(models, data, settings) | {"seed": seed, "captions": pools[0].captions}
    return dataclasses.replace(start, lora=_copied(lora), tokens=_copied(rows), provenance=provenance)


def _check_asked(settings: Settings, data: TrainingSet) -> None:
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
        lora = initial_lora(pipeline.unet, settings.lora_rank, torch.Generator().manual_seed(seed))
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


def _encode(
    models: Models, data: TrainingSet, settings: Settings, start: Character, rows: dict[str, nn.Parameter]
) -> list[EncodedImages]:
    """Encode the chosen images, with the token in their captions, and the first gallery's, without."""
    with add_tokens(models.pipeline, start.token, rows):  # whose length in rows counts in a caption's
        own = captions(models.pipeline, start.caption, data)
    encoded = [encode_images(models, data, own, settings)]
    if settings.prior_share and data.prior:
        # Without the token: it must not learn the first gallery, and the other words keep their meaning.
        plain = captions(models.pipeline, data.prior.prompt, data.prior)
        encoded.append(encode_images(models, data.prior, plain, settings))
    return encoded


def _provenance(models: Models, data: TrainingSet, settings: Settings) -> dict[str, Any]:
    return {
        "prompt": data.prompt,
        "model": models.name,
        "load": models.recipe,
        "fingerprint": models.fingerprint,
        "n_images": len(data.images),
        "settings": settings.model_dump(),
        **{key: value for key, value in models.recipe.items() if key == "distilled"},
    }


def _copied(parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    return {key: parameter.detach().cpu().clone() for key, parameter in parameters.items()}


@contextmanager
def _checkpointed(unet: Any) -> Iterator[None]:
    """Recompute activations, for a with-block; diffusers does so in training mode only, which changes nothing else."""
    before = unet.training, unet.is_gradient_checkpointing
    try:
        unet.enable_gradient_checkpointing()
        unet.train()
        yield
    finally:
        unet.train(before[0])
        if not before[1]:
            unet.disable_gradient_checkpointing()


class _Trainer:
    """The joint loop over theta (`lora`) and tau (`rows`)."""

    def __init__(
        self, models: Models, lora: dict[str, nn.Parameter], rows: dict[str, nn.Parameter], settings: Settings
    ) -> None:
        from diffusers import DDPMScheduler

        self.models, self.pipeline, self.rows, self.settings = models, models.pipeline, rows, settings
        self.trained = [*lora.values(), *rows.values()]
        # Why (pitfall 3): decay would shrink the rows, which are the word itself, whatever they have learned.
        of_lora = {"lr": settings.lora_learning_rate, "weight_decay": settings.weight_decay}
        of_rows = {"lr": settings.token_learning_rate, "weight_decay": 0.0}
        groups = [{"params": list(lora.values()), **of_lora}, {"params": list(rows.values()), **of_rows}]
        self.optimizer = _optimizer(groups, models)
        half = self.pipeline.unet.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(models.device.type, enabled=half)
        self.scheduler = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        with torch.no_grad():
            _, self.empty = condition_pair(self.pipeline, "")
        self.scale = EmbeddingScale(self.pipeline)
        self.at_once = settings.refine_batch_size

    def run(self, batches: Batches, callbacks: Callbacks) -> None:
        """Take `settings.refine_steps` steps."""
        steps, ema, began = self.settings.refine_steps, None, time.monotonic()
        for step in range(1, steps + 1):
            callbacks.raise_if_cancelled()
            # 1. Draw images of the cluster (and of the first gallery), noise levels and noise.
            batch = batches.next()
            # 2. Compute the loss and its gradients, in as many parts as memory requires.
            loss = self._backward(batch)
            if not np.isfinite(loss):
                advice = SLOWER if step > 1 else UPCAST  # before the first step nothing has been learned yet
                raise RefineError(f"refine: the loss became {loss} at step {step} of {steps}. {advice}")
            # 3. One optimiser moves theta and tau together, as in the paper.
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained, self.settings.max_grad_norm)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
            # 4. Why (pitfall 4): the rows' norm drifts, and a long row overpowers the rest of the prompt.
            #    `embedding_rule` pulls them back; the norms are reported with or without it.
            self.scale.pull(self.rows, self.settings)
            # 5. Report, with an average over about twenty steps, for a loss at random noise levels is noisy itself.
            ema = loss if ema is None else 0.95 * ema + 0.05 * loss
            if callbacks.on_step is not None:
                event: dict[str, Any] = {"step": step, "steps": steps, "loss": loss, "ema_loss": ema}
                event["embedding_norms"] = self.scale.norms(self.rows)
                callbacks.on_step({**event, "seconds": time.monotonic() - began})
        # A last step has no loss after it that would tell.
        if not all(parameter.isfinite().all() for parameter in self.trained):
            raise RefineError(f"refine: the last of {steps} steps made NaN or infinity of weights. {SLOWER}")

    def _backward(self, batch: Batch) -> float:
        """Add up the gradients of a batch; whenever memory runs out begin it again with half as many at once."""
        while True:
            try:
                return sum(self._backward_part(part, len(part) / len(batch)) for part in batch.split(self.at_once))
            except (RuntimeError, MemoryError) as error:
                if self.at_once == 1 or not is_out_of_memory(error):
                    raise
            # Outside of `except`, whose traceback holds the tensors that did not fit.
            self.at_once //= 2
            self.optimizer.zero_grad(set_to_none=True)  # some parts may have been through
            free_memory()

    def _backward_part(self, part: Batch, share: float) -> float:
        # 2a. Encode captions through the token's rows: gradients reach tau by the text, theta by the UNet.
        text = condition(self.pipeline, part.captions)  # (b, T, D)
        # 2b. Some images go without caption, so that guidance still has something to contrast with.
        text = self.empty.expand(len(part)).where(part.uncaptioned, text)
        # 2c. L_rec of this part, as its share of the batch's mean.
        loss = denoising_loss(self.pipeline.unet, self.scheduler, part, text, gamma=self.settings.snr_gamma) * share
        # Why (pitfall 5): a float16 base would flush small gradients to zero; scaled up they pass.
        self.scaler.scale(loss).backward()
        return loss.item()


def _optimizer(groups: list[dict[str, Any]], models: Models) -> torch.optim.Optimizer:
    """AdamW; in low-memory mode with its state in 8 bits, where bitsandbytes is installed."""
    if models.low_memory and models.device.type == "cuda" and importlib.util.find_spec("bitsandbytes"):
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups)
    return torch.optim.AdamW(groups)
