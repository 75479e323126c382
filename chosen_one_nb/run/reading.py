"""Reading a gallery image by image, and saying what to do where a file is damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, overload

from PIL import Image

from chosen_one_nb.run import store
from chosen_one_nb.run.store import StoreError


class Images(Sequence[Image.Image]):
    """The images of a gallery, read and checked one by one when asked for.

    Parameters
    ----------
    read : callable
        Gives image i.
    n : int
        How many there are.
    """

    def __init__(self, read: Callable[[int], Image.Image], n: int) -> None:
        self._read, self._n = read, n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image.Image]: ...
    def __getitem__(self, index: int | slice) -> Image.Image | list[Image.Image]:
        if isinstance(index, slice):
            return [self._read(i) for i in range(*index.indices(self._n))]
        if not -self._n <= index < self._n:
            raise IndexError(f"expected an image index below {self._n}, got {index}")
        return self._read(index % self._n)

    def __iter__(self) -> Iterator[Image.Image]:
        return (self._read(i) for i in range(self._n))


class Advice:
    """Adds to a `StoreError` of a with-block what makes the damaged file again.

    Parameters
    ----------
    stage, node : str
        The stage to redo, and where.
    run : Path
        The run's folder.
    """

    def __init__(self, stage: str, node: str, run: Path) -> None:
        self._run = run
        self._text = (
            f"run.redo_stage({stage!r}, {node!r}) makes it again, in a shell `python -m chosen_one_nb run "
            f"--folder {quote(str(run))} --node {node} --redo {stage}`; everything else is kept."
        )

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, StoreError):
            if not self._run.is_dir():
                raise store.gone(self._run) from error
            raise StoreError(f"{error} {self._text}", error.path) from error
