"""The generator: a text-conditioned ``UNet2DConditionModel`` on the autoencoder's latents, as in SDXL."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from menagerie.labels import LABELS, SIZES, targets
from menagerie.training.context import TrainingContext
from menagerie.training.data import captions, one_of_each, renders_of, save_array
from menagerie.training.loop import Losses, Schedule, fit, with_progress
from menagerie.training.recipe import Recipe
from menagerie.training.saving import load_weights, save_half
from menagerie.training.vae import encode, in_chunks

TIME_WIDTH = 8  # numbers per micro-condition (original size, crop, target size: six of them)
NOISIER = 0.65  # below 1: more of the noisy steps, where the caption decides and shapes are made
NAMING = 0.2  # weight of naming the image's attributes, beside the denoising loss
FIGURE = 2.0  # more weight of the figure in the denoising loss: eyes and patterns are few of an image's pixels
UNCONDITIONAL = 0.1  # share of captions dropped, for classifier-free guidance
NOISE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip


def build(recipe: Recipe, context: int, pooled: int) -> UNet2DConditionModel:
    """Build the UNet untrained; ``context`` is both text widths together, ``pooled`` the second one's."""
    channels = recipe.unet_channels
    factor = 2 ** (len(recipe.vae_channels) - 1)
    return UNet2DConditionModel(
        sample_size=recipe.image_size // factor, in_channels=recipe.latent_channels,
        out_channels=recipe.latent_channels, block_out_channels=channels, layers_per_block=1,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * (len(channels) - 1),
        up_block_types=("CrossAttnUpBlock2D",) * (len(channels) - 1) + ("UpBlock2D",),
        attention_head_dim=[max(1, c // 32) for c in channels], norm_num_groups=8,
        cross_attention_dim=context, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH, projection_class_embeddings_input_dim=pooled + 6 * TIME_WIDTH,
    )  # fmt: skip


class TextEncoders:
    """The two frozen text encoders, giving the UNet its conditions exactly as SDXL's pipeline does."""

    def __init__(self, folder: Path, device: str) -> None:
        self.first = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
        self.second = CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2", torch_dtype=torch.float32)
        self.first.eval().requires_grad_(False).to(device)
        self.second.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Token ids (B, length) -> context (B, length, both widths), of the layer before the last; pooled text."""
        first = self.first(tokens, output_hidden_states=True)
        second = self.second(tokens, output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second.text_embeds


class NamingUNet(nn.Module):
    """A UNet that also says, while it trains, what will be in the image.

    A linear layer on the pooled output of the middle block and of every upper block but the last names each
    attribute of the truth. A scarf is a handful of pixels, so the denoising loss alone teaches the word slowly;
    naming it teaches the blocks to read the caption. Compare REPA (arXiv 2410.06940), which holds a generator's
    inner features to those of an image encoder. Only the UNet is saved.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        channels = unet.config.block_out_channels[::-1]
        width = channels[0] + sum(channels[:-1])
        self.names = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(LABELS)))

    def forward(self, *inputs: Tensor, **keys: object) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The UNet's output (B, C, h, w), and for each attribute the logits of its values (B, values)."""
        seen: list[Tensor] = []
        blocks = [self.unet.mid_block, *self.unet.up_blocks[:-1]]
        hooks = [block.register_forward_hook(lambda *call: seen.append(call[-1].mean((2, 3)))) for block in blocks]
        try:
            sample = self.unet(*inputs, **keys).sample
        finally:
            for hook in hooks:
                hook.remove()
        return sample, self.names(torch.cat(seen, dim=1)).split(SIZES, dim=1)


def cached_latents(context: TrainingContext, images: np.ndarray) -> Tensor:
    """Scaled latents (N, C, h, w) of all renders; encoded once for each state of the autoencoder."""
    folder = context.out / "pipeline" / "vae"
    weights = folder / "diffusion_pytorch_model.safetensors"
    cache = context.work / f"latents_{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}_{len(images)}"
    cache.mkdir(parents=True, exist_ok=True)
    vae = AutoencoderKL.from_pretrained(folder).eval().to(context.device, memory_format=torch.channels_last)
    chunks = in_chunks(images)

    def part(number: int) -> Tensor:
        file = cache / f"{number:05d}.npy"
        if not file.exists():
            save_array(file, (encode(vae, chunks[number], context.device) * vae.config.scaling_factor).numpy())
        return torch.from_numpy(np.load(file))

    return torch.cat(list(with_progress("latents", map(part, range(len(chunks))), len(chunks))))


def figure_shares(masks: np.ndarray, side: int) -> Tensor:
    """How much of each latent pixel is of the figure: masks (N, H, W) bool -> shares (N, 1, side, side)."""
    factor = masks.shape[-1] // side
    parts = [part.reshape(len(part), side, factor, side, factor).mean((2, 4), dtype=np.float32)
             for part in in_chunks(masks)]  # fmt: skip
    return torch.from_numpy(np.concatenate(parts))[:, None]


class Denoising(nn.Module):
    """A UNet that names, and the loss that it minimises."""

    def __init__(self, unet: UNet2DConditionModel, size: int) -> None:
        super().__init__()
        self.model, self.scheduler = NamingUNet(unet), DDIMScheduler(**NOISE)
        self.register_buffer("time_ids", torch.tensor([size, size, 0, 0, size, size]), persistent=False)

    def forward(self, clean: Tensor, texts: tuple[Tensor, Tensor], weight: Tensor, wanted: Tensor) -> Losses:
        """Velocity error at random noise levels, and the cross-entropy of naming what is there.

        Latents (B, C, h, w); context and pooled text, some of them dropped; how much each latent pixel counts
        (B, 1, h, w); truth (B, attributes).
        """
        n, device = len(clean), clean.device
        keep = (torch.rand(n, device=device) >= UNCONDITIONAL).float()
        noise = torch.randn_like(clean)
        t = (1000 * torch.rand(n, device=device) ** NOISIER).long().clamp(max=999)
        noisy = self.scheduler.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        conditions = {"text_embeds": texts[1] * keep[:, None], "time_ids": self.time_ids.expand(n, -1)}
        got, logits = self.model(noisy, t, texts[0] * keep[:, None, None], added_cond_kwargs=conditions)
        error = (got.float() - self.scheduler.get_velocity(clean, noise, t)).square()
        denoising = (weight * error).mean() / weight.mean()
        naming = torch.stack([F.cross_entropy(part.float(), wanted[:, i]) for i, part in enumerate(logits)]).mean()
        return {"loss": denoising + NAMING * naming, "denoising": denoising, "naming": naming}


def train(context: TrainingContext) -> None:
    """Train the UNet on cached latents and captions; complete ``out/pipeline``."""
    recipe, folder, device = context.recipe, context.out / "pipeline", context.device
    data = renders_of(context)
    latents = cached_latents(context, data.images).to(device)
    texts = TextEncoders(folder, device)
    heard = captions(context, data.truths, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    context.start("unet")
    width = texts.first.config.hidden_size + texts.second.config.hidden_size
    unet = build(recipe, width, texts.second.config.projection_dim)
    if context.from_saved:
        load_weights(unet, folder / "unet")
    objective = Denoising(unet, recipe.image_size).to(memory_format=torch.channels_last)
    wanted = targets(data.truths).to(device)
    weights = (1 + FIGURE * figure_shares(data.masks, latents.shape[-1])).to(device)
    draw = context.indices(len(latents), recipe.unet_batch)

    def batch(progress: float) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
        chosen = draw()
        return latents[chosen], texts(one_of_each(heard[chosen])), weights[chosen], wanted[chosen]

    rate = 6e-4 if context.from_saved else 1.2e-3  # what is learnt already is not to be shaken
    fit("unet", objective, batch, Schedule(minutes=recipe.minutes["unet"], rate=rate, average=0.999), context)
    save_half(unet, folder / "unet")
    assemble(folder)


def assemble(folder: Path) -> None:
    """Write the scheduler and the pipeline's index beside the trained parts."""
    DPMSolverMultistepScheduler(**NOISE).save_pretrained(folder / "scheduler")
    StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(folder / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(folder / "tokenizer_2"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=DPMSolverMultistepScheduler.from_pretrained(folder / "scheduler"),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    ).save_config(folder)
