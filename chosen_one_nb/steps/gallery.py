"""What to sample, and what came out: requests, seeds and galleries. Nothing here needs torch."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from chosen_one_nb.settings import Settings, SettingsError, is_share, is_text

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.character import Character

__all__ = ["Gallery", "SamplingRequest", "broken_images", "image_seeds", "probe_seeds", "tell_broken"]

PROBE = 2**31 - 1  # the "iteration" of the seeds that every iteration is compared by


@dataclass(frozen=True)
class SamplingRequest:
    """Which images to sample: one per seed.

    Parameters
    ----------
    prompt : str
        Used as it is; `character.prompt()` gives one that holds the character's token.
    seeds : ndarray of int64, shape (N,)
        Such as `image_seeds(settings, iteration)`; any sequence of int is taken.
    settings : Settings
        Sampler, steps, guidance, image and batch size.
    character : Character, optional
        Applied to the pipeline while sampling; None samples from the base model.
    strength : float in [0, 1]
        Of the character.
    context : str
        More of the prompt, such as "at the beach", that counts `settings.context_weight` times: the text's embeddings
        are moved that far from those of the prompt alone towards those of both together, and past them if above 1.
    negative : str, optional
        What to steer away from; None is the model's own unconditional input.
    character_digest : str
        Checksum of the character's files, by which images on disk are recognised; sampling does not use it.
    """

    prompt: str
    seeds: np.ndarray
    settings: Settings
    character: Character | None = None
    strength: float = 1.0
    context: str = ""
    negative: str | None = None
    character_digest: str = ""

    def __post_init__(self) -> None:
        seeds = list(self.seeds) if isinstance(self.seeds, Iterable) else [self.seeds]
        whole = [isinstance(s, int | np.integer) and not isinstance(s, bool) and 0 <= s < 2**63 for s in seeds]
        checks = {
            "seeds": (whole and all(whole), "whole numbers from 0, at least one"),
            "settings": (isinstance(self.settings, Settings), "Settings, such as Settings(sampling_steps=20)"),
            "strength": (is_share(self.strength), "a number from 0 to 1"),
            "context": (is_text(self.context), "text"),
            "negative": (self.negative is None or is_text(self.negative), "text, or None"),
        }
        for name, (fits, expected) in checks.items():
            if not fits:
                raise SettingsError(f"{name}: expected {expected}, got {reprlib.repr(getattr(self, name))}.")
        object.__setattr__(self, "seeds", np.asarray(seeds, dtype=np.int64))

    @property
    def full_prompt(self) -> str:
        """The prompt with its context."""
        return f"{self.prompt} {self.context}".strip()


@dataclass(frozen=True)
class Gallery:
    """N images of one prompt.

    Attributes
    ----------
    images : list of PIL.Image, length N
    latents : ndarray of shape (N, C, h, w), float32
        What the images were decoded from, scaled as the UNet sees them; refine trains on these.
    seeds : ndarray of shape (N,), int64
    prompt : str
    """

    images: list[Image.Image]
    latents: np.ndarray
    seeds: np.ndarray
    prompt: str

    @property
    def broken(self) -> dict[int, str]:
        """The images that hold NaN or infinity; see `broken_images`."""
        return broken_images(self.images)


def broken_images(images: Iterable[Image.Image]) -> dict[int, str]:
    """Return what of an image is NaN or infinite ("latents" or "pixels"), by its index; `decode` found it."""
    return {i: image.info["broken"] for i, image in enumerate(images) if "broken" in image.info}


def tell_broken(broken: Mapping[int, str]) -> str:
    """Say which images are broken, why, and what helps."""
    causes = {
        "latents": "the UNet made them so",
        "pixels": "the VAE made them so, as SDXL's does in half precision",
    }
    found = [
        f"images {', '.join(str(i) for i in broken if broken[i] == what)}: NaN or infinite {what}, {cause}"
        for what, cause in causes.items() if what in broken.values()
    ]  # fmt: skip
    return (
        f"Broken {'; '.join(found)}. Load the models in float32 "
        '(load_models(..., dtype="float32"), in a shell --dtype float32), or lower guidance_scale.'
    )


def image_seeds(settings: Settings, iteration: int, *, n: int | None = None) -> np.ndarray:
    """Return the seeds of an iteration's images: distinct, and always the same for the same settings.seed.

    Parameters
    ----------
    settings : Settings
        `seed` and `n_images` count.
    iteration : int
        From 0; each has seeds of its own.
    n : int, optional
        How many; None is `settings.n_images`. Asking for more leaves the first ones as they are.

    Returns
    -------
    ndarray of shape (n,), int64, in [0, 2**32)
    """
    n = settings.n_images if n is None else n
    # Hashed, so that runs with neighbouring seeds share no images; some more than n, because two may be equal.
    words = np.random.SeedSequence([settings.seed, iteration]).generate_state(n + 16, np.uint32)
    _, first = np.unique(words, return_index=True)
    return words[np.sort(first)][:n].astype(np.int64)


def probe_seeds(settings: Settings, *, n: int = 8) -> np.ndarray:
    """Return n seeds that belong to no iteration, to compare iterations by the same images."""
    return image_seeds(settings, PROBE, n=n)
