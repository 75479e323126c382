"""Whether Θ has baked an attribute in: ask for its opposite, with the base model and with Θ, and look.

The only causal test of the kit: everything before it observes galleries, this one intervenes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.statistics import bootstrap
from chosen_one_nb.analysis.vocabulary import Attribute

__all__ = ["Counterfactual", "counterfactual"]

Draw = Callable[[str], Sequence[Any]]
Similarity = Callable[[Sequence[Any], list[str]], np.ndarray]
Say = Callable[[Attribute, str], str]
COLUMNS = ["attribute", "group", "asked_for", "base", "character", "baked_in", "low", "high", "persists"]


@dataclass(frozen=True)
class Counterfactual:
    """Result of the counterfactual-prompt test.

    Attributes
    ----------
    table : DataFrame
        A row per attribute asked against: `attribute`, `group`, `asked_for` (the opposite), `base` and
        `character`, shares of images that show the attribute all the same, `baked_in`, their difference,
        with `low` and `high` (95 %, bootstrap over seeds), and `persists` (the interval lies above 0).
    images : dict of str to (sequence, sequence)
        By opposite: the base model's images and Θ's, on the same seeds, to be shown side by side
        (`chosen_one_nb.plots.counterfactual_sheet`).
    skipped : tuple of str
        Attributes for which the vocabulary knows no opposite.
    """

    table: pd.DataFrame
    images: dict[str, tuple[Sequence[Any], Sequence[Any]]]
    skipped: tuple[str, ...]


def counterfactual(
    attributes: Sequence[Attribute],
    draw_base: Draw,
    draw_character: Draw,
    similarity: Similarity,
    *,
    say: Say = lambda attribute, phrase: phrase,
    ask: Say = lambda attribute, phrase: phrase,
) -> Counterfactual:
    """Ask for the opposite of each attribute and count the images that show the attribute none the less.

    An image shows it if it is more similar to the attribute's phrases than to the opposite. What the base
    model already gets wrong is no fault of Θ: the difference of the two shares is what Θ baked in.

    Parameters
    ----------
    attributes : sequence of Attribute
        The flagged ones.
    draw_base, draw_character : callable
        What `ask` makes of an opposite ("in the desert") -> images, always on the same seeds. The caller builds
        the prompt, draws, and may stop by raising.
    similarity : callable
        Images and texts -> cosines (n, t).
    say : callable
        Attribute and phrase -> sentence for CLIP, where the vocabulary has a template.
    ask : callable
        Attribute and opposite -> what follows the caption in a prompt: a photograph is asked for "as a photograph".

    Raises
    ------
    ValueError
        If base and character give different numbers of images, or none.
    """
    rows, images = [], {}
    for attribute in attributes:
        if attribute.opposite:
            wanted = ask(attribute, attribute.opposite)
            base, character = draw_base(wanted), draw_character(wanted)
            _check(attribute, base, character)
            images[attribute.opposite] = (base, character)
            rows.append(_row(attribute, *(_shows(attribute, side, similarity, say) for side in (base, character))))
    skipped = tuple(attribute.name for attribute in attributes if not attribute.opposite)
    return Counterfactual(pd.DataFrame(rows, columns=COLUMNS), images, skipped)


def _check(attribute: Attribute, base: Sequence[Any], character: Sequence[Any]) -> None:
    if len(base) != len(character) or not len(base):
        raise ValueError(
            f'expected as many images of "{attribute.opposite}" by the base model as by the '
            f"character, at least one; got {len(base)} and {len(character)}. Draw both on the "
            "same seeds."
        )


def _shows(attribute: Attribute, images: Sequence[Any], similarity: Similarity, say: Say) -> np.ndarray:
    """Whether each image is closer to the attribute than to what was asked for, bool (n,)."""
    texts = (*attribute.phrases, attribute.opposite or "")
    cosines = similarity(images, [say(attribute, text) for text in texts])  # (n, phrases + 1)
    return cosines[:, :-1].max(axis=1) > cosines[:, -1]


def _row(attribute: Attribute, base: np.ndarray, character: np.ndarray) -> tuple[Any, ...]:
    difference = bootstrap(character.astype(float) - base)  # paired by seed
    shares = (base.mean(), character.mean(), difference.value, difference.low, difference.high)
    return (attribute.name, attribute.group, attribute.opposite, *shares, difference.low > 0)
