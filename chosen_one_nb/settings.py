"""Every number of the method in one place: symbol, meaning, source, and how sure we are of it.

Certainty tags: C read in the paper or its page, S from a summary of the paper, T a third party who read it
says so, R recollection that nobody has verified, X looked for in the paper and not found (the value is then
ours or a reimplementation's), "-" a number of this kit that the paper does not have.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from chosen_one_nb.fields import (
    AT_LEAST_ONE,
    AT_LEAST_TWO,
    BELOW_ONE,
    FRACTION,
    NOT_NEGATIVE,
    POSITIVE,
    SettingsError,
    allowed,
    check_field,
    setting,
    type_name,
)

__all__ = ["PRESETS", "SAMPLING", "Settings", "SettingsError", "settings_help"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a run; immutable, validated on construction, saved as JSON beside every result.

    The defaults are the `menagerie` preset. `Settings.preset(name)` gives another starting point and
    `settings.replace(n_images=32)` a changed copy. `settings_help()` tells the symbol, meaning and source
    of each.

    Raises
    ------
    SettingsError
        For a value of the wrong type, out of range, NaN, or at odds with another one.

    Examples
    --------
    >>> Settings.preset("paper").n_images
    128
    >>> Settings(n_images=64).replace(seed=3).seed
    3
    """

    # generate
    seed: int = setting(0, "Start of all randomness of a run: image seeds, clustering, training.", check=NOT_NEGATIVE)
    n_images: int = setting(
        64,
        "Images in a gallery.",
        symbol="N",
        check=AT_LEAST_TWO,
        certainty="S",
        source="128 in a summary of the paper and in both reimplementations; fewer here, for a CPU",
    )
    sampler: Literal["dpm++", "ddim", "euler", "euler trailing"] = setting(
        "dpm++", "Deterministic sampler, built from the pipeline's own noise schedule.", certainty="X"
    )
    sampling_steps: int = setting(
        15,
        "Denoising steps per image.",
        check=AT_LEAST_ONE,
        certainty="X",
        source="not found in the paper; ZichengDuan/TheChosenOne uses 35 on SDXL",
    )
    guidance_scale: float = setting(
        3.0,
        "Classifier-free guidance; 1 or less switches it off. High values compound over iterations.",
        check=NOT_NEGATIVE,
        certainty="X",
        source="not found in the paper; ZichengDuan/TheChosenOne uses 7.5 on SDXL",
    )
    guidance_rescale: float = setting(
        0.0,
        "Pull the guided prediction's contrast back to the unguided one's (0 off, 1 fully).",
        symbol="phi",
        check=FRACTION,
        source="arXiv 2305.08891, section 3.4",
    )
    context_weight: float = setting(
        1.5,
        "How much a context counts that is added to a character's prompt, such as 'at the beach'; 1 leaves it as is.",
        check=POSITIVE,
        source="this kit; weighted prompts, as in compel, for what Theta would drown out",
    )
    image_size: int | None = setting(
        None, "Side of the square images in pixels; None is the model's own size.", check=POSITIVE
    )
    batch_size: int = setting(
        16,
        "Images denoised, or looked at, at once; halved by itself when memory runs out.",
        check=AT_LEAST_ONE,
    )

    # embed and cluster
    feature_space: Literal["unit", "raw"] = setting(
        "unit",
        "Compare features at unit length (cosine) or as they are.",
        certainty="T",
        source="the paper's text says once that similarity is cosine",
    )
    cluster_on: Literal["image", "foreground"] = setting(
        "foreground",
        "Compare whole images (the paper), or only their foregrounds, cut out by the extractor's patch tokens.",
        symbol="F(S)",
        source="this kit; against clusters that share a scene rather than a character",
    )
    target_cluster_size: int = setting(
        8,
        "Intended images per cluster: k = N // this, at least 1.",
        symbol="d_size-c",
        check=AT_LEAST_ONE,
        certainty="X",
        source="not found in the paper; reimplementations use 20 and 7",
    )
    min_cluster_size: int = setting(
        5,
        "A cluster is kept when it holds strictly more images than this.",
        symbol="d_min-c",
        check=NOT_NEGATIVE,
        certainty="X",
        source="not found in the paper; reimplementations use 10 (strict) and 6 (not strict)",
    )
    cohesion: Literal["squared", "distance"] = setting(
        "squared",
        "Cohesion as the mean squared distance to the centroid, or the plain distance.",
        certainty="R",
        source="the form is told by third parties, the square is recollection",
    )
    kmeans_restarts: int = setting(10, "K-means++ starts, the best of which is kept.", check=AT_LEAST_ONE)

    # refine
    lora_rank: int = setting(
        8,
        "Rank of the LoRA matrices on the UNet's self- and cross-attention; alpha equals it.",
        symbol="r",
        check=AT_LEAST_ONE,
        certainty="X",
        source="not found in the paper; ZichengDuan/TheChosenOne uses 4",
    )
    lora_learning_rate: float = setting(
        1e-4,
        "Learning rate of the LoRA.",
        symbol="theta",
        check=NOT_NEGATIVE,
        certainty="X",
        source="not found in the paper; ZichengDuan/TheChosenOne uses 3e-5 for everything",
    )
    token_learning_rate: float = setting(
        5e-3,
        "Learning rate of the new token's rows in the text encoders.",
        symbol="tau",
        check=NOT_NEGATIVE,
        certainty="X",
        source="not found in the paper; 5e-4 is common for textual inversion",
    )
    refine_steps: int = setting(
        100,
        "Optimiser steps per iteration.",
        check=AT_LEAST_ONE,
        certainty="X",
        source="not found in the paper; ZichengDuan/TheChosenOne uses 500",
    )
    refine_batch_size: int = setting(
        8,
        "Images per optimiser step.",
        check=AT_LEAST_ONE,
        certainty="X",
        source="not found in the paper; ZichengDuan/TheChosenOne uses 1",
    )
    weight_decay: float = setting(
        1e-4,
        "AdamW's decay of the LoRA weights; the token rows are never decayed.",
        check=NOT_NEGATIVE,
        source="diffusers' LoRA training script",
    )
    carry_over: Literal["warm", "reinit"] = setting(
        "warm",
        "Go on from the last iteration's weights, or start each iteration anew (the paper's ablation).",
        symbol="Theta",
        certainty="R",
        source="section 4.3, ablation 3",
    )
    token: str = setting("<v>", "The new word that stands for the character.", symbol="[v]")
    token_vectors: int = setting(
        1,
        "Embedding rows behind the new word, per text encoder.",
        symbol="tau",
        check=AT_LEAST_ONE,
        certainty="S",
        source="one new token per text encoder, the paper's section 3.2",
    )
    initial_word: str | None = setting(
        None, "Word whose embedding the token starts from; None takes the prompt's subject.", certainty="X"
    )
    caption_template: str = setting(
        "{prompt} {token}",
        "Caption in training and prompt of later galleries; holds {prompt} and {token}.",
        certainty="X",
        source="where the token stands is not found in the paper",
    )
    caption_dropout: float = setting(0.0, "Share of training samples seen without their caption.", check=BELOW_ONE)
    prior_share: float = setting(
        0.5,
        "Share of each batch drawn from the first gallery, under the prompt without the token (0 is the paper).",
        check=BELOW_ONE,
    )
    embedding_rule: Literal["none", "std", "norm"] = setting(
        "none",
        "After each step pull the token rows to the vocabulary's spread or norm, or leave them.",
        source="std: diffusers' advanced SDXL script; norm: cloneofsimo/lora",
    )
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", check=POSITIVE)
    scene_weight: float = setting(
        1.0,
        "Weight of the scene in the loss: 1 learns whole images (the paper), 0 the foregrounds alone.",
        symbol="M",
        check=FRACTION,
        source="this kit; masked losses: Break-A-Scene, arXiv 2305.16311, section 3.2",
    )
    describe_scene: bool = setting(
        True,
        "Add to each training caption what CLIP sees of that image's place, pose and surroundings, so that the "
        "words, not the token, take them up; off is the paper.",
        source="this kit; captions that name what shall not be learnt are common in LoRA training",
    )
    noise_floor: float = setting(
        0.4,
        "Share of the noise schedule, from its quiet end, that training leaves out (0 is the paper): what a character "
        "is gets decided in noisy steps, and quiet ones would teach the gallery's blur.",
        check=BELOW_ONE,
        source="this kit",
    )
    snr_gamma: float | None = setting(
        None,
        "Min-SNR loss weighting; None weighs all noise levels alike.",
        symbol="gamma",
        check=POSITIVE,
        source="arXiv 2303.09556",
    )
    gradient_checkpointing: bool = setting(
        False, "Recompute activations in the backward pass: slower, and much less memory on SDXL."
    )

    # converge
    convergence: float = setting(
        0.8,
        "Stop when the mean pairwise distance falls to this (relative: times the first gallery's).",
        symbol="d_conv",
        check=POSITIVE,
        certainty="T",
        source="80 % of the initial distance, says a reimplementation's configuration",
    )
    convergence_mode: Literal["relative", "absolute"] = setting(
        "relative",
        "Whether d_conv is a fraction of the first gallery's distance or a distance.",
        symbol="d_conv",
        certainty="T",
    )
    max_iterations: int = setting(
        5,
        "Iterations at most.",
        symbol="d_iter",
        check=AT_LEAST_ONE,
        certainty="X",
        source="not found in the paper",
    )

    # health: limits beyond which a gallery counts as collapsed
    statistic_limit: float = setting(
        3.5,
        "Largest shift of an image statistic's mean, in standard deviations of the first gallery.",
        source="sound galleries of the bundled miniature reach 3.3 (watercolours on white paper), guidance 25 takes "
        "three of four past 4",
        check=POSITIVE,
    )
    prompt_limit: float = setting(
        2.0,
        "Largest fall of the mean prompt similarity, in standard deviations of the first gallery.",
        check=POSITIVE,
    )
    drift_limit: float = setting(
        1.75,
        "Largest mean distance to the nearest first-gallery image, over that gallery's own.",
        check=POSITIVE,
    )
    variety_floor: float = setting(
        0.25,
        "Smallest mean pairwise distance (features and thumbnails), over the first gallery's.",
        check=FRACTION,
    )

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            check_field(field, hints[field.name], getattr(self, field.name))
        _check_together(self)

    @classmethod
    def preset(cls, name: str = "menagerie", **changes: Any) -> Settings:
        """Return a preset, with changes.

        Parameters
        ----------
        name : {"menagerie", "paper", "quick"}
            `menagerie`: the bundled miniature on a CPU; `paper`: the published numbers where known, a
            reimplementation's where not, for SDXL; `quick`: few images and steps, for tests and notebooks.
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
        name : {"paper", "standard", "fast", "flash"}
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
        _check_names(changes)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """Return the settings as JSON text, one field a line."""
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Settings:
        """Build settings from plain values; a field left out takes its default."""
        return cls().replace(**values)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Read what `to_json` wrote.

        Raises
        ------
        SettingsError
            If the text is not a JSON object, or names an unknown field or a bad value.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SettingsError(
                f"settings: expected JSON, got text that breaks off or is not JSON ({error})."
            ) from error
        if not isinstance(values, dict):
            raise SettingsError(f"settings: expected a JSON object, got {type(values).__name__}.")
        return cls.from_dict(values)

    @property
    def n_clusters(self) -> int:
        """k of K-means: N // d_size-c, at least 1."""
        return max(1, self.n_images // self.target_cluster_size)

    def caption(self, prompt: str) -> str:
        """Return the training caption of a prompt: the template with prompt and token filled in."""
        return self.caption_template.replace("{prompt}", prompt).replace("{token}", self.token)


PRESETS: dict[str, dict[str, Any]] = {
    "menagerie": {},
    "paper": {
        "n_images": 128,
        "sampling_steps": 35,
        "guidance_scale": 7.5,
        "batch_size": 8,
        "target_cluster_size": 20,
        "min_cluster_size": 10,
        "lora_rank": 4,
        "lora_learning_rate": 3e-5,
        "token_learning_rate": 3e-5,
        "refine_steps": 500,
        "refine_batch_size": 1,
        "weight_decay": 1e-2,
        "cluster_on": "image",
        "prior_share": 0.0,
        "describe_scene": False,
        "noise_floor": 0.0,
        "context_weight": 1.0,
    },
    "quick": {
        "n_images": 16,
        "sampling_steps": 8,
        "target_cluster_size": 5,
        "min_cluster_size": 2,
        "kmeans_restarts": 3,
        "lora_rank": 4,
        "refine_steps": 20,
        "refine_batch_size": 4,
        "cluster_on": "image",
        "prior_share": 0.0,
        "describe_scene": False,
        "noise_floor": 0.0,
        "max_iterations": 2,
    },
}


SAMPLING: dict[str, dict[str, Any]] = {
    "paper": {
        "sampler": "euler",
        "sampling_steps": 50,
        "guidance_scale": 7.5,
        "note": "SDXL's own sampler at its usual 50 steps with guidance; the paper's sampler is not found in it",
    },
    "standard": {
        "sampler": "dpm++",
        "sampling_steps": 30,
        "guidance_scale": 7.5,
        "note": "a second-order solver in 30 steps; nearly the same distribution, other images for a seed",
    },
    "fast": {
        "sampler": "dpm++",
        "sampling_steps": 8,
        "guidance_scale": 5.0,
        "note": "8 steps: another distribution, with less detail and less variety; for a first look",
    },
    "flash": {
        "sampler": "euler trailing",
        "sampling_steps": 4,
        "guidance_scale": 0.0,
        "note": "4 steps without guidance, for a distilled LoRA or UNet only: another model's distribution",
    },
}
"""Ways to draw, by name: settings, and a note on how they change the distribution that images are drawn from."""


def settings_help() -> list[dict[str, Any]]:
    """Describe every setting: name, default, type, symbol, help, source, certainty, and the values allowed.

    Returns
    -------
    list of dict
        One per field in order; `allowed` is a tuple for a choice, a phrase for a range, None otherwise.
    """
    hints = typing.get_type_hints(Settings)
    return [
        {
            "name": field.name,
            "default": field.default,
            "type": type_name(hints[field.name]),
            "allowed": allowed(field, hints[field.name]),
            **{key: field.metadata[key] for key in ("symbol", "help", "source", "certainty")},
        }
        for field in dataclasses.fields(Settings)
    ]


def _check_names(values: dict[str, Any]) -> None:
    known = [field.name for field in dataclasses.fields(Settings)]
    for name in values:
        if name not in known:
            raise SettingsError(f"{name}: no such setting; expected one of {', '.join(known)}.")


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
    for part in ("{prompt}", "{token}"):
        if part not in s.caption_template:
            raise SettingsError(
                f"caption_template: expected {{prompt}} and {{token}} in it, got {s.caption_template!r}. "
                f"Without {part} the caption cannot teach the character."
            )
    if not s.token or any(character.isspace() for character in s.token):
        raise SettingsError(f"token: expected one word without spaces, such as '<v>', got {s.token!r}.")
