"""Where models come from: the package, folders, files, or the Hub by id and revision; and what to do without them.

Spelled `folder`, `file.safetensors`, `owner/name`, `owner/name@revision`, or with a file of the repository,
`owner/name/file.safetensors@revision`. What comes from the Hub is fetched whole into its cache first, only the
files that are needed, and loaded from there as any folder is: safetensors only, no code of a repository is ever run.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote

from chosen_one_nb.settings import user_path

__all__ = [
    "KNOWN", "LORA_FILE", "UNET_FILE", "ModelError", "Source", "absolute", "bundled", "convert_line",
    "model_set", "quietly", "refuse_pickle", "wanted",
]  # fmt: skip

DINOV2 = "facebook/dinov2-large@47b73eefe95e8d44ec3623f8890bd894b6ea2d6c"
CLIP_L = "openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41"
KNOWN = {"sdxl": ("stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b", DINOV2, CLIP_L)}
"""Short names: (pipeline, extractor, clip) on the Hub, at one commit each."""

PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")
"""File endings that mean Python pickles, which can run code when opened."""

LORA_FILE, UNET_FILE = "pytorch_lora_weights.safetensors", "diffusion_pytorch_model.safetensors"  # diffusers' names

_ENDINGS = "|".join(re.escape(ending) for ending in (".safetensors", *PICKLES))
_HUB_ID = re.compile(rf"(?P<place>\w[\w.-]*/[\w.-]+)(/(?P<inside>.+({_ENDINGS})))?(@(?P<revision>.+))?")
_OTHER_FORMS = (".non_ema.", ".bf16.", "onnx", "openvino")


class ModelError(Exception):
    """A model that cannot be used: the message says what was looked for, what was found, and what to do."""


@dataclass(frozen=True)
class Source:
    """One place of a model.

    Attributes
    ----------
    place : str
        A folder, a file, or a Hub id.
    revision : str or None
        Branch, tag or commit on the Hub.
    inside : str or None
        A file of the repository, where one is meant.
    offline : bool
        Look in the Hub's cache only, as the environment variable HF_HUB_OFFLINE=1 has a whole process do.
    """

    place: str
    revision: str | None = None
    inside: str | None = None
    offline: bool = False

    @classmethod
    def of(cls, text: str | Path, offline: bool = False) -> Source:
        """Read a place as people write it; raises `ModelError` if it can be none."""
        text = absolute(text)
        if Path(text).exists():
            return cls(text, offline=offline)
        if found := _HUB_ID.fullmatch(text):
            return cls(**found.groupdict(), offline=offline)
        raise ModelError(f"{text}: no such folder, and not a Hub id (owner/name or owner/name@revision).")

    @property
    def on_hub(self) -> bool:
        """Whether it is on the Hub rather than a folder or file of this machine."""
        return not Path(self.place).exists()

    def fetch(self, *, half: bool = False, weights: bool = True) -> Path:
        """Return the folder or file, downloading what is missing in the Hub's cache.

        Parameters
        ----------
        half : bool
            Take the half-precision variant of the weights where there is one: half the download.
        weights : bool
            False takes configurations and tokenizers only.

        Raises
        ------
        ModelError
            If it is out of reach; the message has the line that downloads it.
        """
        if not self.on_hub:
            return Path(self.place)
        try:
            return self._fetched(half, weights, offline=self.offline)
        except ModelError:  # says what to do already
            raise
        except Exception as error:
            with contextlib.suppress(Exception):  # without a network, what was fetched before will do
                return self._fetched(half, weights, offline=True)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{self}: not on this machine, and not fetched from the Hub ({reason}). Check the id and "
                f"the network; a copy in a folder works without one. Where there is a network, this fetches it:\n"
                f"    {self.download_line()}"
            ) from error

    def _fetched(self, half: bool, weights: bool, *, offline: bool) -> Path:
        import huggingface_hub as hub

        if self.inside:
            return Path(hub.hf_hub_download(self.place, self.inside, revision=self.revision, local_files_only=offline))
        names: list[str] | None = ["*.json", "*.txt"]
        if weights:
            listed = None if offline else hub.list_repo_files(self.place, revision=self.revision)
            names = listed and wanted(listed, half, self.place)
        return Path(
            hub.snapshot_download(self.place, allow_patterns=names, revision=self.revision, local_files_only=offline)
        )

    def pinned(self, fetched: Path) -> Source:
        """Return it with the commit that was fetched, which the cache's folder is named after."""
        if not self.on_hub:
            return self
        parts = fetched.parts
        commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else self.revision
        return replace(self, revision=commit)

    def download_line(self) -> str:
        """Return the shell command that puts it into the Hub's cache."""
        revision = f" --revision {quote(self.revision)}" if self.revision else ""
        patterns = "".join(f' --include "{name}"' for name in ("*.json", "*.txt", "*model.safetensors", LORA_FILE))
        return f"hf download {self.place}{f' {quote(self.inside)}' if self.inside else patterns}{revision}"

    @contextmanager
    def loading(self, what: str) -> Iterator[None]:
        """Keep libraries quiet while they load, and turn whatever they raise into one `ModelError` with a way out."""
        try:
            with quietly():
                yield
        except ModelError:
            raise
        except Exception as error:
            message = f"{self}: expected {what} in safetensors files, could not load it: {error}\n{self._way_out()}"
            raise ModelError(message) from error

    def lacks(self, what: str, more: str = "") -> ModelError:
        """Return the error of a folder, or of a cache with a part of a repository, where something is missing."""
        return ModelError(f"{self}: expected {what}, found none.{more} {self._way_out()}")

    def _way_out(self) -> str:
        if self.on_hub:  # a download that was cut short, or made for another purpose
            return f"Where there is a network, this fetches what is missing:\n    {self.download_line()}"
        place = Path(self.place)
        what = "folder" if place.is_dir() else "file"
        pickles = sorted(file for deep in ("*", "*/*") for file in place.glob(deep) if file.suffix in PICKLES)
        there = f"; {pickles[0]} is one. {convert_line(str(pickles[0]))}" if pickles else "."
        refused = "Weights in pickle files (.bin, .ckpt) are refused because they can run code"
        return f"Check that the {what} is complete. {refused}{there}"

    def __str__(self) -> str:
        inside = f"/{self.inside}" if self.inside else ""
        return f"{self.place}{inside}@{self.revision}" if self.revision else f"{self.place}{inside}"


def absolute(text: str | Path) -> str:
    """Return a folder or file of this machine by its absolute path, `~` expanded; every other name as it is.

    What is recorded so is found from any working directory, and is never taken for a Hub id there.

    Examples
    --------
    >>> absolute("sdxl"), absolute("owner/name@main")
    ('sdxl', 'owner/name@main')
    """
    place = user_path("models", text, ModelError)
    if str(text) in ("menagerie", *KNOWN) or not place.exists():  # a short name goes before a folder of that name
        return str(place if str(text).startswith("~") else text)
    return os.path.abspath(place)


def bundled(*parts: str) -> Path:
    """Return a path in the bundled data: inside the package in a wheel, beside it in a checkout.

    Examples
    --------
    >>> bundled("menagerie", "clip", "config.json").is_file()
    True
    """
    package = Path(__file__).parents[1]
    inside = package / "data"
    return (inside if inside.is_dir() else package.parent / "data").joinpath(*parts)


def model_set(name: str) -> Path:
    """Return the folder that a name of models stands for: the bundled set, or the name as a path."""
    return bundled("menagerie") if name == "menagerie" else Path(name)


def wanted(names: Iterable[str], half: bool = False, place: str = "") -> list[str]:
    """Choose the files of a repository that are needed: configurations, and one form of each part's weights.

    Raises
    ------
    ModelError
        If the weights are there as pickles only.

    Examples
    --------
    >>> wanted(["config.json", "pytorch_model.bin", "unet/x.fp16.safetensors", "unet/x.safetensors"])
    ['config.json', 'unet/x.safetensors']
    """
    names = list(names)
    forms = defaultdict(list)  # of each part's weights, by its plain name
    for name in names:
        # single-file checkpoints stand in a pipeline's root, and are not needed beside its parts
        is_part = name.endswith(".safetensors") and ("/" in name or "model" in name or name == LORA_FILE)
        if is_part and not any(mark in name for mark in _OTHER_FORMS):
            forms[name.replace(".fp16.", ".").replace("open_clip_model", "model")].append(name)
    if not forms and any(name.endswith(PICKLES) for name in names):
        raise ModelError(
            f"{place}: its weights are pickle files only, refused because they can run code. {convert_line()}"
        )

    def preference(name: str) -> tuple[bool, bool]:
        return (".fp16." in name) == half, "open_clip" not in name

    chosen = {max(found, key=preference) for found in forms.values()}
    return [name for name in names if name in chosen or name.endswith((".json", ".txt"))]


def refuse_pickle(file: Path, error: type[Exception] = ModelError) -> None:
    """Raise an error for a file that is a pickle by its ending, with the line that converts it."""
    if file.suffix.lower() in PICKLES:
        raise error(
            f"{file}: expected a .safetensors file, got a pickle; pickle files are refused because they can run code. "
            f"{convert_line(str(file))}"
        )


def convert_line(file: str = "MODEL.bin") -> str:
    """Return how to turn a pickle into safetensors without running what it holds (`weights_only`).

    Weights may lie under `state_dict`, and A1111's embeddings under `string_to_param`. The file's name is an argument
    of its own, quoted for the shell: it may come from anybody.
    """
    new = str(Path(file).with_suffix(".safetensors"))
    return (
        "Where you trust it, convert it once, which runs none of its code:\n"
        '    python -c "import sys, torch; from safetensors.torch import save_file; '
        "d = torch.load(sys.argv[1], map_location='cpu', weights_only=True); "
        "d = d.get('state_dict', d.get('string_to_param', d)); "
        "save_file({{'*': 'emb_params'}.get(k, k): v.detach().clone().contiguous() for k, v in d.items() "
        "if torch.is_tensor(v)}, sys.argv[2], {'format': 'pt'})\" "
        f"{quote(file)} {quote(new)}"
    )


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the libraries' loading bars and notices out of notebooks."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    with ExitStack() as stack:
        for place in (diffusers_logging, transformers_logging):
            stack.callback(place.set_verbosity, place.get_verbosity())
            stack.callback(place.enable_progress_bar)
            place.set_verbosity_error()
            place.disable_progress_bar()
        yield
