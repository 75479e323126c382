"""The tab "Use it": what is drawn is kept with its settings, drawn again, and in report and export."""

import numpy as np
import pytest
from PIL import Image

from chosen_one_nb.applications.kept import Use, keep, kept

pytest_plugins = ["helpers.explorers"]


@pytest.fixture
def asked(monkeypatch):
    """What is asked to be drawn: use, and names of the images given; the answer is red, then blue."""
    calls, colours = [], iter(["red", "blue"])

    def draw(_models, _theta, use, _settings, *, parts, callbacks):
        calls.append((use, sorted(parts)))
        return Image.new("RGB", (16, 16), next(colours))

    monkeypatch.setattr("chosen_one_nb.applications.draw.draw", draw)
    return calls


def test_there_is_nothing_to_use_without_a_character(explorer):
    assert explorer.use.go.disabled
    assert "no Θ yet" in explorer.use.about.value


def test_a_story_is_kept_with_its_settings_and_drawn_again(second, asked):
    panel = second.use
    panel.scenes.value, panel.seed.value = " at the beach\n\nin the snow", 7
    panel.go.click()
    second.wait()
    (use, parts), folder = asked[0], second.run.folder
    assert (use.kind, use.scenes, use.seed, parts) == ("story", ["at the beach", "in the snow"], 7, [])
    assert [each.use for each in kept(folder)] == [use]
    assert "Kept in" in second.status.text
    assert panel.shown.options == ("0001-story: story at the beach; in the snow, seed 7",)
    assert 'alt="story at the beach; in the snow, seed 7"' in panel.results.value
    panel.seed.value = 8
    panel.again.click()
    second.wait()
    assert asked[1][0] == use, "as it was asked for, whatever the form says now"
    assert len(kept(folder)) == 2
    assert "What it was used for" in second.run.report().read_text()
    exported = second.run.export(formats=["diffusers"])
    colours = [Image.open(file).resize((1, 1)).getpixel((0, 0)) for file in exported.glob("images/*.png")]
    assert (255, 0, 0) in colours


def test_an_edit_takes_the_selected_image_and_the_painted_mask(second, asked):
    panel = second.use
    panel.kind.value = "edit"
    second.session.select([3])
    panel.take.click()
    assert panel.pages["edit"].children[-1] is panel.canvas
    side = second.node.images[3].width
    panel.canvas.mask = np.eye(side) > 0
    panel.context.value = "wearing a hat"
    panel.go.click()
    second.wait()
    (only,) = kept(second.run.folder)
    assert (only.use.kind, only.use.context, asked[0][1]) == ("edit", "wearing a hat", ["mask", "source"])
    assert np.array_equal(only.image("mask"), np.uint8(255) * np.eye(side))
    assert np.array_equal(only.image("source"), second.node.images[3])
    panel.again.click()
    second.wait()
    assert asked[1][1] == ["mask", "source"]


def test_a_pose_takes_the_moved_skeleton(second, asked):
    panel = second.use
    panel.kind.value, panel.pick.value = "pose", "person_sitting"
    panel.editor.joints = {**panel.editor.joints, "nose": [0.25, 0.25]}
    panel.go.click()
    second.wait()
    assert asked[0][0].skeleton.joints["nose"] == (0.25, 0.25)
    (only,) = kept(second.run.folder)
    assert only.use == asked[0][0]


def test_a_damaged_use_is_left_out_and_its_place_told(tmp_path):
    sound = keep(tmp_path, Use(kind="story"), Image.new("RGB", (4, 4)))
    place = keep(tmp_path, Use(kind="pose"), Image.new("RGB", (4, 4))).folder
    (place / "use.json").write_text('{"kind": "dance"}')
    with pytest.warns(RuntimeWarning, match=r"0002-pose.use\.json is damaged: kind"):
        assert kept(tmp_path) == [sound]
