"""Every number of the method in one place: symbol, meaning, source, and how sure we are of it.

Certainty tags: C read in the paper or its page, S from a summary of the paper, T a third party who read it
says so, R recollection that nobody has verified, X looked for in the paper and not found (the value is then
ours, or that of the reimplementation named), "-" a number of this kit that the paper does not have.
"""

from __future__ import annotations

import json
import re
import reprlib
import types
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

__all__ = ["PRESETS", "SAMPLING", "Settings", "SettingsError", "settings_help"]


class SettingsError(ValueError):
    """A setting that cannot be used: its message names the setting, what was expected, what came, and why."""


def setting(default: Any, *, symbol: str = "", certainty: str = "-", source: str = "this kit", **limits: Any) -> Any:
    """Declare a field of `Settings`: default, where it comes from, and pydantic's limits (`gt`, `ge`, `lt`, `le`)."""
    return Field(default, json_schema_extra={"symbol": symbol, "certainty": certainty, "source": source}, **limits)


class Settings(BaseModel):
    """The settings of a run; immutable, validated on construction, saved as JSON beside every result.

    The defaults are the `menagerie` preset. `Settings.preset(name)` gives another starting point and
    `settings.replace(n_images=32)` a changed copy. `settings_help()` tells the symbol, meaning and source
    of each. Values are not converted: 0.7 is no integer and True no number.

    Raises
    ------
    SettingsError
        For an unknown name, a value of the wrong type, out of range, NaN, or at odds with another one.

    Examples
    --------
    >>> Settings.preset("paper").n_images
    128
    >>> Settings(n_images=64).replace(seed=3).seed
    3
    """

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    # generate
    seed: int = setting(0, ge=0, lt=2**63)
    """Start of all randomness of a run: image seeds, clustering, training."""
    n_images: int = setting(
        64,
        ge=2,
        le=16384,
        symbol="N",
        certainty="S",
        source="128 in a summary of the paper and in both reimplementations; fewer here, for a CPU",
    )
    """Images in a gallery."""
    sampler: Literal["dpm++", "ddim", "euler", "euler trailing"] = setting("dpm++", certainty="X")
    """Deterministic sampler, built from the pipeline's own noise schedule."""
    sampling_steps: int = setting(15, ge=1, le=1000, certainty="X", source="ZichengDuan/TheChosenOne uses 35 on SDXL")
    """Denoising steps per image."""
    guidance_scale: float = setting(
        3.0, ge=0, le=100, certainty="X", source="ZichengDuan/TheChosenOne uses 7.5 on SDXL"
    )
    """Classifier-free guidance; 1 or less switches it off. High values compound over iterations."""
    guidance_rescale: float = setting(0.0, ge=0, le=1, symbol="phi", source="arXiv 2305.08891, section 3.4")
    """Pull the guided prediction's contrast back to the unguided one's (0 off, 1 fully)."""
    context_weight: float = setting(
        1.5, gt=0, le=100, source="this kit; weighted prompts, as in compel, for what Theta would drown out"
    )
    """How much a context counts that is added to a character's prompt, such as 'at the beach'; 1 leaves it as
    is."""
    image_size: int | None = setting(None, gt=0, le=8192)
    """Side of the square images in pixels; None is the model's own size."""
    batch_size: int = setting(16, ge=1, le=16384)
    """Images denoised, or looked at, at once; halved by itself when memory runs out."""

    # embed and cluster
    feature_space: Literal["unit", "raw"] = setting(
        "unit", certainty="T", source="the paper's text says once that similarity is cosine"
    )
    """Compare features at unit length (cosine) or as they are."""
    cluster_on: Literal["image", "foreground"] = setting(
        "foreground", symbol="F(S)", source="this kit; against clusters that share a scene rather than a character"
    )
    """Compare whole images (the paper), or only their foregrounds, cut out by the extractor's patch tokens."""
    target_cluster_size: int = setting(
        8, ge=1, symbol="d_size-c", certainty="X", source="reimplementations use 20 and 7"
    )
    """Intended images per cluster: k = N // this, at least 1."""
    min_cluster_size: int = setting(
        5, ge=0, symbol="d_min-c", certainty="X", source="reimplementations use 10 (strict) and 6 (not strict)"
    )
    """A cluster is kept when it holds strictly more images than this."""
    cohesion: Literal["squared", "distance"] = setting(
        "squared", certainty="R", source="the form is told by third parties, the square is recollection"
    )
    """Cohesion as the mean squared distance to the centroid, or the plain distance."""
    kmeans_restarts: int = setting(10, ge=1, le=1000)
    """K-means++ starts, the best of which is kept."""

    # refine
    lora_rank: int = setting(8, ge=1, le=1024, symbol="r", certainty="X", source="ZichengDuan/TheChosenOne uses 4")
    """Rank of the LoRA matrices on the UNet's self- and cross-attention; alpha equals it."""
    lora_learning_rate: float = setting(
        1e-4, ge=0, le=10, symbol="theta", certainty="X", source="ZichengDuan/TheChosenOne uses 3e-5 for everything"
    )
    """Learning rate of the LoRA."""
    token_learning_rate: float = setting(
        5e-3, ge=0, le=10, symbol="tau", certainty="X", source="5e-4 is common for textual inversion"
    )
    """Learning rate of the new token's rows in the text encoders."""
    refine_steps: int = setting(100, ge=1, le=10**6, certainty="X", source="ZichengDuan/TheChosenOne uses 500")
    """Optimiser steps per iteration."""
    refine_batch_size: int = setting(8, ge=1, le=1024, certainty="X", source="ZichengDuan/TheChosenOne uses 1")
    """Images per optimiser step."""
    weight_decay: float = setting(1e-4, ge=0, le=10, source="diffusers' LoRA training script")
    """AdamW's decay of the LoRA weights; the token rows are never decayed."""
    carry_over: Literal["warm", "reinit"] = setting(
        "warm", symbol="Theta", certainty="R", source="section 4.3, ablation 3"
    )
    """Go on from the last iteration's weights, or start each iteration anew (the paper's ablation)."""
    token: str = setting("<v>", symbol="[v]")
    """The new word that stands for the character."""
    token_vectors: int = setting(
        1, ge=1, le=64, symbol="tau", certainty="S", source="one new token per text encoder, the paper's section 3.2"
    )
    """Embedding rows behind the new word, per text encoder."""
    initial_word: str | None = setting(None, certainty="X")
    """Word whose embedding the token starts from; None takes the prompt's subject."""
    caption_template: str = setting(
        "{prompt} {token}", certainty="X", source="where the token stands is not found in the paper"
    )
    """Caption in training and prompt of later galleries; holds {prompt} and {token}."""
    caption_dropout: float = setting(0.0, ge=0, lt=1)
    """Share of training samples seen without their caption."""
    prior_share: float = setting(0.5, ge=0, lt=1)
    """Share of each batch drawn from the first gallery, under the prompt without the token (0 is the paper)."""
    embedding_rule: Literal["none", "std", "norm"] = setting(
        "none", source="std: diffusers' advanced SDXL script; norm: cloneofsimo/lora"
    )
    """After each step pull the token rows to the vocabulary's spread or norm, or leave them."""
    max_grad_norm: float = setting(1.0, gt=0)
    """Gradients are clipped to this norm."""
    scene_weight: float = setting(
        1.0, ge=0, le=1, symbol="M", source="this kit; masked losses: Break-A-Scene, arXiv 2305.16311, section 3.2"
    )
    """Weight of the scene in the loss: 1 learns whole images (the paper), 0 the foregrounds alone."""
    describe_scene: bool = setting(
        True, source="this kit; captions that name what shall not be learnt are common in LoRA training"
    )
    """Add to each training caption what CLIP sees of that image's place, pose and surroundings, so that the
    words, not the token, take them up; off is the paper."""
    noise_floor: float = setting(0.4, ge=0, lt=1, source="this kit")
    """Share of the noise schedule, from its quiet end, that training leaves out (0 is the paper): what a
    character is gets decided in noisy steps, and quiet ones would teach the gallery's blur."""
    snr_gamma: float | None = setting(None, gt=0, symbol="gamma", source="arXiv 2303.09556")
    """Min-SNR loss weighting; None weighs all noise levels alike."""
    gradient_checkpointing: bool = setting(False)
    """Recompute activations in the backward pass: slower, and much less memory on SDXL."""

    # converge
    convergence: float = setting(
        0.8,
        gt=0,
        symbol="d_conv",
        certainty="T",
        source="80 % of the initial distance, says a reimplementation's configuration",
    )
    """Stop when the mean pairwise distance falls to this (relative: times the first gallery's)."""
    convergence_mode: Literal["relative", "absolute"] = setting("relative", symbol="d_conv", certainty="T")
    """Whether d_conv is a fraction of the first gallery's distance or a distance."""
    max_iterations: int = setting(5, ge=1, le=1000, symbol="d_iter", certainty="X")
    """Iterations at most."""

    # health: limits beyond which a gallery counts as collapsed and ends the run; None reports the value and goes on.
    # Measured on the bundled miniature, so the presets for other models set none.
    statistic_limit: float | None = setting(
        3.5, gt=0, source="sound galleries of the bundled miniature reach 3.3, guidance 25 takes three of four past 4"
    )
    """Largest shift of an image statistic's mean, in standard deviations of the first gallery."""
    prompt_limit: float | None = setting(2.0, gt=0)
    """Largest fall of the mean prompt similarity, in standard deviations of the first gallery."""
    drift_limit: float | None = setting(1.75, gt=0)
    """Largest mean distance to the nearest first-gallery image, over that gallery's own."""
    variety_floor: float | None = setting(
        0.125, ge=0, le=1, source="foxes of the bundled miniature that are one fox in several places reach 0.23"
    )
    """Smallest mean pairwise distance (features and thumbnails), over the first gallery's."""

    def __init__(self, **values: Any) -> None:
        # NumPy's numbers count as what Python has for them; everything else goes to pydantic's strict types as it is.
        values = {
            name: value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value
            for name, value in values.items()
        }
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise SettingsError(_sentence(error)) from error
        _check_together(self)

    @classmethod
    def preset(cls, name: str = "menagerie", **changes: Any) -> Settings:
        """Return a preset, with changes.

        Parameters
        ----------
        name : {"menagerie", "paper", "quick"}
            `menagerie`: the bundled miniature on a CPU; `paper`: for SDXL, the published numbers where known and a
            reimplementation's where not (its sampler is not known), no health limits; `quick`: few images and steps,
            for tests and notebooks.
        **changes
            Fields to set otherwise.

        Raises
        ------
        SettingsError
            For an unknown preset or field, or a bad value.
        """
        if name not in PRESETS:
            raise SettingsError(f"preset: expected one of {', '.join(PRESETS)}, got {name!r}.")
        return cls().replace(**{**PRESETS[name], **changes})

    @classmethod
    def preset_for(cls, models: str) -> str:
        """Name the preset that models go with: `menagerie` for the miniature, `paper` for all others.

        Parameters
        ----------
        models : str
            What `load_models` is asked for. A folder is the miniature if that is its name, so a copy counts too.

        Examples
        --------
        >>> Settings.preset_for("menagerie"), Settings.preset_for("data/menagerie"), Settings.preset_for("sdxl")
        ('menagerie', 'menagerie', 'paper')
        """
        return "menagerie" if Path(models).name == "menagerie" else "paper"

    def sampled(self, name: str) -> Settings:
        """Return a copy that draws by a sampling preset; `SAMPLING` says what each does.

        Parameters
        ----------
        name : {"full", "standard", "fast", "flash"}
            50 steps; 30; 8; or 4 with distilled weights: `load_models(..., distilled=...)`. Fewer steps are another
            distribution: images of the same seed differ, and so may what clusters share.

        Raises
        ------
        SettingsError
            For an unknown name.
        """
        if name not in SAMPLING:
            raise SettingsError(f"sampling: expected one of {', '.join(SAMPLING)}, got {name!r}.")
        return self.replace(**{key: value for key, value in SAMPLING[name].items() if key != "note"})

    def replace(self, **changes: Any) -> Settings:
        """Return a copy with the named fields changed and everything validated again."""
        return Settings(**{**self.model_dump(), **changes})

    def caption(self, prompt: str) -> str:
        """Return the training caption of a prompt: the template with prompt and token filled in."""
        return self.caption_template.replace("{prompt}", prompt).replace("{token}", self.token)


_FILE = json.loads(Path(__file__).with_name("presets.json").read_text(encoding="utf-8"))
PRESETS: dict[str, dict[str, Any]] = _FILE["presets"]
"""Settings to begin with, by name: what differs from the defaults; see `Settings.preset`."""

SAMPLING: dict[str, dict[str, Any]] = _FILE["sampling"]
"""Ways to draw, by name: settings, and a note on how they change the distribution that images are drawn from."""


def settings_help() -> list[dict[str, Any]]:
    """Describe every setting: name, default, type, help, the values allowed, symbol, certainty and source.

    Returns
    -------
    list of dict
        One per field in order; `allowed` is a tuple for a choice, a phrase for a range, None otherwise.
    """
    return [
        {
            "name": name,
            "default": field.default,
            "type": _type_name(field),
            "help": " ".join((field.description or "").split()),
            "allowed": _choices(field) or _range(field),
            **typing.cast(dict[str, str], field.json_schema_extra),
        }
        for name, field in Settings.model_fields.items()
    ]


def _choices(field: FieldInfo) -> tuple[Any, ...]:
    """The members of a Literal, none for another type."""
    return typing.get_args(field.annotation) if typing.get_origin(field.annotation) is Literal else ()


def _type_name(field: FieldInfo) -> str:
    """A field's type for people: "int or None", "choice"."""
    if _choices(field):
        return "choice"
    union = isinstance(field.annotation, types.UnionType)
    names = [kind.__name__ for kind in (typing.get_args(field.annotation) if union else (field.annotation,))]
    return " or ".join("None" if name == "NoneType" else name for name in names)


def _range(field: FieldInfo) -> str | None:
    """A field's limits for people: "0 or more and below 1"."""
    words = {"gt": "a number above {}", "ge": "{} or more", "lt": "below {}", "le": "at most {}"}
    limits = [(words[name], getattr(limit, name)) for limit in field.metadata for name in words if hasattr(limit, name)]
    return " and ".join(word.format(value) for word, value in limits) or None


def _sentence(error: ValidationError) -> str:
    """The first thing wrong: setting, expected, got, and what the setting does."""
    first = error.errors(include_url=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{name}: no such setting; expected one of {', '.join(Settings.model_fields)}."
    field = Settings.model_fields[name]
    out_of_range = first["type"].startswith(("greater_than", "less_than"))
    choices = ", ".join(map(repr, _choices(field)))
    kind = _type_name(field).replace("float", "float (finite)")
    expected = _range(field) if out_of_range else f"one of {choices}" if choices else kind
    return f"{name}: expected {expected}, got {reprlib.repr(first['input'])}. {field.description}"


def first_error(error: ValidationError) -> str:
    """Say what a schema found wrong first: entry, expected, got."""
    first = error.errors(include_url=False)[0]
    place = "".join(f"{part}: " for part in first["loc"] if part != "[key]")
    if first["type"] == "value_error":  # a sentence of this kit
        return f"{place}{first['msg'].removeprefix('Value error, ')}"
    if first["type"] in ("missing", "extra_forbidden"):
        return place + ("expected an entry of this name, got none." if first["type"] == "missing" else "no such entry.")
    if first["type"] == "json_invalid":
        return f"expected JSON ({first['msg']})."
    expected = re.sub(r"^\w+ should (be )?", lambda words: "" if words[1] else "it to ", first["msg"])
    return f"{place}expected {expected}, got {reprlib.repr(first['input'])}."


def is_text(value: object) -> bool:
    """Whether a value is a string that can be written to a file: half of a surrogate pair cannot."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)


def is_share(value: Any) -> bool:
    """Whether a value is a number in [0, 1], Python's or NumPy's, and no truth value."""
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and bool(0 <= value <= 1)


def user_path(name: str, value: object, error: type[Exception]) -> Path:
    """Return a path that a caller gave, with ``~`` expanded; an error of the caller's kind where it can be none."""
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value) or not is_text(str(value)):
        raise error(f"{name}: expected a path, got {reprlib.repr(value)}.")
    try:
        place = Path(value).expanduser()
        place.resolve().exists()  # asks the system, which may find the name too long
    except (OSError, RuntimeError) as reason:  # RuntimeError: a home that nobody has, a circle of links
        raise error(f"{name}: {str(value)[:200]} leads nowhere ({reason!s:.200}). Give another path.") from reason
    return place


def _check_together(s: Settings) -> None:
    """Check the fields against each other."""
    if s.n_images <= s.min_cluster_size:
        raise SettingsError(
            f"n_images: expected more than min_cluster_size = {s.min_cluster_size}, got {s.n_images}. "
            "A cluster is kept only if it holds more images than min_cluster_size, so none ever could be."
        )
    if s.target_cluster_size > s.n_images:
        raise SettingsError(
            f"target_cluster_size: expected at most n_images = {s.n_images}, got {s.target_cluster_size}. "
            "Not even one cluster of that size fits in the gallery."
        )
    for name in ("token", "initial_word", "caption_template"):
        if not is_text(getattr(s, name) or ""):
            raise SettingsError(f"{name}: expected text, got {getattr(s, name)!r}, which cannot be written as UTF-8.")
    for part in ("{prompt}", "{token}"):
        if part not in s.caption_template:
            raise SettingsError(
                f"caption_template: expected {{prompt}} and {{token}} in it, got {s.caption_template!r}. "
                f"Without {part} the caption cannot teach the character."
            )
    if not s.token or any(character.isspace() for character in s.token):
        raise SettingsError(f"token: expected one word without spaces, such as '<v>', got {s.token!r}.")
