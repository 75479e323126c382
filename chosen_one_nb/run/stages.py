"""What each stage of an iteration takes from the disk, which step it calls, and what it leaves there.

One function per stage that computes (clustering and choosing make edits, which `Run` records), and per part that is
made only when asked for. Each returns the stamps of the files it wrote; the stage counts as done once `compute` has
recorded them. Until then the files are mere leftovers: the stage may be cut short anywhere and simply done again.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from chosen_one_nb.analysis.segmentation import NotAvailable, Segmentation, among, cut_out, segment
from chosen_one_nb.models.hub import bundled
from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.images import GalleryWorkers, ImageFolder, draw
from chosen_one_nb.run.node import ASIDE, SHARED, STAGES, UNKNOWN_SEED, Node, chosen, embedded
from chosen_one_nb.run.own import encode_own
from chosen_one_nb.run.state import RunState
from chosen_one_nb.run.store import Stamp, StoreError
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import Callbacks
from chosen_one_nb.steps.gallery import SamplingRequest, broken_images, tell_broken
from chosen_one_nb.steps.prompts import subject

if TYPE_CHECKING:
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.steps.training_set import TrainingSet

Files = dict[str, Stamp]
Segmented = tuple[Segmentation | NotAvailable, tuple[np.ndarray, ...] | None]
"""A gallery's foregrounds and scenes, and CLIP's embeddings of each alone (None without CLIP)."""


def draw_gallery(state: RunState, node: Node, callbacks: Callbacks, workers: GalleryWorkers | None = None) -> Files:
    """Draw the gallery (section 3): ``gallery/000.png`` with ``000.npy``, the latents it was decoded from.

    A person's own images lie there already, and are encoded.
    """
    if (node.seeds == UNKNOWN_SEED).all():
        return encode_own(state.checked_models(), node.home.folder, len(node.seeds), callbacks)
    about = {"run": state.prompt, "iteration": str(node.iteration), "node": node.home.id}
    folder = node.home.folder
    place = ImageFolder(folder / "gallery", folder, state.fingerprint, latents=True, about=about)
    theta = node.theta_in
    digest = node.parent.theta_digest if node.parent else state.tree.manifest.get("start", "")
    prompt = theta.prompt() if theta else state.prompt
    request = SamplingRequest(prompt, node.seeds, node.settings, theta, character_digest=digest)
    with suppress(StoreError):  # a damaged list is written anew: each image says itself whether it is broken
        _forget(place, node.broken)  # done again, perhaps with models that draw them
    images, stamps = draw(request, place, state.checked_models, callbacks, workers=workers)
    files = {f"gallery/{name}": stamp for name, stamp in stamps.items()}
    broken = broken_images(images)
    if not broken:
        return files
    left, least = len(images) - len(broken), node.settings.min_cluster_size
    if left <= least:
        _forget(place, broken)
        raise RunError(
            f"{len(broken)} of {len(images)} images are broken, and a cluster must hold more than {least} "
            f"(min_cluster_size). {tell_broken(broken)} With other models this run goes on; other settings need a new "
            "run, or a branch of the node before."
        )
    return files | store.write_files(folder, {"broken.json": {str(i): what for i, what in broken.items()}})


def _forget(place: ImageFolder, images: Iterable[int]) -> None:
    """Delete images, so that they count as not drawn yet."""
    for index in images:
        (place.folder / f"{index:03d}.png").unlink(missing_ok=True)


def embed_gallery(state: RunState, node: Node, callbacks: Callbacks) -> Files:
    """Compute features of the gallery by the extractor and CLIP, and plain image statistics."""
    from chosen_one_nb.steps.converge import measure
    from chosen_one_nb.steps.embed import check_finite, embed

    models, images = state.checked_models(), list(node.images)
    features = embed(models, images, node.settings, callbacks).cls
    contents: dict[str, Any] = {"features.npy": features}
    similarity = None
    if models.clip is not None:
        contents["clip.npy"] = models.clip.images(images)
        # With the plain prompt, not with the caption: the health check asks whether a gallery still shows what was
        # asked for, and the token means whatever has been learned.
        similarity = (contents["clip.npy"] @ models.clip.texts([state.prompt])[0]).astype(np.float32)
        check_finite(similarity, "CLIP")
    measures = measure(images, features, similarity)
    arrays = {f"s_{name}": values for name, values in measures.statistics.items()}
    arrays |= {"thumbnails": measures.thumbnails} | ({} if similarity is None else {"prompt_similarity": similarity})
    return store.write_files(node.home.folder, {**contents, "measures.npz": arrays})


def embed_patches(state: RunState, node: Node, callbacks: Callbacks) -> Files:
    """Keep the patch tokens of the gallery, (N, P, D) float16."""
    patches = _patches(state.checked_models(), list(node.images), node.settings, callbacks)
    return store.write_files(node.home.folder, {"patches.npy": patches})


def _patches(models: Models, images: Sequence[Image.Image], settings: Settings, callbacks: Callbacks) -> np.ndarray:
    from chosen_one_nb.steps.embed import embed

    patches = embed(models, images, settings, callbacks, patches=True).patches
    if patches is None:
        raise RunError(f"The extractor {models.extractor.name} has no patch tokens. Take DINOv2, for example.")
    return patches


def segment_gallery(state: RunState, node: Node, callbacks: Callbacks) -> Files:
    """Segment the gallery into foregrounds and scenes, and embed each alone."""
    found, clip = segmented(state.checked_models(), node, callbacks)
    if isinstance(found, NotAvailable):
        return store.write_files(node.home.folder, {"segmentation.json": {"reason": found.reason}})
    arrays = {name: getattr(found, name) for name in ("masks", "scores", "foreground", "scene")}
    arrays |= dict(zip(("clip_foreground", "clip_scene"), clip or (), strict=False))
    values = {"threshold": float(found.threshold), "separation": float(found.separation)}
    return store.write_files(node.home.folder, {"segmentation.npz": arrays, "segmentation.json": values})


def segmented(models: Models, node: Node, callbacks: Callbacks) -> Segmented:
    """Segment a gallery into foregrounds and scenes, and embed each alone, with CLIP too if there is one."""
    from chosen_one_nb.steps.embed import embed

    # The extractor runs three times: over whole images, then over foregrounds and over scenes alone.
    # Broken images show nothing, and are left out: what is a foreground is found from all images together.
    n, intact = len(node.images), node.intact
    images, parts = [node.images[i] for i in intact], [callbacks.part(i, 3) for i in range(3)]
    seen = embed(models, images, node.settings, parts[0], patches=True)
    found = segment(seen.patches, seen.grid)
    if isinstance(found, NotAvailable):
        return found, None
    sides = [[Image.fromarray(pixels) for pixels in side] for side in cut_out(images, found)]
    alone = [_patches(models, side, node.settings, part) for side, part in zip(sides, parts[1:], strict=True)]
    clip = None if models.clip is None else tuple(among(models.clip.images(side), intact, n) for side in sides)
    return found.with_features(*alone).among(intact, n), clip


def check_gallery(state: RunState, node: Node, callbacks: Callbacks) -> Files:
    """Measure the gallery against d_conv and against the first one's health (section 3.3)."""
    from chosen_one_nb.steps import converge

    now, first = (embedded(each).measures.rows(each.intact) for each in (node, state.tree.root))
    # A distance of 0 is no threshold: every later gallery would be 0 / 0 of it.
    if converge.all_same(first.features, node.settings):
        raise RunError(
            f"All {len(first.features)} images of the first gallery are the same to the feature extractor, so nothing "
            f"can be compared with it. Look at them ({state.tree.root.folder / 'gallery'}), then begin another run: "
            "with other models, another prompt or other sampling settings."
        )
    convergence = converge.check(now.features, first.features, node.settings)
    health = converge.health(now, first, node.settings)
    found = {"convergence": convergence, "health": health, "verdict": converge.verdict(convergence, health)}
    return store.write_files(node.folder, {"check.json": store.plain(found)})


def refine_character(state: RunState, node: Node, callbacks: Callbacks) -> Files:
    """Learn a character from the chosen images (section 3.2): ``theta/``, its checksum, and ``losses.json``."""
    from chosen_one_nb.steps.refine import refine

    settings, losses = node.settings, list[dict[str, Any]]()
    if not _drawn_by_base(state):
        settings = settings.replace(prior_share=0.0)

    def on_step(event: dict[str, Any]) -> None:
        losses.append(store.plain(event))
        if callbacks.on_step:
            callbacks.on_step(event)
        callbacks.report("refine", event["step"], event.get("steps", 0), "steps")

    theta = refine(
        state.checked_models(),
        _training_set(state, node),
        settings,
        node.theta_in if settings.carry_over == "warm" else None,
        dataclasses.replace(callbacks, on_step=on_step),
        # By the iteration, so that a stage that is done again learns the same, and no two iterations share noise.
        seed=int(np.random.SeedSequence([settings.seed, node.iteration, 1]).generate_state(1)[0]),
    )
    theta.provenance |= _provenance(state, node)
    files = store.write_files(node.folder, {"losses.json": losses, "theta.json": {"weights": weights_digest(theta)}})
    return files | _save_theta(theta, node.folder)


def _training_set(state: RunState, node: Node) -> TrainingSet:
    """What a node's character is learned from: the chosen images, and the first gallery where the settings want it."""
    from chosen_one_nb.steps.training_set import TrainingSet

    def described(source: Node, images: Sequence[int]) -> list[list[str]] | None:
        return _descriptions(state, source, images) if node.settings.describe_scene else None

    # The first gallery shows what the words of the prompt mean without the token, and keeps them from drifting.
    prior, root, intact = None, state.tree.root, state.tree.root.intact
    if node.settings.prior_share and _drawn_by_base(state):
        images = [root.images[i] for i in intact]
        prior = TrainingSet(state.prompt, images, root.images.latents(intact), descriptions=described(root, intact))
    picked = chosen(node).images
    return TrainingSet(
        state.prompt, [node.images[i] for i in picked], node.images.latents(picked), _masks(node, picked),
        described(node, picked), prior,
    )  # fmt: skip


def _drawn_by_base(state: RunState) -> bool:
    """Whether the first gallery shows what words mean to the base models: a person's own images, or those of a LoRA,
    would teach the prompt's other words the character.
    """
    return not (state.tree.manifest.get("images") or state.tree.manifest.get("start"))


def _masks(node: Node, images: Sequence[int]) -> np.ndarray | None:
    """Where the foregrounds of images are, if the scene shall count less than they do."""
    if node.settings.scene_weight == 1:  # as the paper has it
        return None
    found = embedded(node).segmentation
    if found is None or isinstance(found, NotAvailable):
        why = "The foregrounds have not been looked for." if found is None else found.reason
        raise RunError(f"scene_weight: {why} Set it to 1 to learn whole images.")
    return found.rows(list(images)).at(node.images[0].size[::-1])


def _descriptions(state: RunState, node: Node, images: Sequence[int]) -> list[list[str]]:
    """What images of a gallery show beside the character, by CLIP, for their captions."""
    from chosen_one_nb.analysis.prompt_match import descriptions
    from chosen_one_nb.analysis.vocabulary import load_vocabulary, score_attributes

    models, clip = state.checked_models(), embedded(node).clip
    if clip is None or models.clip is None:
        raise RunError(
            "describe_scene: expected models with CLIP. Load them with clip=..., or go on without: "
            f"run.branch({node.id!r}, describe_scene=False)."
        )
    vocabulary = load_vocabulary(vocabulary_file(state.folder, models.name))
    texts = models.clip.texts(vocabulary.texts(subject(state.prompt)))
    found = score_attributes(clip[list(images)], texts, vocabulary, logit_scale=models.clip.logit_scale)
    return descriptions(found, vocabulary, state.prompt)


def weights_digest(theta: Character) -> str:
    """Return a checksum of what a character is."""
    # Of the tensors by name: safetensors writes its notes in any order, so equal characters have unequal files.
    parts = [theta.token, theta.caption, str(theta.rank), str(theta.alpha)]
    weights = {"lora": theta.lora, "tokens": theta.tokens, "initial": theta.initial, "frozen": theta.frozen}
    for name, tensors in weights.items():
        for key in sorted(tensors):
            parts.append(f"{name} {key} {tuple(tensors[key].shape)} {store.digest(tensors[key].numpy().tobytes())}")
    return store.digest("\n".join(parts))


def _provenance(state: RunState, node: Node) -> dict[str, Any]:
    """Where a character comes from, for its file; no times, so that the same run makes the same file."""
    decision = chosen(node)
    return {
        "prompt": state.prompt,
        "models": state.fingerprint,
        "node": node.id,
        "images": [[node.iteration, index] for index in decision.images],
        "seeds": [int(node.seeds[index]) for index in decision.images],
        "decision": {key: value for key, value in store.plain(decision).items() if key != "time"},
    }


def _save_theta(theta: Character, folder: Path) -> Files:
    """Save a character beside its place, flush it, and put it there in one move."""
    beside, place = folder / f".theta{store.TEMPORARY}", folder / "theta"
    # Of a refinement that was cut short here.
    shutil.rmtree(beside, ignore_errors=True)
    with store.reported(beside):
        theta.save(beside)
    names = sorted(path.name for path in beside.iterdir())
    store.flush_all(beside, names)
    files = {f"theta/{name}": store.stamp(store.read_bytes(beside / name)) for name in names}
    store.replace_folder(beside, place)
    return files


COMPUTED: dict[str, Callable[[RunState, Node, Callbacks], Files]] = {
    "generate": draw_gallery,
    "embed": embed_gallery,
    "patches": embed_patches,
    "segmentation": segment_gallery,
    "check": check_gallery,
    "refine": refine_character,
}
"""The stages that compute, and the parts that are made when asked for."""


def compute(
    state: RunState, node: Node, stage: str, callbacks: Callbacks, workers: GalleryWorkers | None = None
) -> None:
    """Do a computing stage of a node and record it as done."""
    segment_if_needed(state, node, stage, callbacks)
    begun = time.monotonic()
    work = partial(draw_gallery, workers=workers) if stage == "generate" else COMPUTED[stage]
    files = work(state, node, callbacks)
    owner = node.home if stage in SHARED else node  # a sibling's gallery is its home's
    before = owner.files.stamps(stage)
    with state.lock:  # the work is done: from here on it is a matter of milliseconds
        node.commit(stage, files, time.monotonic() - begun)
        if before and stage in STAGES and _essence(before) != _essence(files):
            _drop_later(state, owner, stage)
        state.changed("stage", node, stage=stage)
    # Outside the lock, and last: a person may have turned warnings into errors, and the stage is done by now.
    if stage == "generate" and node.broken:
        warnings.warn(f"Left out of what comes: {tell_broken(node.broken)}", RuntimeWarning, stacklevel=3)


def segment_if_needed(state: RunState, node: Node, stage: str, callbacks: Callbacks) -> None:
    """Segment a gallery before the first stage whose settings need its foregrounds."""
    # "check" needs it as well: the map of a gallery without clusters is drawn from the same features.
    compared = node.settings.cluster_on == "foreground"
    wanted = {"check": compared, "cluster": compared, "refine": node.settings.scene_weight < 1}
    if wanted.get(stage) and embedded(node).segmentation is None:
        compute(state, node.home, "segmentation", callbacks)


def _drop_later(state: RunState, node: Node, stage: str) -> None:
    """Drop what was made from files that came out differently when done again."""
    others = [other for other in state.tree.nodes.values() if other is not node]
    followers = [other.id for other in others if node in (other.parent, other.home)]
    # A branch may stand for hours of work and a person's choices; it is kept, and the log says what it was made from.
    if followers:
        state.log("differs", node, stage=stage, kept=followers)
        return
    # What was computed aside is of the old images or features as well.
    later = STAGES[STAGES.index(stage) + 1 :]
    if stage in ("generate", "embed", "check"):
        node.edits.clear()
    stages = node.files.record["stages"].items()
    node.write(stages={name: value for name, value in stages if name not in (*later, *ASIDE)})


def _essence(files: Mapping[str, Any]) -> dict[str, Any]:
    """The stamps by which a stage came out the same: of a character its weights, not times and notes."""
    return {name: stamp for name, stamp in files.items() if not name.startswith(("theta/", "losses"))}


def vocabulary_file(folder: Path, model_name: str) -> Path:
    """Find the vocabulary of a run: its own, else one for its models, else that for images at large.

    Parameters
    ----------
    folder : Path
        Of the run; a file ``vocabulary.json`` in it goes before all others.
    model_name : str
        ``data/attributes_NAME.json`` is taken for models whose name ends with NAME.
    """
    name = re.sub(r"\W+", "-", Path(model_name).name.lower())
    # The CLIP of small models knows only the words of their world, so these have a vocabulary of their own.
    choices = (folder / "vocabulary.json", bundled(f"attributes_{name}.json"), bundled("attributes.json"))
    return next((path for path in choices if path.exists()), choices[-1])
