"""`story`, `edit` and `pose` in a shell: what they write, and what they say when something is wrong."""

import json

import numpy as np
import pytest
from diffusers import ControlNetModel
from helpers.tiny_models import SIZE, made_for
from PIL import Image

from chosen_one_nb import cli

FEW = ["--set", "sampling_steps=2", "guidance_scale=1.0"]


@pytest.fixture
def character(models, tmp_path):
    return str(made_for(models.pipeline).save(tmp_path / "fox"))


def test_a_story_is_written_as_a_page(character, model_folder, tmp_path, capsys):
    plan, page = tmp_path / "story.json", tmp_path / "story.html"
    plan.write_text(json.dumps({"title": "A fox", "scenes": ["on the beach", "in snow"], "candidates": 1}))
    words = ["story", character, str(plan), "--models", str(model_folder), "--out", str(page), *FEW]
    assert cli.main(words) == 0
    assert page.read_text().count("<figure>") == 2
    assert capsys.readouterr().out.strip() == str(page)


def test_an_edit_and_a_pose_are_written_with_their_settings(character, model_folder, models, tmp_path):
    image, mask, out = (tmp_path / name for name in ("fox.png", "mask.png", "out.png"))
    Image.new("RGB", (SIZE, SIZE), "red").save(image)
    Image.fromarray(np.eye(SIZE) > 0).save(mask)
    common = [f"--models={model_folder}", f"--out={out}", "--context=in a hat", "--seed=7", *FEW]
    assert cli.main(["edit", character, str(image), f"--mask={mask}", *common]) == 0
    with Image.open(out) as written:
        assert written.info["seed"] == "7"
        assert written.info["prompt"].endswith("<v> in a hat")
        assert written.getpixel((SIZE - 1, 0)) == (255, 0, 0)
    controlnet = ControlNetModel.from_unet(models.pipeline.unet, conditioning_embedding_out_channels=(8, 16, 16))
    controlnet.save_pretrained(tmp_path / "controlnet")
    assert cli.main(["pose", character, "figure_arms_up", f"--controlnet={tmp_path / 'controlnet'}", *common]) == 0
    with Image.open(out) as written:
        assert "left hand" in written.info["skeleton"]


def test_what_is_wrong_is_told_in_one_sentence(character, tmp_path, capsys):
    assert cli.main(["story", character, str(tmp_path / "none.json")]) == 1
    assert cli.main(["pose", character, "nobody"]) == 1
    assert cli.main(["edit", character, "none.png", "--node", "1"]) == 1
    story, pose, edit = capsys.readouterr().err.splitlines()
    assert "expected a JSON file" in story
    assert "nobody: expected a skeleton's JSON file, with joints and limbs, or one of figure_arms_out" in pose
    assert "--node: expected a run's folder with it" in edit
