"""What each stage of an iteration takes from the disk, which step it calls, and what it leaves there.

One function per stage of `chosen_one_nb.run.node.STAGES` that computes (choosing is the run's own
affair). Each returns the stamps of the files it wrote; the stage counts as done once the run has recorded
them. Until then the files are mere leftovers: the stage may be cut short anywhere and simply done again.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.run import opening, store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.images import GalleryWorkers, ImageFolder, draw
from chosen_one_nb.run.node import ASIDE, SHARED, STAGES, Node
from chosen_one_nb.run.state import RunState
from chosen_one_nb.run.store import Stamp
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.subject import subject

if TYPE_CHECKING:
    from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.steps.converge import GalleryMeasures
    from chosen_one_nb.steps.training_set import TrainingSet

Files = dict[str, Stamp]
Alone = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class StageContext:
    """What the stages work with.

    Parameters
    ----------
    state : RunState
    callbacks : Callbacks
    workers : GalleryWorkers, optional
        Who draws a gallery's missing images; None: this process.
    """

    state: RunState
    callbacks: Callbacks = NO_CALLBACKS
    workers: GalleryWorkers | None = None


def seed_of(settings: Any, *words: int) -> int:
    """Return a 32-bit seed derived from ``settings.seed`` and the words: same words, same seed."""
    return int(np.random.SeedSequence([settings.seed, *words]).generate_state(1)[0])


def gallery_request(context: StageContext, node: Node) -> SamplingRequest:
    """Say what a node's gallery is: the prompt (with Θ, its caption), the node's seeds and settings."""
    theta = node.theta_in
    text = theta.prompt() if theta else context.state.prompt
    digest = node.parent.theta_digest if node.parent else ""
    return SamplingRequest(text, node.seeds, node.settings, theta, character_digest=digest)


def generate(context: StageContext, node: Node) -> Files:
    """Draw the gallery (section 3): ``gallery/000.png`` with ``000.npy``, the latents it was decoded from."""
    state = context.state
    about = {"run": state.prompt, "iteration": str(node.iteration), "node": node.home.id}
    place = ImageFolder(node.home.folder / "gallery", node.home.folder, state.fingerprint, latents=True, about=about)
    _, files = draw(
        gallery_request(context, node), place, state.checked_models, context.callbacks, workers=context.workers
    )
    return {f"gallery/{name}": stamp for name, stamp in files.items()}


def embed(context: StageContext, node: Node) -> Files:
    """See the gallery through the extractor (features), CLIP, and plain image statistics."""
    from chosen_one_nb.steps.converge import measure
    from chosen_one_nb.steps.embed import embed as see

    models, images, folder = context.state.checked_models(), list(node.images), node.home.folder
    features = see(models, images, node.settings, context.callbacks).cls
    files = {"features.npy": store.write_array(folder / "features.npy", features)}
    similarity = None
    if models.clip is not None:
        clip = models.clip.images(images)
        similarity = (clip @ models.clip.texts([context.state.prompt])[0]).astype(np.float32)
        files["clip.npy"] = store.write_array(folder / "clip.npy", clip)
    arrays = _arrays(measure(images, features, similarity))
    return files | {"measures.npz": store.write_arrays(folder / "measures.npz", arrays)}


def _arrays(measures: GalleryMeasures) -> dict[str, np.ndarray]:
    arrays = {f"s_{name}": values for name, values in measures.statistics.items()}
    arrays["thumbnails"] = measures.thumbnails
    return arrays if measures.prompt_similarity is None else {**arrays, "prompt_similarity": measures.prompt_similarity}


def patches(context: StageContext, node: Node) -> Files:
    """See the patch tokens of the gallery, (N, P, D) float16; no stage of its own, made when asked for."""
    from chosen_one_nb.steps.embed import embed as see

    folder = node.home.folder
    seen = see(
        context.state.checked_models(), list(node.images), node.settings, context.callbacks, patches=True
    ).patches
    if seen is None:
        extractor = context.state.models.extractor.name
        raise RunError(f"The extractor {extractor} has no patch tokens. Take DINOv2, for example.")
    return {"patches.npy": store.write_array(folder / "patches.npy", seen)}


def segmentation(context: StageContext, node: Node) -> Files:
    """Part the gallery into foregrounds and scenes, and see each alone; no stage of its own, made when asked for."""
    folder = node.home.folder
    found, clip = segmented(context.state.checked_models(), node, context.callbacks)
    if not found:
        return {"segmentation.json": store.write_json(folder / "segmentation.json", {"reason": found.reason})}
    arrays = {name: getattr(found, name) for name in ("masks", "scores", "foreground", "scene")}
    arrays |= dict(zip(("clip_foreground", "clip_scene"), clip or (), strict=False))
    values = {"threshold": float(found.threshold), "separation": float(found.separation)}
    return {"segmentation.npz": store.write_arrays(folder / "segmentation.npz", arrays),
            "segmentation.json": store.write_json(folder / "segmentation.json", values)}  # fmt: skip


def segmented(models: Models, node: Node, calls: Callbacks) -> tuple[Segmentation | NotAvailable, Alone | None]:
    """Part a gallery into foregrounds and scenes; with CLIP also what it sees of each alone."""
    from chosen_one_nb.analysis.segmentation import cut_out, segment
    from chosen_one_nb.steps.embed import embed as see

    images = list(node.images)
    looks = [calls.part(i, 3) for i in range(3)]
    seen = see(models, images, node.settings, looks[0], patches=True)
    found = segment(seen.patches, seen.grid)
    if not found:
        return found, None
    sides = [[Image.fromarray(side) for side in sides] for sides in cut_out(images, found)]
    alone = [see(models, side, node.settings, look, patches=True).patches
             for side, look in zip(sides, looks[1:], strict=True)]  # fmt: skip
    clip = tuple(models.clip.images(side) for side in sides) if models.clip is not None else None
    return found.with_features(*alone), clip


def check(context: StageContext, node: Node) -> Files:
    """Measure the gallery against d_conv and against the first one's health (section 3.3)."""
    from chosen_one_nb.steps import converge

    convergence = converge.check(node.features, context.state.tree.root.features, node.settings)
    health = converge.health(node.measures, context.state.tree.root.measures, node.settings)
    found = {"convergence": convergence, "health": health, "verdict": converge.verdict(convergence, health)}
    return {"check.json": store.write_json(node.folder / "check.json", store.plain(found))}


def refine(context: StageContext, node: Node) -> Files:
    """Learn Θ from the chosen images (section 3.2): ``theta/``, its checksum, and ``losses.json``."""
    from chosen_one_nb.steps.refine import refine as learn

    settings = node.settings
    losses: list[dict[str, Any]] = []
    theta = learn(
        context.state.checked_models(),
        _training_set(context, node),
        settings,
        node.theta_in if settings.carry_over == "warm" else None,
        dataclasses.replace(context.callbacks, on_step=_heard(context.callbacks, losses)),
        seed=seed_of(settings, node.iteration, 1),
    )
    theta.provenance |= _provenance(context, node)
    files = {"losses.json": store.write_json(node.folder / "losses.json", losses)}
    files["theta.json"] = store.write_json(node.folder / "theta.json", {"weights": weights_digest(theta)})
    return files | _save_theta(theta, node.folder)


def _training_set(context: StageContext, node: Node) -> TrainingSet:
    """What a node's character is learned from: the chosen images, and the first gallery where the settings want it."""
    from chosen_one_nb.steps.training_set import TrainingSet

    def described(source: Node, images: Sequence[int]) -> list[list[str]] | None:
        return _descriptions(context, source, images) if node.settings.describe_scene else None

    prior, first, every = None, context.state.tree.root, range(len(context.state.tree.root.images))
    if node.settings.prior_share:
        prior = TrainingSet(
            context.state.prompt, list(first.images), first.latents(every), descriptions=described(first, every)
        )
    chosen = node.decision.images
    images = [node.image(i) for i in chosen]
    return TrainingSet(context.state.prompt, images, node.latents(chosen), _masks(node), described(node, chosen), prior)


def _masks(node: Node) -> np.ndarray | None:
    """Where the foregrounds of the chosen images are, if the scene shall count less than they do."""
    if node.settings.scene_weight == 1:
        return None
    if not node.segmentation:
        why = node.segmentation.reason if node.segmentation is not None else "The foregrounds have not been looked for."
        raise RunError(f"scene_weight: {why} Set it to 1 to learn whole images.")
    return node.segmentation.rows(list(node.decision.images)).at(node.image(0).size[::-1])


def _descriptions(context: StageContext, node: Node, images: Sequence[int]) -> list[list[str]]:
    """What images of a gallery show beside the character, by CLIP, for their captions."""
    if node.clip is None:
        raise RunError(
            "describe_scene: expected models with CLIP. Load them with clip=..., or go on without: "
            f"run.branch({node.id!r}, describe_scene=False)."
        )
    from chosen_one_nb.analysis.prompt_match import descriptions
    from chosen_one_nb.analysis.vocabulary import load_vocabulary
    from chosen_one_nb.analysis.zero_shot import score_attributes

    models = context.state.checked_models()
    vocabulary = load_vocabulary(opening.vocabulary_file(context.state.folder, models.name))
    texts = models.clip.texts(vocabulary.texts(subject(context.state.prompt)))
    found = score_attributes(node.clip[list(images)], texts, vocabulary, logit_scale=models.clip.logit_scale)
    return descriptions(found, vocabulary, context.state.prompt)


def weights_digest(theta: Character) -> str:
    """Return a checksum of what Θ is, whatever the order in its files (safetensors writes notes in any order)."""
    parts = [theta.token, theta.caption, str(theta.rank), str(theta.alpha)]
    for name, tensors in (("lora", theta.lora), ("tokens", theta.tokens), ("initial", theta.initial)):
        for key in sorted(tensors):
            parts.append(f"{name} {key} {tuple(tensors[key].shape)} {store.digest(tensors[key].numpy().tobytes())}")
    return store.digest("\n".join(parts))


def _heard(calls: Callbacks, losses: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Keep what each training step reports and pass it on, with progress."""

    def on_step(event: dict[str, Any]) -> None:
        losses.append(store.plain(event))
        if calls.on_step:
            calls.on_step(event)
        calls.report("refine", event["step"], event.get("steps", 0), "steps")

    return on_step


def _provenance(context: StageContext, node: Node) -> dict[str, Any]:
    """Where Θ comes from, for its file; no times, so that the same run makes the same file."""
    decision = {key: value for key, value in store.plain(node.decision).items() if key != "time"}
    return {
        "prompt": context.state.prompt,
        "models": context.state.fingerprint,
        "node": node.id,
        "images": [[node.iteration, index] for index in node.decision.images],
        "seeds": [int(node.seeds[index]) for index in node.decision.images],
        "decision": decision,
    }


def _save_theta(theta: Character, folder: Path) -> Files:
    """Save Θ beside its place, flush it, and put it there in one move."""
    beside, place = folder / f".theta{store.TEMPORARY}", folder / "theta"
    shutil.rmtree(beside, ignore_errors=True)
    with store.told_of(beside):
        theta.save(beside)
    names = sorted(path.name for path in beside.iterdir())
    store.flush_all(beside, names)
    files = {f"theta/{name}": store.stamp(store.read_bytes(beside / name)) for name in names}
    store.replace_folder(beside, place)
    return files


DO: dict[str, Callable[[StageContext, Node], Files]] = {
    "generate": generate,
    "embed": embed,
    "patches": patches,
    "segmentation": segmentation,
    "check": check,
    "refine": refine,
}
"""The computing stages by name; clustering and choosing make edits, which `Run` records."""


def compute(context: StageContext, node: Node, stage: str) -> None:
    """Do a computing stage of a node and record it as done."""
    state = context.state
    segment_if_needed(context, node, stage)
    begun = time.monotonic()
    files = DO[stage](context, node)
    owner = node.home if stage in SHARED else node
    before = owner.record["stages"].get(stage)
    with state.lock:
        node.commit(stage, files, time.monotonic() - begun)
        if before and stage in STAGES and _essence(before["files"]) != _essence(files):
            _outdated(state, owner, stage)
        state.changed("stage", node, stage=stage)


def segment_if_needed(context: StageContext, node: Node, stage: str) -> None:
    """Segment a gallery before the first stage whose settings need its foregrounds."""
    # "check" needs it as well: the map of a gallery without clusters is drawn from the same features
    compared = node.settings.cluster_on == "foreground"
    wanted = {"check": compared, "cluster": compared, "refine": node.settings.scene_weight < 1}
    if wanted.get(stage) and node.segmentation is None:
        compute(context, node.home, "segmentation")


def _outdated(state: RunState, node: Node, stage: str) -> None:
    """Drop what was made from files that came out differently when done again."""
    followers = [other.id for other in state.tree.nodes.values() if other.parent is node or
                 (other.home is node and other is not node)]  # fmt: skip
    if followers:
        state.log("differs", node, stage=stage, kept=followers)
        return
    later = STAGES[STAGES.index(stage) + 1 :]
    stages = {name: value for name, value in node.record["stages"].items() if name not in (*later, *ASIDE)}
    if stage in ("generate", "embed", "check"):
        node.clear_edits()
    node.write({**node.record, "stages": stages})


def _essence(files: Mapping[str, Any]) -> dict[str, Any]:
    """The stamps that tell whether a stage came out the same: of Θ its weights, not times and notes."""
    return {name: stamp for name, stamp in files.items() if not name.startswith(("theta/", "losses"))}
