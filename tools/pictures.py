"""Draw the images of README and model card: ``python tools/pictures.py [EVALUATION]``.

The folder is that of ``python -m menagerie.evaluate``: its sheet of six prompts becomes ``characters.jpg``, and one of
its runs ``run.jpg``.
"""

import argparse
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from chosen_one_nb import Run, Settings, load_models
from chosen_one_nb.analysis.projection import project
from chosen_one_nb.plots import contact_sheet, projection_plot, to_image
from chosen_one_nb.steps.embed import unit
from chosen_one_nb.steps.gallery import SamplingRequest
from chosen_one_nb.steps.generate import generate
from menagerie import world

OUT = Path(__file__).resolve().parent.parent / "data" / "images"
PROMPTS = ("a sticker of a fox", "a cartoon of a blue cat", "a photo of a green frog in the snow", "a wizard at night")


def stacked(images: list[Image.Image]) -> Image.Image:
    """Put images one above the other, centred on white."""
    sheet = Image.new("RGB", (max(p.width for p in images), sum(p.height for p in images)), "white")
    y = 0
    for part in images:
        sheet.paste(part, ((sheet.width - part.width) // 2, y))
        y += part.height
    return sheet


def run_image(run: Run) -> Image.Image:
    """First gallery, its map with the clusters, the chosen cluster, the last gallery, and the character elsewhere."""
    root, last = run.root, run.current
    chosen = list(root.decision.images)
    positions = project({"gallery": unit(root.embedding.clustered_on)}).positions
    figure = projection_plot(positions, root.clusters.labels, root.clusters.kept, chosen, size=(640, 340))
    rows = [
        ("the first gallery", list(root.images)[:24]),
        ("its most cohesive cluster", [root.images[i] for i in chosen]),
    ]
    sheets = [contact_sheet(images, columns=12, tile=84, title=title) for title, images in rows]
    after = contact_sheet(list(last.images)[:24], columns=12, tile=84, title=f"gallery of iteration {last.iteration}")
    places = run.samples.contexts()
    elsewhere = contact_sheet(
        [column[0] for column in places.values()], columns=8, tile=128, captions=list(places), title="the character"
    )
    return stacked([sheets[0], to_image(figure, scale=1), sheets[1], after, elsewhere])


def main() -> None:
    """Draw all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("evaluation", type=Path, nargs="?", default=Path("runs/evaluation"))
    parser.add_argument("--run", type=int, default=4, help="number of the prompt whose run is shown")
    given = parser.parse_args()
    Image.open(given.evaluation / "image.png").save(OUT / "characters.jpg", quality=85)
    run_image(Run.open(given.evaluation / f"{given.run:02d}" / "run", read_only=True)).save(OUT / "run.jpg", quality=85)
    renders = [world.render(world.sample(Random(seed))).image for seed in range(24)]
    contact_sheet(renders, columns=8, tile=128).save(OUT / "world.jpg", quality=85)
    models, settings = load_models("menagerie"), Settings.preset("menagerie")
    requests = [SamplingRequest(prompt, np.arange(8), settings) for prompt in PROMPTS]
    images = [image for request in requests for image in generate(models, request).images]
    captions = [prompt if i == 0 else "" for prompt in PROMPTS for i in range(8)]
    contact_sheet(images, columns=8, tile=128, captions=captions).save(OUT / "generated.jpg", quality=85)


if __name__ == "__main__":
    main()
