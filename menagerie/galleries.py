"""Galleries meant to stay sound and galleries meant to collapse, of one prompt after another.

Each is what a run would draw under the settings of its recipe, from a first gallery to the one after refining.
Every gallery lies as one lossless sheet of tiles, to be looked at and to be read back, so that making them goes on
where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Models
from chosen_one_nb.run import store
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.cluster import cluster
from chosen_one_nb.steps.converge import GalleryMeasures, measure
from chosen_one_nb.steps.embed import embed
from chosen_one_nb.steps.gallery import Gallery, SamplingRequest, image_seeds
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.refine import refine
from chosen_one_nb.steps.training_set import TrainingSet

ACROSS = 6  # tiles in a row of a sheet
LIMITS = ("statistic_limit", "prompt_limit", "drift_limit", "variety_floor")
"""The settings of the health check, which no image depends on."""


@dataclass(frozen=True)
class GalleryRecipe:
    """How a gallery is made.

    Attributes
    ----------
    name : str
        Its file's name.
    meant : {"sound", "collapsed"}
        What it is made to be; what it came out as is for the judge to say.
    about : str
        One line for the table.
    learning : tuple of dict
        Settings of each refinement, one after another; empty draws with the base model.
    drawing : dict
        Settings of this gallery and of those it is refined on.
    first : dict
        Settings of the first gallery, which it is compared with and learnt from.
    pick : {"rule", "pair"}
        What a refinement learns from: the cluster that the rule proposes, or the two images nearest each other.
    """

    name: str
    meant: Literal["sound", "collapsed"]
    about: str
    learning: tuple[dict[str, Any], ...] = ()
    drawing: dict[str, Any] = field(default_factory=dict)
    first: dict[str, Any] = field(default_factory=dict)
    pick: Literal["rule", "pair"] = "rule"


def rates(factor: float, steps: int, **more: Any) -> dict[str, Any]:
    """The preset's learning rates times a factor, over so many steps, with other settings if given."""
    s = Settings()
    return more | {
        "lora_learning_rate": factor * s.lora_learning_rate,
        "token_learning_rate": factor * s.token_learning_rate,
        "refine_steps": steps,
    }


STRONG, WILD = {"guidance_scale": 6.0}, {"guidance_scale": 40.0}
NO_FLOOR = {"noise_floor": 0.0}  # all noise levels: above the preset's floor a hundredfold rate seldom breaks anything
RECIPES = (
    GalleryRecipe("other", "sound", "the base model on other seeds"),
    GalleryRecipe("gentle", "sound", "one refinement at a third of the preset's rates", (rates(1 / 3, 60),)),
    GalleryRecipe("refined", "sound", "one refinement at the preset's rates", (rates(1, 60),)),
    GalleryRecipe("twice", "sound", "two refinements at half the preset's rates", (rates(1 / 2, 50),) * 2),
    GalleryRecipe("converged", "sound", "one long refinement at three times the preset's rates", (rates(3, 120),)),
    GalleryRecipe("rate", "collapsed", "300 times the preset's learning rates", (rates(300, 60, **NO_FLOOR),)),
    GalleryRecipe("long", "collapsed", "two hundred times the rates, twice the steps", (rates(200, 120, **NO_FLOOR),)),
    GalleryRecipe("guidance", "collapsed", "the base model at guidance 40", drawing=WILD),
    GalleryRecipe(
        "guided", "collapsed", "three refinements at guidance 6", (rates(2, 50, **NO_FLOOR),) * 3, STRONG, STRONG
    ),
    GalleryRecipe(
        "tiny", "collapsed", "two images only, two hundred times the rates", (rates(200, 80, **NO_FLOOR),), pick="pair"
    ),
)


def gallery_settings(**changes: Any) -> Settings:
    """Small galleries of few steps, so that hundreds of them are affordable on a CPU."""
    small = {"n_images": 24, "sampling_steps": 8, "target_cluster_size": 6, "min_cluster_size": 3}
    return Settings.preset("menagerie", **{**small, "batch_size": 24, "refine_batch_size": 2, **changes})


@dataclass
class GalleryStore:
    """The galleries of one prompt, made when first asked for and kept in a folder.

    Parameters
    ----------
    prompt : str
    models : Models
    settings : Settings
        Of all galleries, but for what a recipe changes.
    folder : Path
        Where their sheets lie.
    """

    prompt: str
    models: Models
    settings: Settings
    folder: Path

    def first(self, recipe: GalleryRecipe) -> list[Image.Image]:
        """Images of the first gallery that belongs to a recipe."""
        return self._kept(self._first_name(recipe), recipe.first, lambda: self._first_gallery(recipe).images)

    def gallery(self, recipe: GalleryRecipe) -> list[Image.Image]:
        """Images of the recipe's gallery."""
        made_by = (recipe.learning, recipe.drawing, recipe.first, recipe.pick)
        return self._kept(recipe.name, made_by, lambda: self._made(recipe))

    def measure(self, images: list[Image.Image]) -> GalleryMeasures:
        """Measure what the health check compares of a gallery."""
        features = embed(self.models, images, self.settings).cls
        similarity = self.models.clip.images(images) @ self.models.clip.texts([self.prompt])[0]
        return measure(images, features, similarity)

    @staticmethod
    def _first_name(recipe: GalleryRecipe) -> str:
        return "-".join(["first", *(f"{name}={value:g}" for name, value in recipe.first.items())])

    def _kept(self, name: str, made_by: Any, make: Callable[[], list[Image.Image]]) -> list[Image.Image]:
        """Read a sheet back if prompt, settings and recipe are still the same; else make it."""
        path = self.folder / f"{name}.png"
        settings = {key: value for key, value in self.settings.model_dump().items() if key not in LIMITS}
        made = store.digest(repr((sorted(settings.items()), made_by)))
        about = {"prompt": self.prompt, "made": made, "models": self.models.fingerprint}
        if path.exists():
            found = store.read_image(path)
            if all(found.info.get(key) == value for key, value in about.items()):
                return tiles(found)
        images = make()
        store.make_folder(self.folder)
        store.write_image(path, sheet(images), {**about, "n": str(len(images))})
        return images

    @cached_property
    def _galleries(self) -> dict[str, Gallery]:
        return {}

    def _first_gallery(self, recipe: GalleryRecipe) -> Gallery:
        """With latents: drawn again after a stop, for its images alone lie on the disk."""
        name = self._first_name(recipe)
        if name not in self._galleries:
            self._galleries[name] = self._draw(0, self.settings.replace(**recipe.first))
        return self._galleries[name]

    def _draw(self, iteration: int, settings: Settings, character: Character | None = None) -> Gallery:
        text = character.prompt() if character else self.prompt
        return generate(self.models, SamplingRequest(text, image_seeds(settings, iteration), settings, character))

    def _made(self, recipe: GalleryRecipe) -> list[Image.Image]:
        settings = self.settings.replace(**recipe.drawing)
        if not recipe.learning:
            return self._draw(1, settings).images
        first, character = self._first_gallery(recipe), None
        gallery = first
        for iteration, learning in enumerate(recipe.learning, start=1):
            chosen = self._chosen(gallery, recipe)
            prior = TrainingSet(self.prompt, first.images, first.latents)
            images = [gallery.images[i] for i in chosen]
            data = TrainingSet(self.prompt, images, gallery.latents[chosen], prior=prior)
            character = refine(self.models, data, settings.replace(**learning), character, seed=iteration)
            gallery = self._draw(iteration, settings, character)
        return gallery.images

    def _chosen(self, gallery: Gallery, recipe: GalleryRecipe) -> np.ndarray:
        features = embed(self.models, gallery.images, self.settings).cls
        if recipe.pick == "pair":
            return nearest_pair(features)
        found = cluster(features, self.settings)
        proposed = found.proposed if found.proposed is not None else int(np.argmax(found.sizes))
        return np.flatnonzero(found.labels == proposed)


def nearest_pair(features: np.ndarray) -> np.ndarray:
    """Indices of the two rows of (N, D) nearest each other, ascending.

    >>> nearest_pair(np.array([[0.0], [5.0], [1.0]])).tolist()
    [0, 2]
    """
    distance = np.linalg.norm(features[:, None] - features[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    return np.sort(np.array(np.unravel_index(distance.argmin(), distance.shape)))


def sheet(images: list[Image.Image]) -> Image.Image:
    """Lay equal square images out in rows of six, without gaps."""
    side, rows = images[0].width, -(-len(images) // ACROSS)
    found = Image.new("RGB", (ACROSS * side, rows * side))
    for i, image in enumerate(images):
        found.paste(image, (i % ACROSS * side, i // ACROSS * side))
    return found


def tiles(found: Image.Image) -> list[Image.Image]:
    """Cut a sheet into its images again."""
    n, side = int(found.info["n"]), found.width // ACROSS
    places: Iterator[tuple[int, int]] = ((i % ACROSS * side, i // ACROSS * side) for i in range(n))
    return [found.crop((x, y, x + side, y + side)) for x, y in places]
