"""What outlives the screen: files on disk and as downloads, and a picture of the last state in the saved notebook."""

import io
import zipfile
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from helpers.explorers import step
from nbclient import NotebookClient
from PIL import Image

from chosen_one_nb.widgets import files, still

pytest_plugins = ["helpers.explorers"]


@pytest.fixture
def sent(monkeypatch):
    """What the browser would get: name -> data."""
    found = {}
    monkeypatch.setattr(
        still.Download, "send", lambda self, content, buffers: found.update({content["name"]: buffers[0]})
    )
    return found


def test_tables_are_written_and_downloaded(explorer, sent):
    csv, parquet = files.save_table(explorer.session)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), explorer.run.tables.gallery(), check_dtype=False)
    assert len(pd.read_csv(csv)) == 24
    assert sent == {"run-iteration-0.csv": csv.read_bytes()}
    assert "your browser downloads it, too" in explorer.status.text


def test_only_the_selected_rows_are_downloaded(explorer, sent):
    explorer.export.selection.click()
    assert not sent
    assert explorer.status.kind == "warning"
    explorer.session.select([2, 5])
    explorer.export.selection.click()
    assert pd.read_csv(io.BytesIO(sent["run-selection-0.csv"]))["index"].tolist() == [2, 5]


def test_report_snapshot_and_sheets_are_downloaded(second, sent, monkeypatch):
    for button in (second.export.report, second.export.snapshot, second.export.sheets):
        button.click()
    assert sent["run-report.html"].startswith(b"<!doctype html>")
    assert Image.open(io.BytesIO(sent["run-snapshot-1.png"])).size[0] > 600
    assert Image.open(io.BytesIO(sent["run-gallery-1.png"])).mode == "RGB"
    assert all((second.run.folder / "sheets" / name).exists() for name in ("snapshot-1.png", "gallery-1.png"))


def test_an_export_comes_as_a_zip_of_its_folder(second, sent):
    second.export.export.click()
    second.wait(60)
    assert second.status.kind == "good", second.status.text
    (name, data), folder = sent.popitem(), Path(second.export.folder.value)
    assert name == f"{folder.name}.zip"
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert set(zipfile.ZipFile(io.BytesIO(data)).namelist()) == written != set()


def test_what_is_too_large_lies_on_disk_only(explorer, sent, monkeypatch):
    monkeypatch.setattr(still, "MOST_BYTES", 10)
    csv, _ = files.save_table(explorer.session)
    assert csv.exists()
    assert not sent
    assert "too large to download" in explorer.status.text


def test_the_picture_below_the_screen_follows_the_decision(explorer, monkeypatch):
    shown, updated = [], []
    monkeypatch.setattr(still, "REDRAW_AFTER", 0.0)
    monkeypatch.setattr("chosen_one_nb.widgets.explorer.display", lambda data, raw: shown.append(sorted(data)))
    monkeypatch.setattr(still, "display", lambda image, display_id: shown.append(display_id))
    monkeypatch.setattr(still, "update_display", lambda image, display_id: updated.append((display_id, image.data)))
    step(explorer)
    assert not updated  # not shown yet
    explorer._ipython_display_()
    assert shown[0] == ["application/vnd.jupyter.widget-view+json", "text/plain"]
    explorer.run.selection.undo()
    explorer.still.wait()
    assert updated[0][0] == shown[1]
    assert Image.open(io.BytesIO(updated[0][1])).format == "JPEG"
    explorer.close()
    explorer.still.redraw()
    assert len(updated) == 1


def saved_notebook():
    """A notebook as it lies on disk once its cell has shown an explorer: no kernel, no widget state."""
    cell = "from chosen_one_nb import Explorer, Run\nExplorer(Run.example(), method='pca')"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    NotebookClient(book, timeout=300, store_widget_state=False).execute()
    return book


@pytest.mark.notebook
def test_a_saved_notebook_shows_the_screen_as_a_picture():
    from nbconvert import HTMLExporter

    book = saved_notebook()
    widget, picture = book.cells[0].outputs
    assert "a still picture follows" in widget.data["text/plain"]
    assert len(picture.data["image/jpeg"]) < 300_000
    html, _ = HTMLExporter().from_notebook_node(book)
    assert "data:image/jpeg;base64," in html
