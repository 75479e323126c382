"""Two text encoders and an image encoder, trained together so that captions and pictures meet: stock ``CLIPModel``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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

from chosen_one_nb.menagerie import world
from chosen_one_nb.menagerie.attributes import SIZES, targets
from chosen_one_nb.menagerie.data import captions, renders
from chosen_one_nb.menagerie.loop import fit, start_from
from chosen_one_nb.menagerie.recipe import Recipe
from chosen_one_nb.menagerie.tokenizer import word_tokenizer
from chosen_one_nb.menagerie.vae import as_tensor

MEAN, STD = 0.5, 0.5  # so that the pixels the model sees lie in [-1, 1]


def text_config(recipe: Recipe, tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    """A text tower that ends at the tokenizer's own end mark, so that pooling finds it."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=4 * width,
        num_hidden_layers=recipe.text_depth, num_attention_heads=width // 32,
        max_position_embeddings=recipe.text_length, projection_dim=width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def build(recipe: Recipe, tokenizer: CLIPTokenizer) -> Pair:
    """Build the towers untrained."""
    first, second = (text_config(recipe, tokenizer, width) for width in recipe.text_widths)
    vision = CLIPVisionConfig(
        hidden_size=recipe.vision_width, intermediate_size=4 * recipe.vision_width,
        num_hidden_layers=recipe.vision_depth, num_attention_heads=recipe.vision_width // 32,
        image_size=recipe.image_size, patch_size=recipe.patch_size, projection_dim=first.hidden_size,
    )  # fmt: skip
    clip = CLIPModel(CLIPConfig(text_config=first, vision_config=vision, projection_dim=first.hidden_size))
    return Pair(clip, CLIPTextModelWithProjection(second))


class Pair(nn.Module):
    """The CLIP that ships and a second text tower of another width, trained on the same pictures.

    A linear read-out of every attribute from the picture's features is trained along: a caption names only a
    part of the truth, and the read-out makes the picture's side learn the rest too. It is thrown away.
    """

    def __init__(self, first: CLIPModel, second: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.first, self.second = first, second
        seen = first.config.vision_config.hidden_size
        self.to_second = nn.Linear(seen, second.config.projection_dim, bias=False)
        self.read_out = nn.Linear(seen, sum(SIZES))

    def loss(self, tokens: Tensor, pixels: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Contrastive losses of both text towers, plus the read-out's; and the share of captions found."""
        seen = self.first.vision_model(pixel_values=pixels).pooler_output
        text = self.first.text_model(input_ids=tokens).pooler_output
        scale = self.first.logit_scale.exp()
        logits = scale * _cosines(self.first.text_projection(text), self.first.visual_projection(seen))
        others = scale * _cosines(self.second(input_ids=tokens).text_embeds, self.to_second(seen))
        parts = self.read_out(seen).split(SIZES, dim=1)
        read = torch.stack([F.cross_entropy(part, truth[:, i]) for i, part in enumerate(parts)]).mean()
        pairs = torch.arange(len(logits), device=logits.device)
        return {"loss": _symmetric(logits, pairs) + _symmetric(others, pairs) + 2 * read, "read": read,
                "right": (logits.argmax(0) == pairs).float().mean()}  # fmt: skip


def _cosines(texts: Tensor, images: Tensor) -> Tensor:
    return F.normalize(texts, dim=-1) @ F.normalize(images, dim=-1).T


def _symmetric(logits: Tensor, pairs: Tensor) -> Tensor:
    return F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)


def train(recipe: Recipe, work: Path, out: Path, device: str, *, from_saved: bool = False) -> None:
    """Train both CLIPs; save the first as ``out/clip`` and both text towers and tokenizers in ``out/pipeline``."""
    truths, images = renders(work, recipe.n_renders, recipe.image_size)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    tokenizer = word_tokenizer(world.vocabulary(), recipe.text_length)
    pair = build(recipe, tokenizer).to(device)
    if from_saved:
        start_from(pair.first, out / "clip")
        start_from(pair.second, out / "pipeline" / "text_encoder_2")
    wanted, texts = targets(truths), captions(work, truths, tokenizer, recipe.n_captions)

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        chosen = np.sort(rng.choice(len(images), size=recipe.clip_batch, replace=False))
        tokens = texts[chosen, rng.integers(recipe.n_captions, size=len(chosen))]
        pixels = as_tensor(images[chosen]).to(device)
        return pair.loss(torch.from_numpy(tokens).long().to(device), pixels, wanted[chosen].to(device))

    best = fit("clip", pair, loss, minutes=recipe.minutes["clip"], work=work, rate=1e-3, decay=0.995)
    save(best, tokenizer, recipe, out)


def save(pair: Pair, tokenizer: CLIPTokenizer, recipe: Recipe, out: Path) -> None:
    """Save the CLIP for prompt similarity, and the two text towers where SDXL's pipeline looks for them."""
    pair.half().first.save_pretrained(out / "clip")
    size = recipe.image_size
    CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(out / "clip")  # fmt: skip
    tokenizer.save_pretrained(out / "clip")
    CLIPTextModel.from_pretrained(out / "clip", dtype=torch.float16).save_pretrained(out / "pipeline" / "text_encoder")
    pair.second.save_pretrained(out / "pipeline" / "text_encoder_2")
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(out / "pipeline" / name)
