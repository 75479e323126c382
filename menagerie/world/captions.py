"""The grammar of prompts: what a caption says of a truth, and what a prompt asks for.

One table of phrases serves both ways, so that `named_in(caption(truth, rng).text)` is what was named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from menagerie.world.values import ATTRIBUTES, NEUTRAL

# Attribute -> value -> phrases that say it, without any colour.
PHRASES: dict[str, dict[str, tuple[str, ...]]] = {
    "kind": {kind: (kind,) for kind in ATTRIBUTES["kind"]}
    | {
        "cat": ("cat", "kitten"),
        "dog": ("dog", "puppy"),
        "rabbit": ("rabbit", "bunny"),
        "wizard": ("wizard", "magician"),
        "pig": ("pig", "piglet"),
    },
    "style": {
        "sticker": ("sticker",),
        "drawing": ("drawing", "pencil drawing"),
        "cartoon": ("cartoon",),
        "watercolour": ("watercolour", "painting"),
        "photo": ("photo", "photograph"),
    },
    "expression": {"smiling": ("smiling", "happy"), "surprised": ("surprised", "amazed"), "sad": ("sad", "crying")},
    "pattern": {
        "plain": ("plain",),
        "spots": ("spotted", "with spots"),
        "stripes": ("striped", "with stripes"),
        "patch": ("with a patch over one eye", "with an eye patch"),
    },
    "garment": {
        "none": ("without clothes", "wearing no clothes"),
        "scarf": ("scarf",),
        "jumper": ("jumper", "sweater"),
        "cape": ("cape", "cloak"),
        "overalls": ("overalls", "dungarees"),
    },
    "accessory": {
        "none": ("with nothing on the head", "without accessories"),
        "hat": ("hat",),
        "bow": ("bow", "ribbon"),
        "glasses": ("glasses", "spectacles"),
        "crown": ("crown",),
        "flower": ("flower",),
    },
    "place": {
        "plain": ("on a plain background",),
        "beach": ("at the beach", "on a beach"),
        "snow": ("in the snow",),
        "forest": ("in the forest", "in the woods"),
        "city": ("in the city", "in a street"),
        "night": ("at night", "under the moon"),
        "room": ("in a room", "at home"),
        "desert": ("in the desert",),
        "underwater": ("underwater", "under the sea"),
    },
    "action": {
        "standing": ("standing", "standing still"),
        "book": ("reading a book",),
        "avocado": ("holding an avocado",),
        "ball": ("playing with a ball", "holding a ball"),
        "ice cream": ("eating ice cream", "eating an ice cream"),
        "balloon": ("holding a balloon", "with a balloon"),
        "gift": ("holding a gift", "carrying a present"),
        "waving": ("waving", "saying hello"),
    },
    "framing": {
        "close": ("up close", "from very near"),
        "medium": ("at medium distance",),
        "far": ("far away", "from far away"),
    },
    "extra": {
        "none": ("with nothing around",),
        "leaves": ("with falling leaves", "among leaves"),
        "stars": ("surrounded by stars", "with stars around"),
        "hearts": ("surrounded by hearts", "with hearts around"),
    },
    "arms": {
        "down": ("with arms down",),
        "up": ("with arms up", "with both arms raised"),
        "out": ("with arms out", "with arms spread"),
        "raised": ("with one arm raised", "raising one arm"),
    },
    "legs": {
        "together": ("with feet together",),
        "apart": ("with legs apart", "with feet apart"),
        "sitting": ("sitting", "sitting down"),
    },
    "lean": {
        "upright": ("upright",),
        "left": ("leaning left", "leaning to the left"),
        "right": ("leaning right", "leaning to the right"),
    },
}
POSE = ("arms", "legs", "lean")  # came later than the others: their words stand last in the vocabulary
# Colour attribute -> the nouns that a colour word right before them speaks of.
BELLY = ("belly", "tummy")
SOMEBODY = ("character", "creature")
PLURAL = ("glasses", "spectacles", "overalls", "dungarees")
GLUE = frozenset(("a", "an", "of", "with", "wearing", "and", ",", *SOMEBODY, "the", "in", "on", "at"))
SPELLINGS = {"grey": ("grey", "gray")}

# How often each attribute is named in a caption of middling length.
SHARE = {
    "style": 0.5,
    "expression": 0.3,
    "pattern": 0.3,
    "colour": 0.5,
    "second": 0.25,
    "eyes": 0.3,
    "garment": 0.5,
    "accessory": 0.5,
    "action": 0.4,
    "place": 0.5,
    "extra": 0.4,
    "framing": 0.2,
    "arms": 0.5,
    "legs": 0.5,
    "lean": 0.4,
}
DETAILS = ("expression", "pattern", "second", "eyes", "garment", "accessory")  # a few pixels of the figure each
PART_COLOUR_SHARE = 0.75  # of the named garments and accessories that are named with their colour
NEGATION_SHARE = {
    "garment": 0.16,
    "accessory": 0.16,
    "extra": 0.06,
    "pattern": 0.15,
    "framing": 0.15,
    **dict.fromkeys(POSE, 0.06),
}
QUIET = {"none", "plain", "medium", *NEUTRAL.values()}  # values that are mostly left unsaid
MAX_TOKENS = 30

CONTEXTS: list[tuple[str, dict[str, str]]] = [
    ("at the beach", {"place": "beach"}),
    ("in the snow", {"place": "snow"}),
    ("in the forest", {"place": "forest"}),
    ("in the city", {"place": "city"}),
    ("reading a book", {"action": "book"}),
    ("holding an avocado", {"action": "avocado"}),
    ("playing with a ball", {"action": "ball"}),
    ("eating ice cream", {"action": "ice cream"}),
]


@dataclass(frozen=True)
class Caption:
    """A caption and what exactly it says.

    Attributes
    ----------
    text : str
        Lowercase words, spaces and commas.
    named : dict
        Attribute -> value, for each attribute that the text names.
    """

    text: str
    named: dict[str, str]


# --- reading ----------------------------------------------------------------------------------------------


def _coloured(attribute: str, nouns: tuple[str, ...], meaning: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield every "colour noun" with what it says: `meaning` and the colour."""
    for colour in ATTRIBUTES[attribute]:
        for word in SPELLINGS.get(colour, (colour,)):
            if colour != "none":
                yield from ((f"{word} {noun}", {attribute: colour} | meaning) for noun in nouns)


def _all_phrases() -> Iterator[tuple[str, dict[str, str]]]:
    for attribute, values in PHRASES.items():
        for value, phrases in values.items():
            yield from ((phrase, {attribute: value}) for phrase in phrases)
    for kind, nouns in PHRASES["kind"].items():
        yield from _coloured("colour", nouns, {"kind": kind})
    yield from _coloured("colour", SOMEBODY, {})
    yield from _coloured("second", BELLY, {})
    yield from _coloured("eyes", ("eyes", "eyed"), {})
    for part in ("garment", "accessory"):
        for value, nouns in PHRASES[part].items():
            if value != "none":
                yield from _coloured(f"{part}_colour", nouns, {part: value})


@cache
def _table() -> dict[tuple[str, ...], dict[str, str]]:
    """Words of a phrase -> what it says."""
    return {tuple(phrase.split()): meaning for phrase, meaning in _all_phrases()}


@cache
def _longest() -> int:
    return max(map(len, _table()))


def named_in(text: str) -> dict[str, str]:
    """Tell which attributes a prompt asks for, by the longest known phrase at each word.

    Parameters
    ----------
    text : str
        Any prompt; what the grammar does not know is passed over.

    Returns
    -------
    dict
        Attribute -> value; the first mention of an attribute counts.

    Examples
    --------
    >>> named_in("a sticker of a red fox wearing a blue hat")
    {'style': 'sticker', 'colour': 'red', 'kind': 'fox', 'accessory_colour': 'blue', 'accessory': 'hat'}
    """
    words = re.findall(r"[a-z]+|[^a-z\s]", text.lower())
    named: dict[str, str] = {}
    at = 0
    while at < len(words):
        meaning, length = _match(words, at)
        for attribute, value in meaning.items():
            named.setdefault(attribute, value)
        at += length
    return named


def _match(words: list[str], at: int) -> tuple[dict[str, str], int]:
    """The longest phrase that starts at word `at`, and its length."""
    for length in range(min(_longest(), len(words) - at), 0, -1):
        meaning = _table().get(tuple(words[at : at + length]))
        if meaning is not None:
            return meaning, length
    return {}, 1


def late_words() -> list[str]:
    """Return the words that only poses need, sorted: they came into the world when models of the others were there."""
    early = {word for phrase, meaning in _table().items() if not meaning.keys() & set(POSE) for word in phrase}
    return sorted({word for phrase in _table() for word in phrase} - early - GLUE)


def vocabulary() -> list[str]:
    """Return every word, and the comma, that captions may hold: sorted, but `late_words` last.

    Returns
    -------
    list of str
        Some 160 tokens.
    """
    late = late_words()
    return sorted(GLUE.union(*_table()) - set(late)) + late


# --- writing ----------------------------------------------------------------------------------------------


def _article(noun: str) -> str:
    """Put "a" or "an" before a noun phrase, unless it is a plural."""
    if noun.split()[-1] in PLURAL:
        return noun
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class _Writer:
    """Writes one caption: knows the truth and what to name, remembers what it named."""

    def __init__(self, truth: dict[str, Any], wanted: set[str], rng: Random) -> None:
        self.truth, self.wanted, self.rng = truth, wanted, rng
        self.named: dict[str, str] = {}

    def say(self, attribute: str, fits: Callable[[str], bool] = lambda phrase: True) -> str:
        """Name the attribute by one of its phrases that `fits`."""
        value = self.truth[attribute]
        self.named[attribute] = value
        return self.rng.choice([phrase for phrase in PHRASES[attribute][value] if fits(phrase)])

    def colour(self, attribute: str) -> str:
        """Name a colour."""
        self.named[attribute] = self.truth[attribute]
        return self.rng.choice(SPELLINGS.get(self.truth[attribute], (self.truth[attribute],)))

    def subject(self) -> str:
        """ "a sad spotted green eyed red fox"."""
        words = []
        if "expression" in self.wanted:
            words.append(self.say("expression"))
        if self._pattern_first:
            words.append(self.say("pattern", lambda phrase: " " not in phrase))
        if self._eyes_first:
            words.append(self.colour("eyes") + " eyed")
        if "colour" in self.wanted:
            words.append(self.colour("colour"))
        words.append(self.say("kind") if "kind" in self.wanted else self.rng.choice(SOMEBODY))
        return _article(" ".join(words))

    def plan(self) -> None:
        """Decide where pattern and eyes go."""
        value = self.truth["pattern"]
        adjective = value == "plain" or (value != "patch" and self.rng.random() < 0.6)
        self._pattern_first = "pattern" in self.wanted and adjective
        self._eyes_first = "eyes" in self.wanted and self.rng.random() < 0.25

    def traits(self) -> str:
        """ "with a white belly and green eyes"."""
        traits = []
        if "second" in self.wanted:
            traits.append(_article(f"{self.colour('second')} {self.rng.choice(BELLY)}"))
        if "eyes" in self.wanted and not self._eyes_first:
            traits.append(self.colour("eyes") + " eyes")
        if "pattern" in self.wanted and not self._pattern_first:
            return " and ".join([self.say("pattern", lambda phrase: " " in phrase), *traits])
        return "with " + " and ".join(traits) if traits else ""

    def part(self, part: str) -> str:
        """ "a red scarf"."""
        colour = self.colour(f"{part}_colour") + " " if f"{part}_colour" in self.wanted else ""
        return _article(colour + self.say(part))

    def clothes(self) -> list[str]:
        """ "wearing a red scarf and a yellow hat", or that there are none."""
        named = [part for part in ("garment", "accessory") if part in self.wanted]
        worn = [self.part(part) for part in named if self.truth[part] != "none"]
        text = [f"wearing {' and '.join(worn)}"] if worn else []
        return text + [self.say(part) for part in named if self.truth[part] == "none"]

    def text(self) -> str:
        """The whole caption."""
        self.plan()
        start = f"{_article(self.say('style'))} of " if "style" in self.wanted else ""
        figure = f"{start}{self.subject()} {self.traits()}".strip()
        clauses = self.clothes()
        scene = [self.say(name) for name in ("action", *POSE, "place", "extra", "framing") if name in self.wanted]
        if len(scene) > 1 and self.rng.random() < 0.3:
            self.rng.shuffle(scene)
        for part in clauses + scene:
            figure += (", " if self.rng.random() < 0.35 else " ") + part
        return figure


def _wanted(truth: dict[str, Any], rng: Random, details: float) -> set[str]:
    """Choose what to name: sometimes nearly nothing, sometimes nearly all."""
    roll = rng.random()
    wanted = {"kind"} if rng.random() < 0.96 else {"colour"}
    if roll < 0.06:
        return wanted
    if roll < 0.14:
        return wanted | {"style"}
    busy = rng.choice((0.55, 1.0, 1.0, 1.5))
    for name, share in SHARE.items():
        quiet = NEGATION_SHARE.get(name, 1.0) if truth[name] in QUIET else 1.0
        often = details if name in DETAILS else 1.0
        if rng.random() < share * busy * quiet * often:
            wanted.add(name)
    if truth["legs"] == "sitting" and truth["action"] == "standing":
        wanted.discard("action")  # free hands, which "standing" would say wrongly
    for part in ("garment", "accessory"):
        if part in wanted and truth[part] != "none" and rng.random() < PART_COLOUR_SHARE:
            wanted.add(f"{part}_colour")
    return wanted


def caption_of(said: dict[str, str], rng: Random) -> str:
    """Say very little: "a creature wearing a scarf".

    Parameters
    ----------
    said : dict
        Attributes of `ATTRIBUTES` and their values; a garment's or an accessory's colour only beside it.
    rng : random.Random
        Source of chance: phrase and noun.
    """
    return _Writer({"pattern": "plain"} | said, set(said), rng).text()


def caption(truth: dict[str, Any], rng: Random, *, details: float = 1.0) -> Caption:
    """Say a random part of a truth in varied words.

    Parameters
    ----------
    truth : dict
        From `world.sample`.
    rng : random.Random
        Source of chance.
    details : float
        How many times as often as usual to name small things of the figure: `DETAILS`.

    Returns
    -------
    Caption
        At most 30 tokens, one for each word and comma.
    """
    wanted = _wanted(truth, rng, details)
    while True:
        writer = _Writer(truth, wanted, rng)
        text = writer.text()
        if len(text.replace(",", " ,").split()) <= MAX_TOKENS:
            return Caption(text, writer.named)
        droppable = sorted(wanted - {"kind", "colour", "garment_colour", "accessory_colour"})
        lost = rng.choice(droppable)
        wanted = wanted - {lost, f"{lost}_colour"}
