"""The feature extractor: a ``Dinov2Model`` that learns to see without labels.

Two views of an image find each other among those of a batch (NT-Xent, arXiv 2002.05709), beside iBOT's masked patches
(arXiv 2111.07832), whose targets a slowly moving average of the network, the teacher, gives. Nine views of ten borrow
their surroundings from another image, so that only the figure is common to both. In this small world self-distillation
of the class token, DINOv2's own objective, drifts to uniform targets; contrast does not, and learns to ignore places.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from menagerie.training.context import TrainingContext, TrainingError
from menagerie.training.data import ImageStore, renders_of
from menagerie.training.loop import Losses, Schedule, fit
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights, save_half
from menagerie.training.text import MEAN, STD
from menagerie.training.views import (
    ProjectionHead,
    crops,
    cross_entropy,
    other_medium,
    other_surroundings,
    projection,
    spread,
)

TEMPERATURE = 0.15  # of the contrast
MASKED = 0.25  # share of patches hidden from the student
SWAPPED = 0.9  # share of views whose surroundings are another image's
PATCHES = 0.3  # weight of the masked patches
MOMENTUM = 0.99  # of the teacher at first; it rises to 0.999
COLLAPSED = 0.1  # below this spread of the compared features, all images look alike


def build(recipe: Recipe) -> Dinov2Model:
    """Build the vision transformer untrained."""
    return Dinov2Model(
        Dinov2Config(
            hidden_size=recipe.dino_width, num_hidden_layers=recipe.dino_depth,
            num_attention_heads=recipe.dino_width // 32, image_size=recipe.image_size,
            patch_size=recipe.dino_patch, mlp_ratio=4, use_mask_token=True,
        )
    )  # fmt: skip


class PatchNetwork(nn.Module):
    """A backbone with a head on its patch tokens."""

    def __init__(self, backbone: Dinov2Model, prototypes: int) -> None:
        super().__init__()
        self.backbone, self.patch = backbone, ProjectionHead(backbone.config.hidden_size, prototypes)

    def forward(self, pixels: Tensor, chosen: Tensor, hide: bool) -> tuple[Tensor, Tensor]:
        """Class tokens (B, D); scores (B, M, prototypes) of the patches of numbers (B, M), hidden from it or not."""
        patches = (pixels.shape[-1] // self.backbone.config.patch_size) ** 2
        mask = torch.zeros(len(pixels), patches, dtype=torch.bool, device=pixels.device).scatter(1, chosen, True)
        hidden = self.backbone(pixels, bool_masked_pos=mask if hide else None).last_hidden_state
        tokens = hidden[:, 1:].gather(1, chosen[:, :, None].expand(-1, -1, hidden.shape[-1]))
        return hidden[:, 0], self.patch(tokens)


class Contrast(nn.Module):
    """The student with its teacher, and the loss that it minimises."""

    def __init__(self, backbone: Dinov2Model, prototypes: int) -> None:
        super().__init__()
        self.student = PatchNetwork(backbone, prototypes)
        self.project = projection(backbone.config.hidden_size)
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.register_buffer("centre", torch.zeros(prototypes))

    def update(self, progress: float) -> None:
        """Move the teacher towards the student."""
        follow(self.teacher, self.student, progress)

    @torch.no_grad()
    def _targets(self, views: Tensor, chosen: Tensor) -> Tensor:
        """What the teacher, which sees all, makes of the patches: shares (B, M, prototypes)."""
        scores = self.teacher(views, chosen, hide=False)[1].float()
        target = F.softmax((scores - self.centre) / 0.04, dim=-1)
        self.centre.lerp_(scores.mean((0, 1)), 0.1)
        return target

    def forward(self, pixels: Tensor) -> Losses:
        """Contrast of two views of each image (B, 3, H, W), cross-entropy over masked patches, and how all is going."""
        size = pixels.shape[-1]
        views = torch.cat(
            [crops(other_medium(other_surroundings(pixels, SWAPPED)), size, 0.4, 1.0, reach=0.8) for _ in range(2)]
        )
        patches = (size // self.student.backbone.config.patch_size) ** 2
        order = torch.rand(len(views), patches, device=pixels.device).argsort(dim=1)
        chosen = order[:, : max(1, round(MASKED * patches))]
        seen, scores = self.student(views, chosen, hide=True)
        features = F.normalize(self.project(seen).float(), dim=-1)
        contrast, right = nt_xent(features)
        patch = cross_entropy(self._targets(views, chosen), scores)
        return {"loss": contrast + PATCHES * patch, "contrast": contrast, "right": right, "patches": patch,
                "spread": spread(features)}  # fmt: skip


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, progress: float) -> None:
    """Move a teacher towards its student; the momentum rises as the training ends."""
    share = (1 - MOMENTUM) * (1 - 0.9 * progress)
    torch._foreach_lerp_(list(teacher.parameters()), list(student.parameters()), share)


def nt_xent(features: Tensor) -> tuple[Tensor, Tensor]:
    """Find of 2 B unit features, B views and B others of the same images, each one's partner: loss, share found."""
    n = len(features)
    logits = features @ features.T / TEMPERATURE - 1e9 * torch.eye(n, device=features.device)
    partner = torch.arange(n, device=features.device).roll(n // 2)
    return F.cross_entropy(logits, partner), (logits.argmax(1) == partner).float().mean()


def check_spread(values: dict[str, float]) -> None:
    """Raise `TrainingError` where all images have come to look alike."""
    if values["spread"] < COLLAPSED:
        raise TrainingError(
            f"the features have collapsed (spread {values['spread']:.3f}, expected above {COLLAPSED}): move the "
            "checkpoint away and begin again with another seed or a larger batch (--set)."
        )


def train(context: TrainingContext) -> None:
    """Train the extractor and save it with its preprocessor as ``out/dinov2``."""
    train_extractor("dino", "dinov2", context, context.recipe.dino_batch, build, Contrast, check_spread)


def train_extractor(
    stage: str,
    name: str,
    context: TrainingContext,
    batch: int,
    build: Callable[[Recipe], nn.Module],
    objective_of: Callable[[Any, int], Any],
    check: Callable[[dict[str, float]], None],
) -> None:
    """Train a backbone by an objective, and save it as ``out/name`` with a preprocessor that keeps the whole image."""
    recipe = context.recipe
    context.start(stage)
    images = ImageStore(renders_of(context).images, context.device)
    backbone = build(recipe)
    if context.from_saved:
        load_weights(backbone, context.out / name)
    objective = objective_of(backbone, recipe.dino_prototypes)
    draw = context.indices(len(images), batch)
    schedule = Schedule(minutes=recipe.minutes[stage], rate=7e-4, average=0.998, weight_decay=0.04)
    fit(stage, objective, lambda progress: (images[draw()],), schedule, context,
        after_step=objective.update, check=check)  # fmt: skip
    save_half(backbone, context.out / name)
    size = recipe.image_size
    BitImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(context.out / name)  # fmt: skip
