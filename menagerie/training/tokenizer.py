"""A real CLIPTokenizer for a small world: one token per known word, and no word that it cannot read."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer


def _split(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte-pair encode ``word`` with the merges known so far (lowest rank first, as CLIP's tokenizer does)."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        at = pairs.index(best)
        parts[at : at + 2] = ["".join(best)]
    return parts


def _merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Merge rules under which every one of ``words`` is a single token.

    Rules are only appended, so a later word never breaks an earlier one: its own rules all rank before.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        left, *rest = _split(word, ranks)
        for part in rest:
            ranks.setdefault((left, part), len(ranks))
            left += part
    return list(ranks)


def word_tokenizer(words: Iterable[str], length: int, *, later: Iterable[str] = ()) -> CLIPTokenizer:
    """Return a CLIPTokenizer that knows some words whole and spells every other text byte by byte.

    Parameters
    ----------
    words : iterable of str
        Lowercase words or punctuation marks, each of which becomes one token.
    length : int
        ``model_max_length``: tokens per text, start and end marks included.
    later : iterable of str
        More words. Their tokens stand behind all others, the marks included, so that a model that learnt ``words``
        alone needs only more rows of its embedding.
    """
    words = list(words)
    alphabet = sorted(ByteLevel.alphabet())
    merges = _merges([*words, *later])
    n = len(_merges(words))
    first, more = (["".join(pair) for pair in part] for part in (merges[:n], merges[n:]))
    marks = ["<|startoftext|>", "<|endoftext|>"]
    tokens = [*alphabet, *(char + "</w>" for char in alphabet), *first, *marks, *more]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)
