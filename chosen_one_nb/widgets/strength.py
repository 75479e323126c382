"""How strongly Θ acts: the same eight seeds at a strength of one's choice."""

from __future__ import annotations

from typing import Any

import ipywidgets
from PIL import Image

from .gallery import GalleryView
from .panel import Panel, button, row
from .session import Session
from .status import guarded
from .tasks import Task


class StrengthPanel(Panel):
    """A slider from the base model (0) to the character as learnt (1), on fixed seeds."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.slider = ipywidgets.FloatSlider(
            1.0,
            min=0.0,
            max=1.0,
            step=0.125,
            description="strength of Θ",
            continuous_update=False,
            readout_format=".3f",
            style={"description_width": "auto"},
            tooltip="0 is the base model, 1 the character as learnt",
            layout=ipywidgets.Layout(width="340px"),
        )
        self.draw = button(
            "Draw",
            "Draw eight fixed seeds at this strength; kept, so that the slider is quick afterwards",
            icon="paint-brush",
            kind="draw",
        )
        self.words = ipywidgets.HTML()
        self.view = GalleryView(name="Eight fixed seeds", can_exclude=False, size=96)
        self.ui = ipywidgets.VBox([row(self.slider, self.draw), self.words, self.view])
        self._drawn: dict[tuple[str, float], int] = {}
        self.slider.observe(self._moved, "value")
        self.draw.on_click(lambda _button: self.draw_now(self.slider.value))

    def show(self) -> None:
        """Show the images of this strength, if they have been drawn."""
        source = self.session.theta_node
        if source is None:
            self.words.value = "There is no Θ yet: it comes with the first refinement."
        key = (source or "", self.slider.value)
        if (
            source is not None
            and key not in self._drawn
            and (kept := self.run.samples.drawn_probe(source, strength=key[1]))
        ):
            self.take(*key, kept)
        drawn = self._drawn.get(key, 0)
        self.draw.disabled = source is None or self.session.busy or bool(drawn)
        with self.view.hold_sync():
            self.view.thumbnails = self.session.thumbnails.key(_drawn(*key))
            self.view.labels = [f"seed {i} at strength {key[1]:g}" for i in range(drawn)]
            self.view.sections = (
                [{"title": "", "sign": "", "colour": "", "note": "", "ids": list(range(drawn))}] if drawn else []
            )
            self.view.empty = "Not drawn at this strength yet: press Draw." if source else ""
        if source is not None:
            self.words.value = f"Θ of node {source}; the same eight seeds at every strength, 0 is the model without it."

    def take(self, source: str, strength: float, images: list[Image.Image]) -> None:
        """Keep images drawn at a strength."""
        self.session.thumbnails.send(_drawn(source, strength), images)
        self._drawn[source, strength] = len(images)

    @guarded
    def draw_now(self, strength: float) -> None:
        """Draw eight fixed seeds at a strength of Θ, in the background."""
        source = self.session.theta_node

        def work(task: Task) -> None:
            images = self.run.samples.probe(
                source, strength=strength, on_progress=task.report, cancelled=task.cancelled
            )
            self.take(source, strength, images)

        self.session.tasks.start(work, name=f"strength {strength:g}")

    @guarded
    def _moved(self, _change: Any) -> None:
        self.show()


def _drawn(source: str, strength: float) -> str:
    return f"{source}@{strength:g}"
