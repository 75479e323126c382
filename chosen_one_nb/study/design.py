"""Which images are asked about, and who sees them in which order: seeded, so that the same table gives the same study.

Of each character two contexts are taken that every method has drawn. Raters are asked of both images whether they fit
their texts, and of the two together whether they show one character. Whoever sees a character sees it by every method,
so that a strict rater is strict with all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from chosen_one_nb.study.records import QUESTIONS, Item, StudyImage


def choose_images(images: Sequence[StudyImage], rng: np.random.Generator) -> tuple[list[list[StudyImage]], list[str]]:
    """Take two images of each character by each method, in the same two contexts.

    Returns
    -------
    pairs : list of list of StudyImage
        Two images each, of one method and character; of different seeds where there is more than one.
    left_out : list of str
        Characters without two contexts by every method.
    """
    drawn: dict[tuple[str, str, str], list[StudyImage]] = defaultdict(list)
    for image in images:
        drawn[image.character, image.method, image.context].append(image)
    methods = sorted({method for _, method, _ in drawn})
    pairs, left_out = [], []
    for character in dict.fromkeys(image.character for image in images):
        by_all = set.intersection(*({context for c, m, context in drawn if (c, m) == (character, own)}
                                    for own in methods))  # fmt: skip
        if len(by_all) < 2:
            left_out.append(f"{character}: expected two contexts that every method has drawn, got {len(by_all)}")
            continue
        first, second = rng.permutation(sorted(by_all))[:2]
        for method in methods:
            pairs.append([drawn[character, method, first][0], drawn[character, method, second][-1]])
    return pairs, left_out


def questions_on(pair: Sequence[StudyImage], names: list[str], rng: np.random.Generator) -> list[Item]:
    """Ask of two images, by their opaque names, whether each fits its text and whether they are of one character."""
    about = {"kind": "rated", "method": pair[0].method, "character": pair[0].character}
    items = []
    # Which one is on the left cannot favour a method: both are by the same.
    for question, shown in (("fit", [0]), ("fit", [1]), ("same", [0, 1])):
        context = " | ".join(pair[i].context for i in shown)
        text = f"{pair[0].character} {context}" if question == "fit" else ""
        own = {"files": [names[i] for i in shown], "seeds": [pair[i].seed for i in shown]}
        items.append(Item(id=new_id(rng), question=question, text=text, context=context, **own, **about))
    return items


def new_id(rng: np.random.Generator) -> str:
    """Return a name that tells nothing."""
    return rng.bytes(6).hex()


def deal(
    items: Sequence[Item], rng: np.random.Generator, *, per_rater: int, sheets: int, repeated: float
) -> list[list[str]]:
    """Write the sheets: a block for each question, training first, methods mixed, repeated items at the end.

    Parameters
    ----------
    items : sequence of Item
    rng : numpy Generator
    per_rater : int
        About how many rated screens a rater is given: as many whole characters as that allows, at least one.
    sheets : int
        How many; characters are dealt out so that all are rated equally often, or nearly.
    repeated : float
        Share of the rated items that come a second time.

    Returns
    -------
    list of list of str
        Ids of items in the order in which they are shown.
    """
    characters = rng.permutation(sorted({item.character for item in items if item.kind == "rated"}))
    per_character = sum(item.character == characters[0] for item in items)
    share = min(len(characters), max(1, per_rater // per_character))
    orders = []
    for sheet in range(sheets):
        order: list[str] = []
        mine = rng.permutation([characters[(sheet * share + i) % len(characters)] for i in range(share)])
        for question in QUESTIONS[:: 1 if sheet % 2 else -1]:  # every other rater begins with the other one
            asked = [item for item in items if item.question == question]
            piles = [rng.permutation([item.id for item in asked if item.character == c]) for c in mine]
            block = np.array(piles).T.ravel().tolist()  # one after the other: never a character twice in a row
            again = rng.permutation(block[: len(block) // 2])[: round(repeated * len(block))]
            for item in asked:
                if item.kind == "golden":
                    block.insert(rng.integers(1, len(block) + 1), item.id)
            order += [item.id for item in asked if item.kind == "training"] + block + again.tolist()
        orders.append(order)
    return orders
