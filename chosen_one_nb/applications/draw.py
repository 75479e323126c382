"""Draw a use of a character from its settings, for the first time or again."""

from __future__ import annotations

from PIL import Image

from chosen_one_nb.applications.edit import EditError, edit
from chosen_one_nb.applications.kept import Use
from chosen_one_nb.applications.pose import pose
from chosen_one_nb.applications.skeleton import SkeletonError
from chosen_one_nb.applications.story import StoryPlan, story
from chosen_one_nb.character import Character
from chosen_one_nb.models.load import Models
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import NO_CALLBACKS, Callbacks

__all__ = ["draw"]


def draw(
    models: Models,
    character: Character,
    use: Use,
    settings: Settings,
    *,
    parts: dict[str, Image.Image] | None = None,
    callbacks: Callbacks = NO_CALLBACKS,
) -> Image.Image:
    """Return the image of a use; an edit needs its "source" and "mask" in `parts`."""
    if use.kind == "story":
        plan = StoryPlan.of({"scenes": use.scenes, "title": use.title, "candidates": use.candidates, "seed": use.seed})
        return story(models, character, plan, settings=settings, callbacks=callbacks).image()
    sampling = {"seeds": [use.seed], "settings": settings, "context": use.context}
    if use.kind == "edit":
        if not parts or not {"source", "mask"} <= set(parts):
            raise EditError("An edit needs an image and a mask: take an image and paint what is to be drawn anew.")
        image, mask = parts["source"], parts["mask"]
        return edit(models, image, mask, character.prompt(), character=character, **sampling).images[0]
    if use.skeleton is None:
        raise SkeletonError("A pose needs a skeleton: choose one.")
    return pose(models, character, character.prompt(), use.skeleton, scale=use.scale, **sampling)[0]
