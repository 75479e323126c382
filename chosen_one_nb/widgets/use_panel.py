"""What the character is good for, on the screen: stories, local edits, poses; results are kept with their settings."""

from __future__ import annotations

from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
from PIL import Image
from pydantic import ValidationError

from chosen_one_nb.applications.kept import KeptUse, Use, keep, kept
from chosen_one_nb.applications.skeleton import skeleton_names
from chosen_one_nb.report import thumbnail
from chosen_one_nb.settings import first_error
from chosen_one_nb.steps import Callbacks

from .mask_canvas import MaskCanvas
from .panel import Panel, control, line, on_change, row, text
from .pose_editor import PoseEditor
from .session import Session
from .status import guarded
from .tasks import Task

STORY = "at the beach\nin the snow\nreading a book"
RESULT = 240  # pixels of a result, stored twice as large for fine screens


class UsePanel(Panel):
    """Draw stories, edits and poses with the Θ that is shown, and look at what has been drawn."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.canvas, self.editor = MaskCanvas(Image.new("RGB", (8, 8))), PoseEditor(skeleton_names()[0])
        self._source: Image.Image | None = None
        self.about, self.results = text("trust"), text("result")
        self.kind = control(ipywidgets.Dropdown, "use", "What to draw the character for", "200px",
                            options=["story", "edit", "pose"])  # fmt: skip
        self.context = line("context", 'What is added to the caption, such as "wearing a hat"', "300px")
        self.seed = control(ipywidgets.BoundedIntText, "image seed", "Another one draws another image", "150px",
                            max=2**32 - 1)  # fmt: skip
        self.scenes = control(
            ipywidgets.Textarea, "scenes", "One sentence for each panel", "460px", value=STORY, rows=6
        )
        tip = "The skeleton to begin with; its joints can be moved"
        self.pick = control(ipywidgets.Dropdown, "skeleton", tip, "260px", options=skeleton_names())
        tip = "Edit the selected image of the gallery; without one the first"
        self.take = self.button("take-image", "Take selected image", tip, self._take, icon="image")
        tip = "Mark what stands in the foreground"
        self.foreground = self.button("foreground", "Mark foreground", tip, self._mark, icon="magic")
        self.go = self.button("use", "Draw it", "Draw and keep it with the run", self._draw, style="primary")
        tip = "Draw the one that is shown once more, as it was asked for, with the present Θ"
        self.again = self.button("use-again", "Draw again", tip, self._draw_again, icon="refresh")
        self.shown = control(ipywidgets.Dropdown, "drawn so far", "What has been drawn so far", "320px", options=[])
        self.pages = {
            "story": ipywidgets.VBox([self.scenes]),
            "edit": ipywidgets.VBox([row(self.take, self.foreground), self.canvas]),
            "pose": ipywidgets.VBox([row(self.pick), self.editor]),
        }
        self.row = row(self.shown, self.again)
        form = [row(self.kind, self.context, self.seed, self.go), *self.pages.values()]
        sides = [
            ipywidgets.VBox(side, layout=ipywidgets.Layout(flex=f"1 1 {width}", min_width="0"))
            for side, width in ((form, "420px"), ([self.row, self.results], "320px"))
        ]
        self.ui = ipywidgets.VBox([self.about, ipywidgets.HBox(sides, layout=ipywidgets.Layout(flex_flow="row wrap"))])
        on_change(self.kind, "value", lambda _: self.redraw())
        on_change(self.pick, "value", self._begin_with)
        on_change(self.shown, "value", lambda _: self.redraw())

    def show(self) -> None:
        """Show the form of the chosen use, and what is kept."""
        source, found = self.session.theta_node, kept(self.run.folder)
        for kind, page in self.pages.items():
            page.layout.display = "" if kind == self.kind.value else "none"
        self.context.layout.display = "none" if self.kind.value == "story" else ""
        with self.filling():
            names = tuple(f"{each.folder.name}: {each.use.words}" for each in found)
            if self.shown.options != names:
                self.shown.options = names
                self.shown.index = len(names) - 1 if names else None
        each = found[self.shown.index] if found else None
        self.results.value = _figure(each) if each else ""
        self.row.layout.display = "" if each else "none"
        self.go.disabled = source is None or not self.session.can_edit
        self.again.disabled = self.go.disabled or self.shown.index is None
        self.about.value = (
            f"Drawn with Θ of node {source}. Results are kept in <code>uses/</code> of the run's folder."
            if source
            else "There is no Θ yet: it comes with the first refinement."
        )

    @guarded
    def _take(self, session: Session) -> None:
        chosen = session.selected[0] if session.selected else 0
        if not len(session.node.images):
            session.status.say("There is no image to edit yet.", "warning")
            return
        self._source = session.node.images[chosen].convert("RGB")
        old, self.canvas = self.canvas, MaskCanvas(self._source)
        self._replace("edit", old, self.canvas)
        session.status.say(f"Image {chosen} is to be edited: paint what is to be drawn anew.")

    def _begin_with(self, name: str) -> None:
        old, self.editor = self.editor, PoseEditor(name)
        self._replace("pose", old, self.editor)

    def _replace(self, kind: str, old: ipywidgets.DOMWidget, fresh: ipywidgets.DOMWidget) -> None:
        page = self.pages[kind]
        page.children = (*page.children[:-1], fresh)
        old.layout.close()
        old.close()

    @guarded
    def _mark(self, session: Session) -> None:
        from chosen_one_nb.applications.edit import subject_mask

        if self._source is None:
            self._take(session)
        source = self._source

        def work(_task: Task) -> None:
            self.canvas.mask = np.asarray(subject_mask(self.run.models, source)) > 0

        if source is not None:
            session.tasks.start(work, name="marking the foreground")

    @guarded
    def _draw(self, session: Session) -> None:
        kind = self.kind.value
        asked = {"kind": kind, "node": session.theta_node, "seed": self.seed.value}
        asked |= (
            {"scenes": [each.strip() for each in self.scenes.value.splitlines() if each.strip()]}
            if (kind == "story")
            else {"context": self.context.value.strip()}
        )
        parts = {}
        if kind == "pose":
            asked["skeleton"] = self.editor.skeleton
        if kind == "edit" and self._source is not None:
            mask = Image.fromarray(np.uint8(255) * self.canvas.mask)
            parts = {"source": self._source, "mask": mask}
        try:
            use = Use.model_validate(asked)
        except ValidationError as error:
            session.status.say(f"Expected something that can be drawn: {first_error(error)}", "warning")
            return
        self._start(session, use, parts)

    @guarded
    def _draw_again(self, session: Session) -> None:
        old: KeptUse = kept(self.run.folder)[self.shown.index]
        parts = {name: old.image(name) for name in ("source", "mask") if (old.folder / f"{name}.png").is_file()}
        self._start(session, old.use.model_copy(update={"node": session.theta_node}), parts)

    def _start(self, session: Session, use: Use, parts: dict[str, Image.Image]) -> None:
        run = self.run

        def work(task: Task) -> None:
            from chosen_one_nb.applications.draw import draw

            theta, calls = run.node(use.node).theta, Callbacks(task.report, cancelled=task.stop.is_set)
            image = draw(run.models, theta, use, run.root.settings, parts=parts, callbacks=calls)
            place: Path = keep(run.folder, use, image, **parts).folder
            task.message = f"Kept in {place}."

        session.tasks.start(work, name=f"drawing a {use.kind}")


def _figure(each: KeptUse) -> str:
    """A kept result as HTML."""
    source = thumbnail(each.image(), RESULT)
    return f'<img src="{source}" alt="{escape(each.use.words)}" style="max-width: 380px; width: 100%">'
