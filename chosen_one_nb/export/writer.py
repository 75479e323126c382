"""Write a character's export: a folder that diffusers, A1111, Forge and ComfyUI load."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from chosen_one_nb.character import Character, CharacterError, packed, write_files
from chosen_one_nb.export.content import ExportContent, Images, a1111_prompt, comfyui_prompt, image_records
from chosen_one_nb.export.kohya import kohya_metadata, kohya_tensors
from chosen_one_nb.export.reader import ONE_ENCODER, check_rows
from chosen_one_nb.models.images import encode_png
from chosen_one_nb.settings import user_path
from chosen_one_nb.steps.generate import SAMPLERS

__all__ = ["FORMATS", "comfyui_workflow", "readme", "write"]

FORMATS = ("diffusers", "kohya", "comfyui")


def write(
    character: Character,
    folder: str | Path,
    formats: Sequence[str] = FORMATS,
    images: Images = None,
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
        For an unknown format, a name that no prompt could hold, or a folder that cannot be written. All files are
        written, or none.
    """
    folder = user_path("folder", folder, CharacterError)
    formats = _check_formats(formats)
    name = _default_name(folder) if name is None else _check_name(name)
    check_rows(character, "this character")
    content = ExportContent(character, name, image_records(images, character))
    files = {f"images/{i}.png": _png(record.image) for i, record in enumerate(content.images, 1) if record.image}
    if "diffusers" in formats:
        files |= _diffusers_files(character)
    if "kohya" in formats or "comfyui" in formats:
        files |= _kohya_files(content)
    if "comfyui" in formats:
        files["comfyui_workflow.json"] = json.dumps(comfyui_workflow(content), indent=1, ensure_ascii=False).encode()
    files["README.md"] = readme(content, formats).encode()
    try:
        write_files(folder, files)
    except OSError as error:
        raise CharacterError(
            f"{folder}: expected a folder that can be written, got: {error}. Choose another folder, or change this "
            "one's permissions or free space, and export again; the character itself is unchanged."
        ) from error
    return folder


def _check_formats(formats: Sequence[str]) -> tuple[str, ...]:
    chosen = (formats,) if isinstance(formats, str) or not isinstance(formats, Iterable) else tuple(formats)
    if not chosen or not set(chosen) <= set(FORMATS):
        raise CharacterError(
            f"formats: expected some of {', '.join(FORMATS)}, got {chosen}. Leave it out for all of them."
        )
    return chosen


def _default_name(folder: Path) -> str:
    """Return a file name, without ending: "Jasper the fox" becomes "chosen_jasper_the_fox".

    A1111 replaces the file's name wherever it stands in a prompt, so a bare "fox" would turn every fox into the
    character; the first part keeps it apart.
    """
    words = re.findall(r"[a-z0-9]+", folder.resolve().name.lower())
    return "_".join(["chosen", *words])[:60].rstrip("_")


def _check_name(name: str) -> str:
    if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9](?:[a-z0-9_-]{,98}[a-z0-9])?", name)):
        raise CharacterError(
            f"name: expected small letters a-z, digits, - and _ with a letter or digit at both ends (A1111 "
            f"and ComfyUI find the files by it in a prompt), got {name!r}. Use, for example, 'jasper_fox'."
        )
    return name


def _diffusers_files(character: Character) -> dict[str, bytes]:
    """Return what `Character.save` writes; `pipeline.load_lora_weights(folder)` reads the LoRA in it.

    `load_textual_inversion` reads SDXL's rows tensor by tensor from `embeddings.safetensors`. For SD 1.x it takes the
    folder, where it looks for `learned_embeds.safetensors`, and the tensor's name for the token.
    """
    files = {f"diffusers/{name}": content for name, content in character.files().items()}
    if len(character.tokens) == 1:
        files["diffusers/learned_embeds.safetensors"] = _rows_file(character, character.token)
    return files


def _kohya_files(content: ExportContent) -> dict[str, bytes]:
    """Return LoRA and embeddings in folders as ComfyUI names its own."""
    tensors = kohya_tensors(content.character)
    # ModelSpec and A1111 hash what follows the header, which no metadata changes
    bare = packed(tensors)
    digest = hashlib.sha256(bare[8 + int.from_bytes(bare[:8], "little") :]).hexdigest()
    metadata = kohya_metadata(content) | {"modelspec.hash_sha256": f"0x{digest}", "sshs_model_hash": digest}
    files = {f"loras/{content.name}.safetensors": packed(tensors, metadata)}
    if content.character.tokens:
        files[f"embeddings/{content.name}.safetensors"] = _rows_file(content.character, ONE_ENCODER)
    return files


def _rows_file(character: Character, key: str) -> bytes:
    """Return token rows by encoder for SDXL, as the one tensor `key` for SD 1.x."""
    rows = character.tokens if len(character.tokens) > 1 else {key: next(iter(character.tokens.values()))}
    return packed(rows, {"token": character.token, "caption": character.caption})


def _png(image: Image.Image) -> bytes:
    """Return a PNG file with the image's text chunks: a run's images name prompt, seed and settings there."""
    return encode_png(image, {str(key): value for key, value in image.info.items() if isinstance(value, str)})


# --- texts, from the templates beside this file


def readme(content: ExportContent, formats: Sequence[str]) -> str:
    """Return the README (markdown) of an export.

    Parameters
    ----------
    content : ExportContent
    formats : sequence of str
        "diffusers", "kohya", "comfyui": which sections to write.
    """
    return _render("readme.md.j2", content, formats=formats)


def comfyui_workflow(content: ExportContent) -> dict[str, Any]:
    """Return a ComfyUI workflow in API form, with prompt, seed, size and settings of the best image.

    ComfyUI's noise and schedules are its own: the same character, not the same image.

    Returns
    -------
    dict of str to dict
        Node number to {"class_type", "inputs", "_meta"}; can be dragged onto the canvas, or sent to a server's /prompt
        as {"prompt": workflow}.
    """
    return json.loads(_render("comfyui_workflow.json.j2", content))


def _render(template: str, content: ExportContent, **more: Any) -> str:
    # markdown and JSON, where HTML's escapes would show; each value names its filter
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chosen_one_nb", "export"), undefined=jinja2.StrictUndefined, autoescape=False,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"md": escape_markdown, "fence": fence, "repr": repr}
    environment.globals |= {"schedulers": SAMPLERS, "a1111_prompt": a1111_prompt, "comfyui_prompt": comfyui_prompt}
    return environment.get_template(template).render(content=content, character=content.character, **more)


def escape_markdown(text: str) -> str:
    r"""Return user text for the inside of a markdown line or table cell, where it shows literally.

    Examples
    --------
    >>> print(escape_markdown("a *fox*\n# <script>"))
    a \*fox\* \# \<script\>
    """
    return re.sub(r"[!#$&()*:<>@\[\\\]_`{|}~]", lambda found: "\\" + found[0], " ".join(text.split()))


def fence(text: str, language: str = "") -> str:
    """Return a markdown code block that no text inside can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    bar = "`" * max(3, longest + 1)
    inside = text.strip("\n")
    return f"{bar}{language}\n{inside}\n{bar}\n"
