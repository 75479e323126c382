"""What one takes away: the selection as a table, the iteration as CSV and Parquet, the whole run as a page."""

from __future__ import annotations

from html import escape

import ipywidgets

from chosen_one_nb.run.opening import export_folder

from . import actions
from .panel import Panel, button, framed, row
from .session import Session
from .switch import Switch

FORMATS = (
    ("diffusers", "diffusers", "A folder for pipeline.load_lora_weights, with the new word's rows"),
    ("kohya", "A1111, Forge, kohya", "A LoRA file and an embedding file, as sd-scripts, A1111 and Forge read them"),
    ("comfyui", "ComfyUI", "The same two files, and a workflow that loads them"),
)
"""Of each format of `Run.export`: its name there, what it is called here, and what it gives."""


class ExportForm:
    """Which Θ goes where, for which programs, under what name."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.folder = _text("folder", "Where to put the files; made if need be", "460px")
        self.name = _text("name", "Name of the files, and the word for the character in A1111 and ComfyUI", "300px")
        self.name.placeholder = "from the folder's name"
        self.formats = [Switch(value=True, description=label, tooltip=tip) for _, label, tip in FORMATS]
        self.go = button("Export Θ", "Write Θ as files that the ticked programs load", icon="download", kind="export")
        self.words = ipywidgets.HTML()
        self.words.add_class("chosen-trust")
        self.ui = ipywidgets.VBox([self.words, row(*self.formats), row(self.folder, self.name, self.go)])
        self.go.on_click(lambda _button: self.export())
        self._offered = ""

    def show(self) -> None:
        """Name the Θ that would be exported and offer a folder for it."""
        session, source = self.session, self.session.theta_node
        self.go.disabled = source is None or session.busy
        self.words.value = (
            f"Θ of node {escape(source)}: its LoRA and its word, with the four most typical images drawn with it."
            if source
            else "There is no Θ to export yet: it comes with the first refinement."
        )
        offered = str(export_folder(session.output_folder, session.run.prompt, source)) if source else ""
        if self.folder.value == self._offered:  # what a person wrote there stands
            self.folder.value = offered
        self._offered = offered

    def export(self) -> None:
        """Export, or say what is missing."""
        ticked = [name for (name, _, _), box in zip(FORMATS, self.formats, strict=True) if box.value]
        if not ticked or not self.folder.value.strip():
            missing = "a folder" if ticked else "at least one program"
            self.session.status.say(f"Nothing is exported: name {missing} first.", "warning")
            return
        actions.export(self.session, self.folder.value.strip(), ticked, self.name.value.strip() or None)


class TakeawayPanel(Panel):
    """Buttons that write files, and where they were written."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.table = button(
            "Save table",
            "Write the images of this iteration as CSV and Parquet",
            icon="table",
            kind="table",
        )
        self.report = button(
            "Write report",
            "Write the whole run as one HTML page that opens in any browser",
            icon="file",
            kind="report",
        )
        self.export = ExportForm(session)
        self.words = ipywidgets.HTML()
        self.words.add_class("chosen-trust")
        self.ui = ipywidgets.VBox(
            [
                framed("The run as files", ipywidgets.VBox([row(self.table, self.report), self.words])),
                framed("The character for other programs", self.export.ui),
            ]
        )
        self.ui.add_class("chosen-takeaway")
        self.table.on_click(lambda _button: actions.save_table(session))
        self.report.on_click(lambda _button: actions.write_report(session))
        session.observe(self._changed, "selected")

    def show(self) -> None:
        """Say how to get at the same things in a cell."""
        selected = len(self.session.selected)
        self.words.value = (
            f"In a cell: <code>explorer.selection</code> ({selected} selected), <code>run.tables.gallery()</code>, "
            f"<code>run.tables.curve()</code>, <code>explorer.snapshot()</code>, <code>run.report()</code>, "
            f"<code>run.export()</code>. Files go to <code>{escape(str(self.session.output_folder))}</code>."
        )
        self.export.show()


def _text(label: str, tip: str, width: str) -> ipywidgets.Text:
    return ipywidgets.Text(
        description=label,
        tooltip=tip,
        continuous_update=False,  # letter by letter, the last ones would be overtaken by a click on a button
        style={"description_width": "auto"},
        layout=ipywidgets.Layout(width=width, max_width="100%"),
    )
