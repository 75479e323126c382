"""The two text encoders of the pipeline; the first is also the text side of the bundled CLIP.

They learn to read before anything is drawn: from the pooled feature of a caption, a linear read-out names every
attribute that the caption speaks of, and says of the others that they are left open. Captions cost nothing, so
there is no end of them. Everything later (the UNet, CLIP's eyes) learns against these texts, which stay as they are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
)

from menagerie import world
from menagerie.training.context import TrainingContext
from menagerie.training.loop import Losses, Schedule, fit
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights, save_half
from menagerie.training.tokenizer import word_tokenizer

MEAN, STD = 0.5, 0.5  # so that the pixels a model sees lie in [-1, 1]
OPEN = 0  # the read-out's class for "the caption does not say"
SIZES = [1 + len(values) for values in world.ATTRIBUTES.values()]


def text_config(recipe: Recipe, tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """A text tower that ends at the tokenizer's own end mark, so that pooling finds it."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width,
        num_hidden_layers=recipe.text_depth, num_attention_heads=width // 32,
        max_position_embeddings=recipe.text_length, projection_dim=width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def build(recipe: Recipe, tokenizer: CLIPTokenizer) -> TextTowers:
    """Build both towers untrained, the first inside a whole CLIP."""
    first, second = (text_config(recipe, tokenizer, width) for width in recipe.text_widths)
    vision = CLIPVisionConfig(
        hidden_size=recipe.vision_width, intermediate_size=4 * recipe.vision_width,
        num_hidden_layers=recipe.vision_depth, num_attention_heads=recipe.vision_width // 32,
        image_size=recipe.image_size, patch_size=recipe.vision_patch, projection_dim=first.hidden_size,
    )  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=first, vision_config=vision, projection_dim=first.hidden_size))
    return TextTowers(clip, CLIPTextModelWithProjection(second))


def world_tokenizer(recipe: Recipe) -> CLIPTokenizer:
    """The tokenizer of the world's words, later ones behind all others."""
    late = world.late_words()
    return word_tokenizer(world.vocabulary()[: -len(late)], recipe.text_length, later=late)


def said(named: dict[str, str]) -> list[int]:
    """Class of each attribute, in the world's order: ``OPEN``, or 1 + the index of the value that was named."""
    return [1 + values.index(named[name]) if name in named else OPEN for name, values in world.ATTRIBUTES.items()]


class TextTowers(nn.Module):
    """Both text towers with their linear read-outs, which are thrown away after training."""

    def __init__(self, clip: CLIPModel, second: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.clip, self.second = clip, second
        for part in (clip.vision_model, clip.visual_projection):  # sees nothing yet
            part.requires_grad_(False)
        clip.logit_scale.requires_grad_(False)
        self.heads = nn.ModuleList(
            nn.Linear(width, sum(SIZES)) for width in (clip.config.projection_dim, second.config.projection_dim)
        )

    def learn_only_later_words(self, known: int) -> None:
        """Freeze all but the read-outs and the embeddings of tokens from number ``known`` on."""
        for tower in (self.clip.text_model, self.second.text_model):
            tower.requires_grad_(False)
            weight = tower.embeddings.token_embedding.weight.requires_grad_(True)
            later = (torch.arange(len(weight)) >= known)[:, None]
            weight.register_hook(lambda gradient, later=later: gradient * later.to(gradient))
        self.clip.text_projection.requires_grad_(False)
        self.second.text_projection.requires_grad_(False)

    def forward(self, tokens: Tensor, wanted: Tensor) -> Losses:
        """Cross-entropy of both read-outs for token ids (B, length) and classes (B, attributes); share read right."""
        pooled = self.clip.text_model(input_ids=tokens).pooler_output
        features = self.clip.text_projection(pooled), self.second(input_ids=tokens).text_embeds
        parts = [head(x).split(SIZES, dim=1) for head, x in zip(self.heads, features, strict=True)]
        losses = [F.cross_entropy(part[i], wanted[:, i]) for part in parts for i in range(len(SIZES))]
        right = torch.stack([part.argmax(1) == wanted[:, i] for i, part in enumerate(parts[0])])
        return {"loss": 2 * torch.stack(losses).mean(), "right": right.all(0).float().mean()}


def train(context: TrainingContext) -> None:
    """Train both towers on endless captions; save them and their tokenizers in ``out/pipeline`` and ``out/clip``.

    From saved ones only the embeddings of the later words are learnt: what was trained on the towers stays valid, bit
    for bit.
    """
    recipe, out = context.recipe, context.out
    rng = Random(context.start("text"))
    tokenizer = world_tokenizer(recipe)
    towers = build(recipe, tokenizer)
    schedule = Schedule(minutes=recipe.minutes["text"], rate=1e-3, average=0.995)
    if context.from_saved:
        load_weights(towers.clip, out / "clip")
        load_weights(towers.second, out / "pipeline" / "text_encoder_2")
        towers.learn_only_later_words(tokenizer.eos_token_id + 1)
        schedule = dataclasses.replace(schedule, rate=4e-3, weight_decay=0.0)  # decay would change the other rows

    def batch(progress: float) -> tuple[Tensor, Tensor]:
        captions = [world.caption(world.sample(rng), rng) for _ in range(recipe.text_batch)]
        texts = [caption.text for caption in captions]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        wanted = torch.tensor([said(caption.named) for caption in captions])
        return tokens.to(context.device), wanted.to(context.device)

    fit("text", towers, batch, schedule, context)
    save_clip(towers.clip, tokenizer, recipe, out / "clip")
    pipeline = out / "pipeline"
    save_half(CLIPTextModel.from_pretrained(out / "clip"), pipeline / "text_encoder")
    save_half(towers.second, pipeline / "text_encoder_2")
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(pipeline / name)


def save_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, recipe: Recipe, folder: Path) -> None:
    """Save a CLIP with its tokenizer and a preprocessor that keeps the whole image."""
    save_half(clip, folder)
    size = recipe.image_size
    CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)
