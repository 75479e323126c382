"""What one takes away: the iteration as CSV and Parquet, the whole run as a page, the character as files."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets
from PIL import Image

from chosen_one_nb.run.run import export_folder

from . import files
from .panel import Panel, Switch, framed, line, row, text
from .session import Session

FORMATS = (
    ("diffusers", "diffusers", "A folder for pipeline.load_lora_weights, with the new word's rows"),
    ("kohya", "A1111, Forge, kohya", "A LoRA file and an embedding file, as sd-scripts, A1111 and Forge read them"),
    ("comfyui", "ComfyUI", "The same two files, and a workflow that loads them"),
)
"""Of each format of `Run.export`: its name there, what it is called here, and what it gives."""


class ExportPanel(Panel):
    """Buttons that write files and download them: which Θ goes where, for which programs, under what name.

    Parameters
    ----------
    session : Session
    snapshot : callable
        Draws the present state of the screen as an image.
    """

    def __init__(self, session: Session, snapshot: Callable[[], Image.Image]) -> None:
        super().__init__(session)
        tip = "Write the images of this iteration as CSV and Parquet, and download the CSV"
        self.table = self.button("table", "Save table", tip, files.save_table, icon="table")
        tip = "Write the table's rows of the selected images as CSV, and download it"
        self.selection = self.button("selection", "Save selection", tip, files.save_selection, icon="object-group")
        tip = "Write the whole run as one HTML page that opens in any browser, and download it"
        self.report = self.button("report", "Write report", tip, files.write_report, icon="file")
        tip = "Write the present state of this screen as an image, and download it"
        self.snapshot = self.button("snapshot", "Save snapshot", tip, self._save_snapshot, icon="camera")
        self._draw = snapshot
        tip = "Write the contact sheets of this iteration and of the contexts drawn with its Θ, and download them"
        self.sheets = self.button("sheets", "Save sheets", tip, files.save_sheets, icon="th")
        self.words, self.about = text("trust"), text("trust")
        self.formats = [Switch(value=True, description=label, tooltip=tip) for _, label, tip in FORMATS]
        self.folder = line("folder", "Where to put the files; made if need be", "460px")
        tip = "Name of the files, and the word for the character in A1111 and ComfyUI"
        self.name = line("name", tip, "300px", placeholder="from the folder's name")
        tip = "Write Θ as files that the ticked programs load, and download them as a zip"
        self.export = self.button("export", "Export Θ", tip, self._export, icon="download")
        buttons = row(self.table, self.selection, self.report, self.snapshot, self.sheets)
        written = ipywidgets.VBox([buttons, self.words])
        form = ipywidgets.VBox([self.about, row(*self.formats), row(self.folder, self.name, self.export)])
        self.ui = ipywidgets.VBox(
            [framed("The run as files", written), framed("The character for other programs", form)]
        ).add_class("chosen-takeaway")
        self._offered = ""
        session.observe(self.redraw, "selected")

    def show(self) -> None:
        """Say how to get at the same things in a cell, name the Θ that would be exported and offer a folder for it."""
        session, source = self.session, self.session.theta_node
        self.words.value = (
            f"In a cell: <code>explorer.selection</code> ({len(session.selected)} selected), "
            "<code>run.tables.gallery()</code>, <code>run.tables.curve()</code>, <code>explorer.snapshot()</code>, "
            "<code>run.report()</code>, <code>run.export()</code>. "
            f"Files go to <code>{escape(str(session.output_folder))}</code>."
        )
        self.sheets.disabled = not len(self.node.images)
        self.export.disabled = source is None or session.busy
        self.about.value = (
            f"Θ of node {escape(source)}: its LoRA and its word, with the four most typical images drawn with it."
            if source
            else "There is no Θ to export yet: it comes with the first refinement."
        )
        offered = str(export_folder(session.output_folder, self.run.prompt, source)) if source else ""
        if self.folder.value == self._offered:  # what a person wrote there stands
            self.folder.value = offered
        self._offered = offered

    def _save_snapshot(self, session: Session) -> None:
        files.save_image(session, f"snapshot-{session.node.id}", self._draw)

    def _export(self, session: Session) -> None:
        ticked = [name for (name, _, _), box in zip(FORMATS, self.formats, strict=True) if box.value]
        folder, name = self.folder.value.strip(), self.name.value.strip()
        if ticked and folder:
            files.export(session, folder, ticked, name or None)
        else:
            missing = "a folder" if ticked else "at least one program"
            session.status.say(f"Nothing is exported: name {missing} first.", "warning")
