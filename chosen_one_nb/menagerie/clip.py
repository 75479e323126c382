"""Two text encoders and an image encoder, trained together so that captions and pictures meet: stock ``CLIPModel``."""

from __future__ import annotations

from pathlib import Path
from random import Random

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
from chosen_one_nb.menagerie.data import renders
from chosen_one_nb.menagerie.loop import fit
from chosen_one_nb.menagerie.recipe import Recipe
from chosen_one_nb.menagerie.tokenizer import word_tokenizer
from chosen_one_nb.menagerie.vae import as_tensor

MEAN, STD = 0.5, 0.5  # so that the pixels the model sees lie in [-1, 1]


def build(recipe: Recipe, tokenizer: CLIPTokenizer, text_width: int) -> CLIPModel:
    """Build one CLIP untrained; its text tower ends at the tokenizer's own end mark (so pooling works)."""
    text = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=text_width, intermediate_size=4 * text_width,
        num_hidden_layers=recipe.text_depth, num_attention_heads=text_width // 32,
        max_position_embeddings=recipe.text_length, projection_dim=text_width,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=recipe.vision_width, intermediate_size=4 * recipe.vision_width,
        num_hidden_layers=recipe.vision_depth, num_attention_heads=recipe.vision_width // 32,
        image_size=recipe.image_size, patch_size=recipe.patch_size, projection_dim=text_width,
    )  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=text_width))


class Pair(nn.Module):
    """The CLIP that ships and a second one of another width, trained on the same batches."""

    def __init__(self, first: CLIPModel, second: CLIPModel) -> None:
        super().__init__()
        self.first, self.second = first, second

    def loss(self, tokens: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Symmetric contrastive loss of both, and the share of captions found among the batch by the first."""
        total, right = pixels.new_zeros(()), pixels.new_zeros(())
        for clip in (self.second, self.first):
            logits = clip(input_ids=tokens, pixel_values=pixels).logits_per_text
            truth = torch.arange(len(logits), device=logits.device)
            total = total + F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)
            right = (logits.argmax(0) == truth).float().mean()
        return total, right


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids (B, text_length), padded and cut as the pipeline does it."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids


def train(recipe: Recipe, work: Path, out: Path, device: str) -> None:
    """Train both CLIPs; save the first as ``out/clip`` and both text towers and tokenizers in ``out/pipeline``."""
    truths, images = renders(work, recipe.n_renders, recipe.image_size)
    torch.manual_seed(recipe.seed)
    rng, words = np.random.default_rng(recipe.seed), Random(recipe.seed)
    tokenizer = word_tokenizer(world.vocabulary(), recipe.text_length)
    pair = Pair(*(build(recipe, tokenizer, width) for width in recipe.text_widths)).to(device)

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        chosen = np.sort(rng.choice(len(images), size=recipe.clip_batch, replace=False))
        texts = [world.caption(truths[i], words).text for i in chosen]
        total, right = pair.loss(tokenize(tokenizer, texts).to(device), as_tensor(images[chosen]).to(device))
        return {"loss": total, "right": right}

    best = fit("clip", pair, loss, minutes=recipe.minutes["clip"], work=work, rate=1e-3, decay=0.998)
    save(best, tokenizer, recipe, out)


def save(pair: Pair, tokenizer: CLIPTokenizer, recipe: Recipe, out: Path) -> None:
    """Save the first CLIP for prompt similarity and the two text towers where SDXL's pipeline looks for them."""
    pair.half().first.save_pretrained(out / "clip")
    size = recipe.image_size
    CLIPImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(out / "clip")  # fmt: skip
    tokenizer.save_pretrained(out / "clip")
    first = CLIPTextModel(pair.first.config.text_config)
    first.load_state_dict(_tower(pair.first, first))
    second = CLIPTextModelWithProjection(pair.second.config.text_config)
    second.load_state_dict(_tower(pair.second, second))
    for name, tower in {"text_encoder": first, "text_encoder_2": second}.items():
        tower.half().save_pretrained(out / "pipeline" / name)
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.save_pretrained(out / "pipeline" / name)


def _tower(clip: CLIPModel, tower: nn.Module) -> dict[str, Tensor]:
    """The weights of ``tower`` found in ``clip``, whichever of the two nests its text model deeper."""
    state = clip.state_dict()
    names = {key.removeprefix("text_model."): key for key in state if key.startswith("text_model.")}
    names["text_projection.weight"] = "text_projection.weight"
    return {key: state[names[key.removeprefix("text_model.")]] for key in tower.state_dict()}
