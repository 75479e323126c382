"""What one takes away: the selection as a table, the iteration as CSV and Parquet, the whole run as a page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import pandas as pd

from chosen_one_nb.run import store
from chosen_one_nb.run.opening import export_folder

from .panel import Panel, button, framed, row
from .switch import Switch

if TYPE_CHECKING:
    from chosen_one_nb.run.run import Node, Run

    from .explorer import Explorer


class Selection:
    """What is selected on the screen.

    Parameters
    ----------
    run : Run
    node : Node
        Whose images are selected.
    indices : list of int
        Ascending.

    Examples
    --------
    ``explorer.selection.ids`` gives image ids, ``explorer.selection.table`` a DataFrame, ``list(explorer.selection)``
    the indices.
    """

    def __init__(self, run: Run, node: Node, indices: list[int]) -> None:
        self._run, self.node, self.indices = run, node, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __repr__(self) -> str:
        return f"<{len(self)} images of node {self.node.id}: {self.indices}>"

    @property
    def ids(self) -> list[str]:
        """Image ids, as in `Run.table`."""
        return list(self.table["image_id"])

    @property
    def table(self) -> pd.DataFrame:
        """Rows of `Run.table` of the selected images."""
        return self._run.table(self.node).iloc[self.indices]

    def _repr_html_(self) -> str:
        return self.table._repr_html_()


def save_table(run: Run, node: Node, folder: Path | None = None) -> list[Path]:
    """Write the table of an iteration as CSV and Parquet; return both paths.

    Parameters
    ----------
    run : Run
    node : Node
    folder : Path, optional
        None takes ``tables`` in the run's folder.

    Raises
    ------
    StoreError
        The run's folder is gone.
    """
    if not run.folder.exists():  # making the folder anew would stand in the way of putting the run back
        raise store.gone(run.folder)
    place = (run.folder / "tables") if folder is None else Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    table, paths = run.table(node), [place / f"iteration-{node.id}.{end}" for end in ("csv", "parquet")]
    table.to_csv(paths[0], index=False)
    table.to_parquet(paths[1], index=False)
    return paths


FORMATS = (
    ("diffusers", "diffusers", "A folder for pipeline.load_lora_weights, with the new word's rows"),
    ("kohya", "A1111, Forge, kohya", "A LoRA file and an embedding file, as sd-scripts, A1111 and Forge read them"),
    ("comfyui", "ComfyUI", "The same two files, and a workflow that loads them"),
)
"""Of each format of `Run.export`: its name there, what it is called here, and what it gives."""


class ExportForm:
    """Which Θ goes where, for which programs, under what name."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
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
        explorer, source = self.explorer, self.explorer.strength.source()
        self.go.disabled = source is None or explorer.busy
        self.words.value = (
            f"Θ of node {escape(source)}: its LoRA and its word, with the four most typical images drawn with it."
            if source
            else "There is no Θ to export yet: it comes with the first refinement."
        )
        offered = str(export_folder(explorer.place, explorer.run.prompt, source)) if source else ""
        if self.folder.value == self._offered:  # what a person wrote there stands
            self.folder.value = offered
        self._offered = offered

    def export(self) -> None:
        """Export, or say what is missing."""
        ticked = [name for (name, _, _), box in zip(FORMATS, self.formats, strict=True) if box.value]
        if not ticked or not self.folder.value.strip():
            missing = "a folder" if ticked else "at least one program"
            self.explorer.status.say(f"Nothing is exported: name {missing} first.", "warning")
            return
        self.explorer.export(self.folder.value.strip(), ticked, self.name.value.strip() or None)


class TakeawayPanel(Panel):
    """Buttons that write files, and where they were written."""

    def __init__(self, explorer: Explorer) -> None:
        super().__init__(explorer)
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
        self.export = ExportForm(explorer)
        self.words = ipywidgets.HTML()
        self.words.add_class("chosen-trust")
        self.ui = ipywidgets.VBox(
            [
                framed("The run as files", ipywidgets.VBox([row(self.table, self.report), self.words])),
                framed("The character for other programs", self.export.ui),
            ]
        )
        self.ui.add_class("chosen-takeaway")
        self.table.on_click(lambda _button: explorer.save_table())
        self.report.on_click(lambda _button: explorer.report())

    def show(self) -> None:
        """Say how to get at the same things in a cell."""
        selected = len(self.explorer.selected)
        self.words.value = (
            f"In a cell: <code>explorer.selection</code> ({selected} selected), <code>run.table()</code>, "
            f"<code>run.curve()</code>, <code>explorer.snapshot()</code>, <code>run.report()</code>, "
            f"<code>run.export()</code>. Files go to <code>{escape(str(self.explorer.place))}</code>."
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
