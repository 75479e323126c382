"""Views of images, from which an extractor learns without labels; and the heads that it learns with.

The augmentations leave hue alone, since colour is identity in this world.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ProjectionHead(nn.Module):
    """DINO's projection head: a small MLP, then cosine similarity to ``prototypes`` learned directions."""

    def __init__(self, width: int, prototypes: int, bottleneck: int = 64) -> None:
        super().__init__()
        self.mlp = projection(width, bottleneck)
        self.prototypes = nn.Parameter(torch.randn(prototypes, bottleneck))

    def forward(self, x: Tensor) -> Tensor:
        """Map features (..., D) to scores (..., prototypes)."""
        return F.normalize(self.mlp(x), dim=-1) @ F.normalize(self.prototypes, dim=-1).T


def projection(width: int, bottleneck: int = 64) -> nn.Sequential:
    """A small MLP from features to what is compared."""
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, bottleneck))


def cross_entropy(target: Tensor, scores: Tensor) -> Tensor:
    """Of a student's scores (..., K), at temperature 0.1, against a teacher's shares (..., K)."""
    return -(target * F.log_softmax(scores.float() / 0.1, dim=-1)).sum(-1).mean()


def spread(features: Tensor) -> Tensor:
    """How far unit features (B, D) differ over a batch: 0 where all are the same, 1 where they fill the sphere."""
    return features.std(0).square().sum().sqrt()


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


def other_surroundings(pixels: Tensor, share: float) -> Tensor:
    """A share of the images (B, 3, H, W) get the surroundings of another one, outside a soft disc in the middle.

    What an image is of tends to stand in its middle; that much is assumed, and no label is used. Which other one
    is drawn anew at every call, so that two views share no borrowed scene. The style, and the scene of the
    images left alone, are still to be seen.
    """
    n, _, height, width = pixels.shape
    y = torch.linspace(-1, 1, height, device=pixels.device)[:, None]
    x = torch.linspace(-1, 1, width, device=pixels.device)[None, :]
    radius = torch.empty(n, 1, 1, 1, device=pixels.device).uniform_(0.6, 1.0)
    alone = torch.rand_like(radius) >= share
    radius = radius.masked_fill(alone, 9.0)  # beyond the corners: left as it is
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
