"""Small studies of plain coloured squares."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from chosen_one_nb.study.study import Study

METHODS = ("our method", "textual inversion", "base model")
CONTEXTS = ("at the beach", "in the snow", "in the city")


def table(folder: Path, n_characters: int = 4, **more: Any) -> dict[str, Any]:
    """Paint images of methods with telling names, sizes and metadata; return the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    about = PngInfo()
    about.add_text("method", "textual inversion")
    images = []
    for i, (character, method, context) in enumerate(product(range(n_characters), METHODS, CONTEXTS)):
        file = f"{method}-{character}-{1000 + i}.png"
        side = 24 if method == "base model" else 16
        Image.new("RGB", (side, 16), (60 * character, i % 250, 90)).save(folder / file, pnginfo=about)
        row = {"method": method, "character": f"a fox of kind {character}", "context": context}
        images.append({**row, "seed": 1000 + i, "file": file})
    first, last = images[0]["file"], images[-1]["file"]
    known = [
        {"kind": "training", "question": "same", "files": [first, first], "low": 5, "note": "It is one image."},
        {"kind": "golden", "question": "same", "files": [last, last], "low": 4},
        {"kind": "golden", "question": "fit", "files": [first], "text": "a red car", "high": 2},
    ]
    return {"images": images, "known": known, **more}


def study(folder: Path, n_characters: int = 4, **options: Any) -> Study:
    """Make a study of such images, in 32 pixels."""
    from chosen_one_nb.run import store

    store.write_json(folder / "drawn" / "manifest.json", table(folder / "drawn", n_characters))
    return Study.make(folder / "drawn", folder / "study", **{"side": 32, "sheets": 4} | options)


def line(study: Study, rater: str, position: int, rating: int | None, sheet: int = 0, **fields: Any) -> dict[str, Any]:
    """Return an answer as the screens give it."""
    item = study.key.sheets[sheet][position]
    own = {"rater": rater, "sheet": sheet, "number": position + 1, "position": position, "item": item, "rating": rating}
    return {"study": study.key.study, "ms": 1500, "shown_at": "2026-11-30T20:00:00.000Z", **own, **fields}
