"""The README of an export: lines to copy into diffusers, A1111 and ComfyUI, settings, licence.

Whatever a person typed (prompt, caption, token) is escaped, quoted by `repr` in Python, and fenced in blocks
that it cannot end.
"""

from __future__ import annotations

from collections.abc import Sequence

from chosen_one_nb.character import Character
from chosen_one_nb.export.base import Base
from chosen_one_nb.export.drawn import Drawn, Example, Sampling
from chosen_one_nb.export.wording import a1111_prompt, comfyui_prompt, escape, fence, one_line
from chosen_one_nb.steps.generate import SAMPLERS

__all__ = ["diffusers_lines", "readme"]

A1111_SAMPLERS = {"dpm++": "DPM++ 2M", "ddim": "DDIM", "euler": "Euler",
                  "euler trailing": "Euler with schedule type SGM Uniform"}  # fmt: skip
"""This kit's samplers by their nearest names in A1111 and Forge."""


def readme(character: Character, name: str, formats: Sequence[str], images: Sequence[Drawn] = ()) -> str:
    """Return the README (markdown) of a character's export.

    Parameters
    ----------
    character : Character
    name : str
        File name of LoRA and embeddings, without ending.
    formats : sequence of str
        "diffusers", "kohya", "comfyui": which sections to write.
    images : sequence of Drawn
        The best first.
    """
    sections = {"diffusers": _diffusers, "kohya": _a1111, "comfyui": _comfyui}
    parts = [
        _about(character),
        _images(images),
        *(section(character, name, images) for kind, section in sections.items() if kind in formats),
        _licence(character),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(character: Character) -> str:
    base, about = Base.of(character), character.provenance
    made = f"made from {about['n_images']} images" if "n_images" in about else "made"
    commit = f" at commit {base.revision}" if base.revision else ""
    recorded = "" if base.known else " (guessed; the file this character came from does not say)"
    lines = [
        f"# {escape(about.get('prompt', character.caption))}",
        f"One consistent character, {made} by chosen_one_nb, a kit for the method The Chosen One (arXiv 2311.10093).",
        f"- Base model: {escape(base.name)}{commit}{recorded}; the files work with it and, as a rule, with models "
        f"fine-tuned from it.\n"
        f"- Caption: {escape(character.caption)}\n"
        f"- Word: {escape(character.token)}, {_rows(character)}\n"
        f"- LoRA: rank {character.rank}, alpha {character.alpha:g}, UNet attention only",
    ]
    if about.get("distilled"):
        lines[-1] += (
            f"\n- Distilled to few steps with {escape(about['distilled'])}, which is no part of these files: put it on "
            "the base model first (in diffusers, `load_lora_weights` and `fuse_lora` before the lines below)."
        )
    if not base.standard:
        lines.append(
            "> The base's text encoders are not as wide as those of the published SDXL or SD 1.x, so A1111 "
            "and ComfyUI, which expect those, cannot load it; diffusers can."
        )
    return "\n\n".join(lines)


def _rows(character: Character) -> str:
    shapes = [f"{len(rows)} x {rows.shape[-1]} ({key})" for key, rows in character.tokens.items()]
    return "learned rows " + " and ".join(shapes)


def _images(images: Sequence[Drawn]) -> str:
    if not images:
        return ""
    lines = [
        "## Images",
        "| image | seed | prompt | sampler | steps | guidance | size | strength |\n|---|---|---|---|---|---|---|---|",
    ]
    for i, drawn in enumerate(images, 1):
        how = Sampling.of(drawn.settings)
        rescale = f", rescale {how.rescale:g}" if how.rescale else ""
        seed = "not recorded" if drawn.seed is None else drawn.seed
        lines[-1] += (
            f"\n| ![Image {i}](images/{i}.png) | {seed} | {escape(drawn.prompt)} | {how.sampler} | "
            f"{how.steps} | {how.guidance:g}{rescale} | {drawn.image.width} x {drawn.image.height} | "
            f"{drawn.strength:g} |"
        )
    return "\n\n".join(lines)


def _diffusers(character: Character, name: str, images: Sequence[Drawn]) -> str:
    return "\n\n".join(
        [
            "## diffusers",
            'In this folder, with `pip install "diffusers>=0.42" transformers accelerate peft`. In float32 on '
            "the CPU the image is the kit's own, pixel by pixel:",
            fence(diffusers_lines(character, images), "python"),
        ]
    )


def diffusers_lines(character: Character, images: Sequence[Drawn] = ()) -> str:
    """Return the Python lines that draw the character with stock diffusers.

    Noise is drawn on the CPU in float32, as the kit does, so that a seed means the same on every machine.
    """
    base = Base.of(character)
    example = Example.of(character, images)
    how = example.how
    size = example.size[1] if example.size else "pipe.unet.config.sample_size * pipe.vae_scale_factor"
    watermark = ", add_watermarker=False" if base.sdxl else ""
    rescale = f", guidance_rescale={how.rescale!r}" if how.rescale else ""
    scheduler, forced = SAMPLERS[how.sampler]
    options = "".join(f", {key}={value!r}" for key, value in forced.items())
    load = "from_single_file(base" if base.single_file else "from_pretrained(base, use_safetensors=True"
    commit = f", revision={base.revision!r}" if base.revision else ""
    return f"""\
import torch
from diffusers import {scheduler}, {base.pipeline_class}
{_load_line(base)}base = {base.pipeline!r}
device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
pipe = {base.pipeline_class}.{load}{commit}, dtype=dtype{watermark})
pipe.to(device)
pipe.scheduler = {scheduler}.from_config(pipe.scheduler.config{options})

pipe.load_lora_weights("diffusers", weight_name="pytorch_lora_weights.safetensors")
{_rows_lines(character)}

seed, size = {example.seed}, {size}
shape = (1, pipe.unet.config.in_channels, size // pipe.vae_scale_factor, size // pipe.vae_scale_factor)
noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
image = pipe(
    {one_line(example.prompt)!r},
    latents=noise.to(device, dtype), height=size, width=size,
    num_inference_steps={how.steps}, guidance_scale={how.guidance!r}{rescale},
).images[0]
image.save("image.png")"""


def _load_line(base: Base) -> str:
    return "from safetensors.torch import load_file\n\n" if base.sdxl else "\n"


def _rows_lines(character: Character) -> str:
    if len(character.tokens) == 1:
        return f"pipe.load_textual_inversion('diffusers', token={character.token!r})"
    return f"""\
rows = load_file("diffusers/embeddings.safetensors")
pipe.load_textual_inversion(
    rows["clip_l"], token={character.token!r}, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
pipe.load_textual_inversion(
    rows["clip_g"], token={character.token!r}, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
# SDXL's configuration finds a text's end by the highest id, which is now the new word's: name the end itself.
pipe.text_encoder_2.text_model.eos_token_id = pipe.tokenizer_2.eos_token_id"""


def _how(character: Character, images: Sequence[Drawn], samplers: dict[str, str]) -> str:
    example, side = Example.of(character, images), Base.of(character).size
    how, (width, height) = example.how, example.size or (side, side)
    return (
        f"Steps {how.steps}, {samplers[how.sampler]}, CFG {how.guidance:g}, size {width} x {height}, "
        f"seed {example.seed}"
    )


def _a1111(character: Character, name: str, images: Sequence[Drawn]) -> str:
    return "\n\n".join(
        [
            "## A1111 and Forge",
            fence(f"loras/{name}.safetensors       ->  models/Lora/\nembeddings/{name}.safetensors  ->  embeddings/"),
            "Choose the base model's checkpoint, and as prompt:",
            fence(a1111_prompt(character, name, Example.of(character, images).prompt)),
            f"{_how(character, images, A1111_SAMPLERS)}. The word is the embedding's file name. Noise and "
            "schedules are this program's own: the same character, not the same image. sd-scripts reads "
            "the LoRA too.",
        ]
    )


def _comfyui(character: Character, name: str, images: Sequence[Drawn]) -> str:
    return "\n\n".join(
        [
            "## ComfyUI",
            fence(
                f"loras/{name}.safetensors       ->  ComfyUI/models/loras/\n"
                f"embeddings/{name}.safetensors  ->  ComfyUI/models/embeddings/"
            ),
            f"Drag `comfyui_workflow.json` onto the canvas and choose your checkpoint of the base model in "
            f"the first node (it asks for {escape(Base.of(character).checkpoint)}). Its prompt:",
            fence(comfyui_prompt(character, name, Example.of(character, images).prompt)),
        ]
    )


def _licence(character: Character) -> str:
    base = Base.of(character)
    known = (
        f"whose licence is {base.licence}"
        if base.licence
        else "whose licence is not known here: look where the model came from"
    )
    return (
        f"## Licence\n\nMade with {escape(base.name)}, {known}. Read its terms on use and on passing "
        "derivatives on before you share these files or images."
    )
