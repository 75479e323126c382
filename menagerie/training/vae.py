"""The autoencoder: images to small latents and back, in stock ``AutoencoderKL``.

Left to itself, an autoencoder fills its latents with what looks like noise, and a diffusion model learns noise
slowly. Here the first three channels are held to the image itself, made small, so that they are as smooth as
images are; the other channels carry the details that are missing. In the end all channels are centred and the
details made fainter than the small image: noise drowns them first, so a sampler draws them last.
"""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor, nn
from torch.nn import functional as F

from menagerie.training.context import TrainingContext
from menagerie.training.data import ImageStore, as_tensor, renders_of
from menagerie.training.loop import Losses, Schedule, fit
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights, save_half

ANCHOR = 1.5  # pixels in [-1, 1] times this have a spread of about one
FAINT = 0.4  # spread of the detail channels in the end, beside 1 of the small image
DETAIL = 4e-6  # weight of the divergence from a normal distribution: the price of a detail


def as_images(pixels: Tensor) -> np.ndarray:
    """Turn floats (B, 3, H, W) in [-1, 1] into uint8 images (B, H, W, 3)."""
    pixels = pixels.clamp(-1, 1).add(1).mul(127.5).round().byte()
    return pixels.permute(0, 2, 3, 1).cpu().numpy()


def build(recipe: Recipe) -> AutoencoderKL:
    """Build the autoencoder untrained: factor 2 ** (levels - 1), no attention, wide normalisation groups.

    The posterior starts narrow (log-variance -6). With the default (0) the noise drowns the signal at first and
    the decoder sits at the mean colour for hundreds of steps.
    """
    levels = len(recipe.vae_channels)
    vae = AutoencoderKL(
        block_out_channels=recipe.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=recipe.latent_channels,
        layers_per_block=recipe.vae_layers,
        norm_num_groups=2,
        mid_block_add_attention=False,
        sample_size=recipe.image_size,
        force_upcast=False,
    )
    nn.init.constant_(vae.quant_conv.bias[recipe.latent_channels :], -6.0)
    return vae


def reconstruction_loss(wanted: Tensor, got: Tensor) -> Tensor:
    """Squared error for the flat colours, absolute error on pixels and on edges for crispness."""
    difference = got - wanted
    across = difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()
    return 4 * difference.square().mean() + 0.5 * difference.abs().mean() + 0.5 * across


def anchor_loss(pixels: Tensor, latents: Tensor) -> Tensor:
    """Squared distance of the first three latent channels from the image, made as small as they are."""
    small = F.adaptive_avg_pool2d(pixels, latents.shape[-2:])
    n = min(3, latents.shape[1])
    return F.mse_loss(latents[:, :n], ANCHOR * small[:, :n])


@torch.no_grad()
def rescale(vae: AutoencoderKL, latents: Tensor) -> None:
    """Centre the latents and set their spread, 1 for the small image and ``FAINT`` for details, within ``vae``.

    Only the two 1 x 1 convolutions next to the latents change, one undoing the other, so that every image is
    decoded as before. ``latents`` (N, C, h, w) are a sample, unscaled.
    """
    channels = latents.shape[1]
    spread = torch.tensor([1.0] * min(3, channels) + [FAINT] * max(0, channels - 3))
    mean, factor = latents.mean((0, 2, 3)), spread / latents.std((0, 2, 3))
    mean, factor = (x.to(vae.quant_conv.weight) for x in (mean, factor))
    after, before = vae.quant_conv, vae.post_quant_conv
    before.bias += before.weight[:, :, 0, 0] @ mean
    before.weight /= factor[None, :, None, None]
    after.weight[:channels] *= factor[:, None, None, None]
    after.bias[:channels] = (after.bias[:channels] - mean) * factor
    after.bias[channels:] += 2 * factor.log()


class Reconstruction(nn.Module):
    """An autoencoder and the loss that it minimises."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, pixels: Tensor) -> Losses:
        """How far images (B, 3, H, W) come back from their latents, what the latents cost, and the squared error."""
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        posterior = DiagonalGaussianDistribution(self.vae.encode(pixels).latent_dist.parameters.float())
        decoded = self.vae.decode(posterior.sample()).sample.float()
        error = reconstruction_loss(pixels, decoded) + anchor_loss(pixels, posterior.mean)
        return {"loss": error + DETAIL * posterior.kl().mean(), "mse": F.mse_loss(decoded, pixels) / 4}


def train(context: TrainingContext) -> None:
    """Train the autoencoder, bring its latents to the spread that the UNet expects, save it to ``out/pipeline/vae``.

    From a saved one only the decoder learns on: the latents, and the UNet that was made for them, stay valid.
    """
    recipe, folder = context.recipe, context.out / "pipeline" / "vae"
    context.start("vae")
    data = renders_of(context)
    images = ImageStore(data.images, context.device)
    vae = build(recipe).to(memory_format=torch.channels_last)
    if context.from_saved:
        load_weights(vae, folder)
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    draw = context.indices(len(images), recipe.vae_batch)
    rate = 1e-3 if context.from_saved else 2e-3
    schedule = Schedule(minutes=recipe.minutes["vae"], rate=rate, average=0.998, weight_decay=0.0)
    fit("vae", Reconstruction(vae), lambda progress: (images[draw()],), schedule, context)
    if not context.from_saved:
        rescale(vae, encode(vae, data.images[:1000], context.device))
    vae.register_to_config(scaling_factor=1.0)
    save_half(vae, folder)


def in_chunks(images: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    """Views (``size`` or fewer, H, W, 3) of images (N, H, W, 3): as many at a time as take long enough to tell of."""
    return [images[start : start + size] for start in range(0, len(images), size)]


@torch.no_grad()
def encode(vae: AutoencoderKL, images: np.ndarray, device: str, *, batch: int = 64) -> Tensor:
    """Encode uint8 images (N, H, W, 3) to posterior means (N, C, h, w), unscaled, on the CPU."""
    parts = [
        vae.encode(as_tensor(images[i : i + batch]).to(device)).latent_dist.mean.cpu()
        for i in range(0, len(images), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, device: str, *, batch: int = 64) -> np.ndarray:
    """Decode unscaled latents (N, C, h, w) to uint8 images (N, H, W, 3)."""
    parts = [as_images(vae.decode(part.to(device)).sample) for part in latents.split(batch)]
    return np.concatenate(parts)
