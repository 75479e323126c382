"""The image side of the bundled ``CLIPModel``: an image encoder that learns to meet captions whose encoder is locked.

Locked text (as in LiT, arXiv 2111.07991, the other way round): the text side has learned to read already, and the
pipeline's UNet is trained on it, so only the image's side moves.

Captions teach small things slowly: among a batch's captions an image is found by its kind and place, seldom by its
hat. So each image is also held against captions that name one attribute alone, or a garment with its colour, and
differ only in that.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPModel, CLIPTokenizer

from menagerie import world
from menagerie.labels import SIZES, targets
from menagerie.training.context import TrainingContext
from menagerie.training.data import ImageStore, captions, one_of_each, renders_of
from menagerie.training.loop import Losses, Schedule, fit
from menagerie.training.text import save_clip

SAYINGS = 16  # captions that are averaged for each thing that can be said
ALONE = [[{name: value} for value in values] for name, values in world.ATTRIBUTES.items()
         if name not in world.COLOUR_OF]  # fmt: skip
COLOURED = [
    [{part: value, name: colour} for value in world.ATTRIBUTES[part] for colour in world.ATTRIBUTES[name]
     if (value == "none") == (colour == "none")]
    for name, part in world.COLOUR_OF.items()
]  # fmt: skip
GROUPS = ALONE + COLOURED  # of each group an image's truth holds exactly one
WEIGHTS = {"pattern": 4.0, "second": 2.0}  # of the groups that say it, 1 of others: what is learnt slowest


@torch.no_grad()
def text_features(clip: CLIPModel, tokens: Tensor) -> Tensor:
    """Unit text features (B, D) of token ids (B, length)."""
    return F.normalize(clip.text_projection(clip.text_model(input_ids=tokens).pooler_output), dim=-1)


def sayings(clip: CLIPModel, tokenizer: CLIPTokenizer, rng: Random) -> list[Tensor]:
    """For each group of ``GROUPS`` the mean text features of captions that say just that: (things to say, D)."""
    groups = []
    for group in GROUPS:
        texts = [world.caption_of(said, rng) for said in group for _ in range(SAYINGS)]
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        found = text_features(clip, tokens.to(clip.device)).view(-1, SAYINGS, clip.config.projection_dim)
        groups.append(F.normalize(found.mean(1), dim=-1))
    return groups


def true_sayings(truths: list[dict]) -> Tensor:
    """What of each group is true: indices (N, groups)."""
    return torch.tensor(
        [[next(i for i, said in enumerate(group) if said.items() <= truth.items()) for group in GROUPS]
         for truth in ({name: truth[name] for name in world.ATTRIBUTES} for truth in truths)]
    )  # fmt: skip


class ImageTower(nn.Module):
    """What is trained of a CLIP, and a linear read-out of every attribute of the image.

    A caption names only a part of the truth; the read-out makes the image's side learn the rest too. It is
    thrown away.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.vision, self.projection, self.logit_scale = clip.vision_model, clip.visual_projection, clip.logit_scale
        self.requires_grad_(True)
        self.read_out = nn.Linear(clip.config.vision_config.hidden_size, sum(SIZES))
        self.alone_scale = nn.Parameter(torch.tensor(3.0))
        weights = torch.tensor([max(WEIGHTS.get(name, 1.0) for name in group[0]) for group in GROUPS])
        self.register_buffer("weights", weights / weights.sum())

    def forward(self, pixels: Tensor, texts: Tensor, groups: list[Tensor], said: Tensor, truth: Tensor) -> Losses:
        """Three losses and the share of captions found.

        Contrast against unit text features (B, D) of the images' captions; against ``groups``, what can be ``said``
        (B, groups) of them; and the read-out's cross-entropy against truth (B, attributes).
        """
        seen = self.vision(pixel_values=pixels).pooler_output.float()
        features = F.normalize(self.projection(seen), dim=-1)
        logits = self.logit_scale.exp() * texts @ features.T
        pairs = torch.arange(len(logits), device=logits.device)
        parts = self.read_out(seen).split(SIZES, dim=1)
        read = torch.stack([F.cross_entropy(part, truth[:, i]) for i, part in enumerate(parts)]).mean()
        scores = [self.alone_scale.exp() * features @ group.T for group in groups]
        alone = torch.stack([F.cross_entropy(x, said[:, i]) for i, x in enumerate(scores)]) @ self.weights
        contrast = F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)
        right = (logits.argmax(0) == pairs).float().mean()
        return {"loss": contrast + 2 * read + 2 * alone, "read": read, "alone": alone, "right": right}


def train(context: TrainingContext) -> None:
    """Train the image tower of the CLIP in ``out/clip``, which the text stage saved, and save it there again.

    What lies in the folder is where it starts, so ``from_saved`` makes no difference here.
    """
    recipe, folder = context.recipe, context.out / "clip"
    context.start("clip")
    data = renders_of(context)
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    clip = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(context.device)
    clip.text_model.eval()
    clip.requires_grad_(False)
    tower = ImageTower(clip)
    groups = sayings(clip, tokenizer, Random(recipe.seed))  # the same whenever it goes on, unlike the batches
    wanted, said = (found.to(context.device) for found in (targets(data.truths), true_sayings(data.truths)))
    images, heard = ImageStore(data.images, context.device), captions(context, data.truths, tokenizer)
    draw = context.indices(len(images), recipe.clip_batch)

    def batch(progress: float) -> tuple[Tensor, Tensor, list[Tensor], Tensor, Tensor]:
        chosen = draw()
        return images[chosen], text_features(clip, one_of_each(heard[chosen])), groups, said[chosen], wanted[chosen]

    schedule = Schedule(minutes=recipe.minutes["clip"], rate=7e-4, average=0.998)
    fit("clip", tower, batch, schedule, context)
    save_clip(clip, tokenizer, recipe, folder)
