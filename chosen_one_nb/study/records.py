"""What a study is made of and what raters answer, as schemas that pydantic checks.

A manifest and files of answers come from others: files lie in the manifest's folder, ratings are whole numbers from 1
to 5, and names of raters hold nothing that a table or a page could take for something else.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ALIAS", "QUESTIONS", "Answer", "Item", "Key", "KnownItem", "StudyError", "StudyImage", "StudyTable"]

QUESTIONS = ("fit", "same")
"""Does the image fit the text; do two images show the same character. `rating.js` has them in words."""

ALIAS = r"(?!synthetic)[A-Za-z0-9_\-]{1,40}"  # escaped for browsers too
"""What a person may call themselves."""

Text = Annotated[str, Field(min_length=1, max_length=1000)]
File = Annotated[str, Field(pattern=r"^[^/\\:.][^/\\:]*(/[^/\\:.][^/\\:]*)*$")]
"""A path within a folder: no part of it begins with a dot."""
Rating = Annotated[int, Field(ge=1, le=5)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Share = Annotated[float, Field(ge=0, le=1)]


class StudyError(ValueError):
    """A study that cannot be made, read or answered so; the message says what was expected, and what to do."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StudyImage(_Record):
    """A row of the table that a study is made from: an image and how it came about.

    Attributes
    ----------
    method : str
        What drew it.
    character : str
        The prompt: what raters' scores are averaged by, and the first part of the text that they read.
    context : str
        Where, or doing what, the character was asked for: the rest of that text.
    seed : int or None
        None where it is not known.
    file : str
        Of the image, in the manifest's folder.
    """

    method: Text
    character: Text
    context: Text
    seed: int | None = None
    file: File


class KnownItem(_Record):
    """An item whose answer is known: a golden one, by which careless raters are told, or one of the training.

    Attributes
    ----------
    kind : {"golden", "training"}
    question : {"fit", "same"}
    files : list of str
        One image where the question is whether it fits ``text``, two where they are compared.
    low, high : int
        The lowest and the highest answer that is right.
    note : str
        Of a training item: what raters are told after they have answered.
    """

    kind: Literal["golden", "training"]
    question: Literal["fit", "same"]
    files: Annotated[list[File], Field(min_length=1, max_length=2)]
    text: str = ""
    low: Rating = 1
    high: Rating = 5
    note: str = ""


class StudyTable(_Record):
    """``manifest.json``: the images, and what is fixed before anybody is asked.

    Attributes
    ----------
    images : list of StudyImage
    known : list of KnownItem
    repeated : float
        Share of a rater's items that come a second time, in [0, 1].
    pass_share : float
        A rater who answers a smaller share of golden items rightly is left out, in [0, 1].
    """

    images: Annotated[list[StudyImage], Field(min_length=1)]
    known: list[KnownItem] = []
    repeated: Share = 0.1
    pass_share: Share = 0.75


class Item(KnownItem):
    """One screen of a study, with what its raters must not know; its id and its files' names are opaque."""

    kind: Literal["rated", "golden", "training"]
    id: str
    method: str = ""
    character: str = ""
    context: str = ""
    seeds: list[int | None] = []


class Key(_Record):
    """``key.json``: all of a study, never to be given to raters.

    Attributes
    ----------
    sheets : list of list of str
        Ids of items in the order in which a rater sees them; each rater is given one of the sheets.
    left_out : list of str
        Characters that are not in the study, and why.
    """

    study: str
    build: str
    seed: int
    pass_share: Share
    items: list[Item]
    sheets: list[list[str]]
    left_out: list[str]


class Answer(_Record):
    """One line of a file of answers.

    Attributes
    ----------
    number : int
        Counts a rater's lines from 1.
    position : int
        On the sheet, from 0.
    rating : int or None
        1 to 5; None where an answer is withdrawn.
    ms : int
        Milliseconds from the image's appearance to the answer.
    shown_at : str
        When the image appeared.
    supersedes : int or None
        Number of the line that is withdrawn.
    """

    study: str
    rater: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,50}$")]
    sheet: Count
    number: Annotated[int, Field(ge=1, lt=2**53)]
    position: Count
    item: str
    rating: Rating | None = None
    ms: Count = 0
    shown_at: Annotated[str, Field(pattern=r"^[0-9T:.Z+-]{0,40}$")] = ""
    supersedes: int | None = None
    build: Annotated[str, Field(pattern=r"^[\w.+-]{0,40}$")] = ""
