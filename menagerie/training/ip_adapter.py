"""IP-Adapter (arXiv 2308.06721): image tokens beside the text's, in stock layout, for the frozen UNet.

Its author's recipe shows the target itself as the reference, and such an adapter copies. Here most references show the
same character in another scene, so that what is worth reading of them is the identity: `reference_pairs` of the recipe.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer, CLIPVisionModelWithProjection

from menagerie import world
from menagerie.training.context import TrainingContext, TrainingError
from menagerie.training.data import CHUNK, as_tensor, captions, one_of_each, renders_of, save_array
from menagerie.training.loop import Losses, Schedule, fit, with_progress
from menagerie.training.unet import FIGURE, NOISE, NOISIER, TextEncoders, cached_latents, figure_shares

TOKENS = 4  # of an image: what stock `load_ip_adapter` expects of a plain adapter
DROPPED = 0.05  # share without the image; as many without the text, and as many without both
NAMELESS = 0.3  # share of captions that say nothing of who is shown
SAID = ("style", "action", "place", "extra", "framing")  # what they say instead, each of it half of the time
FILE = "ip-adapter.safetensors"
OTHER = 4_000_000_000  # seeds of the references' scenes


def left_out(truth: world.Truth) -> bool:
    """Whether no adapter learns from a character: one colour of every kind, an eighth of all, to be scored on."""
    kind, colour = (world.IDENTITY[name].index(truth[name]) for name in ("kind", "colour"))
    return (3 * colour + kind) % 8 == 0


def in_another_scene(truth: world.Truth, number: int, size: int) -> np.ndarray:
    """Render the character of a truth in a scene of its own number: uint8 (size, size, 3)."""
    return world.render(world.new_scene(truth, Random(OTHER + number)), size).image


def _references(start: int, truths: list[world.Truth], size: int) -> np.ndarray:
    return np.stack([in_another_scene(truth, start + i, size) for i, truth in enumerate(truths)])


def image_features(context: TrainingContext, images: np.ndarray, truths: list[world.Truth]) -> Tensor:
    """CLIP's features of every character in another scene, and of its render itself: (n, 2, D), kept in ``work``."""
    folder, n = context.out / "clip", len(images)
    state = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    file = context.work / f"references_{state}_{context.recipe.image_size}_{n}.npy"
    if not file.exists():
        clip = CLIPVisionModelWithProjection.from_pretrained(folder, dtype=torch.float32).eval().to(context.device)

        @torch.no_grad()
        def features(part: np.ndarray) -> np.ndarray:
            return clip(as_tensor(part).to(context.device)).image_embeds.float().cpu().numpy()

        starts = range(0, n, CHUNK)
        with ProcessPoolExecutor(1) as pool:  # draws while the others are looked at
            chunks = [truths[start : start + CHUNK] for start in starts]
            drawn = pool.map(partial(_references, size=images.shape[1]), starts, chunks)
            others = [features(part) for part in with_progress("references", drawn, len(starts))]
        own = [features(images[start : start + CHUNK]) for start in starts]
        save_array(file, np.stack([np.concatenate(others), np.concatenate(own)], axis=1))
    return torch.from_numpy(np.load(file)).to(context.device)


def scene_captions(truths: list[world.Truth], tokenizer: CLIPTokenizer, device: str) -> Tensor:
    """One caption of every render that says nothing of who is shown, as token ids: (n, length)."""
    rng, texts = Random(0), []
    for truth in truths:
        said = {name: truth[name] for name in SAID if rng.random() < 0.5}
        texts.append(world.caption_of(said, rng))
    found = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
    return found.to(device)


def build(unet: UNet2DConditionModel, features: int) -> dict[str, nn.Parameter]:
    """Put an untrained adapter on a UNet, by what its stock loader does; return its weights by their stock names.

    Parameters
    ----------
    unet : UNet2DConditionModel
    features : int
        Width of CLIP's image features.
    """
    width = unet.config.cross_attention_dim
    project, norm = nn.Linear(features, TOKENS * width), nn.LayerNorm(width)
    image = {f"proj.{name}": value.detach() for name, value in project.named_parameters()}
    image |= {f"norm.{name}": value.detach() for name, value in norm.named_parameters()}
    weights = unet.state_dict()
    # As stock: what the text's keys and values begin with is a good start for an image's.
    keys = {
        f"{number}.to_{part}_ip.weight": weights[f"{place}.to_{part}.weight"].clone()
        for number, place in _places(unet).items() for part in "kv"
    }  # fmt: skip
    unet._load_ip_adapter_weights([{"image_proj": image, "ip_adapter": keys}], low_cpu_mem_usage=False)
    return adapter_weights(unet)


def _places(unet: UNet2DConditionModel) -> dict[int, str]:
    """The cross-attentions of a UNet by the numbers that stock files give them: odd ones, in the processors' order."""
    names = [name.removesuffix(".processor") for name in unet.attn_processors if name.endswith("attn2.processor")]
    return {2 * i + 1: name for i, name in enumerate(names)}


def adapter_weights(unet: UNet2DConditionModel) -> dict[str, nn.Parameter]:
    """The weights of the adapter that is on a UNet, by the names of a stock file."""
    (projection,) = unet.encoder_hid_proj.image_projection_layers
    found = {f"image_proj.{name.replace('image_embeds', 'proj')}": p for name, p in projection.named_parameters()}
    for number, place in _places(unet).items():
        processor = unet.attn_processors[f"{place}.processor"]
        for part in "kv":
            found[f"ip_adapter.{number}.to_{part}_ip.weight"] = getattr(processor, f"to_{part}_ip")[0].weight
    return found


class Adapted(nn.Module):
    """The weights of an adapter, and the loss that they minimise on a UNet that is otherwise frozen."""

    def __init__(self, unet: UNet2DConditionModel, adapter: dict[str, nn.Parameter], size: int) -> None:
        super().__init__()
        self.adapter = nn.ParameterList(adapter.values())
        self.scheduler, self.frozen = DDIMScheduler(**NOISE), (unet,)  # no part: a checkpoint is of what learns
        self.register_buffer("time_ids", torch.tensor([size, size, 0, 0, size, size]), persistent=False)

    def forward(self, clean: Tensor, texts: tuple[Tensor, Tensor], weight: Tensor, images: Tensor) -> Losses:
        """Velocity error at random noise levels; see `unet.Denoising`. CLIP's features (B, D) of the references."""
        n, device = len(clean), clean.device
        dropped = torch.rand(n, device=device)
        image = (dropped >= 2 * DROPPED).float()
        text = ((dropped < DROPPED) | (dropped >= 3 * DROPPED)).float()
        noise = torch.randn_like(clean)
        t = (1000 * torch.rand(n, device=device) ** NOISIER).long().clamp(max=999)
        noisy = self.scheduler.add_noise(clean, noise, t).contiguous(memory_format=torch.channels_last)
        added = {
            "text_embeds": texts[1] * text[:, None], "time_ids": self.time_ids.expand(n, -1),
            "image_embeds": [(images * image[:, None])[:, None]],
        }  # fmt: skip
        got = self.frozen[0](noisy, t, texts[0] * text[:, None, None], added_cond_kwargs=added).sample
        error = (got.float() - self.scheduler.get_velocity(clean, noise, t)).square()
        return {"loss": (weight * error).mean() / weight.mean()}


def train(context: TrainingContext) -> None:
    """Train an adapter beside the UNet of ``out/pipeline``, for images as ``out/clip`` sees them: ``out/ip_adapter``.

    ``pipeline.load_ip_adapter(out, subfolder="ip_adapter", weight_name="ip-adapter.safetensors",
    image_encoder_folder="./clip")`` loads it.
    """
    recipe, folder, device = context.recipe, context.out / "pipeline", context.device
    data = renders_of(context)
    latents = cached_latents(context, data.images).to(device)
    texts, tokenizer = TextEncoders(folder, device), CLIPTokenizer.from_pretrained(folder / "tokenizer")
    heard, nameless = captions(context, data.truths, tokenizer), scene_captions(data.truths, tokenizer, device)
    features = image_features(context, data.images, data.truths)
    context.start("ip_adapter")
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", torch_dtype=torch.float32)
    unet.eval().to(device, memory_format=torch.channels_last)
    adapter = build(unet, features.shape[-1])
    unet.requires_grad_(False)
    if context.from_saved:
        _load(adapter, context.out / "ip_adapter" / FILE)
    objective = Adapted(unet, {name: p.requires_grad_(True) for name, p in adapter.items()}, recipe.image_size)
    weights = (1 + FIGURE * figure_shares(data.masks, latents.shape[-1])).to(device)
    learnt = torch.tensor([i for i, truth in enumerate(data.truths) if not left_out(truth)], device=device)
    draw = context.indices(len(learnt), recipe.ip_adapter_batch)

    def batch(progress: float) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor, Tensor]:
        chosen = learnt[draw()]
        same = (100 * torch.rand(len(chosen), device=device) >= recipe.reference_pairs).long()
        without = torch.rand(len(chosen), device=device)[:, None] < NAMELESS
        tokens = torch.where(without, nameless[chosen], one_of_each(heard[chosen]))
        return latents[chosen], texts(tokens), weights[chosen], features[chosen, same]

    schedule = Schedule(minutes=recipe.minutes["ip_adapter"], rate=1e-3, average=0.998)
    fit("ip_adapter", objective, batch, schedule, context)
    (context.out / "ip_adapter").mkdir(exist_ok=True)
    save_file({name: p.detach().half().cpu() for name, p in adapter.items()}, context.out / "ip_adapter" / FILE)


def _load(adapter: dict[str, nn.Parameter], file: Path) -> None:
    """Give an adapter the weights of a file of its sizes."""
    saved = load_file(file)
    if {name: p.shape for name, p in adapter.items()} != {name: weight.shape for name, weight in saved.items()}:
        raise TrainingError(f"{file}: expected an adapter of this UNet and CLIP, got one of other sizes; move it away.")
    with torch.no_grad():
        for name, weight in saved.items():
            adapter[name].copy_(weight)
