"""The files of a run: written whole or not at all, checked on reading, changed by one process at a time.

Everything is flat and readable without this package: PNG images whose text chunks hold seed and
settings, ``.npy`` and ``.npz`` arrays without pickle, JSON for the rest. A file is written beside its
final name, flushed to the disk and then renamed, so that a reader finds either the old file or the new one.
Every write returns a *stamp* (checksum and size), by which a damaged file is later recognised.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shutil
import socket
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from shlex import quote
from typing import Any, TypeVar

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from chosen_one_nb.models.images import encode_png
from chosen_one_nb.run.records import Stamp
from chosen_one_nb.settings import first_error

T = TypeVar("T")

TEMPORARY = ".part"


class StoreError(Exception):
    """A file of a run could not be written, is missing, or is damaged; names the file and says what to do.

    Parameters
    ----------
    message : str
        What was expected, what was found, and what to do.
    path : Path, optional
        The file (or folder) it is about.
    """

    def __init__(self, message: str, path: Path | None = None) -> None:
        super().__init__(message)
        self.path = path


class RunInUse(StoreError):
    """Another process has the run open for writing; names its id and machine."""


class NotWritable(StoreError):
    """A folder or file may only be read."""


def now() -> str:
    """Return the time as an ISO 8601 string in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def digest(data: bytes | str) -> str:
    """Return the SHA-256 of bytes (or of a string as UTF-8) as 64 hexadecimal digits."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def stamp(data: bytes) -> Stamp:
    """Return the stamp of a file's contents: ``sha256`` (hex) and ``bytes``."""
    return {"sha256": digest(data), "bytes": len(data)}


# --- values and names ---


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
    return f"{words}-{digest(text)[:6]}".strip("-")


def plain(value: Any) -> Any:
    """Turn dataclasses, numpy numbers and arrays into what JSON can hold; NaN and infinity become None."""
    return to_jsonable_python(value, inf_nan_mode="null", fallback=lambda array: array.tolist())


# --- writing


def _sync_folder(folder: Path) -> None:
    # A rename survives a loss of power only once the folder that records it is on the disk too.
    if sys.platform == "win32":  # a folder cannot be opened for syncing there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _store_error(error: OSError, path: Path, size: int) -> StoreError:
    """Turn what the system reports into a sentence with what to do."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        text = f"The disk is full: {path} needs {size:,} bytes. Free some space and call the same step again"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return NotWritable(
            f"{path} may not be written ({error.strerror}). Look with read_only=True, write elsewhere (--out, --to) or "
            "copy the run; what was stored before is untouched.", path,
        )  # fmt: skip
    elif error.errno == errno.ENOENT:
        return gone(path.parent)
    else:
        text = f"{path} could not be written ({error.strerror or error}). Fix that and call the same step again"
    return StoreError(f"{text}; what was stored before is untouched.", path)


def write_bytes(path: Path, data: bytes, *, flush: bool = True) -> Stamp:
    """Write a file whole or not at all (beside it, flushed, renamed).

    Parameters
    ----------
    path : Path
        Where; its folder must exist.
    data : bytes
        What.
    flush : bool
        Whether to wait until the disk has it; many small files are better flushed together, with `flush_all`.

    Returns
    -------
    dict
        The stamp: ``sha256`` (hex) and ``bytes``.

    Raises
    ------
    StoreError
        The disk is full, the place is not writable, or the folder is gone. The old file, if any, is as it
        was.
    """
    # In the same folder: only within one file system is the rename below atomic.
    beside = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        with reported(path, len(data)):
            with open(beside, "wb") as file:
                file.write(data)
                file.flush()
                if flush:
                    # Contents first: some file systems would otherwise put the new name on the disk before the bytes.
                    os.fsync(file.fileno())
            os.replace(beside, path)
            if flush:
                _sync_folder(path.parent)
    except BaseException:  # Ctrl-C too leaves nothing half-written
        _remove(beside)
        raise
    return stamp(data)


def flush_all(folder: Path, names: Iterable[str]) -> None:
    """Wait until the disk has files written with ``flush=False``."""
    with reported(folder):
        for name in names:
            with open(folder / name, "rb+") as file:  # Windows flushes only files that are open for writing
                os.fsync(file.fileno())
        _sync_folder(folder)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):  # left over, harmless: a name of its own, swept when the run is opened
        path.unlink(missing_ok=True)


def make_folder(path: Path, within: Path | None = None) -> Path:
    """Create a folder, and those above it, if need be; StoreError says why it cannot be made.

    With ``within``, a folder that must be there already, one that was deleted is not brought back to life.
    """
    if within is not None and not within.is_dir():
        raise gone(within)
    with reported(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def gone(folder: Path) -> StoreError:
    """Return the error about a folder that was there before."""
    text = f"The folder {folder} is gone (moved or deleted?). Put it back and call the same step again."
    return StoreError(text, folder)


@contextlib.contextmanager
def reported(path: Path, size: int = 0) -> Iterator[None]:
    """Turn what the system refuses within a with-block into a `StoreError` about ``path``."""
    try:
        yield
    except OSError as error:
        raise _store_error(error, path, size) from error


def replace_folder(beside: Path, place: Path) -> None:
    """Put a finished folder in its place; the place was empty, or held leftovers that do not count."""
    shutil.rmtree(place, ignore_errors=True)
    with reported(place):
        os.replace(beside, place)
        _sync_folder(place.parent)


def check_links(folder: Path) -> None:
    """Raise a `StoreError` where a link in a run's folder leads out of it: writing would follow it."""
    for path in folder.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(folder):
            raise StoreError(f"{path} leads out of the run, to {path.resolve()}. Put what it names there itself.", path)


def sweep(folder: Path) -> None:
    """Delete what a killed process left half-written under a folder."""
    # Listed before the first is deleted: a folder that changes while it is walked may skip entries.
    for path in list(folder.rglob(f".*{TEMPORARY}")):
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else _remove(path)


def write_json(path: Path, value: Any) -> Stamp:
    """Write a value as indented UTF-8 JSON; see `write_bytes`."""
    # NaN is no JSON, and other readers refuse it: `plain` turns it into null, and what was forgotten fails here.
    return write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_array(path: Path, array: np.ndarray, *, flush: bool = True) -> Stamp:
    """Write one array as ``.npy`` without pickle; see `write_bytes`."""
    # Into memory first, so that the stamp is of what was meant, not of what a failing disk gives back.
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=False)
    return write_bytes(path, buffer.getvalue(), flush=flush)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> Stamp:
    """Write named arrays as one ``.npz`` without pickle; see `write_bytes`."""
    # numpy gives every entry the same date, so that the same arrays always have the same stamp.
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return write_bytes(path, buffer.getvalue())


def write_files(folder: Path, contents: Mapping[str, Any]) -> dict[str, Stamp]:
    """Write values as JSON, arrays as ``.npy``, mappings of arrays as ``.npz``, by the endings of their names."""
    writers: dict[str, Callable[[Path, Any], Stamp]] = {".json": write_json, ".npy": write_array, ".npz": write_arrays}
    return {name: writers[Path(name).suffix](folder / name, value) for name, value in contents.items()}


def write_image(path: Path, image: Image.Image, about: Mapping[str, str], *, flush: bool = True) -> Stamp:
    """Write an image as lossless PNG whose text chunks hold ``about``."""
    return write_bytes(path, encode_png(image, about), flush=flush)


# --- reading


def read_bytes(path: Path, stamp: Stamp | None = None) -> bytes:
    """Read a file and compare it with its stamp.

    Parameters
    ----------
    path : Path
        The file.
    stamp : dict, optional
        What `write_bytes` returned; None reads without checking.

    Returns
    -------
    bytes

    Raises
    ------
    StoreError
        The file is missing, cannot be read, is shorter or longer than recorded, or has other contents.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path} is missing.", path) from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror or error}).", path) from error
    # The size first: "expected 5,000 bytes, got 2,500" says more than a checksum that differs.
    if stamp and len(data) != stamp["bytes"]:
        raise StoreError(f"{path} is damaged: expected {stamp['bytes']:,} bytes, got {len(data):,}.", path)
    if stamp and digest(data) != stamp["sha256"]:
        raise StoreError(f"{path} is damaged: its contents are not what was written (checksum differs).", path)
    return data


def _decoded(path: Path, stamp: Stamp | None, decode: Callable[[bytes], T], expected: str) -> T:
    data = read_bytes(path, stamp)
    try:
        return decode(data)
    except Exception as error:  # json, zipfile, zlib, numpy and Pillow each have their own, SyntaxError included
        raise StoreError(f"{path} is damaged: expected {expected} ({error}).", path) from error


def read_json(path: Path, stamp: Stamp | None = None, schema: TypeAdapter[Any] | None = None) -> Any:
    """Read a JSON file, as what a schema builds of it; StoreError where it is missing, damaged or no such JSON."""
    if schema is None:
        return _decoded(path, stamp, json.loads, "JSON")
    try:
        return schema.validate_json(read_bytes(path, stamp), strict=True)
    except ValidationError as error:
        raise StoreError(f"{path} is damaged: {first_error(error)}", path) from error


def read_or_advise(path: Path, advice: str, schema: TypeAdapter[Any] | None = None) -> Any:
    """Read a JSON file, or as `read_file` does; a `StoreError` ends with what to do about it."""
    try:
        return read_json(path, schema=schema) if schema else read_file(path)
    except StoreError as error:
        raise StoreError(f"{error} {advice}", error.path) from error


def read_array(path: Path, stamp: Stamp | None = None) -> np.ndarray:
    """Read one ``.npy`` array, read-only, never unpickling; StoreError where it is missing, truncated or no array."""

    # A run may come from anybody, and unpickling would run what it holds.
    def decode(data: bytes) -> np.ndarray:
        array = np.load(io.BytesIO(data), allow_pickle=False)
        array.setflags(write=False)  # the file is what counts: nobody changes it by accident
        return array

    return _decoded(path, stamp, decode, "a whole .npy array")


def read_arrays(path: Path, stamp: Stamp | None = None) -> dict[str, np.ndarray]:
    """Read the named arrays of one ``.npz``, never unpickling; StoreError where it is missing or damaged."""

    def decode(data: bytes) -> dict[str, np.ndarray]:
        # Nothing is compressed when it is written, so what would grow when it is read fills the memory on purpose.
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size > len(data):
            raise ValueError(f"entries of {size:,} bytes in {len(data):,}")
        return dict(np.load(io.BytesIO(data), allow_pickle=False))

    return _decoded(path, stamp, decode, "a whole .npz archive")


def read_image(path: Path, stamp: Stamp | None = None) -> Image.Image:
    """Read an image wholly into memory; its text chunks are in ``.info``. StoreError where it is damaged."""

    def decode(data: bytes) -> Image.Image:
        image = Image.open(io.BytesIO(data))
        image.load()  # Pillow reads pixels only when asked, and would notice a truncated file only then
        return image

    return _decoded(path, stamp, decode, "a whole PNG image")


def read_file(path: Path, stamp: Stamp | None = None) -> Any:
    """Read JSON, ``.npy``, ``.npz`` or an image by the ending of its name, anything else as bytes."""
    # The counterpart of `write_files`: what a name ends with says how it was written.
    readers = {".json": read_json, ".npy": read_array, ".npz": read_arrays, ".png": read_image}
    return readers.get(path.suffix, read_bytes)(path, stamp)


def check_numbers(name: str, array: np.ndarray, shape: tuple[int, ...] = ()) -> np.ndarray:
    """Return an array if it is of finite numbers (or truth values), its shape beginning so; a ValueError otherwise."""
    if array.shape[: len(shape)] != shape or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers of shape {shape}, got {array.dtype} of shape {array.shape}")
    return array


class StageFiles:
    """The files that the stages of one node have left in its folder.

    Parameters
    ----------
    run : Path
        The run's folder.
    record : dict
        The contents of ``node.json``: which stages are done, with the stamps of their files.
    """

    def __init__(self, run: Path, record: dict[str, Any]) -> None:
        self.run, self.record = run, record
        self.folder = run / "nodes" / record["id"]

    @property
    def images(self) -> tuple[int]:
        """The shape (N,) of what is said of each image of the gallery."""
        return (len(self.record["seeds"]),)

    def rows(self, stage: str, name: str) -> np.ndarray:
        """Read a matrix with a row of numbers for each image."""
        array = self.read(stage, name)
        with self.advised(stage):
            if array.ndim < 2:
                raise ValueError(f"{name}: expected a row for each image, got shape {array.shape}")
            return check_numbers(name, array, self.images)

    def stamps(self, stage: str) -> Mapping[str, Stamp]:
        """Return the stamps of a stage's files by name; empty where it has not been done."""
        return self.record["stages"].get(stage, {}).get("files", {})

    def read(self, stage: str, name: str) -> Any:
        """Read a file of a stage and compare it with its stamp; a `StoreError` says how to make it again."""
        with self.advised(stage):
            return read_file(self.folder / name, self.stamps(stage).get(name))

    @contextlib.contextmanager
    def advised(self, stage: str) -> Iterator[None]:
        """Add to a `StoreError` what makes the damaged file again; so for files that hold something else."""
        try:
            try:
                yield
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                found = first_error(error) if isinstance(error, ValidationError) else repr(error)
                text = f"{self.folder} is damaged: files of {stage!r} do not hold what they should ({found})."
                raise StoreError(text, self.folder) from error
        except StoreError as error:
            # A run that was moved away has no damaged files, and nothing in it can be made again.
            if not self.run.is_dir():
                raise gone(self.run) from error
            node = self.record["id"]
            raise StoreError(
                f"{error} run.redo_stage({stage!r}, {node!r}) makes it again, in a shell `python -m chosen_one_nb run "
                f"--folder {quote(str(self.run))} --node {node} --redo {stage}`; everything else is kept.",
                error.path,
            ) from error


# --- a log, and one process at a time


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line to a log and flush it to the disk."""
    append_bytes(path, (json.dumps(value, ensure_ascii=False) + "\n").encode())


def append_bytes(path: Path, line: bytes) -> None:
    """Append a line, its end included, to a file and flush it to the disk."""
    with reported(path, len(line)), open(path, "ab+") as file:
        file.seek(max(file.tell() - 1, 0))
        # A line torn by a kill is ended first, so that it spoils no other.
        file.write(line if file.read() in (b"", b"\n") else b"\n" + line)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a log of JSON lines; a line torn by a kill is left out, a missing file is an empty log."""
    values = []
    for line in path.read_bytes().splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError, RecursionError):
            values.append(json.loads(line))
    return [value for value in values if isinstance(value, dict)]


class Lock:
    """Reserves a run's folder for this process; the system frees it when the process ends, however it ends.

    The lock proper is ``.lock`` (held through the operating system, so a killed process leaves none behind);
    ``lock.json`` beside it tells others who holds it.

    Parameters
    ----------
    folder : Path
        The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._holder = folder, folder / "lock.json"
        self._lock = FileLock(folder / ".lock", blocking=False)

    def acquire(self) -> None:
        """Reserve the folder.

        Raises
        ------
        RunInUse
            Another process has it: its id, machine and since when.
        StoreError
            The folder is not writable.
        """
        try:
            self._lock.acquire()
        except Timeout:  # an OSError too, so it comes first
            raise RunInUse(self._in_use(), self._folder) from None
        except OSError as error:
            raise _store_error(error, self._folder / ".lock", 0) from error
        try:
            write_json(self._holder, {"pid": os.getpid(), "host": socket.gethostname(), "since": now()})
        except BaseException:
            self.release()
            raise

    def _in_use(self) -> str:
        try:
            holder = read_json(self._holder)
            who = f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (StoreError, KeyError, TypeError):
            who = "another process"
        return (
            f"{self._folder} is in use by {who}. Go on there, or end that process; "
            "to look without changing anything: Run.open(folder, read_only=True)."
        )

    def release(self) -> None:
        """Free the folder (does nothing where it is not held)."""
        if self._lock.is_locked:
            # While the folder is still held: afterwards the file may be that of the next process.
            _remove(self._holder)
            self._lock.release()
