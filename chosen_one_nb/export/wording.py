"""Words as other programs read them: file names, prompts of A1111 and ComfyUI, markdown."""

from __future__ import annotations

import re
from pathlib import Path

from chosen_one_nb.character import Character, CharacterError

__all__ = ["a1111_prompt", "check_name", "comfyui_prompt", "default_name", "escape", "fence", "one_line"]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")


def default_name(folder: Path) -> str:
    """Return a file name, without ending, for a character exported to a folder.

    A1111 replaces the file's name wherever it stands in a prompt, so a bare "fox" would turn every fox into
    the character; the first part keeps it apart.

    Examples
    --------
    >>> default_name(Path("exports/Jasper the fox"))
    'chosen_jasper_the_fox'
    """
    words = re.findall(r"[a-z0-9]+", folder.resolve().name.lower())
    return "_".join(["chosen", *words])[:60].rstrip("_")


def check_name(name: str) -> str:
    """Return a file name that A1111 and ComfyUI can find in a prompt, or say why they could not."""
    if not _NAME.fullmatch(name):
        raise CharacterError(
            f"name: expected small letters a-z, digits, - and _ with a letter or digit at both ends (A1111 "
            f"and ComfyUI find the files by it in a prompt), got {name!r}. Use, for example, 'jasper_fox'."
        )
    return name


def a1111_prompt(character: Character, name: str, prompt: str | None = None) -> str:
    """Return a prompt (None: the caption) for A1111 and Forge: the embedding by its name, `<lora:name:1>`.

    Brackets and backslashes, which weigh words there, are escaped.
    """
    return _replaced(prompt, character, name, r"[()\[\]\\]") + f" <lora:{name}:1>"


def comfyui_prompt(character: Character, name: str, prompt: str | None = None) -> str:
    """Return a prompt (None: the caption) for ComfyUI: the embedding as `embedding:name`, brackets escaped."""
    return _replaced(prompt, character, f"embedding:{name}", r"[(){}]")


def _replaced(prompt: str | None, character: Character, word: str, special: str) -> str:
    """The prompt with the token replaced by a word of its own; special characters outside it are escaped."""
    parts = one_line(character.caption if prompt is None else prompt).split(character.token)
    escaped = [re.sub(special, lambda found: "\\" + found[0], part) for part in parts]
    return re.sub(r" +", " ", f" {word} ".join(escaped)).replace(f"{word} ,", f"{word},").strip()


def one_line(text: str) -> str:
    """Return a text without line breaks, tabs and runs of spaces."""
    return " ".join(text.split())


def escape(text: str) -> str:
    r"""Return user text for the inside of a markdown line or table cell, where it shows literally.

    Examples
    --------
    >>> print(escape("a *fox*\n# <script>"))
    a \*fox\* \# \<script\>
    """
    return re.sub(r"[!#$&()*:<>@\[\\\]_`{|}~]", lambda found: "\\" + found[0], one_line(text))


def fence(text: str, language: str = "") -> str:
    """Return a markdown code block that no text inside can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    bar = "`" * max(3, longest + 1)
    return f"{bar}{language}\n{text}\n{bar}"
