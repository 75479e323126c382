"""Skeletons and pose control: what is drawn and refused, and that an untrained ControlNet changes nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from helpers.tiny_models import SIZE, made_for

from chosen_one_nb.applications.pose import FITTING, load_controlnet, pose, pose_of
from chosen_one_nb.applications.skeleton import Skeleton, SkeletonError, draw_limbs, skeleton_names
from chosen_one_nb.models.hub import ModelError, bundled
from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate

FAST = Settings(sampling_steps=2, guidance_scale=2.0)
STICK = Skeleton(joints={"head": (0.5, 0.25), "foot": (0.5, 0.75)}, limbs=[("head", "foot")])


def test_a_limb_is_a_dark_line_between_bright_joints_on_black():
    drawn = np.asarray(draw_limbs(np.array([[0.25, 0.5], [0.75, 0.5]]), [(0, 1)], 16, width=1))
    assert drawn[8, 4].tolist() == [255, 0, 0], "the first joint's hue"
    assert drawn[8, 8].tolist() == [153, 0, 0], "the first limb's"
    assert drawn[8, 12].tolist() == [255, 85, 0], "the second joint's"
    assert not drawn[:6].any()
    assert not drawn[11:].any()


def test_what_is_not_to_be_seen_is_not_drawn():
    drawn = np.asarray(draw_limbs(np.array([[0.5, 0.5], [np.nan, 0.5]]), [(0, 1)], 16, width=1))
    rows, columns, _ = drawn.nonzero()
    assert {*rows, *columns} <= {7, 8}, "one joint and no limb"


def test_a_joint_is_moved_within_the_image_and_the_skeleton_saved(tmp_path):
    moved = STICK.moved("foot", 0.25, 1.5)
    assert moved.joints["foot"] == (0.25, 1.0)
    assert STICK.joints["foot"] == (0.5, 0.75)
    assert Skeleton.load(moved.save(tmp_path / "stick.json")) == moved
    with pytest.raises(SkeletonError, match="joint: expected one of head, foot, got 'hand'"):
        STICK.moved("hand", 0, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"joints": {"head": [0.5, 1.5], "foot": [0.5, 0.5]}}, "expected joints from 0 to 1, got 'head'"),
        ({"limbs": [["head", "hand"]]}, "expected every limb to join two of the joints, got 'hand'"),
        ({"joints": {"head": None, "foot": None}}, "expected joints that are to be seen, got none"),
        ({"joints": {"head": [0.5], "foot": [0.5, 0.5]}}, "joints: head"),
        ({"code": "x"}, "code: "),
    ],
)
def test_a_skeleton_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, change, sentence):
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(STICK.model_dump() | change))
    with pytest.raises(SkeletonError, match=sentence) as refused:
        Skeleton.load(file)
    assert "\n" not in str(refused.value)


def test_a_missing_skeleton_names_those_that_are_there(tmp_path):
    with pytest.raises(SkeletonError, match=r"expected a skeleton's JSON file, with .* or one of .* \(No such file"):
        Skeleton.load(tmp_path / "none.json")


def controlnet_of(models):
    torch.manual_seed(0)
    return ControlNetModel.from_unet(models.pipeline.unet, conditioning_embedding_out_channels=(8, 16, 16)).eval()


@pytest.fixture(params=["models", "sd_models"])
def base(request):
    return request.getfixturevalue(request.param)


def test_an_untrained_controlnet_and_scale_0_give_the_base_image(base):
    prompt = "a red fox"
    plain = generate(base, SamplingRequest(prompt, [3, 4], FAST)).images
    untrained = controlnet_of(base)
    same = pose(base, None, prompt, STICK, controlnet=untrained, seeds=[3, 4], settings=FAST)
    for parameter in untrained.controlnet_mid_block.parameters():
        torch.nn.init.normal_(parameter, std=5.0)
    off = pose(base, None, prompt, STICK, controlnet=untrained, scale=0.0, seeds=[3, 4], settings=FAST)
    on = pose(base, None, prompt, STICK, controlnet=untrained, seeds=[3, 4], settings=FAST)
    for image, *others in zip(plain, same, off, strict=True):
        assert all(np.array_equal(image, other) for other in others)
    assert not np.array_equal(plain[0], on[0])


def test_a_pose_with_a_character_says_how_it_was_made_and_leaves_the_models_alone(base):
    character, before = made_for(base.pipeline), base.pipeline.unet.state_dict().keys()
    (image,) = pose(base, character, character.prompt(), STICK, controlnet=controlnet_of(base), settings=FAST)
    assert image.size == (SIZE, SIZE)
    assert json.loads(image.info["skeleton"])["limbs"] == [["head", "foot"]]
    assert image.info["prompt"] == character.prompt()
    assert image.info["seed"] == "0"
    assert base.pipeline.unet.state_dict().keys() == before


def test_a_controlnet_is_loaded_from_a_folder_and_one_of_another_base_refused(base, tmp_path):
    controlnet_of(base).save_pretrained(tmp_path / "own")
    assert load_controlnet(base, tmp_path / "own").dtype == base.pipeline.unet.dtype
    other = ControlNetModel.from_config(controlnet_of(base).config, cross_attention_dim=8)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="expected a ControlNet of these models, with cross_attention_dim"):
        load_controlnet(base, tmp_path / "other")
    factor = ControlNetModel.from_unet(base.pipeline.unet, conditioning_embedding_out_channels=(8, 16))
    factor.save_pretrained(tmp_path / "factor")
    with pytest.raises(ModelError, match="with pixels per latent 4, got 2"):
        load_controlnet(base, tmp_path / "factor")
    with pytest.raises(ModelError, match="which has none of its own"):
        load_controlnet(base)


def test_what_no_controlnet_pipeline_can_do_is_refused(base):
    with pytest.raises(SettingsError, match="guidance_rescale: expected 0 beside a skeleton"):
        pose(base, None, "a fox", STICK, settings=FAST.replace(guidance_rescale=0.5))
    with pytest.raises(SettingsError, match="scale: expected a number from 0 to 2, got 3"):
        pose(base, None, "a fox", STICK, scale=3)


def test_the_bundled_skeletons_are_readable():
    assert skeleton_names()
    for name in skeleton_names():
        assert Skeleton.load(name).draw(64).getbbox()


def test_the_bundled_controlnet_fits_the_bundled_models():
    folder = bundled("menagerie")
    unet = UNet2DConditionModel.load_config(folder / "pipeline" / "unet")
    controlnet = ControlNetModel.load_config(folder / "controlnet")
    assert {name: unet[name] for name in FITTING} == {name: controlnet[name] for name in FITTING}
    assert (folder / "controlnet" / "diffusion_pytorch_model.safetensors").stat().st_size < 10_000_000


def test_a_pose_is_read_by_a_detector_that_one_brings(images):
    points = [SimpleNamespace(x=0.5, y=i / 20) for i in range(17)] + [None]
    found = [SimpleNamespace(body=SimpleNamespace(keypoints=points))]
    read = pose_of(images[0], SimpleNamespace(detect_poses=lambda array: found if array.shape[2] == 3 else []))
    assert read.joints["nose"] == (0.5, 0.0)
    assert read.joints["left ear"] is None
    with pytest.raises(SkeletonError, match="the detector found none"):
        pose_of(images[0], SimpleNamespace(detect_poses=lambda _array: []))
    with pytest.raises(SkeletonError, match="detector: expected one with detect_poses"):
        pose_of(images[0], None)
