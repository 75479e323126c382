"""What a character is good for, measured by the reader: poses. Part of ``python -m menagerie.measure``."""

from __future__ import annotations

import time
from random import Random

import pandas as pd
from PIL import Image

from chosen_one_nb.applications.pose import load_controlnet, pose
from chosen_one_nb.applications.skeleton import Skeleton
from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Models
from chosen_one_nb.run.run import Run
from chosen_one_nb.settings import Settings
from menagerie import world
from menagerie.reader import Reader
from menagerie.rows import NONE, Row, row
from menagerie.training.data import HELD_OUT


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
