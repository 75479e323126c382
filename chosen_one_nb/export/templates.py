"""Texts of an export, filled into the templates beside this file: the README and ComfyUI's workflow."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import jinja2

from chosen_one_nb.export.content import ExportContent, a1111_prompt, comfyui_prompt
from chosen_one_nb.steps.generate import SAMPLERS

__all__ = ["comfyui_workflow", "readme"]


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
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("chosen_one_nb", "export"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # markdown and JSON, where HTML's escapes would show; each value names its filter
    )
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
