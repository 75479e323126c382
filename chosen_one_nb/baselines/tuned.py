"""Methods that learn a character: rivals by the kit's own trainer with switches, and ours with parts of it left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.baselines import BaselineTask, Drawer, Method
from chosen_one_nb.models.hub import model_set
from chosen_one_nb.run.run import Run, RunError
from chosen_one_nb.run.store import digest

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.settings import Settings

__all__ = ["FEW", "LONGER", "TUNED", "learn", "loop"]

FEW = 5
"""Images of the naive variants, taken without clustering (the paper's appendix A.3 has so many)."""

CURVE = (0.25, 0.5, 1.0)
"""Shares of `refine_steps` after which a rival is drawn with."""

LONGER = 3
"""Single iteration of equal budget: so many times the steps, as three iterations have together."""

STOCK: dict[str, Any] = {
    "prior_share": 0.0, "describe_scene": False, "noise_floor": 0.0, "scene_weight": 1.0, "carry_over": "warm",
}  # fmt: skip
"""Rivals are trained as diffusers' stock scripts do it, without what this kit adds to the paper's loss."""

WORD_ALONE: dict[str, Any] = {"lora_learning_rate": 0.0}  # B stays zero: the LoRA adds nothing
LORA_ALONE: dict[str, Any] = {"token_learning_rate": 0.0}  # the row stays that of the initial word


def learn(n: int, changes: dict[str, Any], task: BaselineTask) -> Iterator[tuple[str, Drawer]]:
    """Learn from the first n images of the first gallery; yields a variant for each point of `CURVE`.

    Parameters
    ----------
    n : int
        1 as in the paper's comparison; more are a naive variant.
    changes : dict
        Of the settings: `WORD_ALONE` makes it Textual Inversion, `LORA_ALONE` LoRA DreamBooth.
    task : BaselineTask
    """
    from chosen_one_nb.steps.refine import TrainingSet, refine

    settings, data = task.settings.replace(**STOCK | changes), TrainingSet(task.prompt, task.references(n))
    character, done = None, 0
    for share in CURVE:
        steps = max(1, round(share * settings.refine_steps))
        if steps > done:
            part = settings.replace(refine_steps=steps - done)
            character, done = refine(task.models, data, part, character, seed=settings.seed + done), steps
            yield f"{steps} steps", task.drawer(character)


def loop(
    task: BaselineTask,
    *,
    models: Callable[[Models], Models] = lambda models: models,
    choose: Callable[[Run], None] | None = None,
    change: Callable[[Settings], Settings] = lambda settings: settings,
) -> Iterator[tuple[str, Drawer]]:
    """Carry the method through, in ``run/`` of the task's folder, which goes on where it stopped.

    Parameters
    ----------
    task : BaselineTask
    models : callable
        Another extractor, for example.
    choose : callable, optional
        Chooses images at each iteration, in the place of clustering.
    change : callable
        Changes the settings.
    """
    folder, settings, used = task.folder / "run", change(task.settings), models(task.models)
    there = (folder / "run.json").exists()
    with Run.open(folder, used) if there else Run.start(task.prompt, used, settings, folder) as run:
        if run.root.settings != settings:
            raise RunError(f"{folder} holds a run with other settings. Give another folder.")
        run.until_converged(ask=choose is not None)
        while choose and run.next_stage == "choose":
            choose(run)
            run.until_converged(ask=True)
        character = run.character
    yield "", task.drawer(character)  # the base model where not even the first iteration gave one


def at_random(run: Run) -> None:
    """Choose as many images as the cluster has that the rule would take, but any (section 4.3)."""
    node = run.current
    clusters, settings = node.clusters, node.settings
    n = settings.target_cluster_size if clusters.proposed is None else int(clusters.sizes[clusters.proposed])
    rng = np.random.default_rng([settings.seed, node.iteration])
    run.selection.choose(images=sorted(rng.choice(node.intact, n, replace=False).tolist()), note="at random")


def with_extractor(source: Callable[[Models], str], models: Models) -> Models:
    """Return the same models with another feature extractor."""
    from chosen_one_nb.models.features import FeatureExtractor

    extractor = FeatureExtractor.load(source(models), dtype=models.extractor.model.dtype)
    extractor.model.to(models.extractor.model.device)
    extractor.device = models.extractor.device
    recipe = models.recipe | {"extractor": extractor.name}
    whole = digest(f"{models.fingerprint} {extractor.name}")
    return dataclasses.replace(models, extractor=extractor, recipe=recipe, fingerprint=whole)


def _dino(models: Models) -> str:
    """DINOv1: that of the model set, else its authors' on the Hub."""
    own = model_set(models.name) / "dinov1"
    return str(own) if own.is_dir() else "facebook/dino-vitb16"


def _preset(**changes: Any) -> Method:
    return partial(loop, change=lambda settings: settings.replace(**changes))


def _long(settings: Settings) -> Settings:
    return settings.replace(max_iterations=1, refine_steps=LONGER * settings.refine_steps)


TUNED: dict[str, Method] = {
    "ours": loop,
    "textual_inversion": partial(learn, 1, WORD_ALONE),
    "lora_dreambooth": partial(learn, 1, LORA_ALONE),
    "naive_textual_inversion": partial(learn, FEW, WORD_ALONE),
    "naive_lora_dreambooth": partial(learn, FEW, LORA_ALONE),
    "without_clustering": partial(loop, choose=at_random),
    "without_lora": _preset(**WORD_ALONE),
    "without_tokens": _preset(**LORA_ALONE),
    "reinitialising": _preset(carry_over="reinit"),
    "single_iteration": _preset(max_iterations=1),
    "single_iteration_long": partial(loop, change=_long),
    "extractor_dinov1": partial(loop, models=partial(with_extractor, _dino)),
    "extractor_clip": partial(loop, models=partial(with_extractor, lambda models: models.clip.name)),
}
"""Methods by name: ours, four rivals, six ablations and two other extractors."""
