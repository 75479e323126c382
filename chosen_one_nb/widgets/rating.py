"""A user study in a notebook: the screens of `chosen_one_nb.study`, answers on disk when the next screen appears."""

from __future__ import annotations

import re
import zlib
from typing import Any

import anywidget
import traitlets

from chosen_one_nb.run.store import StoreError
from chosen_one_nb.study.records import ALIAS, StudyError
from chosen_one_nb.study.study import HERE, Study, screens


class RatingPanel(anywidget.AnyWidget):
    """The screens of one rater; made again with the same alias, it goes on where the rater stopped.

    Parameters
    ----------
    study : Study
        Where answers are kept.
    rater : str
        An alias, no name of a person: letters, digits, - and _. It also says which of the sheets is shown.

    Attributes
    ----------
    shown : dict
        What raters may know of the study; see `chosen_one_nb.study.study.screens`.
    images : dict of str to bytes
        WebP, by opaque names.
    lines : list of dict
        What has been answered and withdrawn.
    problem : str
        Why the last answer was not kept.
    """

    _esm = (HERE / "rating.js").read_text("utf-8")
    _css = (HERE / "rating.css").read_text("utf-8")

    shown = traitlets.Dict().tag(sync=True)
    images = traitlets.Dict().tag(sync=True)
    lines = traitlets.List().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)

    def __init__(self, study: Study, rater: str) -> None:
        if not re.fullmatch(ALIAS, rater):
            raise StudyError(
                f"Expected an alias of letters, digits, - and _, not beginning with synthetic, got {rater!r}."
            )
        self._study, key = study, study.key
        self._sheet = zlib.crc32(rater.encode()) % len(key.sheets)
        self._about = {"study": key.study, "build": key.build, "rater": rater, "sheet": self._sheet}
        shown = screens(key, [self._sheet])
        files = {file for item in shown["items"].values() for file in item["files"]}
        images = {file: (study.folder / "page" / "images" / f"{file}.webp").read_bytes() for file in files}
        super().__init__(shown=shown, images=images, lines=self._kept(rater))
        self.on_msg(self._hear)

    def _kept(self, rater: str) -> list[dict[str, Any]]:
        return [answer.model_dump() for answer in self._study.read_answers()[0] if answer.rater == rater]

    def _hear(self, _widget: Any, line: dict[str, Any], _buffers: Any) -> None:
        self.problem = ""
        try:
            if line.get("number") == len(self.lines) + 1:  # else a second view was quicker
                self.lines = [*self.lines, self._study.record(line | self._about).model_dump()]
        except (StudyError, StoreError) as error:
            self.problem = f"Not kept: {error}"
