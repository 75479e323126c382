"""A ComfyUI workflow that draws the character: checkpoint, LoRA, `embedding:name`, sampler, image.

In ComfyUI's API form, a node per key with its class and inputs, a link being [node, output]: it can be
dragged onto the canvas like any workflow, and sent to a server's /prompt as {"prompt": workflow}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chosen_one_nb.character import Character
from chosen_one_nb.export.base import Base
from chosen_one_nb.export.drawn import Drawn, Example, Sampling
from chosen_one_nb.export.wording import comfyui_prompt

__all__ = ["SAMPLERS", "workflow"]

SAMPLERS = {
    "dpm++": ("dpmpp_2m", "normal"),
    "ddim": ("ddim", "ddim_uniform"),
    "euler": ("euler", "normal"),
    "euler trailing": ("euler", "sgm_uniform"),
}
"""This kit's samplers as ComfyUI's nearest (sampler_name, scheduler)."""


def workflow(character: Character, name: str, images: Sequence[Drawn] = ()) -> dict[str, Any]:
    """Return the workflow, with prompt, seed, size and settings of the best image.

    Parameters
    ----------
    character : Character
    name : str
        File name, without ending, in models/loras and models/embeddings.
    images : sequence of Drawn
        The best first; may be empty.

    Returns
    -------
    dict of str to dict
        Node number to {"class_type", "inputs", "_meta"}.

    Notes
    -----
    ComfyUI's noise and schedules are its own: the same character, not the same image. Without a negative
    prompt diffusers' SDXL is guided against zeros and SD 1.x against the empty text, and so it is here.
    """
    base = Base.of(character)
    example = Example.of(character, images)
    how = example.how
    width, height = example.size or (base.size, base.size)
    model = ["6", 0] if how.rescale else ["2", 0]
    nodes = {
        "1": _node("Base model", "CheckpointLoaderSimple", ckpt_name=base.checkpoint),
        "2": _node(
            "Character: LoRA", "LoraLoader", model=["1", 0], clip=["1", 1],
            lora_name=f"{name}.safetensors", strength_model=1.0, strength_clip=1.0,
        ),
        "3": _node(
            "Prompt", "CLIPTextEncode", clip=["2", 1], text=comfyui_prompt(character, name, example.prompt)
        ),
        "4": _nothing(base.sdxl),
        "5": _node("Size", "EmptyLatentImage", width=width, height=height, batch_size=1),
        "7": _sampler(how, model, example.seed),
        "8": _node("Decode", "VAEDecode", samples=["7", 0], vae=["1", 2]),
        "9": _node("Save", "SaveImage", images=["8", 0], filename_prefix=name),
    }  # fmt: skip
    if how.rescale:
        nodes["6"] = _node("Rescale guidance", "RescaleCFG", model=["2", 0], multiplier=how.rescale)
    return dict(sorted(nodes.items()))


def _node(title: str, kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}


def _nothing(sdxl: bool) -> dict[str, Any]:
    """What guidance contrasts the prompt with."""
    if sdxl:
        return _node("No negative prompt", "ConditioningZeroOut", conditioning=["3", 0])
    return _node("Negative prompt", "CLIPTextEncode", clip=["2", 1], text="")


def _sampler(how: Sampling, model: list[Any], seed: int) -> dict[str, Any]:
    sampler, scheduler = SAMPLERS[how.sampler]
    return _node(
        "Sampler", "KSampler", model=model, seed=seed, steps=how.steps, cfg=float(how.guidance),
        sampler_name=sampler, scheduler=scheduler, positive=["3", 0], negative=["4", 0],
        latent_image=["5", 0], denoise=1.0,
    )  # fmt: skip
