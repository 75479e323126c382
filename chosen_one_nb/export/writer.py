"""Write a character's export: a folder that diffusers, A1111, Forge and ComfyUI load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from chosen_one_nb.character import Character, CharacterError
from chosen_one_nb.export import diffusers_format, kohya
from chosen_one_nb.export.comfyui import workflow
from chosen_one_nb.export.drawn import Drawn, gather
from chosen_one_nb.export.embeddings import FOLDER as ROWS
from chosen_one_nb.export.embeddings import check_rows, write_rows
from chosen_one_nb.export.folder_readme import readme
from chosen_one_nb.export.layers import cross_attention_width
from chosen_one_nb.export.safe import writable
from chosen_one_nb.export.wording import check_name, default_name
from chosen_one_nb.run.store import write_bytes, write_image

if TYPE_CHECKING:
    from chosen_one_nb.steps.gallery import Gallery

__all__ = ["FORMATS", "write"]

FORMATS = ("diffusers", "kohya", "comfyui")
WORKFLOW = "comfyui_workflow.json"


def write(
    character: Character,
    folder: str | Path,
    formats: Sequence[str] = FORMATS,
    images: Gallery | Sequence[Image.Image | str | Path] | None = None,
    name: str | None = None,
) -> Path:
    """Write a character as files that diffusers, A1111, Forge, sd-scripts and ComfyUI load.

    Parameters
    ----------
    character : Character
    folder : str or Path
        Made if need be; gets `diffusers/`, `loras/`, `embeddings/`, `images/`, `comfyui_workflow.json`, and a
        README.md with lines to copy for each program.
    formats : sequence of "diffusers", "kohya", "comfyui"
        ComfyUI loads the kohya files, which are written for either.
    images : Gallery, or sequence of PIL.Image or path, optional
        The best first: kept with seed and settings, and as preview in the LoRA's metadata.
    name : str, optional
        Name of LoRA and embedding, and the word for the latter in A1111's and ComfyUI's prompts; None makes one of
        the folder's.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    CharacterError
        For an unknown format, a name that no prompt could hold, or a folder that cannot be written.
    """
    folder = Path(folder)
    formats = _checked(formats)
    name = default_name(folder) if name is None else check_name(name)
    check_rows(character.tokens, cross_attention_width(character.lora), "this character")
    drawn = gather(images, character)
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _write_images(folder, drawn)
        if "diffusers" in formats:
            diffusers_format.write(character, folder / diffusers_format.FOLDER)
        if "kohya" in formats or "comfyui" in formats:
            kohya.write(folder / kohya.FOLDER / f"{name}.safetensors", character, name, drawn)
            write_rows(folder / ROWS / f"{name}.safetensors", character)
        if "comfyui" in formats:
            nodes = json.dumps(workflow(character, name, drawn), indent=1, ensure_ascii=False)
            write_bytes(folder / WORKFLOW, nodes.encode())
        write_bytes(folder / "README.md", readme(character, name, formats, drawn).encode())
    return folder


def _checked(formats: Sequence[str]) -> tuple[str, ...]:
    chosen = (formats,) if isinstance(formats, str) else tuple(formats)
    if not chosen or not set(chosen) <= set(FORMATS):
        raise CharacterError(
            f"formats: expected some of {', '.join(FORMATS)}, got {chosen}. Leave it out for all of them."
        )
    return chosen


def _write_images(folder: Path, drawn: Sequence[Drawn]) -> None:
    if drawn:
        (folder / "images").mkdir(exist_ok=True)
    for i, image in enumerate(drawn, 1):
        write_image(folder / "images" / f"{i}.png", image.image, image.about)
