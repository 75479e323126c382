"""A LoRA that draws in four steps without guidance what the UNet draws in sixteen with it.

Trajectory distillation: the teacher's deterministic sampler is run once for every caption, and its states at the four
times of the short sampler are kept. The student learns, from each of them, the one Euler step that leads to the next
(compare progressive distillation, arXiv 2202.00512, and for few-step LoRAs LCM-LoRA, arXiv 2311.05556).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor, nn
from transformers import CLIPTokenizer

from menagerie.training.context import TrainingContext
from menagerie.training.data import captions, renders_of, save_array
from menagerie.training.loop import Losses, Schedule, fit, with_progress
from menagerie.training.unet import NOISE, TextEncoders

TIMES = (999, 749, 499, 249)  # of diffusers' Euler sampler with "trailing" spacing in four steps
STRIDE = 4  # steps of the teacher for one of the student
GUIDANCE = 3.0  # the kit's, which the student learns to do without
OWN = 0.5  # share of batches, in the second half of the budget, that begin from the student's own states
PART = 500  # trajectories to a file
LEARNING = (
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
)  # fmt: skip


def conditions(texts: tuple[Tensor, Tensor], size: int) -> dict[str, object]:
    """The UNet's keywords for texts (B, length, width) and (B, pooled)."""
    time_ids = torch.tensor([[size, size, 0, 0, size, size]], device=texts[0].device).expand(len(texts[0]), -1)
    added = {"text_embeds": texts[1], "time_ids": time_ids}
    return {"encoder_hidden_states": texts[0], "added_cond_kwargs": added}


@torch.no_grad()
def trajectory(unet: UNet2DConditionModel, noise: Tensor, texts: tuple[Tensor, Tensor], size: int) -> Tensor:
    """The teacher's states at `TIMES` and in the end: noise (B, C, h, w) -> (B, 5, C, h, w)."""
    scheduler = DPMSolverMultistepScheduler(**NOISE)
    scheduler.set_timesteps(len(TIMES) * STRIDE, device=noise.device)
    both = conditions(tuple(torch.cat([torch.zeros_like(text), text]) for text in texts), size)
    latents, kept = noise, [noise]
    for i, t in enumerate(scheduler.timesteps, 1):
        without, with_text = unet(torch.cat([latents] * 2), t, **both).sample.chunk(2)
        latents = scheduler.step(without + GUIDANCE * (with_text - without), t, latents).prev_sample
        if i % STRIDE == 0:
            kept.append(latents)
    return torch.stack(kept, 1)


def trajectories(context: TrainingContext, unet: UNet2DConditionModel, texts: TextEncoders, heard: Tensor) -> Tensor:
    """States (N, 5, C, h, w) float16 of one trajectory for each caption (N, length); cached for this UNet."""
    weights = context.out / "pipeline" / "unet" / "diffusion_pytorch_model.safetensors"
    folder = context.work / f"trajectories_{hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}_{len(heard)}"
    folder.mkdir(parents=True, exist_ok=True)
    shape = (unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
    batch = context.recipe.few_steps_batch

    def part(start: int) -> Tensor:
        file = folder / f"{start:06d}.npy"
        if not file.exists():
            generator = torch.Generator().manual_seed(context.recipe.seed + start)
            tokens = heard[start : start + PART].long()
            noise = torch.randn((len(tokens), *shape), generator=generator).to(context.device)
            pairs = zip(noise.split(batch), tokens.split(batch), strict=True)
            found = [trajectory(unet, some, texts(words), context.recipe.image_size) for some, words in pairs]
            save_array(file, torch.cat(found).half().cpu().numpy())
        return torch.from_numpy(np.load(file))

    starts = range(0, len(heard), PART)
    return torch.cat(list(with_progress("trajectories", map(part, starts), len(starts))))


class Student(nn.Module):
    """A UNet with the LoRA, its Euler step, and the loss that it minimises."""

    def __init__(self, unet: UNet2DConditionModel, size: int) -> None:
        super().__init__()
        self.unet, self.size = unet, size
        kept = DDIMScheduler(**NOISE).alphas_cumprod[list(TIMES)]
        self.register_buffer("signal", torch.cat([kept.sqrt(), torch.ones(1)]), persistent=False)
        self.register_buffer("noise", torch.cat([(1 - kept).sqrt(), torch.zeros(1)]), persistent=False)

    def share(self, i: int) -> Tensor:
        """How much of the predicted image step i adds to the state."""
        return self.signal[i + 1] - self.noise[i + 1] * self.signal[i] / self.noise[i]

    def step(self, state: Tensor, i: int, texts: tuple[Tensor, Tensor]) -> Tensor:
        """Euler's step from `TIMES[i]` to the next: states (B, C, h, w), text (B, length, width) and (B, pooled)."""
        state = state.contiguous(memory_format=torch.channels_last)
        velocity = self.unet(state, TIMES[i], **conditions(texts, self.size)).sample.float()
        image = self.signal[i] * state - self.noise[i] * velocity
        return self.noise[i + 1] / self.noise[i] * state + self.share(i) * image

    def forward(self, states: Tensor, texts: tuple[Tensor, Tensor], i: int, own: bool) -> Losses:
        """Error of step i, from the teacher's state (B, 5, C, h, w) or from where the student's own steps led."""
        state = states[:, 0 if own else i]
        with torch.no_grad():
            for before in range(i if own else 0):
                state = self.step(state, before, texts)
        error = (self.step(state, i, texts) - states[:, i + 1]).square().mean()
        return {"loss": error / self.share(i), f"step{i}": error}


def train(context: TrainingContext) -> None:
    """Distil the UNet of ``out/pipeline``; save the LoRA to ``out/few_steps``."""
    recipe, folder, device = context.recipe, context.out / "pipeline", context.device
    data = renders_of(context)
    texts = TextEncoders(folder, device)
    heard = captions(context, data.truths, CLIPTokenizer.from_pretrained(folder / "tokenizer"))
    heard = heard.transpose(0, 1).flatten(0, 1)[: recipe.n_trajectories]
    context.start("few_steps")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    unet.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)
    states = trajectories(context, unet, texts, heard).to(device)
    unet.add_adapter(LoraConfig(r=recipe.few_steps_rank, lora_alpha=recipe.few_steps_rank, target_modules=LEARNING))
    objective = Student(unet, recipe.image_size)
    draw = context.indices(len(states), recipe.few_steps_batch)

    def batch(progress: float) -> tuple[Tensor, tuple[Tensor, Tensor], int, bool]:
        chosen, (i, chance) = draw(), torch.rand(2).tolist()
        own = progress > 0.5 and chance < OWN
        return states[chosen].float(), texts(heard[chosen].long()), int(i * len(TIMES)), own

    schedule = Schedule(minutes=recipe.minutes["few_steps"], rate=1e-3, average=0.998, weight_decay=0.0)
    fit("few_steps", objective, batch, schedule, context)
    save(unet, context.out / "few_steps")


def save(unet: UNet2DConditionModel, folder: Path) -> None:
    """Write the LoRA in half precision, as stock ``load_lora_weights`` reads it."""
    weights = {name: weight.half() for name, weight in get_peft_model_state_dict(unet).items()}
    StableDiffusionXLPipeline.save_lora_weights(folder, unet_lora_layers=weights)
