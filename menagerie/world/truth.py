"""Truths: what a character and its scene are, drawn at random or checked.

A *truth* is a plain dict that JSON can hold: one value for each name in `ATTRIBUTES`, a number in [-1, 1] for each
name in `PROPORTIONS`, `tilt` in degrees and `seed`, which fixes every texture.
"""

from __future__ import annotations

from random import Random
from typing import Any

from menagerie.world.values import ATTRIBUTES, IDENTITY, MAX_TILT, PROPORTIONS

Truth = dict[str, Any]

# Attribute -> its usual value and how often it has it; the other values, and all other attributes, are uniform.
USUAL = {
    "garment": ("none", 0.4), "accessory": ("none", 0.4), "extra": ("none", 0.6),
    "pattern": ("plain", 0.4), "action": ("standing", 0.3),
    "arms": ("down", 0.3), "legs": ("together", 0.5), "lean": ("upright", 0.7),
}  # fmt: skip
# Pairs that must differ, so that every part stays visible against the body.
DISTINCT = (("colour", "second"), ("colour", "garment_colour"), ("colour", "accessory_colour"))
# A part's colour is "none" exactly when the part is.
COLOUR_OF = {"garment_colour": "garment", "accessory_colour": "accessory"}
# (attribute, value) -> for other attributes the values beside which the first can be: hands that hold something are
# not free, and a close view ends above the feet and beside the body.
WHOLE = ("medium", "far")
NEEDS = {
    **{("arms", arms): {"action": ("standing",), "framing": WHOLE} for arms in ("up", "out", "raised")},
    **{("legs", legs): {"framing": WHOLE} for legs in ("apart", "sitting")},
}


class WorldError(ValueError):
    """A truth, or a wish for one, that the world cannot hold."""


def _partners(name: str) -> list[str]:
    """Names whose value must differ from that of `name`."""
    return [b if a == name else a for a, b in DISTINCT if name in (a, b)]


def _unmet(known: Truth) -> str:
    """What of the known values lacks what it needs, as far as that is known too; empty where nothing does."""
    for (name, value), needs in NEEDS.items():
        for other, allowed in needs.items():
            if known.get(name) == value and known.get(other, allowed[0]) not in allowed:
                return f"{name!r} is {value!r} only where {other!r} is one of {allowed}, got {known[other]!r}"
    return ""


def _options(name: str, known: Truth) -> list[str]:
    """Values of `name` that agree with what is known already."""
    taken = {known[partner] for partner in _partners(name) if partner in known}
    options = [value for value in ATTRIBUTES[name] if value not in taken or value == "none"]
    options = [value for value in options if not _unmet({**known, name: value})]
    part = COLOUR_OF.get(name)
    if part:
        return [value for value in options if (value == "none") == (known[part] == "none")]
    for colour, part in COLOUR_OF.items():
        if part == name and colour in known:
            options = [value for value in options if (value == "none") == (known[colour] == "none")]
    return options


def _draw_value(name: str, known: Truth, rng: Random) -> str:
    options = _options(name, known)
    if not options:
        raise WorldError(f"no value of {name!r} is left beside {known}: let one of them free")
    usual, share = USUAL.get(name, (None, 0.0))
    if usual in options and len(options) > 1:
        if rng.random() < share:
            return usual
        options.remove(usual)
    return rng.choice(options)


def _scene_numbers(rng: Random) -> Truth:
    return {"tilt": round(rng.uniform(-MAX_TILT, MAX_TILT), 2), "seed": rng.randrange(2**31)}


def check(truth: Truth) -> None:
    """Raise `WorldError` unless `truth` is one that the world can draw.

    Parameters
    ----------
    truth : dict
        Attributes, proportions, `tilt` and `seed`.
    """
    expected = {*ATTRIBUTES, *PROPORTIONS, "tilt", "seed"}
    if set(truth) != expected:
        raise WorldError(f"a truth holds {sorted(expected)}; missing or unknown: {sorted(expected ^ set(truth))}")
    _check_values(truth)
    for a, b in DISTINCT:
        if truth[a] == truth[b]:
            raise WorldError(f"{a!r} and {b!r} must differ, both are {truth[a]!r}")
    for colour, part in COLOUR_OF.items():
        if (truth[colour] == "none") != (truth[part] == "none"):
            raise WorldError(f"{colour!r} is 'none' exactly when {part!r} is; got {truth[colour]!r}, {truth[part]!r}")
    _check_needs(truth)


def _check_needs(known: Truth) -> None:
    if unmet := _unmet(known):
        raise WorldError(unmet)


def _check_values(values: Truth) -> None:
    """Check each given value by itself."""
    for name, value in values.items():
        if name in ATTRIBUTES and value not in ATTRIBUTES[name]:
            raise WorldError(f"{name!r} is one of {ATTRIBUTES[name]}, got {value!r}")
        if name in PROPORTIONS and not -1 <= value <= 1:
            raise WorldError(f"{name!r} lies in [-1, 1], got {value!r}")
        if name == "tilt" and not -MAX_TILT <= value <= MAX_TILT:
            raise WorldError(f"'tilt' lies in [-{MAX_TILT}, {MAX_TILT}] degrees, got {value!r}")
        if name not in ATTRIBUTES and name not in PROPORTIONS and name not in ("tilt", "seed"):
            raise WorldError(f"unknown attribute {name!r}; known: {[*ATTRIBUTES, *PROPORTIONS, 'tilt', 'seed']}")


def sample(rng: Random, **fixed: Any) -> Truth:
    """Draw a truth: every attribute uniform and independent, but for `USUAL` values and the pairs that must differ.

    Parameters
    ----------
    rng : random.Random
        Source of chance; the same state gives the same truth.
    **fixed
        Attributes, proportions, `tilt` or `seed` that are given.

    Returns
    -------
    dict
        The truth.

    Raises
    ------
    WorldError
        For an unknown name or value, or wishes that exclude each other.

    Examples
    --------
    >>> sample(Random(1), kind="owl", garment="none")["garment_colour"]
    'none'
    """
    _check_values(fixed)
    _check_needs(fixed)
    numbers = {name: round(rng.uniform(-1, 1), 3) for name in PROPORTIONS} | _scene_numbers(rng)
    truth = dict(fixed)
    for name in ATTRIBUTES:  # ordered so that a part comes before its colour
        if name not in truth:
            truth[name] = _draw_value(name, truth, rng)
    truth = {name: truth[name] for name in ATTRIBUTES} | numbers | {k: fixed[k] for k in numbers if k in fixed}
    check(truth)
    return truth


def new_scene(truth: Truth, rng: Random) -> Truth:
    """Put the same character, proportions included, into a fresh scene.

    Parameters
    ----------
    truth : dict
        Whose identity to keep.
    rng : random.Random
        Source of chance.

    Returns
    -------
    dict
        A truth equal to the given one in `IDENTITY` and `PROPORTIONS`.
    """
    return sample(rng, **{name: truth[name] for name in (*IDENTITY, *PROPORTIONS)})
