"""Methods that learn nothing for a character: IP-Adapter, and self-attention that images of a batch share.

Shared attention is written from what the papers say: StoryDiffusion's consistent self-attention (arXiv 2405.01434) lets
an image see random tokens of the others, ConsiStory (arXiv 2402.03286) those of their subjects. Both mix up to
`ANCHORS` images; ConsiStory's feature injection and query blending are left out, hence its row's plain name.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from chosen_one_nb.analysis.segmentation import otsu
from chosen_one_nb.baselines import BaselineTask, Drawer, Method
from chosen_one_nb.models.hub import ModelError, model_set
from chosen_one_nb.steps.generate import Steering
from chosen_one_nb.steps.prompts import check_prompt, subject

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.models.load import Models

__all__ = ["TRAINING_FREE", "SharedAttention", "SubjectAttention", "adapted", "ip_adapter"]

SCALES = (0.5, 1.0)
"""How much the image counts beside the text: the middle that diffusers' documentation begins with, and in full."""

PUBLISHED: dict[str, dict[str, str]] = {
    "StableDiffusionXLPipeline": {
        "subfolder": "sdxl_models", "weight_name": "ip-adapter-plus_sdxl_vit-h.safetensors",
        "image_encoder_folder": "models/image_encoder",
    },
    "StableDiffusionPipeline": {
        "subfolder": "models", "weight_name": "ip-adapter_sd15.safetensors", "image_encoder_folder": "image_encoder",
    },
}  # fmt: skip
"""Its authors' adapters on the Hub, h94/IP-Adapter (Apache-2.0), by the pipeline that they are for."""

ANCHORS = 4
"""Images whose tokens the others see; of more, memory and time grow with the square."""

SEEN = 0.5
"""Share of their tokens that consistent self-attention sees, as StoryDiffusion's code has it."""


# --- IP-Adapter


def ip_adapter(task: BaselineTask) -> Iterator[tuple[str, Drawer]]:
    """Draw with IP-Adapter (arXiv 2308.06721) on the reference image; a variant for each of `SCALES`."""
    (reference,) = task.references()
    for scale in SCALES:
        yield f"scale {scale:g}", task.drawer(steered=partial(adapted, task.models, reference, scale))


@contextmanager
def adapted(models: Models, reference: Image.Image, scale: float) -> Iterator[Steering]:
    """Put an IP-Adapter on the models for a with-block, by the stock loader; yields how it steers sampling.

    A model set brings its own, ``ip_adapter/`` beside ``clip/``, which sees for it; other models take the published
    one of their kind.

    Raises
    ------
    ModelError
        There is none, or it does not fit.
    """
    pipeline, before = models.pipeline, dict(models.pipeline.unet.attn_processors)
    own = model_set(models.name) / "ip_adapter"
    if own.is_dir():
        source, where = own.parent, {"subfolder": own.name, "weight_name": "ip-adapter.safetensors"}
        where |= {"image_encoder_folder": "./clip"}  # with a slash: beside the adapter's folder, not in it
        pipeline.register_modules(feature_extractor=models.clip.processor)  # else stock takes OpenAI's mean and spread
    else:
        source, where = "h94/IP-Adapter", PUBLISHED[type(pipeline).__name__]
    try:
        try:
            pipeline.load_ip_adapter(source, **where, local_files_only=bool(models.machine.get("offline")))
        except (OSError, RuntimeError, ValueError) as error:
            raise ModelError(f"{source}: expected an IP-Adapter of these models, got: {error}") from error
        pipeline.set_ip_adapter_scale(scale)
        yield Steering(arguments={"ip_adapter_image": reference}, modules=(pipeline.image_encoder,))
    finally:
        pipeline.unload_ip_adapter()
        pipeline.unet.set_attn_processor(before)


# --- self-attention between images


class SubjectAttention:
    """Cross-attention that remembers where each image of a batch attends to the subject's word.

    Parameters
    ----------
    stock : attention processor
        What computes the attention.
    token : int
        Place of the word in the prompt.
    halves : int
        2 where a batch holds every image without the text too, for guidance; else 1.
    maps : dict
        Filled with the latest mean over heads, (m, n), by the number n of places.
    """

    def __init__(self, stock: Any, token: int, halves: int, maps: dict[int, torch.Tensor]) -> None:
        self.stock, self.token, self.halves, self.maps = stock, token, halves, maps

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *args: Any, **kw: Any) -> Any:
        """Attend as the stock processor does; (B, n, C) -> (B, n, C)."""
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        to_word = attn.get_attention_scores(query, key)[..., self.token]  # (B heads, n)
        with_text = to_word.unflatten(0, (self.halves, -1, attn.heads))[-1]  # (m, heads, n): the second half has it
        self.maps[with_text.shape[-1]] = with_text.mean(1)
        return self.stock(attn, hidden_states, encoder_hidden_states, *args, **kw)


class SharedAttention:
    """Self-attention of a batch in which each image also sees tokens of the first ones, the anchors.

    Parameters
    ----------
    halves : int
        As of `SubjectAttention`.
    seed : int
        Of the tokens that are seen.
    maps : dict, optional
        From `SubjectAttention`: the anchors' subjects are seen, cut by Otsu's threshold. None: tokens at random.
    """

    def __init__(self, halves: int, seed: int, maps: dict[int, torch.Tensor] | None = None) -> None:
        self.halves, self.maps, self.step = halves, maps, 0
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, attn: Any, hidden_states: Any, encoder_hidden_states: Any = None, *args: Any, **kw: Any) -> Any:
        """Attend to the image itself and to what is seen of the anchors; (B, n, C) -> (B, n, C)."""
        n = hidden_states.shape[1]
        m = len(hidden_states) // self.halves
        anchors = min(ANCHORS, m)
        query, *keys = (part(hidden_states) for part in (attn.to_q, attn.to_k, attn.to_v))
        key, value = (self._beside_anchors(part, m, anchors) for part in keys)  # (B, (anchors + 1) n, C)
        seen = self._seen(anchors, n).to(hidden_states.device)  # (anchors, n)
        others = seen.expand(m, -1, -1).clone()  # (m, anchors, n)
        others[range(anchors), range(anchors)] = False  # an anchor sees itself once
        mask = torch.cat([others.flatten(1), others.new_ones(m, n)], 1).repeat(self.halves, 1)[:, None, None]
        split = (part.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for part in (query, key, value))
        found = functional.scaled_dot_product_attention(*split, attn_mask=mask)  # (B, heads, n, C / heads)
        return attn.to_out[1](attn.to_out[0](found.transpose(1, 2).flatten(2))) / attn.rescale_output_factor

    def _beside_anchors(self, part: torch.Tensor, m: int, anchors: int) -> torch.Tensor:
        """Put the anchors' tokens of the same half before each image's own: (B, n, C) -> (B, (anchors + 1) n, C)."""
        images = part.unflatten(0, (self.halves, m))
        first = images[:, :anchors].flatten(1, 2)[:, None].expand(-1, m, -1, -1)
        return torch.cat([first, images], 2).flatten(0, 1)

    def _seen(self, anchors: int, n: int) -> torch.Tensor:
        """Which tokens of the anchors the others see, bool (anchors, n); none in the first step, which lays out."""
        if self.step == 0 or (self.maps is not None and n not in self.maps):
            return torch.zeros(anchors, n, dtype=torch.bool)
        if self.maps is None:
            return torch.rand(anchors, n, generator=self.generator) < SEEN
        attended = self.maps[n][:anchors].float().cpu().numpy()
        return torch.from_numpy(np.stack([row > otsu(row)[0] for row in attended]))


@contextmanager
def sharing(task: BaselineTask, by_subject: bool) -> Iterator[Steering]:
    """Have the self-attentions of the upper blocks share tokens for a with-block."""
    pipeline, halves = task.models.pipeline, 2 if task.settings.guidance_scale > 1 else 1
    before = dict(pipeline.unet.attn_processors)
    maps: dict[int, torch.Tensor] | None = {} if by_subject else None
    shared = SharedAttention(halves, task.settings.seed, maps)
    chosen = dict(before)
    for name, stock in before.items():
        if name.startswith("up_blocks") and name.endswith("attn1.processor"):
            chosen[name] = shared
        elif name.startswith("up_blocks") and maps is not None:
            chosen[name] = SubjectAttention(stock, word_place(pipeline, task.prompt), halves, maps)

    def after_step(pipeline: Any, step: int, indices: range, latents: torch.Tensor) -> torch.Tensor:
        shared.step = step + 1
        return latents

    try:
        pipeline.unet.set_attn_processor(chosen)
        yield Steering(after_step=after_step)
    finally:
        pipeline.unet.set_attn_processor(before)


def word_place(pipeline: Any, prompt: str) -> int:
    """Return at which place of the tokenized prompt its subject's word ends."""
    ids = pipeline.tokenizer(check_prompt(pipeline, prompt)).input_ids
    last = pipeline.tokenizer(subject(prompt), add_special_tokens=False).input_ids[-1]
    return len(ids) - 1 - ids[::-1].index(last)


def shared(by_subject: bool, task: BaselineTask) -> Iterator[tuple[str, Drawer]]:
    """Draw all contexts of a seed in one batch whose images see each other."""
    yield "", task.drawer(steered=partial(sharing, task, by_subject), together=True)


TRAINING_FREE: dict[str, Method] = {
    "ip_adapter": ip_adapter,
    "consistent_self_attention": partial(shared, False),
    "shared_attention": partial(shared, True),
}
