"""The feature extractor: a ``Dinov2Model`` that learns to see without labels, by self-distillation.

DINO (arXiv 2104.14294): a student sees large and small crops of an image and predicts what a slowly moving
average of itself, the teacher, says of the large ones; iBOT (arXiv 2111.07832): it also predicts the teacher's
patches where its own are masked. The augmentations leave hue alone, since colour is identity in this world.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from menagerie.training.data import renders
from menagerie.training.loop import fit, seed_at
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights, save_half
from menagerie.training.text import MEAN, STD
from menagerie.training.vae import as_tensor

GLOBALS, LOCALS = 2, 4  # large and small crops per image
MASKED = 0.3  # share of patches hidden from the student
SWAPPED = 0.75  # share of views whose surroundings are another image's
SPREAD = 0.2  # weight of the crowding loss


def build(recipe: Recipe) -> Dinov2Model:
    """Build the vision transformer untrained."""
    return Dinov2Model(
        Dinov2Config(
            hidden_size=recipe.dino_width, num_hidden_layers=recipe.dino_depth,
            num_attention_heads=recipe.dino_width // 32, image_size=recipe.image_size,
            patch_size=recipe.patch_size, mlp_ratio=4, use_mask_token=True,
        )
    )  # fmt: skip


class ProjectionHead(nn.Module):
    """DINO's projection head: a small MLP, then cosine similarity to ``prototypes`` learned directions."""

    def __init__(self, width: int, prototypes: int, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, bottleneck))
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (..., D) to scores (..., prototypes)."""
        return F.normalize(self.mlp(x), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


class DinoNetwork(nn.Module):
    """Backbone with one head for the whole image and one for its patches."""

    def __init__(self, backbone: Dinov2Model, prototypes: int) -> None:
        super().__init__()
        width = backbone.config.hidden_size
        self.backbone, self.whole, self.patch = (
            backbone,
            ProjectionHead(width, prototypes),
            ProjectionHead(width, prototypes),
        )

    def forward(self, pixels: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Class token (B, D) and patch tokens (B, P, D)."""
        hidden = self.backbone(pixels, bool_masked_pos=masked).last_hidden_state
        return hidden[:, 0], hidden[:, 1:]


def crops(pixels: Tensor, size: int, low: float, high: float, reach: float = 1.0) -> Tensor:
    """One random crop per image of ``low`` to ``high`` of its area, possibly mirrored, resized to ``size``.

    Its middle lies anywhere from the image's middle (``reach`` 0) to where the crop meets the border (1).
    """
    n = len(pixels)
    area = torch.empty(n, device=pixels.device).uniform_(low, high)
    ratio = torch.empty_like(area).uniform_(-0.25, 0.25).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = torch.where(torch.rand_like(area) < 0.5, -1.0, 1.0)
    theta = pixels.new_zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2] = reach * (1 - width) * torch.empty_like(area).uniform_(-1, 1)
    theta[:, 1, 2] = reach * (1 - height) * torch.empty_like(area).uniform_(-1, 1)
    grid = F.affine_grid(theta, (n, 3, size, size), align_corners=False)
    cropped = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return cropped + 0.03 * torch.randn_like(cropped)


def other_surroundings(pixels: Tensor) -> Tensor:
    """Most of the images (B, 3, H, W) get the surroundings of another one, outside a soft disc in the middle.

    What an image is of tends to stand in its middle; that much is assumed, and no label is used. Which other one
    is drawn anew at every call, so that two views share no borrowed scene. The style, and the scene of the
    images left alone, are still to be seen.
    """
    n, _, height, width = pixels.shape
    y = torch.linspace(-1, 1, height, device=pixels.device)[:, None]
    x = torch.linspace(-1, 1, width, device=pixels.device)[None, :]
    radius = torch.empty(n, 1, 1, 1, device=pixels.device).uniform_(0.6, 1.0)
    radius[torch.rand(n, device=pixels.device) >= SWAPPED] = 9.0  # beyond the corners: left as it is
    inside = torch.sigmoid((radius - (x**2 + y**2).sqrt()) * 12)  # (B, 1, H, W)
    return inside * pixels + (1 - inside) * pixels.roll(int(torch.randint(1, max(n, 2), ())), 0)


def other_medium(pixels: Tensor) -> Tensor:
    """Images (B, 3, H, W) as if on paper or out of focus: some fade towards white, some are blurred.

    Hues stay. An image's medium is no part of what it is of, and this says so without a label.
    """
    n = len(pixels)
    fade = 0.5 * torch.rand(n, 1, 1, 1, device=pixels.device) * (torch.rand(n, 1, 1, 1, device=pixels.device) < 0.4)
    faded = pixels + fade * (1 - pixels)
    blurred = F.avg_pool2d(F.pad(faded, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return torch.where(torch.rand(n, 1, 1, 1, device=pixels.device) < 0.3, blurred, faded)


class Distillation:
    """The teacher, its centres, and the loss that the student minimises."""

    def __init__(self, student: DinoNetwork, *, momentum: float = 0.99) -> None:
        self.student, self.momentum = student, momentum
        self.teacher = copy.deepcopy(student).eval().requires_grad_(False)
        device = next(student.parameters()).device
        prototypes = len(student.whole.prototypes)
        self.centre, self.patch_centre = (torch.zeros(prototypes, device=device) for _ in range(2))
        self.centres = {"centre": self.centre, "patch_centre": self.patch_centre}  # moved in place only

    def update(self, step: int, progress: float) -> None:
        """Move the teacher towards the student; the momentum rises to 1 as the training ends."""
        momentum = 1 - (1 - self.momentum) * (1 - 0.9 * progress)
        for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - momentum)

    def _targets(self, scores: Tensor, centre: Tensor, progress: float) -> Tensor:
        temperature = 0.04 + 0.03 * min(1.0, progress * 4)
        target = F.softmax((scores - centre) / temperature, dim=-1)
        centre.lerp_(scores.flatten(0, -2).mean(0), 0.1)
        return target

    def loss(self, pixels: Tensor, size: int, progress: float) -> dict[str, Tensor]:
        """Cross-entropies of student and teacher over crops, and over masked patches."""
        large = torch.cat([crops(other_medium(other_surroundings(pixels)), size, 0.4, 1.0) for _ in range(GLOBALS)])
        small = torch.cat([crops(other_medium(pixels), size // 2, 0.1, 0.4, reach=0.6) for _ in range(LOCALS)])
        patches = (size // self.student.backbone.config.patch_size) ** 2
        masked = torch.rand(len(large), patches, device=large.device) < MASKED
        with torch.no_grad():
            whole, tokens = self.teacher(large)
            target = self._targets(self.teacher.whole(whole), self.centre, progress).chunk(GLOBALS)
            patch_target = self._targets(self.teacher.patch(tokens[masked]), self.patch_centre, progress)
        seen, seen_tokens = self.student(large, masked)
        seen_small, _ = self.student(small)
        views = [*self.student.whole(seen).chunk(GLOBALS), *self.student.whole(seen_small).chunk(LOCALS)]
        pairs = [(t, v) for i, t in enumerate(target) for j, v in enumerate(views) if i != j]
        whole_loss = torch.stack([_cross_entropy(t, v) for t, v in pairs]).mean()
        patch_loss = _cross_entropy(patch_target, self.student.patch(seen_tokens[masked]))
        spread = sum(crowding(part) for part in seen.chunk(GLOBALS))
        used = target[0].mean(0)
        return {
            "loss": whole_loss + 0.5 * patch_loss + SPREAD * spread,
            "crowding": spread.detach(),
            "patches": patch_loss.detach(),
            "prototypes": torch.exp(-(used * (used + 1e-9).log()).sum()),
        }


def crowding(features: Tensor) -> Tensor:
    """How close each feature (B, D) of a batch lies to its nearest other: KoLeo, as in DINOv2 (arXiv 2304.07193).

    Spreading the features out makes room for what varies little between images, such as the character.
    """
    unit = F.normalize(features, dim=-1)
    distances = torch.cdist(unit, unit) + 9 * torch.eye(len(unit), device=unit.device)
    return -(distances.min(dim=1).values + 1e-6).log().mean()


def _cross_entropy(target: Tensor, scores: Tensor) -> Tensor:
    return -(target * F.log_softmax(scores / 0.1, dim=-1)).sum(-1).mean()


def train(recipe: Recipe, work: Path, out: Path, device: str, *, from_saved: bool = False) -> None:
    """Train the extractor and save the teacher's backbone with its preprocessor as ``out/dinov2``."""
    _, images, _ = renders(work, recipe.n_renders, recipe.image_size)
    seed = seed_at(recipe.seed, "dino", work)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    student = DinoNetwork(build(recipe), recipe.dino_prototypes).to(device)
    if from_saved:
        load_weights(student.backbone, out / "dinov2")
    distillation = Distillation(student)
    if (checkpoint := work / "dino.pt").exists():  # the running average stands in for the teacher
        distillation.teacher.load_state_dict(torch.load(checkpoint, weights_only=True, map_location=device)["average"])

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        chosen = np.sort(rng.integers(len(images), size=recipe.dino_batch))
        return distillation.loss(as_tensor(images[chosen]).to(device), recipe.image_size, progress)

    best = fit("dino", student, loss, minutes=recipe.minutes["dino"], work=work, rate=7e-4, decay=0.998,
               weight_decay=0.04, after_step=distillation.update, also=distillation.centres)  # fmt: skip
    save(best.backbone, recipe, out)


def save(backbone: Dinov2Model, recipe: Recipe, out: Path) -> None:
    """Save the backbone and a preprocessor that keeps the whole image."""
    save_half(backbone, out / "dinov2")
    size = recipe.image_size
    BitImageProcessorPil(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size},
        image_mean=[MEAN] * 3, image_std=[STD] * 3,
    ).save_pretrained(out / "dinov2")  # fmt: skip
