"""Pose control: a stock ``ControlNetModel`` beside the frozen UNet, from the joints of renders drawn as limbs."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTokenizer

from chosen_one_nb.applications.skeleton import draw_limbs
from menagerie import world
from menagerie.training.context import TrainingContext
from menagerie.training.data import captions, one_of_each, renders_of
from menagerie.training.loop import Losses, Schedule, fit
from menagerie.training.saving import load_weights, save_half
from menagerie.training.unet import FIGURE, NOISE, NOISIER, TextEncoders, cached_latents, figure_shares

EMPTY = 0.2  # share of captions dropped, so that the pose is read from the limbs
DROPPED = 0.05  # share of joints left out
WIDTHS = (1.0, 3.0)  # of limbs, in pixels of 128
HINT_CHANNELS = (8, 16, 48, 96)  # of these as many as the autoencoder has levels: each halves the side, but the first


def build(unet: UNet2DConditionModel, factor: int) -> ControlNetModel:
    """Build a ControlNet that as yet changes nothing, from a UNet whose latents have `factor` pixels a side."""
    channels = HINT_CHANNELS[: factor.bit_length()]
    return ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels)


def hints(joints: np.ndarray, size: int) -> Tensor:
    """Draw the limbs of joints (B, 14, 3), some of them dropped: float (B, 3, size, size) in [0, 1]."""
    points = joints[..., :2].astype(float)  # (B, 14, 2)
    points[((points < 0) | (points > 1)).any(-1)] = np.nan
    points[torch.rand(points.shape[:2]).numpy() < DROPPED] = np.nan
    widths = torch.empty(len(points)).uniform_(*WIDTHS).mul(size / 128).tolist()
    drawn = [np.array(draw_limbs(part, world.LIMBS, size, width)) for part, width in zip(points, widths, strict=True)]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float().div(255)


class Controlled(nn.Module):
    """A ControlNet, and the loss that it minimises beside a frozen UNet."""

    def __init__(self, controlnet: ControlNetModel, unet: UNet2DConditionModel, size: int) -> None:
        super().__init__()
        self.controlnet, self.scheduler = controlnet, DDIMScheduler(**NOISE)
        self.frozen = (unet,)  # no part of the module: a checkpoint is of what learns
        self.register_buffer("time_ids", torch.tensor([size, size, 0, 0, size, size]), persistent=False)

    def forward(self, clean: Tensor, texts: tuple[Tensor, Tensor], weight: Tensor, hint: Tensor) -> Losses:
        """Velocity error at random noise levels; see `unet.Denoising`. Hints (B, 3, H, W) in [0, 1]."""
        n, device = len(clean), clean.device
        keep = (torch.rand(n, device=device) >= EMPTY).float()
        noise = torch.randn_like(clean)
        t = (1000 * torch.rand(n, device=device) ** NOISIER).long().clamp(max=999)
        noisy = self.scheduler.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        context = texts[0] * keep[:, None, None]
        added = {"text_embeds": texts[1] * keep[:, None], "time_ids": self.time_ids.expand(n, -1)}
        down, mid = self.controlnet(noisy, t, context, hint, added_cond_kwargs=added, return_dict=False)
        got = self.frozen[0](
            noisy, t, context, added_cond_kwargs=added, down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
        ).sample  # fmt: skip
        error = (got.float() - self.scheduler.get_velocity(clean, noise, t)).square()
        return {"loss": (weight * error).mean() / weight.mean()}


def train(context: TrainingContext) -> None:
    """Train a ControlNet on the renders' joints beside the UNet of ``out/pipeline``; save it to ``out/controlnet``."""
    recipe, folder, device = context.recipe, context.out / "pipeline", context.device
    data = renders_of(context)
    latents = cached_latents(context, data.images).to(device)
    texts = TextEncoders(folder, device)
    heard = captions(context, data.truths, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    context.start("controlnet")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    size = recipe.image_size
    controlnet = build(unet, size // latents.shape[-1]).requires_grad_(True)
    if context.from_saved:
        load_weights(controlnet, context.out / "controlnet")
    objective = Controlled(controlnet, unet, size).to(memory_format=torch.channels_last)
    weights = (1 + FIGURE * figure_shares(data.masks, latents.shape[-1])).to(device)
    draw = context.indices(len(latents), recipe.controlnet_batch)

    def batch(progress: float) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
        chosen = draw()
        hint = hints(data.joints[chosen.cpu().numpy()], size).to(device, memory_format=torch.channels_last)
        return latents[chosen], texts(one_of_each(heard[chosen])), weights[chosen], hint

    schedule = Schedule(minutes=recipe.minutes["controlnet"], rate=5e-4, average=0.998)
    fit("controlnet", objective, batch, schedule, context)
    save_half(controlnet, context.out / "controlnet")
