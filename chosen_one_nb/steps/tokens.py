"""A new word in tokenizers and text encoders, for the length of a with-block (section 3.2, tau)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps import AdapterError
from chosen_one_nb.steps.prompts import encoders, subject

__all__ = ["EmbeddingScale", "NewRows", "add_tokens", "check_words", "initial_rows"]


class NewRows(nn.Module):
    """An embedding table with a few new rows behind it, which alone can be trained.

    Parameters
    ----------
    base : nn.Embedding
        The table (V, D); kept as it is.
    first : int
        Token id of the first new row; the others follow.
    rows : Tensor or Parameter of shape (n, D)
        Usually float32, over a base of any precision.
    """

    def __init__(self, base: nn.Embedding, first: int, rows: torch.Tensor) -> None:
        super().__init__()
        self.base, self.first = base, first
        # Why (pitfalls 2, 3): the rows are a parameter of their own, so no gradient, weight decay or momentum
        # reaches the table. A list behind the base, because an encoder's dtype is that of its first parameter.
        rows = rows if isinstance(rows, nn.Parameter) else nn.Parameter(rows, requires_grad=False)
        self.new = nn.ParameterList([rows])

    @property
    def rows(self) -> nn.Parameter:
        """The new rows (n, D)."""
        return self.new[0]

    @property
    def weight(self) -> torch.Tensor:
        """The base table, for code that asks an embedding for its weight."""
        return self.base.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (B, T) -> vectors (B, T, D)."""
        new = (ids >= self.first) & (ids < self.first + len(self.rows))  # (B, T)
        known = self.base(ids.masked_fill(new, 0))  # (B, T, D)
        learned = self.rows[(ids - self.first).clamp(0, len(self.rows) - 1)]  # (B, T, D)
        return torch.where(new[..., None], learned.to(known.dtype), known)


@contextmanager
def add_tokens(pipeline: Any, token: str, rows: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Add a word to a pipeline's tokenizers and text encoders for the length of a with-block.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    token : str
        The word.
    rows : mapping of str to Tensor (n, D)
        By encoder key (`clip_l`, `clip_g`); Parameters are trained in place.

    Raises
    ------
    AdapterError
        If keys or widths do not fit the encoders, or a tokenizer knows the word already.
    """
    expected = [key for key, _, _ in encoders(pipeline)]
    if sorted(rows) != sorted(expected):
        raise AdapterError(
            f"token rows: expected one entry for each of {expected}, got {sorted(rows)}. "
            "This character was made with another kind of model."
        )
    with ExitStack() as stack:
        for key, encoder, tokenizer in encoders(pipeline):
            stack.enter_context(_added(pipeline, tokenizer, getattr(pipeline, encoder), token, rows[key]))
        yield


@contextmanager
def _added(pipeline: Any, name: str, encoder: Any, token: str, rows: torch.Tensor) -> Iterator[None]:
    """Add the word to one encoder and its tokenizer, which `pipeline` has by `name`."""
    tokenizer, table = getattr(pipeline, name), encoder.get_input_embeddings()
    if rows.shape[-1] != table.weight.shape[-1]:
        raise AdapterError(
            f"token rows: expected width {table.weight.shape[-1]} for this text encoder, got "
            f"{rows.shape[-1]}. This character was made with another kind of model."
        )
    extended, first = _extended(tokenizer, token, len(rows))
    with _pooled_at_eos(encoder, tokenizer.eos_token_id):
        try:
            # Why (pitfalls 11, 12): through the public accessors, which any build of the encoder has, and without
            # diffusers' load and unload, which leaves things behind. The originals go back as the same objects.
            setattr(pipeline, name, extended)
            encoder.set_input_embeddings(NewRows(table, first, rows))
            yield
        finally:
            setattr(pipeline, name, tokenizer)
            encoder.set_input_embeddings(table)


_EXTENDED: WeakKeyDictionary[Any, tuple[list[str], Any]] = WeakKeyDictionary()
"""The last extended copy of each tokenizer, with its new words: copying a full vocabulary takes a while."""


def _extended(tokenizer: Any, token: str, n: int) -> tuple[Any, int]:
    """Return a copy of the tokenizer that knows the token's n words, and the first one's id."""
    from transformers import AddedToken

    names = _names(token, n)
    if _known(tokenizer, names):
        raise AdapterError(
            f"token {token!r}: the tokenizer knows this word already. Take the other character off "
            "first, or choose another token."
        )
    if _EXTENDED.get(tokenizer, ([], None))[0] != names:
        extended = copy.deepcopy(tokenizer)
        # Not normalized: "<Jasper>" would be looked for as "<jasper>", and fall into pieces.
        extended.add_tokens([AddedToken(name, normalized=False, special=False) for name in names])
        _EXTENDED[tokenizer] = (names, extended)
    extended = _EXTENDED[tokenizer][1]
    return extended, extended.convert_tokens_to_ids(token)


def _names(token: str, n: int) -> list[str]:
    return [token, *(f"{token}_{i}" for i in range(1, n))]  # as diffusers expands a token of several rows


def _known(tokenizer: Any, names: list[str]) -> list[str]:
    return sorted(set(names) & tokenizer.get_vocab().keys())


@contextmanager
def _pooled_at_eos(encoder: Any, eos: int) -> Iterator[None]:
    """Pool at the end of the text although a new word has a higher id.

    Why (pitfall 1): configurations on the Hub say `eos_token_id: 2`, for which transformers pools at the highest id
    of the text. Without new words both are the same place.
    """
    modules = [module for module in encoder.modules() if isinstance(getattr(module, "eos_token_id", None), int)]
    before = [module.eos_token_id for module in modules]
    try:
        for module in modules:
            module.eos_token_id = eos
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.eos_token_id = own


def check_words(pipeline: Any, settings: Settings) -> None:
    """Check, before anything is drawn, that the token is a new word and the initial word one that is known.

    Raises
    ------
    SettingsError
        A tokenizer knows the token already, or none of `settings.initial_word`.
    """
    for _, _, name in encoders(pipeline):
        tokenizer = getattr(pipeline, name)
        if known := _known(tokenizer, _names(settings.token, settings.token_vectors)):
            raise SettingsError(
                f"token: expected a word that the model does not know, such as '<v>', got {known[0]!r}, which is part "
                "of its vocabulary. The character would take over what that means."
            )
        if settings.initial_word and not _known_ids(tokenizer, settings.initial_word):
            raise _unknown_word(settings)


def _unknown_word(settings: Settings) -> SettingsError:
    return SettingsError(
        f"initial_word: expected a word the model's tokenizers know, got {settings.initial_word!r}. Use another, or "
        "None for the prompt's subject."
    )


def initial_rows(pipeline: Any, settings: Settings, prompt: str) -> dict[str, torch.Tensor]:
    """Return the initial word's rows (n, D) in each encoder, float32: the mean over its pieces, repeated.

    Raises
    ------
    SettingsError
        If no tokenizer knows `settings.initial_word`. A subject guessed from the prompt that none knows gives way to
        the whole prompt, and at last to the mean of the vocabulary.
    """
    rows = {}
    for key, encoder, name in encoders(pipeline):
        tokenizer = getattr(pipeline, name)
        ids = _known_ids(tokenizer, settings.initial_word or subject(prompt))
        if not ids and settings.initial_word:
            raise _unknown_word(settings)
        table = _table(pipeline, encoder)
        ids = ids or _known_ids(tokenizer, prompt) or list(range(len(table)))
        rows[key] = table[ids].float().mean(0, keepdim=True).cpu().repeat(settings.token_vectors, 1)
    return rows


def _known_ids(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return [i for i in ids if i not in (tokenizer.unk_token_id, tokenizer.eos_token_id)]


def _table(pipeline: Any, encoder: str) -> torch.Tensor:
    return getattr(pipeline, encoder).get_input_embeddings().weight.detach()


class EmbeddingScale:
    """Spread and norm of the vocabulary's rows, by encoder: the yardstick of the new ones."""

    def __init__(self, pipeline: Any) -> None:
        tables = {key: _table(pipeline, encoder).float() for key, encoder, _ in encoders(pipeline)}
        self.std = {key: float(table.std()) for key, table in tables.items()}
        self.norm = {key: float(table.norm(dim=-1).mean()) for key, table in tables.items()}

    def norms(self, rows: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return the mean norm of the new rows relative to the vocabulary's, by encoder."""
        return {key: float(row.detach().norm(dim=-1).mean()) / self.norm[key] for key, row in rows.items()}

    @torch.no_grad()
    def pull(self, rows: Mapping[str, torch.Tensor], settings: Settings) -> None:
        """Pull the rows towards the vocabulary's spread (a tenth of the way, in logarithms) or norm, in place."""
        for key, row in rows.items():
            if settings.embedding_rule == "std":
                row *= (self.std[key] / row.std().clamp(min=1e-8)) ** 0.1
            elif settings.embedding_rule == "norm":
                length = row.norm(dim=-1, keepdim=True).clamp(min=1e-8)  # (n, 1)
                pull = min(1.0, 100 * settings.token_learning_rate)
                row *= (length + pull * (self.norm[key] - length)) / length
