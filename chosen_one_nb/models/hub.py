"""Where models come from: folders, files, or the Hub by id and revision; and what to do when they are not there.

Spelled `folder`, `file.safetensors`, `owner/name`, `owner/name@revision`, or with a file of the repository,
`owner/name/file.safetensors@revision`. What comes from the Hub is fetched whole into its cache first, only the
files that are needed, and loaded from there as any folder is: no code of a repository is ever run.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from chosen_one_nb.models.files import PICKLES, ModelError, convert_line

__all__ = ["Source", "offline_mode", "wanted"]

LORA = "pytorch_lora_weights.safetensors"  # as diffusers names it

_OFFLINE: ContextVar[bool] = ContextVar("offline", default=False)


@contextmanager
def offline_mode(on: bool = True) -> Iterator[None]:
    """Take models from folders and the Hub's cache only, for a with-block; False leaves it as it is.

    The environment variable HF_HUB_OFFLINE=1 does the same for a whole process.
    """
    token = _OFFLINE.set(on or _OFFLINE.get())
    try:
        yield
    finally:
        _OFFLINE.reset(token)


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
    """

    place: str
    revision: str | None = None
    inside: str | None = None

    @classmethod
    def of(cls, text: str | Path) -> Source:
        """Read a place as people write it; raises `ModelError` if it can be none."""
        if Path(text).exists():
            return cls(str(text))
        place, sign, revision = str(text).partition("@")
        parts = place.split("/")
        if any(not part for part in parts) or len(parts) < 2 or place.startswith((".", "~", os.sep)):
            raise ModelError(f"{text}: no such folder, and not a Hub id (owner/name or owner/name@revision).")
        if len(parts) > 2 and Path(place).suffix not in (".safetensors", *PICKLES):
            raise ModelError(f"{text}: no such folder, and not a Hub id (owner/name or owner/name@revision).")
        return cls("/".join(parts[:2]), revision if sign else None, "/".join(parts[2:]) or None)

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
            return self._fetched(half, weights, offline=_offline())
        except ModelError as error:  # says what to do already
            raise ModelError(f"{self}: {error}") from error
        except Exception as error:
            with contextlib.suppress(Exception):  # without a network, what was fetched before will do
                return self._fetched(half, weights, offline=True)
            raise ModelError(
                f"{self}: not on this machine, and not fetched from the Hub ({_first_line(error)}). Check the id and "
                f"the network; a copy in a folder works without one. Where there is a network, this fetches it:\n"
                f"    {self.download_line()}"
            ) from error

    def _fetched(self, half: bool, weights: bool, *, offline: bool) -> Path:
        from huggingface_hub import hf_hub_download, snapshot_download

        local = {"revision": self.revision, "local_files_only": offline}
        if self.inside:
            return Path(hf_hub_download(self.place, self.inside, **local))
        names = None if offline else wanted(self._files(), half) if weights else ["*.json", "*.txt"]
        return Path(snapshot_download(self.place, allow_patterns=names, **local))

    def _files(self) -> list[str]:
        from huggingface_hub import list_repo_files

        return list_repo_files(self.place, revision=self.revision)

    @contextmanager
    def completed(self) -> Iterator[None]:
        """Where loading what was fetched fails for want of files, have the error say what fetches them.

        A cache may hold a part of a repository: a download that was cut short, or made for another purpose.
        """
        try:
            yield
        except ModelError as error:
            if not self.on_hub or "hf download" in str(error) or not _for_want_of_files(error):
                raise
            raise ModelError(
                f"{error}\nWhere there is a network, this fetches what is missing:\n    {self.download_line()}"
            ) from error

    def download_line(self) -> str:
        """Return the shell command that puts it into the Hub's cache."""
        revision = f" --revision {self.revision}" if self.revision else ""
        patterns = "".join(f' --include "{pattern}"' for pattern in ("*.json", "*.txt", "*model.safetensors", LORA))
        return f"hf download {self.place}{f' {self.inside}' if self.inside else patterns}{revision}"

    def pinned(self, fetched: Path) -> Source:
        """Return it with the commit that was fetched, which the cache's folder is named after."""
        if not self.on_hub:
            return self
        parts = fetched.parts
        commit = parts[parts.index("snapshots") + 1] if "snapshots" in parts else self.revision
        return Source(self.place, commit, self.inside)

    def __str__(self) -> str:
        inside = f"/{self.inside}" if self.inside else ""
        return f"{self.place}{inside}@{self.revision}" if self.revision else f"{self.place}{inside}"


def wanted(names: Iterable[str], half: bool = False) -> list[str]:
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
    weights = [name for name in names if _is_weights(name)]
    if not weights and any(name.endswith(PICKLES) for name in names):
        raise ModelError(f"its weights are pickle files only, refused because they can run code. {convert_line()}")
    chosen = [name for name in weights if _chosen(name, weights, half)]
    return [name for name in names if name in chosen or name.endswith((".json", ".txt"))]


def _is_weights(name: str) -> bool:
    """Tell the weights of a part, or of a LoRA, from single-file checkpoints, which stand in a pipeline's root."""
    return name.endswith(".safetensors") and ("/" in name or "model" in name or name == LORA)


def _chosen(name: str, weights: list[str], half: bool) -> bool:
    """Whether this form of a part's weights is to be taken: fp16 if wanted and there, else the plain one."""
    variant = ".fp16." in name
    other = name.replace(".fp16.", ".") if variant else name.replace(".safetensors", ".fp16.safetensors")
    if any(mark in name for mark in (".non_ema.", ".bf16.", "onnx", "openvino")):
        return False
    if name.endswith("open_clip_model.safetensors") and name.replace("open_clip_", "") in weights:
        return False
    return variant == half or other not in weights


def _offline() -> bool:
    from huggingface_hub import constants

    return _OFFLINE.get() or constants.HF_HUB_OFFLINE


def _for_want_of_files(error: ModelError) -> bool:
    """Whether a library failed, or nothing was found where something should be; not that it is of another kind."""
    return error.__cause__ is not None or any(word in str(error) for word in ("found none", "found neither"))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
