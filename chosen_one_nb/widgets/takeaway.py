"""What one takes away: the selection as a table, the iteration as CSV and Parquet, the whole run as a page."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import ipywidgets
import pandas as pd

from .panel import Panel, button, row

if TYPE_CHECKING:
    from chosen_one_nb.run import Node, Run

    from .explorer import Explorer


class Selection:
    """What is selected on the screen.

    Parameters
    ----------
    run : Run
    node : Node
        Whose pictures are selected.
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
        return f"<{len(self)} pictures of node {self.node.id}: {self.indices}>"

    @property
    def ids(self) -> list[str]:
        """Image ids, as in `Run.table`."""
        return list(self.table["image_id"])

    @property
    def table(self) -> pd.DataFrame:
        """Rows of `Run.table` of the selected pictures."""
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
    """
    place = (run.folder / "tables") if folder is None else Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    table, paths = run.table(node), [place / f"iteration-{node.id}.{end}" for end in ("csv", "parquet")]
    table.to_csv(paths[0], index=False)
    table.to_parquet(paths[1], index=False)
    return paths


class TakeawayPanel(Panel):
    """Buttons that write files, and where they were written."""

    def __init__(self, explorer: Explorer) -> None:
        super().__init__(explorer)
        self.table = button(
            "Save table",
            "Write the pictures of this iteration as CSV and Parquet",
            icon="table",
            kind="table",
        )
        self.report = button(
            "Write report",
            "Write the whole run as one HTML page that opens in any browser",
            icon="file",
            kind="report",
        )
        self.words = ipywidgets.HTML()
        self.words.add_class("chosen-trust")
        self.ui = ipywidgets.VBox([row(self.table, self.report), self.words])
        self.table.on_click(lambda _button: explorer.save_table())
        self.report.on_click(lambda _button: explorer.report())

    def show(self) -> None:
        """Say how to get at the same things in a cell."""
        selected = len(self.explorer.selected)
        self.words.value = (
            f"In a cell: <code>explorer.selection</code> ({selected} selected), <code>run.table()</code>, "
            f"<code>run.curve()</code>, <code>explorer.snapshot()</code>, <code>run.report()</code>. "
            f"The run lies in <code>{escape(str(self.run.folder))}</code>."
        )
