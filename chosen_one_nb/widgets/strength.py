"""How strongly Θ acts: the same eight seeds at a strength of one's choice."""

from __future__ import annotations

import ipywidgets
from PIL import Image

from .gallery import GalleryView
from .panel import Panel, control, row, text, update
from .session import Session
from .status import guarded
from .tasks import Task


class StrengthPanel(Panel):
    """A slider from the base model (0) to the character as learnt (1), on fixed seeds."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        tip = "0 is the base model, 1 the character as learnt"
        self.slider = control(
            ipywidgets.FloatSlider, "strength of Θ", tip, "340px",
            value=1.0, min=0.0, max=1.0, step=0.125, continuous_update=False, readout_format=".3f",
        )  # fmt: skip
        tip = "Draw eight fixed seeds at this strength; kept, so that the slider is quick afterwards"
        self.draw = self.button("draw", "Draw", tip, self._draw, icon="paint-brush")
        self.words = text()
        self.view = GalleryView(name="Eight fixed seeds", can_exclude=False, size=96)
        self.ui = ipywidgets.VBox([row(self.slider, self.draw), self.words, self.view])
        self._counts: dict[str, int] = {}
        self.slider.observe(self.redraw, "value")

    def show(self) -> None:
        """Show the images of this strength, if they have been drawn."""
        session, source, strength = self.session, self.session.theta_node, self.slider.value
        key = f"{source}@{strength:g}"
        if source is not None and key not in self._counts:
            self._keep(key, self.run.samples.drawn_probe(source, strength=strength))
        n = self._counts.get(key, 0)
        self.draw.disabled = source is None or session.busy or n > 0
        self.words.value = (
            f"Θ of node {source}; the same eight seeds at every strength, 0 is the model without it."
            if source
            else "There is no Θ yet: it comes with the first refinement."
        )
        update(
            self.view,
            thumbnails=session.thumbnails.key(key),
            labels=[f"seed {i} at strength {strength:g}" for i in range(n)],
            sections=[{"ids": list(range(n))}] if n else [],
            empty="Not drawn at this strength yet: press Draw." if source else "",
        )

    def _keep(self, key: str, images: list[Image.Image]) -> None:
        if images:
            self.session.thumbnails.send(key, images)
            self._counts[key] = len(images)

    @guarded
    def _draw(self, session: Session) -> None:
        source, strength = session.theta_node, self.slider.value

        def work(task: Task) -> None:
            self._keep(f"{source}@{strength:g}", self.run.samples.probe(source, strength=strength, **task.callbacks))

        session.tasks.start(work, name=f"strength {strength:g}")
