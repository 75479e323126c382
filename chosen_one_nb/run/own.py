"""What a person brings to begin a run from: images of their own as the first gallery, or a character or LoRA."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from chosen_one_nb.models.images import find_images, read_image
from chosen_one_nb.run import store
from chosen_one_nb.run.decision import RunError
from chosen_one_nb.run.store import Stamp
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps import Callbacks

if TYPE_CHECKING:
    from chosen_one_nb.character import Character
    from chosen_one_nb.models.load import Models

LEAST, MOST = 2, 16384  # as of `Settings.n_images`
NOT_DRAWN = "It is your own and cannot be drawn again: put a sound copy of it there, or begin the run anew."


@dataclass(frozen=True)
class OwnImages:
    """Images of a person, as squares of the size that the models draw.

    Attributes
    ----------
    images : list of PIL.Image
    names : list of str
        File names; "image 0" and so on for images that came without.
    """

    images: list[Image.Image]
    names: list[str]

    @classmethod
    def read(
        cls, given: str | Path | Sequence[Image.Image | str | Path], models: Models, settings: Settings
    ) -> OwnImages:
        """Read a folder or list of images; an `ImageError` names one that cannot be read."""
        from chosen_one_nb.steps.latents import latent_size
        from chosen_one_nb.steps.training_set import square

        sources = find_images(given)
        if not LEAST <= len(sources) <= MOST:
            raise RunError(f"images: expected {LEAST} to {MOST} of them, got {len(sources)}.")
        size, _ = latent_size(models.pipeline, settings.image_size)
        # One by one: photographs are large, what is kept of them is not.
        images = [square(read_image(source), size)[0] for source in sources]
        named = [getattr(source, "filename", "") if isinstance(source, Image.Image) else source for source in sources]
        return cls(images, [Path(name).name or f"image {i}" for i, name in enumerate(named)])

    def write(self, folder: Path) -> None:
        """Write them as a node's gallery: ``gallery/000.png`` and so on."""
        place = store.make_folder(folder / "gallery")
        for index, (image, name) in enumerate(zip(self.images, self.names, strict=True)):
            about = {"index": str(index), "own": name.encode(errors="replace").decode()}
            store.write_image(place / f"{index:03d}.png", image, about)


def encode_own(models: Models, folder: Path, n: int, callbacks: Callbacks) -> dict[str, Stamp]:
    """Encode a person's n images in a node's folder, beside each its latents; returns the stamps of all files."""
    from chosen_one_nb.steps.latents import encode

    files = {}
    # One by one, like drawing: a stop costs one image.
    for index in range(n):
        callbacks.raise_if_cancelled()
        name = f"gallery/{index:03d}.png"
        image = store.read_or_advise(folder / name, NOT_DRAWN)
        latents, _ = encode(models, [image], image.width)
        files[name] = store.stamp(store.read_bytes(folder / name))
        beside = f"gallery/{index:03d}.npy"
        files[beside] = store.write_array(folder / beside, latents[0].cpu().numpy())
        callbacks.report("generate", index + 1, n, "images")
        if callbacks.on_images:
            callbacks.on_images([(index, image)])
    return files


def begin_from(
    given: Character | str | Path, models: Models, settings: Settings, prompt: str
) -> tuple[Character, Settings]:
    """Return the character that a run begins from, with the run's caption, and settings that go on with it.

    Raises
    ------
    CharacterError
        It cannot be read, or does not fit the models.
    """
    from chosen_one_nb import export
    from chosen_one_nb.steps.tokens import initial_rows

    character = export.read(given) if isinstance(given, str | Path) else given
    if not character.tokens:
        rows = initial_rows(models.pipeline, settings, prompt)
        character = dataclasses.replace(character, tokens=rows, initial=rows, token=settings.token)
    # Weights of another rank or number of rows could not be refined on.
    vectors = len(next(iter(character.tokens.values())))
    taken = {"token": character.token, "token_vectors": vectors, "lora_rank": character.rank, "carry_over": "warm"}
    settings = settings.replace(**taken)
    character = dataclasses.replace(character, caption=settings.caption(prompt))
    # What does not fit the models is told now, not after a gallery.
    with character.on(models.pipeline):
        pass
    return character, settings
