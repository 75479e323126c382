"""Whether what was flagged before refining is what the refined character cannot let go of, judged by the reader.

The finder flags attributes of the images that were chosen at the first gallery, before anything is learnt. The
reader, which the finder knows nothing of, then looks at Θ's images in eight contexts and at the base model's on the
same seeds.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import fisher_exact

from chosen_one_nb.analysis.vocabulary import Attribute, Vocabulary
from chosen_one_nb.run.run import Node, Run
from menagerie import world
from menagerie.reader import Reader

__all__ = ["cases", "in_contexts", "meaning", "odds_ratio", "odds_rows", "persists", "run_table", "shown", "timed"]

CERTAIN = 0.01  # chance that a share of images rises as much by chance
NAMES = {
    "belly colour": "second", "eye colour": "eyes", "surroundings": "extra",
    "garment colour": "garment_colour", "accessory colour": "accessory_colour",
}  # fmt: skip
"""Groups of the vocabulary whose attribute the world calls otherwise."""

Rows = list[tuple[str, str, float]]


def meaning(attribute: Attribute, sentence: str) -> tuple[str, str]:
    """What an attribute of the vocabulary is called in the world: (attribute, value).

    "No garment to colour" says of the garment that there is none; nothing known is (group, "").
    """
    name, named = NAMES.get(attribute.group, attribute.group), world.named_in(sentence)
    return (name, named[name]) if name in named else next(iter(named.items()), (name, ""))


def run_table(run: Run, vocabulary: Vocabulary, reader: Reader) -> pd.DataFrame:
    """For each attribute that the prompt leaves open and the reader knows: was it flagged, and does Θ hold on to it?

    Flagged: a finding in what was chosen at the first gallery, which the kit does not take for asked for. Persists:
    see `persists`. Seen: the reader sees it in at least one of the chosen images. What is not there cannot be
    learnt, so the attributes to compare the flagged ones with are those *seen* and not flagged; they include what
    the finder missed.

    Parameters
    ----------
    run : Run
        Is refined once, at the root, if that has not been done.
    vocabulary : Vocabulary
    reader : Reader

    Returns
    -------
    DataFrame
        `prompt`, `name`, `value`, `answer` ("asked", "identity", "incidental": what the kit takes it for), `flagged`,
        `seen`, `chosen` (share of the chosen images that show it, by the reader), `base`, `character` (the same of
        the contexts that do not ask for it), `persists`.
    """
    if not run.root.refined:
        run.select(run.root)
        run.next_iteration()
    findings = run.attributes.inquiry(run.root, vocabulary=vocabulary).findings()
    base, drawn = in_contexts(run, None, reader), in_contexts(run, run.root, reader)
    chosen = reader([run.root.images[at] for at in run.root.decision.images])
    rows = []
    for (name, value), answer, flagged in _open(run.prompt, vocabulary, findings):
        if name not in chosen:  # a reader that learnt before the world had it
            continue
        side = [shown(read, name, value) for read in (base, drawn)]
        share = float((chosen[name] == value).mean())
        rows.append({"prompt": run.prompt, "name": name, "value": value, "answer": answer, "flagged": flagged,
                     "seen": share > 0, "chosen": share, "base": side[0].mean(), "character": side[1].mean(),
                     "persists": persists(*side)})  # fmt: skip
    return pd.DataFrame(rows)


def _open(prompt: str, vocabulary: Vocabulary, findings: pd.DataFrame) -> Iterator[tuple[tuple[str, str], str, bool]]:
    """What the prompt leaves open: meaning, the kit's answer, and whether it was flagged."""
    asked, sentences = world.named_in(prompt), vocabulary.texts()
    for column, attribute in enumerate(vocabulary.attributes):
        name, value = meaning(attribute, sentences[attribute.columns[0]])
        if name not in asked and value not in ("", "none"):
            answer = str(findings.answer[column])
            yield (name, value), answer, bool(findings.finding[column]) and answer != "asked"


def in_contexts(run: Run, node: Node | None, reader: Reader) -> pd.DataFrame:
    """What the reader sees in the contexts, as they are written, drawn with the Θ of a node or (None) the base model.

    Returns
    -------
    DataFrame
        A row per image, as of the reader, and `context`, the number in `world.CONTEXTS`.
    """
    texts = [text for text, _ in world.CONTEXTS]
    drawn = run.samples.contexts(node, texts, base=node is None, weight=1.0)
    read = reader([image for text in texts for image in drawn[text]])
    return read.assign(context=[at for at, text in enumerate(texts) for _ in drawn[text]])


def shown(read: pd.DataFrame, name: str, value: str) -> np.ndarray:
    """Whether each image of a context that does not ask for this very value shows it, bool (n,).

    A context that asks for another value of the attribute counts: a forest where the beach was asked for is what
    holding on to the forest means.
    """
    free = [at for at, (_, wanted) in enumerate(world.CONTEXTS) if wanted.get(name) != value]
    return (read[name][read["context"].isin(free)] == value).to_numpy()


def persists(base: np.ndarray, character: np.ndarray) -> bool:
    """Whether more of the character's images show something than of the base model's: Fisher's exact test, 1 %."""
    counts = [(int(side.sum()), int((~side).sum())) for side in (character, base)]
    return bool(fisher_exact(counts, alternative="greater").pvalue < CERTAIN)


def cases(table: pd.DataFrame) -> np.ndarray:
    """Count flagged and persisting, flagged only, persisting only, neither: int (4,)."""
    kinds = ((True, True), (True, False), (False, True), (False, False))
    return np.array([int(((table.flagged == f) & (table.persists == p)).sum()) for f, p in kinds])


def odds_ratio(counts: np.ndarray) -> np.ndarray:
    """Odds of persisting where flagged, over those where not, of `cases` (..., 4): one ratio each.

    Half a case is added to each count (Haldane 1956), so that none is without a ratio.

    Examples
    --------
    >>> float(odds_ratio(np.array([9, 1, 2, 8])))  # 9.5 * 8.5 / (1.5 * 2.5)
    21.533333333333335
    """
    a, b, c, d = np.moveaxis(np.asarray(counts, float) + 0.5, -1, 0)
    return a * d / (b * c)


def odds_rows(table: pd.DataFrame, repeats: int = 1000) -> Rows:
    """The odds ratio with its 95 % interval: against what the chosen images show too, and against everything else.

    The first is the score. The second flatters: most of what a vocabulary names is in no image. The third is the
    first for what nobody would call part of the character.
    """
    parts = {
        "flagged against unflagged that chosen images show": table[table.flagged | table.seen],
        "flagged against all others": table,
        "the first, incidental ones only": table[(table.flagged | table.seen) & (table.answer == "incidental")],
    }
    return [row for name, part in parts.items() for row in _ratio_rows(name, part, repeats)]


def _ratio_rows(name: str, table: pd.DataFrame, repeats: int) -> Rows:
    """How many persist on either side, their odds ratio, and its interval over prompts."""
    flagged, others = table[table.flagged], table[~table.flagged]
    low, high = ratio_interval(table, repeats)
    share = [float(part.persists.mean()) if len(part) else float("nan") for part in (flagged, others)]
    return [("prompts", f"{name}: odds ratio over {table.prompt.nunique()} prompts", float(odds_ratio(cases(table)))),
            ("prompts", "  its interval, low", low), ("prompts", "  its interval, high", high),
            ("prompts", f"  flagged that persist (n={len(flagged)})", share[0]),
            ("prompts", f"  others that persist (n={len(others)})", share[1])]  # fmt: skip


def ratio_interval(table: pd.DataFrame, repeats: int = 1000, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the odds ratio, resampling prompts, whose attributes are learnt together."""
    by_prompt = np.array([cases(part) for _, part in table.groupby("prompt", sort=False)])  # (P, 4)
    if not len(by_prompt):
        return float("nan"), float("nan")
    picks = np.random.default_rng(seed).integers(len(by_prompt), size=(repeats, len(by_prompt)))
    low, high = np.quantile(odds_ratio(by_prompt[picks].sum(axis=1)), [0.025, 0.975])
    return float(low), float(high)


def timed(run: Run, vocabulary: Vocabulary, reader: Reader) -> pd.DataFrame:
    """`run_table`, and one line of its result and how long it took."""
    start = time.perf_counter()
    table = run_table(run, vocabulary, reader)
    held = table[table.flagged & table.persists]
    names = ", ".join(f"{row.name} {row.value}" for row in held.itertuples()) or "none"
    print(f"{run.prompt}: {int(table.flagged.sum())} flagged, {len(held)} of them persist ({names}), "
          f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
    return table
