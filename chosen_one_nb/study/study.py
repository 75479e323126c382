"""A study's folder: the page for raters, the key that tells what they saw, and their answers.

``page/`` is given to raters: ``index.html`` opens without Python or a server, and holds no name of a method, seed or
file. ``key.json`` stays with whoever asks. Files of answers that come back go to ``answers/``, beside those that the
widget writes there.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from pydantic import TypeAdapter, ValidationError

from chosen_one_nb import __version__
from chosen_one_nb.models.images import read_image
from chosen_one_nb.run import store
from chosen_one_nb.run.arguments import whole
from chosen_one_nb.settings import first_error, user_path
from chosen_one_nb.study.design import choose_images, deal, new_id, questions_on
from chosen_one_nb.study.records import ALIAS, Answer, Item, Key, StudyError, StudyTable

HERE = Path(__file__).parent
COLUMNS = list(Answer.model_fields)


class Study:
    """A user study that lies in a folder; `Study.make` makes one.

    Parameters
    ----------
    folder : path
        A `StoreError` says where its ``key.json`` is missing or damaged.

    Attributes
    ----------
    key : Key
        All of the study, unblinded.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = user_path("folder", folder, StudyError)
        self.key: Key = store.read_json(self.folder / "key.json", schema=TypeAdapter(Key))

    @classmethod
    def make(
        cls, source: str | Path | Mapping[str, Any] | pd.DataFrame, folder: str | Path, *, seed: int = 0,
        per_rater: int = 72, sheets: int = 24, side: int = 512,
    ) -> Study:  # fmt: skip
        """Make a study from images of methods, and the page that raters open.

        Parameters
        ----------
        source : path, mapping or DataFrame
            ``manifest.json`` or its folder; or what it holds; or its table of images. See ``docs/study.md``. Without
            a manifest, files are found from the working directory.
        folder : path
            Where the study will lie; it may hold none yet, since answers belong to one key.
        seed : int
            Of the choice of contexts and of all orders.
        per_rater, sheets : int
            See `chosen_one_nb.study.design.deal`.
        side : int
            Of all images, in pixels: squares of one size and format, so that neither tells a method.

        Raises
        ------
        StudyError
            There is a study already; a row is not as it should be; no character has two contexts by every method.
        ImageError
            An image is missing or damaged.
        """
        folder = user_path("folder", folder, StudyError)
        limits = {"seed": (seed, 0, 2**31), "per_rater": (per_rater, 1, 1000), "sheets": (sheets, 1, 1000)}
        for name, (value, low, high) in (limits | {"side": (side, 32, 2048)}).items():
            whole(name, value, low, high, StudyError)
        if (folder / "key.json").exists():
            raise StudyError(f"{folder} holds a study already, and answers belong to it. Name another folder.")
        table, base = _read_table(source)
        rng = np.random.default_rng(seed)
        pairs, left_out = choose_images(table.images, rng)
        if not pairs or pairs[0][0].method == pairs[-1][0].method:
            why = " ".join(left_out[:1])
            raise StudyError(f"Expected two methods and a character that each drew in two contexts, got none. {why}")
        place = store.make_folder(folder / "page" / "images")

        def put(file: str) -> str:
            name = new_id(rng)
            store.write_bytes(place / f"{name}.webp", plain_square(base / file, side), flush=False)
            return name

        items = [item for pair in pairs for item in questions_on(pair, [put(image.file) for image in pair], rng)]
        for known in table.known:
            items.append(Item(**known.model_dump() | {"id": new_id(rng), "files": [put(file) for file in known.files]}))
        orders = deal(items, rng, per_rater=per_rater, sheets=sheets, repeated=table.repeated)
        name, share = store.digest(f"{seed} {table.model_dump_json()}")[:12], table.pass_share
        key = Key(
            study=name, build=__version__, seed=seed, pass_share=share, items=items, sheets=orders, left_out=left_out
        )
        store.write_bytes(folder / "page" / "index.html", page(key).encode())
        store.write_json(folder / "key.json", key.model_dump())  # last: without it the folder is no study yet
        return cls(folder)

    def __str__(self) -> str:
        rated = [item for item in self.key.items if item.kind == "rated"]
        methods, characters = ({getattr(item, name) for item in rated} for name in ("method", "character"))
        longest, n = max(map(len, self.key.sheets)), len(self.key.sheets)
        return f"{len(characters)} characters by {len(methods)} methods, {n} sheets of up to {longest} screens"

    def record(self, given: Mapping[str, Any]) -> Answer:
        """Append an answer to its rater's file and flush it to the disk before returning.

        Raises
        ------
        StudyError
            It is no answer to the item at that place of the sheet.
        StoreError
            It could not be written.
        """
        answer = self._checked(given)
        path = store.make_folder(self.folder / "answers") / f"{answer.rater}.csv"
        line = ",".join("" if value is None else str(value) for value in answer.model_dump().values())
        head = "" if path.exists() else ",".join(COLUMNS) + "\n"
        store.append_bytes(path, f"{head}{line}\n".encode())  # no value that passed the schema holds a comma
        return answer

    def _checked(self, given: Mapping[str, Any], *, texts: bool = False) -> Answer:
        try:
            answer = Answer.model_validate_strings(given) if texts else Answer.model_validate(given, strict=True)
        except ValidationError as error:
            raise StudyError(first_error(error)) from error
        order = self.key.sheets[answer.sheet] if answer.sheet < len(self.key.sheets) else []
        if answer.study != self.key.study or answer.item not in order[answer.position : answer.position + 1]:
            raise StudyError(f"expected an answer of study {self.key.study}, to the item at that place of its sheet.")
        return answer

    def read_answers(self) -> tuple[list[Answer], list[str]]:
        """Read all files of answers.

        Returns
        -------
        answers : list of Answer
            Each line once, withdrawn ones among them.
        problems : list of str
            Lines that could not be read, and why.
        """
        answers: dict[Answer, None] = {}  # a file that came back twice counts once
        problems = []
        for path in sorted((self.folder / "answers").glob("*.csv")):
            text = io.StringIO(store.read_bytes(path).decode("utf-8-sig", "replace"))
            try:
                rows = list(csv.DictReader(text))
            except csv.Error as error:  # a field of megabytes
                problems.append(f"{path.name} is left out: {error}")
                continue
            for number, row in enumerate(rows, 2):
                try:
                    if None in row.values():
                        raise StudyError("it ends too early.")
                    filled = {name: value for name, value in row.items() if name and value}
                    answers[self._checked(filled, texts=True)] = None
                except StudyError as error:
                    problems.append(f"{path.name}, line {number} is left out: {error}")
        return list(answers), problems


def _read_table(source: str | Path | Mapping[str, Any] | pd.DataFrame) -> tuple[StudyTable, Path]:
    """Return a manifest and where its files lie; data passes the same schema."""
    if not isinstance(source, Mapping | pd.DataFrame):
        path = user_path("source", source, StudyError)
        path = path / "manifest.json" if path.is_dir() else path
        return store.read_json(path, schema=TypeAdapter(StudyTable)), path.parent
    data = {"images": source.to_dict("records")} if isinstance(source, pd.DataFrame) else source
    try:
        return StudyTable.model_validate(data, strict=True), Path()
    except ValidationError as error:
        raise StudyError(f"Table of a study: {first_error(error)}") from error


def plain_square(file: Path, side: int) -> bytes:
    """Return an image as a WebP square without metadata, so that neither size nor format tells who made it."""
    square = ImageOps.fit(read_image(file), (side, side), Image.Resampling.LANCZOS)
    square.info.clear()
    data = io.BytesIO()
    square.save(data, "WEBP", quality=90)
    return data.getvalue()


def screens(key: Key, sheets: Sequence[int] | None = None) -> dict[str, Any]:
    """Return what raters may know, for `rating.js`; of some sheets only, or of all (None)."""
    orders = key.sheets if sheets is None else [key.sheets[i] for i in sheets]
    about = {"question", "text", "files"}
    items = {
        item.id: item.model_dump(include=about | ({"low", "high", "note"} if item.kind == "training" else set()))
        for item in sorted(key.items, key=lambda item: item.id)  # their order would tell which are by one method
        if any(item.id in order for order in orders)
    }
    rules = {"study": key.study, "build": key.build, "alias": ALIAS, "columns": COLUMNS}
    return rules | {"items": items, "sheets": orders}


def page(key: Key) -> str:
    """Return the HTML page that raters open; images lie beside it."""
    data = json.dumps(screens(key)).replace("<", "\\u003c")  # nothing in it can end its element
    style, script, whole = ((HERE / name).read_text("utf-8") for name in ("rating.css", "rating.js", "page.html"))
    return Template(whole).substitute(style=style, script=script, study=data)
