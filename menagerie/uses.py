"""What a character is good for, measured by the reader: stories, edits, poses. Part of `menagerie.measure`."""

from __future__ import annotations

import time
from random import Random

import numpy as np
import pandas as pd
from PIL import Image

from chosen_one_nb.applications.edit import edit, subject_mask
from chosen_one_nb.applications.pose import load_controlnet, pose
from chosen_one_nb.applications.skeleton import Skeleton
from chosen_one_nb.applications.story import story
from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Models
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from menagerie import world
from menagerie.evaluate import context_present, identity_agreement
from menagerie.reader import Reader
from menagerie.rows import NONE, Row, row
from menagerie.training.data import HELD_OUT

PANELS = world.CONTEXTS[:6]
EDITS = (
    ("hat or crown", (0.0, 0.45), ("wearing a hat", "wearing a crown")),
    ("glasses", (0.0, 0.5), ("wearing glasses", "wearing a bow")),
    ("garment", (0.45, 1.0), ("wearing a cape", "wearing overalls", "wearing a scarf")),
    ("action", (0.35, 1.0), ("playing with a ball", "reading a book", "eating ice cream")),
)
"""What edits ask for, the part of the foreground's height that is drawn anew, and contexts: the first that is new."""
COVERED = {(0.0, 0.45): ("accessory", "eyes"), (0.0, 0.5): ("accessory", "eyes"),
           (0.45, 1.0): ("garment", "second"), (0.35, 1.0): ("garment", "second")}  # fmt: skip
"""Identity attributes that sit under a mask of such a part; their colours with them."""
MARGIN = 8  # pixels of 128 that a mask is wider than the foreground


def story_rows(models: Models, reader: Reader, n: int, settings: Settings) -> list[Row]:
    """Stories of six panels and four candidates, the chosen ones read: context there, identity between panels."""
    theta, rows = Run.example().character, []
    texts, asked = [text for text, _ in PANELS], [wanted for _, wanted in PANELS]
    bare = theta.caption.replace(theta.token, "").strip()
    for how, character in (("with Θ", theta), ("base", None)):
        found, start = [], time.perf_counter()
        for seed in range(n):
            scenes = texts if character else [f"{bare} {text}" for text in texts]
            told = story(models, character, scenes, seed=seed, settings=settings)
            found.append(reader([panel.image for panel in told.panels]))
        seconds = (time.perf_counter() - start) / n
        rows += [
            row("story", f"asked context there, {how}", [context_present(read, asked) for read in found]),
            row("story", f"identity agreement between panels, {how}", [identity_agreement(read) for read in found]),
            ("story", f"seconds for six panels x four candidates, {how}", seconds, NONE, NONE),
        ]
    return rows


def part_mask(foreground: np.ndarray, part: tuple[float, float]) -> np.ndarray:
    """A box over a part of the height of a foreground's bounding box, a little wider: bool of the mask's shape."""
    ys, xs = (np.flatnonzero(foreground.any(axis)) for axis in (1, 0))
    top, height = ys[0], ys[-1] + 1 - ys[0]
    low, high = (round(top + share * height) for share in part)
    box = np.zeros_like(foreground)
    box[max(0, low - MARGIN) : high, max(0, xs[0] - MARGIN) : xs[-1] + MARGIN] = True
    return box


def edit_rows(models: Models, reader: Reader, n: int, settings: Settings) -> list[Row]:
    """Edits of the example's character under masks of its foreground: asked for and there, and all else as before."""
    theta = Run.example().character
    sources = generate(models, SamplingRequest(theta.prompt(), range(-(-n // len(EDITS))), settings, theta)).images
    before = reader(sources).to_dict("records")
    kinds, there, same, elsewhere, kept = [], [], [], [], []
    start = time.perf_counter()
    for i in range(n):
        (kind, part, contexts), source, was = EDITS[i % len(EDITS)], sources[i // len(EDITS)], before[i // len(EDITS)]
        context = next(text for text in contexts if not world.named_in(text).items() <= was.items())
        wanted = world.named_in(context)
        mask = part_mask(np.asarray(subject_mask(models, source)) > 0, part)
        done = edit(
            models, source, mask, theta.prompt(), character=theta, context=context, seeds=[i], settings=settings
        )
        read = reader(done.images).iloc[0]
        outside = np.asarray(done.region) == 0
        kinds.append(kind)
        there.append(all(read[name] == value for name, value in wanted.items()))
        others = [name for name in world.IDENTITY if name.removesuffix("_colour") not in wanted]
        same.append(np.mean([read[name] == was[name] for name in others]))
        apart = [name for name in others if name.removesuffix("_colour") not in COVERED[part]]
        elsewhere.append(np.mean([read[name] == was[name] for name in apart]))
        kept.append(np.array_equal(np.asarray(done.images[0])[outside], np.asarray(source)[outside]))
    seconds, there = (time.perf_counter() - start) / n, np.array(there, dtype=float)
    return [
        row("edit", "pixels outside of the feathered mask bit-identical", kept),
        row("edit", f"asked attribute there (n={n})", there),
        *(row("edit", f"  {kind}", there[[each == kind for each in kinds]]) for kind, _, _ in EDITS),
        row("edit", "identity attributes that are not under the mask as before", elsewhere),
        row("edit", "  all that were not asked for", same),
        ("edit", "seconds for one", seconds, NONE, NONE),
    ]


def skeleton_of(truth: world.Truth, size: int = 128) -> Skeleton:
    """The joints of a render as a skeleton; those outside of the image are not to be seen."""
    joints = dict.fromkeys(world.JOINTS)
    for name, (x, y, _) in zip(world.JOINTS, world.render(truth, size).joints.astype(float).tolist(), strict=True):
        joints[name] = (x, y) if 0 <= x <= 1 and 0 <= y <= 1 else None
    limbs = [(world.JOINTS[a], world.JOINTS[b]) for a, b in world.LIMBS]
    return Skeleton(joints=joints, limbs=limbs)


def poses(n: int) -> list[world.Truth]:
    """Draw ``n`` truths that no training saw, each with an unusual pose of arms, legs or body."""
    rng, found = Random(HELD_OUT + 5), []
    while len(found) < n:
        truth = world.sample(rng)
        if any(truth[name] != usual for name, usual in world.NEUTRAL.items()):
            found.append(truth)
    return found


def control_rows(models: Models, reader: Reader, n: int, settings: Settings) -> list[Row]:
    """Share of arms, legs and leans that the reader finds as the skeleton has them, against what should do worse.

    No prompt names a pose. Text alone and another truth's skeleton are the floors; with Θ, that of the bundled run.
    """
    truths, controlnet, rng = poses(n), load_controlnet(models), Random(0)
    skeletons = [skeleton_of(truth) for truth in truths]
    texts = [world.caption_of({name: t[name] for name in ("style", "colour", "kind")}, rng) for t in truths]
    theta = Run.example().character

    def drawn(shift: int, scale: float, character: Character | None = None) -> list[Image.Image]:
        prompts = [character.prompt()] * n if character else texts
        return [
            pose(models, character, prompts[i], skeletons[(i + shift) % n], controlnet=controlnet, scale=scale,
                 seeds=[i], settings=settings)[0]
            for i in range(n)
        ]  # fmt: skip

    asked = {
        "by its skeleton": drawn(0, 1.0),
        "by text alone": drawn(0, 0.0),
        "by another's skeleton": drawn(1, 1.0),
        "by its skeleton, with Θ": drawn(0, 1.0, theta),
    }
    wanted = pd.DataFrame(truths)[list(world.NEUTRAL)]
    rows = []
    for how, images in asked.items():
        right = reader(images)[list(world.NEUTRAL)] == wanted
        rows.append(row("control", f"pose wrong, {how}", 1 - right.to_numpy().mean(1)))
        for name, usual in world.NEUTRAL.items():
            unusual = right[name][wanted[name] != usual]
            rows.append(row("control", f"  {name} right where not {usual}, {how} (n={len(unusual)})", unusual))
    start = time.perf_counter()
    drawn_one = pose(models, theta, theta.prompt(), skeletons[0], controlnet=controlnet, settings=settings)
    return [*rows, ("control", f"seconds for {len(drawn_one)} image", time.perf_counter() - start, NONE, NONE)]
