"""Render the prompts of a comparison, the ceiling of every method: ``python -m menagerie.oracle PROMPTS.json``.

For each prompt one character that has what the prompt names, the rest of it by chance; in each context, on each seed, a
scene of its own with what the context shows. The folder goes to ``compare --images oracle=FOLDER``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from random import Random

from chosen_one_nb.baselines.comparison import ComparisonPlan
from menagerie import world


def character(prompt: str) -> world.Truth:
    """The character of a prompt, and the scene as far as the prompt names it; always the same for the same prompt."""
    return world.sample(Random(prompt), **world.named_in(prompt))


def in_context(prompt: str, shows: dict[str, str], seed: int) -> world.Truth:
    """The character of a prompt in a scene that shows what prompt and context name, the rest by chance.

    Where the two exclude each other, the context is left out: no image can show it.
    """
    who, rng = character(prompt), Random(f"{prompt} {shows} {seed}")
    kept = {name: who[name] for name in (*world.IDENTITY, *world.PROPORTIONS)}
    named = {name: value for name, value in world.named_in(prompt).items() if name in world.SCENE}
    try:
        return world.sample(rng, **kept | named | shows)
    except world.WorldError:
        return world.sample(rng, **kept | named)


def main(argv: list[str] | None = None) -> None:
    """Write the renders and ``manifest.json``."""
    parser = argparse.ArgumentParser(prog="python -m menagerie.oracle", description=__doc__)
    parser.add_argument("prompts", type=Path, help="plan of the comparison, such as data/comparison_prompts.json")
    parser.add_argument("--folder", type=Path, default=Path("runs/oracle"))
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels (default: 128)")
    given = parser.parse_args(argv)
    plan, images = ComparisonPlan.read(given.prompts), []
    for number, prompt in enumerate(plan.prompts):
        (given.folder / f"{number:02d}").mkdir(parents=True, exist_ok=True)
        for i, context in enumerate(plan.contexts):
            for seed in range(plan.seeds):
                file = f"{number:02d}/{i}-{seed}.png"
                world.render(in_context(prompt, context.shows, seed), given.size).image.save(given.folder / file)
                images.append({"method": "oracle", "character": prompt, "context": context.text, "seed": seed,
                               "file": file})  # fmt: skip
    (given.folder / "manifest.json").write_text(json.dumps({"images": images}, indent=1) + "\n")
    print(f"{len(images)} renders of {len(plan.prompts)} prompts\n{given.folder / 'manifest.json'}")


if __name__ == "__main__":
    main()
