"""What is checked and recorded before a run begins: prompt, folder, models, versions."""

from __future__ import annotations

import platform
import re
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chosen_one_nb.models.hub import bundled
from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.node import FORMAT
from chosen_one_nb.settings import Settings

if TYPE_CHECKING:
    from chosen_one_nb.models.load import Models

RECORDED = ("chosen_one_nb", "torch", "diffusers", "transformers", "peft", "scikit-learn", "numpy", "pillow")
"""Packages whose versions are kept with a run."""

EXAMPLE = bundled("runs", "fox")
"""The bundled finished run, made by ``python tools/bundled_run.py``."""

OWN = (".lock", "lock.json", "nodes")
"""What a start that was cut short may have left in a folder."""


def slug(text: str) -> str:
    """Turn a text into a short, readable, distinct file name.

    Examples
    --------
    >>> slug("in the park!")
    'in-the-park-165204'
    >>> slug("")
    'plain'
    """
    if not text:
        return "plain"
    # The checksum tells texts apart that are alike in letters and digits, such as "now!" and "now?".
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40]
    return f"{words}-{store.digest(text)[:6]}".strip("-")


def check_prompt(models: Models, prompt: str, settings: Settings) -> str:
    """Return the prompt stripped; `PromptError` where it, or the caption made of it, cannot be used.

    The token is not known to the tokenizers yet. Short words stand for it, as many as it will have vectors, so that
    the caption is as long as it will be while it is learned.
    """
    from chosen_one_nb.steps.prompts import check_prompt as checked

    # Before anything is drawn: a caption that is cut off would lose its token only at the first refinement.
    prompt = checked(models.pipeline, prompt, forbidden=settings.token)
    token = " ".join(["a"] * settings.token_vectors)
    checked(models.pipeline, settings.caption(prompt).replace(settings.token, token))
    return prompt


def check_empty(folder: Path) -> None:
    """Raise a `RunError` unless a folder is missing or empty."""
    if (folder / "run.json").exists():
        raise RunError(f"{folder} holds a run already. Go on with it: Run.open(...), or give another folder.")
    if folder.exists() and not folder.is_dir():
        raise RunError(f"Expected a folder, got the file {folder}.")
    # What a start that was cut short left behind does not stand in the way of the next.
    if folder.exists() and any(path.name not in OWN and not path.name.endswith(".part") for path in folder.iterdir()):
        raise RunError(f"{folder} is not empty and holds no run. Give a new or empty folder.")


def _words(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60] or "run"


def free_folder(prompt: str) -> Path:
    """Return a folder for a prompt's run under ``runs/`` that does not exist yet."""
    name = _words(prompt)
    # The same prompt again is another run, never the old one gone on with by accident.
    place, n = Path("runs") / name, 2
    while place.exists():
        place, n = Path("runs") / f"{name}-{n}", n + 1
    return place.resolve()


def export_folder(folder: Path, prompt: str, node: str) -> Path:
    """Return the folder that a run's character is exported to by default."""
    return folder / "exports" / f"{_words(prompt)}-{node}"


def vocabulary_file(folder: Path, model_name: str) -> Path:
    """Find the vocabulary of a run: its own, else one for its models, else that for images at large.

    Parameters
    ----------
    folder : Path
        Of the run; a file ``vocabulary.json`` in it goes before all others.
    model_name : str
        ``data/attributes_NAME.json`` is taken for models whose name ends with NAME.
    """
    name = re.sub(r"\W+", "-", Path(model_name).name.lower())
    # The CLIP of small models knows only the words of their world, so these have a vocabulary of their own.
    choices = (folder / "vocabulary.json", bundled(f"attributes_{name}.json"), bundled("attributes.json"))
    return next((path for path in choices if path.exists()), choices[-1])


def loaded(models: Models | str | Path) -> Models:
    """Return models, loading them where a name or folder is given."""
    if isinstance(models, str | Path):
        from chosen_one_nb.models.load import load_models

        return load_models(models)
    return models


def reloaded(recorded: dict[str, Any]) -> Models:
    """Load the models that a manifest records, Hub ids at the commit they were loaded at.

    In the precision recorded, where the device is of the same kind: what a GPU computes in half precision, a processor
    hardly can.
    """
    from chosen_one_nb.models.load import load_models
    from chosen_one_nb.models.memory import best_device

    machine = recorded.get("machine") or {}
    again = {"dtype": machine["dtype"]} if machine.get("device") == best_device().type else {}
    return load_models(**(recorded.get("load") or {"name": recorded["name"]}), **again)


def manifest(prompt: str, models: Models, settings: Settings) -> dict[str, Any]:
    """Return the contents of ``run.json``: what the run is and with what it is made."""
    return {
        "format": FORMAT,
        "prompt": prompt,
        "models": {
            "name": str(models.name),
            "fingerprint": models.fingerprint,
            "load": models.recipe,
            "machine": {key: value for key, value in models.machine.items() if key in ("device", "dtype")},
        },
        "settings": settings.model_dump(),
        "versions": {"python": platform.python_version(), "system": platform.platform()} | _versions(),
        "made": store.now(),
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in RECORDED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # the kit itself may run from a folder
            found[name] = "not installed"
    return found
