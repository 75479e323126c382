"""Stories: a character in one scene after the other, several candidates for each, as a page with sentences."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chosen_one_nb import plots, report
from chosen_one_nb.applications import usual_settings, with_settings
from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Models
from chosen_one_nb.settings import Settings, first_error, user_path
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.embed import embed, unit
from chosen_one_nb.steps.gallery import SamplingRequest, image_seeds
from chosen_one_nb.steps.generate import generate
from chosen_one_nb.steps.prompts import check_prompt, in_medium

__all__ = ["StoryPanel", "Scene", "Story", "StoryError", "StoryPlan", "story"]

WIDEST = 3  # panels beside each other in a grid
LETTERS = 14  # in a line below a panel, for each inch of its width


class StoryError(ValueError):
    """A story that cannot be told: the message says what was expected and what came."""


class Scene(BaseModel):
    """One panel.

    Attributes
    ----------
    text : str
        What is added to the character's caption, such as "reading a book".
    caption : str
        What stands below the panel; empty: the text.
    style : str
        A medium such as "a watercolour" instead of the caption's own.
    seed : int, optional
        Of this panel's candidates; None is the story's.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    text: str = Field(min_length=1, max_length=400, pattern=r"\S")
    caption: str = Field("", max_length=400)
    style: str = Field("", max_length=100)
    seed: int | None = Field(None, ge=0, lt=2**63)


class StoryPlan(BaseModel):
    """What a story tells.

    Attributes
    ----------
    scenes : tuple of Scene
        One to 24.
    title : str
    layout : {"grid", "strip"}
        Panels in rows of three, or all in one row.
    candidates : int
        Images for each panel, 1 to 16.
    seed : int
    seeds : {"free", "fixed"}
        Other seeds in every panel, or the same ones, which keep the composition alike.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    scenes: tuple[Scene, ...] = Field(min_length=1, max_length=24, strict=False)
    title: str = Field("", max_length=200)
    layout: Literal["grid", "strip"] = "grid"
    candidates: int = Field(4, ge=1, le=16)
    seed: int = Field(0, ge=0, lt=2**63)
    seeds: Literal["free", "fixed"] = "free"

    @classmethod
    def of(cls, source: StoryPlan | Mapping[str, Any] | Sequence[Any] | str | Path) -> StoryPlan:
        """Read a plan: a JSON file, its entries, or a list of scenes or sentences.

        Raises
        ------
        StoryError
            If it is no plan, or a sentence is empty.
        """
        try:
            if isinstance(source, cls):
                return source
            if isinstance(source, str | Path):
                source = json.loads(user_path("story", source, StoryError).read_text(encoding="utf-8"))
            entries = dict(source) if isinstance(source, Mapping) else {"scenes": list(source)}
            scenes = entries.get("scenes", [])
            # One text is not its letters: it is refused below.
            told = [{"text": s} if isinstance(s, str) else s for s in scenes if not isinstance(scenes, str)]
            return cls.model_validate(entries | {"scenes": told or scenes})
        except ValidationError as error:
            raise StoryError(f"story: {first_error(error)} A plan holds scenes and, if you like, a title.") from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise StoryError(f"story: expected a JSON file, or a list of sentences ({error}).") from error


@dataclass
class StoryPanel:
    """One scene as it was drawn.

    Attributes
    ----------
    scene : Scene
    images : list of PIL.Image
        The candidates, each with its settings in `.info`.
    features : ndarray (candidates, D)
        Of unit length, by the feature extractor.
    fit : ndarray (candidates,)
        CLIP similarity to the scene's prompt, with the character's own words for its token; NaN without CLIP.
    identity : ndarray (candidates,)
        Mean cosine of features with the images of the other panels.
    chosen : int
        The candidate that is shown: of the best mean rank by both, or a person's choice.
    """

    scene: Scene
    images: list[Image.Image]
    features: np.ndarray
    fit: np.ndarray
    identity: np.ndarray
    chosen: int = 0

    @property
    def image(self) -> Image.Image:
        """The chosen candidate."""
        return self.images[self.chosen]


class Story:
    """A drawn story; panels are redrawn one by one, and the others stay.

    Attributes
    ----------
    plan : StoryPlan
    panels : list of StoryPanel
    """

    def __init__(self, models: Models, character: Character | None, plan: StoryPlan, settings: Settings) -> None:
        self.models, self.character, self.plan, self.settings = models, character, plan, settings
        self.panels: list[StoryPanel] = []

    @property
    def columns(self) -> int:
        """Panels in a row."""
        return len(self.panels) if self.plan.layout == "strip" else min(WIDEST, len(self.panels))

    def choose(self, panel: int, candidate: int) -> None:
        """Show another candidate of a panel."""
        if not (0 <= panel < len(self.panels) and 0 <= candidate < len(self.panels[panel].images)):
            raise StoryError(
                f"Expected a panel below {len(self.panels)} and a candidate below {self.plan.candidates}, got {panel} "
                f"and {candidate}."
            )
        self.panels[panel].chosen = candidate

    def redraw(self, panel: int, callbacks: Callbacks = NO_CALLBACKS, **changes: Any) -> None:
        """Draw one panel anew, its scene changed: text, caption, style, seed. The others stay as they are."""
        self.choose(panel, 0)
        scenes = [scene.model_dump() for scene in self.plan.scenes]
        scenes[panel] |= changes
        plan = StoryPlan.of(self.plan.model_dump() | {"scenes": scenes})
        self._check(plan.scenes[panel])
        self.panels[panel] = self._drawn(plan, panel, callbacks)
        self.plan = plan
        self._rank(panel)

    def image(self, *, tile: float = 2.4) -> Image.Image:
        """Return the page as an image; panels are so many inches wide."""
        return plots.to_image(self._figure(tile))

    def save(self, path: str | Path) -> Path:
        """Write the page as .png, .pdf or .html, by the ending, and return the path."""
        file = user_path("path", path, StoryError)
        if file.suffix not in (".png", ".pdf", ".html"):
            raise StoryError(f"{file}: expected an ending .png, .pdf or .html, got {file.suffix or 'none'}.")
        if file.suffix == ".html":
            page = report.template("applications/story.html.j2").render(story=self, side=self.panels[0].image.width)
            file.write_text(page, encoding="utf-8")
        else:
            self._figure(2.4).savefig(file, dpi=200)
        return file

    def draw(self, callbacks: Callbacks) -> None:
        """Draw all panels; a sentence that the models cannot take is told of before the first."""
        for scene in self.plan.scenes:
            self._check(scene)
        n = len(self.plan.scenes)
        self.panels = [self._drawn(self.plan, i, callbacks.part(i, n)) for i in range(n)]
        for i in range(n):
            self._rank(i)

    def _check(self, scene: Scene) -> None:
        prompt = f"{self._caption(scene)} {scene.text}"
        if self.character is None:
            check_prompt(self.models.pipeline, prompt)
            return
        with self.character.on(self.models.pipeline):  # who gives its token a meaning, and a length
            check_prompt(self.models.pipeline, prompt)

    def _caption(self, scene: Scene, *, told: bool = False) -> str:
        """A scene's prompt without its text, with the token or, `told`, with the words that it began from."""
        caption = self.character.caption if self.character else ""
        if told and self.character:
            caption = self.character.provenance.get("prompt") or caption.replace(self.character.token, "").strip()
        return in_medium(caption, scene.style) if scene.style and caption else caption

    def _drawn(self, plan: StoryPlan, number: int, callbacks: Callbacks) -> StoryPanel:
        scene = plan.scenes[number]
        started = self.settings.replace(seed=plan.seed if scene.seed is None else scene.seed)
        seeds = image_seeds(started, 0 if plan.seeds == "fixed" else number, n=plan.candidates)
        parts = (self._caption(scene), scene.text) if self.character else (scene.text, "")
        request = SamplingRequest(parts[0], seeds, self.settings, self.character, context=parts[1])
        images = with_settings(generate(self.models, request, callbacks).images, request, scene=scene.model_dump())
        features = unit(embed(self.models, images, self.settings).cls)
        return StoryPanel(scene, images, features, self._fit(scene, images), np.full(len(images), np.nan))

    def _fit(self, scene: Scene, images: list[Image.Image]) -> np.ndarray:
        clip, words = self.models.clip, f"{self._caption(scene, told=True)} {scene.text}".strip()
        return np.full(len(images), np.nan) if clip is None else clip.images(images) @ clip.texts([words])[0]

    def _rank(self, number: int) -> None:
        """Score a panel's candidates against the other panels, and choose the one of the best mean rank."""
        panel = self.panels[number]
        others = [other.features for i, other in enumerate(self.panels) if i != number] or [panel.features]
        panel.identity = panel.features @ np.concatenate(others).mean(0)
        scores = [scores for scores in (panel.fit, panel.identity) if np.isfinite(scores).all()]
        panel.chosen = int(np.sum([scores.argsort().argsort() for scores in scores], axis=0).argmax()) if scores else 0

    def _figure(self, tile: float) -> Any:
        from matplotlib.figure import Figure

        rows = -(-len(self.panels) // self.columns)
        size = (self.columns * tile, rows * (tile + 0.45) + (0.5 if self.plan.title else 0))
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(self.plan.title or None)
        places = figure.subplots(rows, self.columns, squeeze=False).flat
        for axes in places:
            axes.axis("off")
        for axes, panel in zip(figure.axes, self.panels, strict=False):
            axes.imshow(panel.image, interpolation="none")
            words = textwrap.fill(panel.scene.caption or panel.scene.text, round(LETTERS * tile))
            axes.text(0.5, -0.04, words, transform=axes.transAxes, ha="center", va="top", fontsize=8, parse_math=False)
        return figure


def story(
    models: Models,
    character: Character | None,
    scenes: StoryPlan | Mapping[str, Any] | Sequence[Any] | str | Path,
    *,
    settings: Settings | None = None,
    callbacks: Callbacks = NO_CALLBACKS,
    **plan: Any,
) -> Story:
    """Draw a character through a story.

    Parameters
    ----------
    models : Models
    character : Character or None
        None draws the sentences as they are with the base model.
    scenes : StoryPlan, dict, list or Path
        Sentences or scenes, or a whole plan, also as a JSON file.
    settings : Settings, optional
        How images are sampled.
    callbacks : Callbacks, optional
        Progress and cancellation.
    **plan
        More of the plan: title, layout, candidates, seed, seeds.

    Returns
    -------
    Story

    Raises
    ------
    StoryError, PromptError, CharacterError
        For what cannot be told or drawn, before anything is drawn.
    """
    told = StoryPlan.of(scenes)
    made = Story(models, character, StoryPlan.of(told.model_dump() | plan), settings or usual_settings(models))
    made.draw(callbacks)
    return made
