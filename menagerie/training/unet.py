"""The generator: a text-conditioned ``UNet2DConditionModel`` on the autoencoder's latents, as in SDXL."""

from __future__ import annotations

import hashlib
import os
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
from menagerie.training.data import captions, renders
from menagerie.training.loop import fit, seed_at, with_progress
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


def cached_latents(folder: Path, images: np.ndarray, work: Path, device: str) -> Tensor:
    """Scaled latents (N, C, h, w) of all renders; encoded once for each state of the autoencoder."""
    weights = folder / "diffusion_pytorch_model.safetensors"
    file = work / f"latents_{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}_{len(images)}.npy"
    if not file.exists():
        vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32).eval().to(device)
        mine = file.with_suffix(f".{os.getpid()}.npy")  # another process may be encoding too
        chunks = in_chunks(images)
        parts = with_progress("latents", (encode(vae, chunk, device) for chunk in chunks), len(chunks))
        np.save(mine, (torch.cat(list(parts)) * vae.config.scaling_factor).numpy())
        mine.replace(file)
    return torch.from_numpy(np.load(file))


def figure_shares(masks: np.ndarray, side: int) -> Tensor:
    """How much of each latent pixel is of the figure: masks (N, H, W) bool -> shares (N, 1, side, side)."""
    factor = masks.shape[-1] // side
    shares = masks.reshape(len(masks), side, factor, side, factor).mean((2, 4), dtype=np.float32)
    return torch.from_numpy(shares)[:, None]


def train(recipe: Recipe, work: Path, out: Path, device: str, *, from_saved: bool = False) -> None:
    """Train the UNet on cached latents and fresh captions; complete ``out/pipeline``."""
    folder = out / "pipeline"
    truths, images, masks = renders(work, recipe.n_renders, recipe.image_size)
    latents = cached_latents(folder / "vae", images, work, device)
    texts = TextEncoders(folder, device)
    captions_of = captions(work, truths, CLIPTokenizer.from_pretrained(folder / "tokenizer"), recipe.n_captions)
    seed = seed_at(recipe.seed, "unet", work)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    width = texts.first.config.hidden_size + texts.second.config.hidden_size
    unet = build(recipe, width, texts.second.config.projection_dim)
    if from_saved:
        load_weights(unet, folder / "unet")
    model = NamingUNet(unet).to(device, memory_format=torch.channels_last)
    wanted = targets(truths)
    weights = 1 + FIGURE * figure_shares(masks, latents.shape[-1])
    noise_scheduler = DDIMScheduler(**NOISE)
    size = torch.tensor([recipe.image_size, recipe.image_size, 0, 0, recipe.image_size, recipe.image_size])

    def loss(step: int, progress: float) -> dict[str, Tensor]:
        chosen = rng.integers(len(latents), size=recipe.unet_batch)
        tokens = captions_of[chosen, rng.integers(recipe.n_captions, size=len(chosen))]
        context, pooled = texts(torch.from_numpy(tokens).long().to(device))
        keep = torch.from_numpy(rng.random(len(chosen)) >= UNCONDITIONAL).to(device)
        clean = latents[chosen].to(device)
        noise = torch.randn_like(clean)
        t = (1000 * torch.rand(len(chosen), device=device) ** NOISIER).long()
        noisy = noise_scheduler.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        conditions = {"text_embeds": pooled * keep[:, None], "time_ids": size.expand(len(chosen), -1).to(device)}
        got, logits = model(noisy, t, context * keep[:, None, None], added_cond_kwargs=conditions)
        error = (got - noise_scheduler.get_velocity(clean, noise, t)).square()
        weight = weights[chosen].to(device)
        denoising = (weight * error).mean() / weight.mean()
        asked = wanted[chosen].to(device)
        naming = torch.stack([F.cross_entropy(part, asked[:, i]) for i, part in enumerate(logits)]).mean()
        return {"loss": denoising + NAMING * naming, "denoising": denoising, "naming": naming}

    rate = 6e-4 if from_saved else 1.2e-3  # what is learnt already is not to be shaken
    best = fit("unet", model, loss, minutes=recipe.minutes["unet"], work=work, rate=rate, decay=0.999).unet
    save_half(best, folder / "unet")
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
