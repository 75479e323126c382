"""Files that a person takes away: written into the run's folder, and handed to the browser as downloads."""

from __future__ import annotations

import io
import mimetypes
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from PIL import Image

from chosen_one_nb.plots import context_sheet, gallery_sheet
from chosen_one_nb.run import store

from .session import Session
from .status import guarded
from .tasks import Task


@guarded
def save_table(session: Session) -> list[Path]:
    """Write the iteration's table as CSV and Parquet, into ``tables``; the CSV is downloaded.

    Raises
    ------
    StoreError
        The run's folder is gone.
    """
    table, stem = session.run.tables.gallery(session.node), f"tables/iteration-{session.node.id}"
    paths = [_place(session, f"{stem}.{end}") for end in ("csv", "parquet")]
    table.to_csv(paths[0], index=False)
    table.to_parquet(paths[1], index=False)
    _said(session, paths, download=paths[0])
    return paths


@guarded
def save_selection(session: Session) -> None:
    """Write the table's rows of the selected images as CSV, into ``tables``."""
    if not session.selected:
        session.status.say("Nothing is selected: draw a lasso on the map, or click images.", "warning")
        return
    path = _place(session, f"tables/selection-{session.node.id}.csv")
    session.run.tables.gallery(session.node).iloc[session.selected].to_csv(path, index=False)
    _said(session, [path], download=path)


@guarded
def write_report(session: Session) -> Path:
    """Write the whole run as one HTML page."""
    path = session.run.report(_place(session, "report.html"))
    _said(session, [path], download=path)
    return path


@guarded
def save_image(session: Session, name: str, draw: Callable[[], Image.Image]) -> None:
    """Write an image as PNG, into ``sheets``."""
    path = _place(session, f"sheets/{name}.png")
    draw().save(path)
    _said(session, [path], download=path)


@guarded
def save_sheets(session: Session) -> None:
    """Write the contact sheets of the iteration, into ``sheets``: its gallery, and the contexts that were drawn."""
    node, contexts = session.node, session.run.samples.drawn_contexts(session.theta_node)
    sheets = {"gallery": gallery_sheet(node)} | ({"contexts": context_sheet(contexts)} if contexts else {})
    paths = [_place(session, f"sheets/{name}-{node.id}.png") for name in sheets]
    for path, sheet in zip(paths, sheets.values(), strict=True):
        sheet.save(path)
    if len(paths) == 1:
        _said(session, paths, download=paths[0])
    else:
        _said(session, paths, zipped=f"sheets-{node.id}")


@guarded
def export(session: Session, folder: str | Path, formats: Sequence[str], name: str | None = None) -> None:
    """Write the Θ that the screen shows as files for other programs, in the background; downloaded as a zip."""
    source = session.theta_node

    def work(task: Task) -> None:
        path = session.run.export(folder, source, formats=formats, name=name)
        sent = session.downloads.offer(f"{path.name}.zip", "application/zip", _zip(path.rglob("*"), path))
        task.message = f"Exported Θ of node {source} to {path}{_also(sent)} Its README.md has the lines to copy."

    session.tasks.start(work, name="export")


def _place(session: Session, name: str) -> Path:
    """Where a file goes; its folder is made, but never that of a run that is gone: it may be put back there."""
    if not session.run.folder.exists():
        raise store.gone(session.run.folder)
    path = session.output_folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _said(session: Session, paths: Sequence[Path], *, download: Path | None = None, zipped: str = "") -> None:
    """Download one file, or all as a zip, and say where they are."""
    name = f"{session.run.folder.name}-{download.name if download else zipped + '.zip'}"
    data = download.read_bytes() if download else _zip(paths, paths[0].parent)
    sent = session.downloads.offer(name, mimetypes.guess_type(name)[0] or "application/octet-stream", data)
    session.status.say(f"Written: {', '.join(map(str, paths))}{_also(sent)}", "good")


def _also(sent: bool) -> str:
    return "; your browser downloads it, too." if sent else "; too large to download from here."


def _zip(paths: Iterable[Path], root: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(path for path in paths if path.is_file()):
            archive.write(path, path.relative_to(root))
    return file.getvalue()
