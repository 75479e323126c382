"""What a character is good for (section 4.4 of the paper): stories, local edits, poses. One small module each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps.gallery import SamplingRequest

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models

__all__ = ["EditError", "request", "usual_settings", "with_settings"]


class EditError(ValueError):
    """An edit that cannot be done: the message says what was expected and what came."""


def usual_settings(models: Models) -> Settings:
    """Return the settings of the preset that models go with."""
    return Settings.preset(Settings.preset_for(models.name))


def request(models: Models, prompt: str, character: Character | None, sampling: dict[str, Any]) -> SamplingRequest:
    """Return what to sample: seed 0 and the usual settings, where `sampling` names no others."""
    if unknown := set(sampling) - {"seeds", "settings", "strength", "context", "negative"}:
        known = "seeds, settings (of Settings), strength, context or negative"
        raise SettingsError(f"{min(unknown)}: expected {known}, got {min(unknown)!r}.")
    usual = {"seeds": (0,), "settings": usual_settings(models), "character": character}
    return SamplingRequest(prompt, **{**usual, **sampling})


def with_settings(images: list[Image.Image], request: SamplingRequest, **more: Any) -> list[Image.Image]:
    """Write into each image's `.info` how it was made: prompt, seed, settings, strength, and more as JSON."""
    for image, seed in zip(images, request.seeds, strict=True):
        image.info |= {"prompt": request.full_prompt, "seed": str(seed), "strength": str(request.strength)}
        image.info["settings"] = request.settings.model_dump_json()
        image.info |= {name: value if isinstance(value, str) else json.dumps(value) for name, value in more.items()}
    return images
