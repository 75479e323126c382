"""What each stage of an iteration takes from the disk, which step it calls, and what it leaves there.

One function per stage of `chosen_one_nb.run.node.STAGES` that computes (choosing is the run's own
affair). Each returns the stamps of the files it wrote; the stage counts as done once the run has recorded
them. Until then the files are mere leftovers: the stage may be cut short anywhere and simply done again.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.drawing import Album, draw
from chosen_one_nb.run.node import Node
from chosen_one_nb.run.store import Stamp
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.subject import subject

if TYPE_CHECKING:
    from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.steps.converge import Look
    from chosen_one_nb.steps.training_set import TrainingSet

Files = dict[str, Stamp]
Alone = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Bench:
    """What the stages work with.

    Parameters
    ----------
    prompt : str
        The run's prompt.
    root : Node
        Where the first gallery lies.
    folder : Path
        Of the run, where it may keep a vocabulary of its own.
    models : callable
        Gives the models, loading them when first asked.
    fingerprint : str
        Of these models.
    calls : Callbacks
        Progress, images and loss to report, and cancel.
    crew : Crew, optional
        Workers to draw a gallery's missing images.
    """

    prompt: str
    root: Node
    folder: Path
    models: Callable[[], Models]
    fingerprint: str
    calls: Callbacks
    crew: Any = None


def seed_of(settings: Any, *words: int) -> int:
    """Return a 32-bit seed derived from ``settings.seed`` and the words: same words, same seed."""
    return int(np.random.SeedSequence([settings.seed, *words]).generate_state(1)[0])


def gallery_request(bench: Bench, node: Node) -> SamplingRequest:
    """Say what a node's gallery is: the prompt (with Θ, its caption), the node's seeds and settings."""
    theta = node.theta_in
    text = theta.prompt() if theta else bench.prompt
    digest = node.parent.theta_digest if node.parent else ""
    return SamplingRequest(text, node.seeds, node.settings, theta, character_digest=digest)


def generate(bench: Bench, node: Node) -> Files:
    """Draw the gallery (section 3): ``gallery/000.png`` with ``000.npy``, the latents it was decoded from."""
    about = {"run": bench.prompt, "iteration": str(node.iteration), "node": node.home.id}
    album = Album(node.home.folder / "gallery", node.home.folder, latents=True, about=about)
    _, files = draw(gallery_request(bench, node), album, bench.models, bench.fingerprint, bench.calls, crew=bench.crew)
    return {f"gallery/{name}": stamp for name, stamp in files.items()}


def embed(bench: Bench, node: Node) -> Files:
    """See the gallery through the extractor (features), CLIP, and plain image statistics."""
    from chosen_one_nb.steps.converge import look
    from chosen_one_nb.steps.embed import embed as see

    models, images, folder = bench.models(), list(node.images), node.home.folder
    features = see(models, images, node.settings, bench.calls).cls
    files = {"features.npy": store.write_array(folder / "features.npy", features)}
    seen = look(images, features)
    if models.clip is not None:
        clip = models.clip.images(images)
        similarity = clip @ models.clip.texts([bench.prompt])[0]
        seen = dataclasses.replace(seen, prompt_similarity=similarity.astype(np.float32))
        files["clip.npy"] = store.write_array(folder / "clip.npy", clip)
    return files | {"look.npz": store.write_arrays(folder / "look.npz", _look_arrays(seen))}


def _look_arrays(look: Look) -> dict[str, np.ndarray]:
    arrays = {f"s_{name}": values for name, values in look.statistics.items()}
    arrays["thumbnails"] = look.thumbnails
    return arrays if look.prompt_similarity is None else {**arrays, "prompt_similarity": look.prompt_similarity}


def patches(bench: Bench, node: Node) -> Files:
    """See the patch tokens of the gallery, (N, P, D) float16; no stage of its own, made when asked for."""
    from chosen_one_nb.steps.embed import embed as see

    folder = node.home.folder
    seen = see(bench.models(), list(node.images), node.settings, bench.calls, patches=True).patches
    if seen is None:
        raise RunError(f"The extractor {bench.models().extractor.name} has no patch tokens. Take DINOv2, for example.")
    return {"patches.npy": store.write_array(folder / "patches.npy", seen)}


def segmentation(bench: Bench, node: Node) -> Files:
    """Part the gallery into foregrounds and scenes, and see each alone; no stage of its own, made when asked for."""
    folder = node.home.folder
    found, clip = segmented(bench.models(), node, bench.calls)
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


def check(bench: Bench, node: Node) -> Files:
    """Measure the gallery against d_conv and against the first one's health (section 3.3)."""
    from chosen_one_nb.steps import converge

    convergence = converge.check(node.features, bench.root.features, node.settings)
    health = converge.health(node.look, bench.root.look, node.settings)
    found = {"convergence": convergence, "health": health, "verdict": converge.verdict(convergence, health)}
    return {"check.json": store.write_json(node.folder / "check.json", store.plain(found))}


def refine(bench: Bench, node: Node) -> Files:
    """Learn Θ from the chosen images (section 3.2): ``theta/``, its checksum, and ``losses.json``."""
    from chosen_one_nb.steps.refine import refine as learn

    settings = node.settings
    losses: list[dict[str, Any]] = []
    theta = learn(
        bench.models(),
        _training_set(bench, node),
        settings,
        node.theta_in if settings.carry_over == "warm" else None,
        dataclasses.replace(bench.calls, on_step=_heard(bench.calls, losses)),
        seed=seed_of(settings, node.iteration, 1),
    )
    theta.provenance |= _provenance(bench, node)
    files = {"losses.json": store.write_json(node.folder / "losses.json", losses)}
    files["theta.json"] = store.write_json(node.folder / "theta.json", {"weights": weights_digest(theta)})
    return files | _save_theta(theta, node.folder)


def _training_set(bench: Bench, node: Node) -> TrainingSet:
    """What a node's character is learned from: the chosen images, and the first gallery where the settings want it."""
    from chosen_one_nb.steps.training_set import TrainingSet

    def described(source: Node, images: Sequence[int]) -> list[list[str]] | None:
        return _descriptions(bench, source, images) if node.settings.describe_scene else None

    prior, first, every = None, bench.root, range(len(bench.root.images))
    if node.settings.prior_share:
        prior = TrainingSet(
            bench.prompt, list(first.images), first.latents(every), descriptions=described(first, every)
        )
    chosen = node.decision.images
    images = [node.image(i) for i in chosen]
    return TrainingSet(bench.prompt, images, node.latents(chosen), _masks(node), described(node, chosen), prior)


def _masks(node: Node) -> np.ndarray | None:
    """Where the foregrounds of the chosen images are, if the scene shall count less than they do."""
    if node.settings.scene_weight == 1:
        return None
    if not node.segmentation:
        why = node.segmentation.reason if node.segmentation is not None else "The foregrounds have not been looked for."
        raise RunError(f"scene_weight: {why} Set it to 1 to learn whole images.")
    return node.segmentation.rows(list(node.decision.images)).at(node.image(0).size[::-1])


def _descriptions(bench: Bench, node: Node, images: Sequence[int]) -> list[list[str]]:
    """What images of a gallery show beside the character, by CLIP, for their captions."""
    if node.clip is None:
        raise RunError(
            "describe_scene: expected models with CLIP. Load them with clip=..., or go on without: "
            f"run.branch({node.id!r}, describe_scene=False)."
        )
    from chosen_one_nb.analysis.captioning import descriptions
    from chosen_one_nb.analysis.zero_shot import score_attributes
    from chosen_one_nb.run.inquiring import vocabulary_of

    models = bench.models()
    vocabulary = vocabulary_of(None, bench.folder, models.name)
    texts = models.clip.texts(vocabulary.texts(subject(bench.prompt)))
    found = score_attributes(node.clip[list(images)], texts, vocabulary, logit_scale=models.clip.logit_scale)
    return descriptions(found, vocabulary, bench.prompt)


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


def _provenance(bench: Bench, node: Node) -> dict[str, Any]:
    """Where Θ comes from, for its file; no times, so that the same run makes the same file."""
    decision = {key: value for key, value in store.plain(node.decision).items() if key != "time"}
    return {
        "prompt": bench.prompt,
        "models": bench.fingerprint,
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


DO: dict[str, Callable[[Bench, Node], Files]] = {
    "generate": generate,
    "embed": embed,
    "patches": patches,
    "segmentation": segmentation,
    "check": check,
    "refine": refine,
}
"""The computing stages by name; clustering and choosing make edits, which `Run` records."""
