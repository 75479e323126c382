"""The recipe of the miniature in sizes that train in seconds."""

from pathlib import Path

from menagerie.training.context import TrainingContext
from menagerie.training.recipe import Recipe

TINY = ["image_size=32", "n_renders=40", "latent_channels=2", "vae_channels=4,8,8", "vae_layers=1", "vae_batch=4",
        "text_widths=32,64", "text_depth=2", "text_batch=8", "vision_width=32", "vision_depth=1", "vision_patch=8",
        "clip_batch=8", "dino_width=32", "dino_depth=1", "dino_patch=8", "dino_prototypes=16", "dino_batch=4",
        "dinov1_batch=4", "reader_size=32", "reader_channels=8,16,16,16", "reader_batch=4",
        "unet_channels=8,16,32", "unet_batch=4", "controlnet_batch=4", "ip_adapter_batch=4", "n_trajectories=8",
        "few_steps_batch=4", "few_steps_rank=2"]  # fmt: skip


def tiny_context(work: Path, out: Path, *, minutes: float = 0.0, from_saved: bool = False, **sizes) -> TrainingContext:
    """What a stage is given, in tiny."""
    recipe = Recipe().with_words(TINY).replace(**sizes)
    work.mkdir(parents=True, exist_ok=True)
    recipe = recipe.replace(minutes=dict.fromkeys(recipe.minutes, minutes))
    return TrainingContext(recipe, work, out, from_saved=from_saved)
