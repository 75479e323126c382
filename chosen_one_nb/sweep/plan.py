"""What a sweep is to do: prompts x settings x seeds, read from JSON and checked whole before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chosen_one_nb.run import store
from chosen_one_nb.run.opening import slug
from chosen_one_nb.settings import Settings, SettingsError

__all__ = ["Job", "Plan", "PlanError"]

KINDS = ("gallery", "run")
LOADING = ("device", "dtype", "extractor", "clip", "distilled", "config", "low_memory", "compile", "offline")
"""What `load_models` may be told beside the name."""

SEED = 'seed belongs into seeds, such as "seeds": [0, 1, 2]'


class PlanError(ValueError):
    """A plan that cannot be carried out: what was expected, what it says, and what to do."""


@dataclass(frozen=True)
class Job:
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

    @property
    def row(self) -> dict[str, Any]:
        """How the table names it."""
        return {"prompt": self.prompt, **self.varied, "seed": self.settings.seed}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Prompts x settings x seeds, and what to make of each.

    Parameters
    ----------
    prompts : sequence of str
    seeds : sequence of int
        `Settings.seed` of each.
    vary : dict of str to sequence
        Settings and the values each is to take; all combinations are done.
    settings : dict
        Settings that are the same in all jobs.
    preset : str, optional
        What the settings start from; None is the preset that the models go with.
    do : {"gallery", "run"}
        Draw the first gallery of each, or carry the whole method through.
    models : str
        Name, folder or Hub id.
    load : dict
        More for `load_models`, as plain values: device, dtype, extractor, clip, distilled, config, low_memory,
        compile, offline. Images that are on disk already are not drawn again for another device or dtype.
    sampling : str, optional
        A sampling preset on top of `preset`, as of `Settings.sampled`.

    Raises
    ------
    PlanError
        For anything that could not be carried out.

    Examples
    --------
    >>> plan = Plan(prompts=["a fox", "a cat"], seeds=[0, 1], vary={"guidance_scale": [2, 4, 6]})
    >>> len(plan.jobs())
    12
    """

    prompts: Sequence[str]
    seeds: Sequence[int] = (0,)
    vary: dict[str, Sequence[Any]] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    do: str = "gallery"
    models: str = "menagerie"
    load: dict[str, Any] = field(default_factory=dict)
    sampling: str | None = None

    def __post_init__(self) -> None:
        _check_prompts(self.prompts)
        _check_distinct("seeds", self.seeds, "a list of whole numbers from 0", lambda seed: _whole(seed) and seed >= 0)
        for name, kind in (("vary", dict), ("settings", dict), ("load", dict), ("models", str)):
            if not isinstance(getattr(self, name), kind):
                expected = "an object" if kind is dict else "a text"
                raise PlanError(f"{name}: expected {expected}, got {getattr(self, name)!r}.")
        if not isinstance(self.preset, str | None):
            raise PlanError(f"preset: expected a text, got {self.preset!r}.")
        if self.do not in KINDS:
            raise PlanError(f"do: expected one of {', '.join(map(repr, KINDS))}, got {self.do!r}.")
        _check_load(self.load)
        self._check_settings()

    @property
    def loads(self) -> dict[str, Any]:
        """The arguments of `load_models`."""
        return {"name": self.models, **self.load}

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a plan from a JSON file; `PlanError` says what is wrong with it."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(f"{path} cannot be read ({error.strerror or error}). Give the plan's file.") from error
        except ValueError as error:
            raise PlanError(f"{path}: expected a plan in JSON, got something else ({error}).") from error
        if not isinstance(values, dict):
            raise PlanError(f"{path}: expected a JSON object, got {type(values).__name__}.")
        known = [part.name for part in dataclasses.fields(cls)]
        if unknown := [name for name in values if name not in known]:
            raise PlanError(f"{path}: no such entry: {', '.join(unknown)}. A plan holds {', '.join(known)}.")
        if "prompts" not in values:
            raise PlanError(f'{path}: expected prompts, such as "prompts": ["a sticker of a fox"].')
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as plain values."""
        return store.plain(self)

    def combinations(self) -> list[dict[str, Any]]:
        """Return every combination of the varied settings; one empty one where nothing varies."""
        return [dict(zip(self.vary, values, strict=True)) for values in itertools.product(*self.vary.values())]

    def jobs(self) -> list[Job]:
        """Return all jobs: prompts x settings x seeds, in this order."""
        return [
            Job(prompt, varied, self._settings(varied, seed=seed), _place(prompt, varied, seed))
            for prompt, varied, seed in itertools.product(self.prompts, self.combinations(), self.seeds)
        ]

    def _settings(self, varied: dict[str, Any], **more: Any) -> Settings:
        start = Settings.preset(self.preset or Settings.preset_for(self.models))
        start = start if self.sampling is None else start.sampled(self.sampling)
        return start.replace(**self.settings, **varied, **more)

    def _check_settings(self) -> None:
        for name, values in self.vary.items():
            if name in self.settings:
                raise PlanError(f"{name}: stands in settings and in vary. Leave one of them out.")
            _check_distinct(f"vary: {name}", values, "a list of values", lambda value: True)
        if "seed" in {*self.vary, *self.settings}:
            raise PlanError(f"seed: {SEED}.")
        for varied in self.combinations():
            try:
                settings = self._settings(varied)
            except SettingsError as error:
                raise PlanError(f"{_where(varied)}{error}") from error
            for prompt in self.prompts:
                if settings.token in prompt:
                    raise PlanError(
                        f"prompts: {prompt!r} holds {settings.token!r}, the word that is to stand for the "
                        "character. Leave it out, or set another token."
                    )


def _check_load(load: dict[str, Any]) -> None:
    """Refuse what `load_models` does not take, and what cannot be sent to a worker as it stands."""
    if unknown := [name for name in load if name not in LOADING]:
        raise PlanError(f"load: expected some of {', '.join(LOADING)}, got {unknown[0]!r}.")
    for name, value in load.items():
        if not isinstance(value, str | bool | None):
            raise PlanError(f"load: {name}: expected a text, true, false or null, got {value!r}.")


def _check_prompts(prompts: Any) -> None:
    _check_distinct("prompts", prompts, "a list of texts", lambda text: isinstance(text, str))
    if blank := [text for text in prompts if not text.strip()]:
        raise PlanError(f"prompts: expected a description in each, got {blank[0]!r}.")


def _check_distinct(name: str, values: Any, expected: str, fits: Any) -> None:
    """Refuse what is no list, holds nothing, holds what does not fit, or holds a value twice."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise PlanError(f"{name}: expected {expected}, got {values!r}.")
    if not values:
        raise PlanError(f"{name}: expected at least one, got an empty list: there would be nothing to do.")
    if bad := [value for value in values if not fits(value)]:
        raise PlanError(f"{name}: expected {expected}, got {bad[0]!r} among them.")
    if twice := [value for i, value in enumerate(values) if value in values[:i]]:
        raise PlanError(f"{name}: {twice[0]!r} stands there twice; it would be done once only. Leave one out.")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _where(varied: dict[str, Any]) -> str:
    return f"with {', '.join(f'{name}={value!r}' for name, value in varied.items())}: " if varied else ""


def _place(prompt: str, varied: dict[str, Any], seed: int) -> Path:
    """A readable folder of a job's own."""
    choice = slug(",".join(f"{name}={value}" for name, value in varied.items())) if varied else "all"
    return Path(slug(prompt)) / choice / f"seed-{seed}"
