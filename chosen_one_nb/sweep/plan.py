"""What a sweep is to do: prompts x settings x seeds, read from JSON and checked whole before anything runs."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from chosen_one_nb.models.hub import absolute
from chosen_one_nb.run.store import slug
from chosen_one_nb.settings import Settings, first_error, user_path

__all__ = ["PlanError", "SweepJob", "SweepPlan"]


class PlanError(ValueError):
    """A plan that cannot be carried out: what was expected, what it says, and what to do."""


@dataclass(frozen=True)
class SweepJob:
    """One prompt under one choice of settings and one seed.

    Attributes
    ----------
    prompt : str
    varied : dict
        The settings that differ from job to job.
    settings : Settings
        All of them, the seed among them.
    folder : Path
        Where its files lie, within the sweep's folder.
    """

    prompt: str
    varied: dict[str, Any]
    settings: Settings
    folder: Path


def _check_distinct(values: list[Any]) -> list[Any]:
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise ValueError(f"expected each value once, got {twice[0]!r} twice. Leave one out.")
    return values


def _check_prompt(text: str) -> str:
    if not text.strip():
        raise ValueError(f"expected a description, got {text!r}.")
    return text


def _check_plain(value: Any) -> Any:
    if not isinstance(value, str | bool | None):
        raise ValueError(f"expected a text, true, false or null, got {value!r}.")
    return absolute(value) if isinstance(value, str) else value  # workers may have another working directory


Prompt = Annotated[str, AfterValidator(_check_prompt)]
Distinct = [Field(min_length=1), AfterValidator(_check_distinct)]
LoadOption = Literal[
    "device", "dtype", "extractor", "clip", "distilled", "config", "low_memory", "compile", "offline"
]  # fmt: skip


class SweepPlan(BaseModel):
    """Prompts x settings x seeds, and what to make of each.

    Raises
    ------
    PlanError
        For anything that could not be carried out.

    Examples
    --------
    >>> plan = SweepPlan(prompts=["a fox", "a cat"], seeds=[0, 1], vary={"guidance_scale": [2, 4, 6]})
    >>> len(plan.jobs())
    12
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    prompts: Annotated[list[Prompt], *Distinct]
    """Descriptions of characters, such as "a sticker of a fox"."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], *Distinct] = [0]
    """`Settings.seed` of each job."""
    vary: dict[str, Annotated[list[Any], *Distinct]] = {}
    """Settings and the values each is to take; all combinations are done."""
    settings: dict[str, Any] = {}
    """Settings that are the same in all jobs."""
    preset: str | None = None
    """What the settings start from; None is the preset that the models go with."""
    sampling: str | None = None
    """A sampling preset on top of `preset`, as of `Settings.sampled`."""
    do: Literal["gallery", "run"] = "gallery"
    """Draw the first gallery of each job, or carry the whole method through."""
    models: Annotated[str, AfterValidator(absolute)] = "menagerie"
    """Name, folder or Hub id; a folder counts by its absolute path."""
    load: dict[LoadOption, Annotated[Any, AfterValidator(_check_plain)]] = {}
    """More for `load_models`. Images that are on disk already are not drawn again for another device or dtype."""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise PlanError(first_error(error)) from error

    @classmethod
    def read(cls, path: str | Path) -> SweepPlan:
        """Read a plan from a JSON file; `PlanError` says what is wrong with it."""
        place = user_path("plan", path, PlanError)
        try:
            values = json.loads(place.read_text(encoding="utf-8"))
            if not isinstance(values, dict):
                raise ValueError(f"a {type(values).__name__}")
        except (OSError, ValueError, RecursionError) as error:
            raise PlanError(f"{path}: expected a plan, an object in JSON, got something else ({error}).") from error
        return cls(**values)

    def __str__(self) -> str:
        counts = f"{len(self.prompts)} prompts x {len(self.combinations())} settings x {len(self.seeds)} seeds"
        jobs = self.jobs()
        images = sum(job.settings.n_images for job in jobs)
        what = "whole runs" if self.do == "run" else f"galleries, {images} images"
        return f"{counts}: {len(jobs)} {what}"

    def combinations(self) -> list[dict[str, Any]]:
        """Return every combination of the varied settings; one empty one where nothing varies."""
        return [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]

    def jobs(self) -> list[SweepJob]:
        """Return all jobs: prompts x settings x seeds, in this order."""
        return [
            SweepJob(prompt, varied, self._settings(varied, seed=seed), _folder(prompt, varied, seed))
            for prompt, varied, seed in itertools.product(self.prompts, self.combinations(), self.seeds)
        ]

    def _settings(self, varied: dict[str, Any], **more: Any) -> Settings:
        start = Settings.preset(self.preset or Settings.preset_for(self.models))
        start = start if self.sampling is None else start.sampled(self.sampling)
        return start.replace(**self.settings, **varied, **more)

    @model_validator(mode="after")
    def _check_settings(self) -> SweepPlan:
        if both := [name for name in self.vary if name in self.settings]:
            raise ValueError(f"{both[0]}: expected in settings or in vary, got it in both. Leave one of them out.")
        if "seed" in {*self.vary, *self.settings}:
            raise ValueError('seed: expected among seeds, such as "seeds": [0, 1, 2], got it among the settings.')
        for varied in self.combinations():
            try:
                settings = self._settings(varied)
            except ValueError as error:
                choice = ", ".join(f"{name}={value!r}" for name, value in varied.items())
                raise ValueError(f"with {choice}: {error}" if choice else str(error)) from error
            if taken := [prompt for prompt in self.prompts if settings.token in prompt]:
                raise ValueError(
                    f"prompts: {taken[0]!r} holds {settings.token!r}, the word that is to stand for the "
                    "character. Leave it out, or set another token."
                )
        return self


def _folder(prompt: str, varied: dict[str, Any], seed: int) -> Path:
    """Return a readable folder of a job's own."""
    choice = slug(",".join(f"{name}={value}" for name, value in varied.items())) if varied else "all"
    return Path(slug(prompt)) / choice / f"seed-{seed}"
