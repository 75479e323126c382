"""Pose control: a character drawn through a skeleton by a ControlNet (arXiv 2302.05543) on the loaded models."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from chosen_one_nb.applications import request, with_settings
from chosen_one_nb.applications.skeleton import Skeleton, SkeletonError
from chosen_one_nb.character import Character
from chosen_one_nb.models.hub import ModelError, Source, model_set
from chosen_one_nb.models.images import read_image
from chosen_one_nb.models.load import Models
from chosen_one_nb.models.memory import move
from chosen_one_nb.models.pipelines import UNCHANGED_IMAGES
from chosen_one_nb.settings import SettingsError
from chosen_one_nb.steps.generate import Steering, generate
from chosen_one_nb.steps.latents import latent_size

__all__ = ["load_controlnet", "pose", "pose_of"]

OPENPOSE = "person_standing"
"""The skeleton in `data/poses` that names OpenPose's 18 points in their order."""

FITTING = ("in_channels", "cross_attention_dim", "block_out_channels", "addition_embed_type")
"""Of a UNet's configuration, what a ControlNet made from it shares."""


def pose(
    models: Models,
    character: Character | None,
    prompt: str,
    skeleton: Skeleton | str | Path,
    *,
    controlnet: Any = None,
    scale: float = 1.0,
    **sampling: Any,
) -> list[Image.Image]:
    """Draw a character in the pose of a skeleton.

    Parameters
    ----------
    models : Models
    character : Character or None
        None draws with the base model.
    prompt : str
        Such as ``character.prompt("in the snow")``.
    skeleton : Skeleton, str or Path
        A file, or the name of one in `data/poses`.
    controlnet : ControlNetModel, str or Path, optional
        From `load_controlnet`, or what it takes; None is that of the models' own folder.
    scale : float in [0, 2]
        How much the skeleton counts; 0 gives the image that is drawn without one.
    **sampling
        More of `SamplingRequest`: seeds (default: 0), settings, strength, context, negative.

    Returns
    -------
    list of PIL.Image
        One for each seed, its settings in `.info`.

    Raises
    ------
    SkeletonError, ModelError, PromptError, SettingsError, CharacterError
        For what cannot be used, in a sentence.
    """
    if isinstance(scale, bool) or not (isinstance(scale, int | float) and 0 <= scale <= 2):
        raise SettingsError(f"scale: expected a number from 0 to 2, got {scale!r}.")
    skeleton = Skeleton.load(skeleton)
    asked = request(models, prompt, character, sampling)
    if asked.settings.guidance_rescale:
        raise SettingsError(
            f"guidance_rescale: expected 0 beside a skeleton, got {asked.settings.guidance_rescale}. The stock "
            "ControlNet pipelines have no such rescaling."
        )
    if not hasattr(controlnet, "config"):
        controlnet = load_controlnet(models, controlnet)
    size, _ = latent_size(models.pipeline, asked.settings.image_size)
    arguments = {"image": skeleton.draw(size), "controlnet_conditioning_scale": float(scale)}
    steering = Steering(_pipeline(models, controlnet), arguments, (controlnet,))
    images = generate(models, asked, steering=steering).images
    return with_settings(images, asked, skeleton=skeleton.model_dump(), scale=scale)


def pose_of(image: Image.Image | str | Path, detector: Any) -> Skeleton:
    """Read the skeleton of the person in an image.

    Parameters
    ----------
    image : PIL.Image, str or Path
    detector : object
        With ``detect_poses(image)`` for arrays (H, W, 3), such as `OpenposeDetector` of the package controlnet_aux,
        which is not part of the kit: points have x and y in shares of the image's sides, or are None.

    Raises
    ------
    SkeletonError
        If it finds nobody, or other points than OpenPose's 18.
    """
    if not hasattr(detector, "detect_poses"):
        raise SkeletonError("detector: expected one with detect_poses. pip install controlnet_aux has such a one.")
    people = detector.detect_poses(np.asarray(read_image(image)))
    usual = Skeleton.load(OPENPOSE)
    if not people or len(people[0].body.keypoints) != len(usual.joints):
        raise SkeletonError(f"image: expected a person with {len(usual.joints)} points, the detector found none.")
    points = [each and (min(max(each.x, 0), 1), min(max(each.y, 0), 1)) for each in people[0].body.keypoints]
    return Skeleton(joints=dict(zip(usual.joints, points, strict=True)), limbs=usual.limbs)


def load_controlnet(models: Models, source: str | Path | None = None, *, offline: bool = False) -> Any:
    """Load a ControlNet for poses beside loaded models, in their precision.

    Parameters
    ----------
    models : Models
    source : str or Path, optional
        A folder or Hub id; None is `controlnet/` in the folder of the models. For SDXL and people:
        "xinsir/controlnet-openpose-sdxl-1.0" (Apache-2.0) or "thibaud/controlnet-openpose-sdxl-1.0" (licence "other");
        for Stable Diffusion 1.x "lllyasviel/sd-controlnet-openpose" (OpenRAIL).
    offline : bool
        Look in folders and the Hub's cache only.

    Raises
    ------
    ModelError
        If there is none, or it was made for another base.
    """
    from diffusers import ControlNetModel

    own = model_set(models.name) / "controlnet"
    if source is None and not own.is_dir():
        raise ModelError(
            f"controlnet: expected a folder or Hub id beside {models.name}, which has none of its own. For SDXL and "
            'people: "xinsir/controlnet-openpose-sdxl-1.0".'
        )
    origin = Source.of(own if source is None else source, offline)
    fetched = origin.fetch()
    with origin.loading("a ControlNet"):
        controlnet = ControlNetModel.from_pretrained(
            fetched,
            dtype=models.pipeline.unet.dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    _check_fits(controlnet, models.pipeline, str(origin))
    controlnet.eval().requires_grad_(False)
    if not models.low_memory:
        move(controlnet, models.device)
    return controlnet


def _check_fits(controlnet: Any, pipeline: Any, name: str) -> None:
    """Refuse a ControlNet of another base, by its sizes."""
    mine, theirs = dict(pipeline.unet.config), dict(controlnet.config)
    factor = 2 ** (len(theirs["conditioning_embedding_out_channels"]) - 1)
    pairs = {what: (mine[what], theirs[what]) for what in FITTING}
    pairs["pixels per latent"] = (pipeline.vae_scale_factor, factor)
    for what, (wanted, got) in pairs.items():
        if json.dumps(wanted) != json.dumps(got):  # a tuple and a list are the same configuration
            raise ModelError(f"{name}: expected a ControlNet of these models, with {what} {wanted}, got {got}.")


def _pipeline(models: Models, controlnet: Any) -> Any:
    """The stock ControlNet pipeline of the same class, on the components that are loaded."""
    import diffusers

    own, kind = models.pipeline, type(models.pipeline).__name__
    stock = getattr(diffusers, kind.replace("Pipeline", "ControlNetPipeline"))
    there = own.components | {"controlnet": controlnet, **UNCHANGED_IMAGES[kind]}
    pipeline = stock(**{name: there[name] for name in inspect.signature(stock.__init__).parameters if name in there})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
