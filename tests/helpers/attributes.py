"""Explorers on painted runs whose CLIP knows colours, for tests of attributes; a plugin that test files name.

PYTEST_DONT_REWRITE: test files import its functions before it becomes a plugin.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from chosen_one_nb.models.features import Features
from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets.explorer import Explorer
from helpers import painted

COLOURS = ["orange", "blue", "grey", "green"]
WORDS = {"groups": {
    "fur": {"kind": "identity", "one_of": True, "template": "a {} {noun}", "phrases": COLOURS},
    "place": {"kind": "incidental", "phrases": [{"text": "<b>snow</b>", "opposite": "beach"}, "beach"]}}}  # fmt: skip


class SeeingClip:
    """Images are their truth's colour; texts the colour they name."""

    logit_scale = 20.0

    def images(self, images, **_):
        truths = [painted.truth_of(int(image.info["seed"]), None) if "seed" in image.info else None for image in images]
        return np.stack([self._vector(truth["colour"] if truth else "") for truth in truths])

    def texts(self, texts, **_):
        return np.stack([self._vector(next((colour for colour in COLOURS if colour in text), "")) for text in texts])

    def patches(self, images, **_):
        return np.tile(self.images(images)[:, None], (1, 16, 1)), (4, 4)

    @staticmethod
    def _vector(colour):
        vector = np.array([float(colour == each) for each in COLOURS] + [0.5], np.float32)
        return vector / np.linalg.norm(vector)


def look(models, images, settings, callbacks=None, *, patches=False):
    """The painted features, and patch tokens that know the middle from the rim."""
    cls = np.stack([painted._pixels(image) for image in images])
    tokens = None
    if patches:
        middle = np.zeros((4, 4, 1), np.float32)
        middle[1:, 1:3] = 1
        colour = np.stack([np.asarray(image.convert("RGB").resize((4, 4)), np.float32) / 255 for image in images])
        where = np.tile(np.concatenate([middle, 1 - middle], -1), (len(images), 1, 1, 1))
        tokens = np.concatenate([colour, where], -1)
        tokens = tokens.reshape(len(images), 16, 5).astype(np.float16)
    return Features(painted.unit(cls - 0.5), tokens, (4, 4))


@pytest.fixture
def seeing_steps(monkeypatch):
    """Painted steps whose features have patch tokens, and whose CLIP knows colours."""
    painted.paint(monkeypatch)
    monkeypatch.setattr("chosen_one_nb.steps.embed.embed", look)
    monkeypatch.setattr(painted, "pause", 0.0)
    monkeypatch.setattr(painted.MODELS, "clip", SeeingClip())
    monkeypatch.setattr("chosen_one_nb.widgets.cards.RESAMPLES", 5)


@pytest.fixture(scope="session")
def waiting(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        painted.paint(patch)
        patch.setattr("chosen_one_nb.steps.embed.embed", look)
        patch.setattr(painted.MODELS, "clip", SeeingClip())
        run = painted.start(tmp_path_factory.mktemp("painted") / "run", prompt="a sticker of a fox", n_images=32)
        (run.folder / "vocabulary.json").write_text(json.dumps(WORDS))
        while run.next_stage != "choose":
            run.step()
        run.close()
        return run.folder


@pytest.fixture
def unasked(seeing_steps, waiting, tmp_path):
    """An explorer that has not asked."""
    place = shutil.copytree(waiting, tmp_path / "run")
    return Explorer(Run.open(place, painted.MODELS), method="pca", raise_errors=True)


@pytest.fixture
def asked(unasked):
    """An explorer that has asked, and shows the answer."""
    return ask(unasked)


def ask(explorer):
    explorer.attributes.ask.click()
    explorer.wait(60)
    explorer.settle()
    return explorer


def line(explorer, name):
    return next(row for row in explorer.attributes.view.rows if row["name"] == name)


def press(explorer, do, **more):
    explorer.attributes.act({"do": do, **more})


def edit(explorer, words):
    (explorer.run.folder / "vocabulary.json").write_text(json.dumps(words))


def second_gallery(explorer):
    """Go on to the choice of the gallery after the one shown."""
    run, before = explorer.run, explorer.node
    run.selection.choose()
    while run.current is before or run.next_stage not in ("choose", None):
        run.step()
    explorer.settle()
