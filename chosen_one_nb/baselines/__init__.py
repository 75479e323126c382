"""What the paper compares its method with (section 4.1), and the method without its parts (section 4.3).

=================  ==================================================================================================
`tuned`            what the kit's own trainer and loop learn: Textual Inversion, LoRA DreamBooth, ours, ablations
`training_free`    what is not learned for each character: IP-Adapter, self-attention shared between images
`comparison`       all of them on many prompts: cells on disk, scores, a table, a figure, a page
=================  ==================================================================================================

A method is a function of a `BaselineTask`. It yields what draws the character in contexts, a `Drawer`, by the name of a
variant ("" where there is one only): a curve over steps, or over scales, since a single value would choose the winner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chosen_one_nb.steps.gallery import SamplingRequest, image_seeds

if TYPE_CHECKING:
    from PIL import Image

    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models
    from chosen_one_nb.settings import Settings
    from chosen_one_nb.steps.generate import Steering

__all__ = ["Drawer", "Method", "BaselineTask"]

Drawer = Callable[[Sequence[str], Sequence[int]], "list[Image.Image]"]
"""Draws C contexts ("in the snow") on S seeds: C * S images, all seeds of the first context first."""

SteeredBy = Callable[[], AbstractContextManager["Steering | None"]]
"""Puts on the models what is no `Character`, for a with-block, and says how it steers sampling."""


@dataclass(frozen=True)
class BaselineTask:
    """A character to be learned, or to be drawn consistently.

    Attributes
    ----------
    models : Models
        Left as they were.
    prompt : str
        What the character is.
    settings : Settings
        The sampling is the same for all methods, and so is the training, as far as a method does not say otherwise.
    folder : Path
        Where a method may keep what it makes, to go on from there.
    """

    models: Models
    prompt: str
    settings: Settings
    folder: Path

    def references(self, n: int = 1) -> list[Image.Image]:
        """Return the first n images of the first gallery, by their fixed seeds: what rivals are given, never chosen."""
        from chosen_one_nb.steps.generate import generate

        seeds = image_seeds(self.settings, 0, n=n)
        return generate(self.models, SamplingRequest(self.prompt, seeds, self.settings)).images

    def drawer(
        self, character: Character | None = None, steered: SteeredBy = nullcontext, *, together: bool = False
    ) -> Drawer:
        """Return what draws by a character, or by the base model; `together`: all contexts of a seed in one batch."""
        return partial(self._draw, character, steered, together)

    def _draw(
        self, character: Character | None, steered: SteeredBy, together: bool, contexts: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Image.Image]:  # fmt: skip
        batches = [[seed] for seed in seeds] if together else [list(seeds)]
        parts = [self._batch(character, steered, contexts, batch, together) for batch in batches]
        return [image for i in range(len(contexts)) for part in parts for image in part[i]]

    def _batch(
        self, character: Character | None, steered: SteeredBy, contexts: Sequence[str], seeds: Sequence[int],
        together: bool,
    ) -> list[list[Image.Image]]:  # fmt: skip
        """Draw by one call of `generate`: the images of each context."""
        from dataclasses import replace

        from chosen_one_nb.steps.generate import Steering, generate

        size = {"batch_size": len(contexts)} if together else {}
        text = character.prompt() if character else self.prompt
        every = [seed for _ in contexts for seed in seeds]
        request = SamplingRequest(text, every, self.settings.replace(**size), character)
        with steered() as steering:
            asked = replace(steering or Steering(), contexts=[text for text in contexts for _ in seeds])
            images = generate(self.models, request, steering=asked).images
        return [images[i * len(seeds) : (i + 1) * len(seeds)] for i in range(len(contexts))]


Method = Callable[[BaselineTask], Iterator[tuple[str, Drawer]]]
