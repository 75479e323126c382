"""The extractor's twin: a ``ViTModel`` that learns by self-distillation alone, as DINO does (arXiv 2104.14294).

A student sees large and small crops of an image and predicts what a slowly moving average of itself, the teacher, says
of the large ones. It is there to be compared with; the method sees with the other one.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import ViTConfig, ViTModel

from menagerie.training.context import TrainingContext, TrainingError
from menagerie.training.dino import follow, train_extractor
from menagerie.training.loop import Losses
from menagerie.training.recipe import Recipe
from menagerie.training.views import ProjectionHead, crops, cross_entropy, other_medium, other_surroundings

GLOBALS, LOCALS = 2, 4  # large and small crops per image
SWAPPED = 0.75  # share of large views whose surroundings are another image's
FEW = 4.0  # prototypes that the teacher's batch means use at least, unless it has collapsed


def build(recipe: Recipe) -> ViTModel:
    """Build the vision transformer untrained."""
    config = ViTConfig(
        hidden_size=recipe.dino_width, num_hidden_layers=recipe.dino_depth,
        num_attention_heads=recipe.dino_width // 32, intermediate_size=4 * recipe.dino_width,
        image_size=recipe.image_size, patch_size=recipe.dino_patch,
    )  # fmt: skip
    return ViTModel(config, add_pooling_layer=False)


class TokenNetwork(nn.Module):
    """A backbone with a head on its class token."""

    def __init__(self, backbone: ViTModel, prototypes: int) -> None:
        super().__init__()
        self.backbone, self.head = backbone, ProjectionHead(backbone.config.hidden_size, prototypes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Scores (B, prototypes) of images of any size."""
        return self.head(self.backbone(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 0])


class Distillation(nn.Module):
    """The student, its teacher with a centre, and the loss that the student minimises."""

    def __init__(self, backbone: ViTModel, prototypes: int) -> None:
        super().__init__()
        self.student = TokenNetwork(backbone, prototypes)
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.register_buffer("centre", torch.zeros(prototypes))
        self.temperature = 0.04

    def update(self, progress: float) -> None:
        """Move the teacher towards the student; its momentum and its temperature rise."""
        follow(self.teacher, self.student, progress)
        self.temperature = 0.04 + 0.03 * min(1.0, progress * 4)

    @torch.no_grad()
    def _targets(self, large: Tensor) -> Tensor:
        """What the teacher makes of the large crops: shares (B, prototypes), centred and sharpened."""
        scores = self.teacher(large).float()
        target = F.softmax((scores - self.centre) / self.temperature, dim=-1)
        self.centre.lerp_(scores.mean(0), 0.1)
        return target

    def forward(self, pixels: Tensor) -> Losses:
        """Cross-entropy of student and teacher over pairs of different crops of images (B, 3, H, W)."""
        size = pixels.shape[-1]
        large = torch.cat(
            [crops(other_medium(other_surroundings(pixels, SWAPPED)), size, 0.4, 1.0) for _ in range(GLOBALS)]
        )
        small = torch.cat([crops(other_medium(pixels), size // 2, 0.1, 0.4, reach=0.6) for _ in range(LOCALS)])
        target = self._targets(large).chunk(GLOBALS)
        views = [*self.student(large).chunk(GLOBALS), *self.student(small).chunk(LOCALS)]
        pairs = [(t, v) for i, t in enumerate(target) for j, v in enumerate(views) if i != j]
        used = target[0].mean(0)
        return {
            "loss": torch.stack([cross_entropy(t, v) for t, v in pairs]).mean(),
            "prototypes": torch.exp(-(used * (used + 1e-9).log()).sum()),
            "certain": target[0].max(1).values.mean(),
        }


def check_prototypes(values: dict[str, float]) -> None:
    """Raise `TrainingError` where the teacher says the same of every image: one prototype, or all of them evenly."""
    if values["prototypes"] < FEW or values["certain"] < 0.01:
        raise TrainingError(
            f"the teacher has collapsed ({values['prototypes']:.1f} prototypes used, {values['certain']:.3f} certain): "
            "move the checkpoint away and begin again with another seed or a larger batch (--set)."
        )


def train(context: TrainingContext) -> None:
    """Train the twin and save it with its preprocessor as ``out/dinov1``."""
    train_extractor("dinov1", "dinov1", context, context.recipe.dinov1_batch, build, Distillation, check_prototypes)
