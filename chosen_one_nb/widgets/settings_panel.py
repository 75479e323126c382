"""The settings of the iteration: the paper's symbols, what each does, and how sure its value is."""

from __future__ import annotations

from html import escape

import ipywidgets

from chosen_one_nb.settings import settings_help

from .panel import Panel, row, text
from .session import Session
from .status import guarded

CERTAINTY = {
    "C": "read in the paper or on its page",
    "S": "from a summary of the paper",
    "T": "told by someone who read it",
    "R": "recollection, not verified",
    "X": "looked for in the paper, not found",
    "-": "this kit's own",
}
ABOUT = (
    "<p>Settings belong to an iteration. To try others on the same gallery, begin a branch: "
    "<code>run.branch(refine_steps=200)</code>. Values in bold are not the default's. How sure a value is: "
    f"{', '.join(f'<em>[{tag}]</em> {words}' for tag, words in CERTAINTY.items())}.</p>"
)
HEAD = "<th>symbol</th><th>setting</th><th>value</th><th>what it does</th><th>source</th>"


class SettingsPanel(Panel):
    """A table of all settings; values that differ from the default are marked."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        tip = "Count operations and memory of an iteration with these settings, without drawing; may load the models"
        self.count = self.button("plan", "What it takes", tip, self._count)
        self.plan, self.table = text(), text("table")
        self.ui = ipywidgets.VBox([row(self.count), self.plan, self.table])

    def show(self) -> None:
        """Show the settings of the iteration that is shown."""
        self.count.disabled = self.session.busy
        self.plan.value = self._plan()
        values = self.node.settings.model_dump()
        rows = "".join(_row(about, values[about["name"]]) for about in settings_help())
        self.table.value = f"{ABOUT}<table><thead><tr>{HEAD}</tr></thead><tbody>{rows}</tbody></table>"

    @guarded
    def _count(self, session: Session) -> None:
        """Count, in the background, what an iteration with the settings shown takes."""
        node = self.node
        session.background.get(("plan", node.settings), lambda: str(self.run.plan(node)))
        self.show()

    def _plan(self) -> str:
        """What is known of the cost: nothing yet, being counted, what went wrong, or the table."""
        background, key = self.session.background, ("plan", self.node.settings)
        if not background.asked(key):
            return ""
        if (error := background.error(key)) is not None:
            return f"<p>This cannot be counted: {escape(str(error))}</p>"
        found = background.get(key, str)
        return f"<pre>{escape(found)}</pre>" if found else "<p>Counting…</p>"


def _row(about: dict, value: object) -> str:
    changed = " class='is-changed' title='Not the default'" if value != about["default"] else ""
    sure = CERTAINTY.get(about["certainty"], about["certainty"])
    return (
        f"<tr><td>{escape(about['symbol'])}</td><td><code>{escape(about['name'])}</code></td>"
        f"<td{changed}>{escape(str(value))}</td><td>{escape(about['help'])}</td>"
        f"<td title='{escape(sure, quote=True)}'>{escape(about['source'])} <em>[{escape(about['certainty'])}]</em></td>"
        "</tr>"
    )
