"""The words a text encoder knows: where a new word's rows start from, and how far they may stray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from chosen_one_nb.settings import Settings, SettingsError
from chosen_one_nb.steps.prompts import encoders
from chosen_one_nb.steps.subject import subject

__all__ = ["EmbeddingScale", "initial_rows"]


def initial_rows(pipeline: Any, settings: Settings, prompt: str) -> dict[str, torch.Tensor]:
    """The initial word's rows in each encoder, mean over its pieces, repeated: (n, D) float32."""
    rows = {}
    for key, encoder, name in encoders(pipeline):
        tokenizer = getattr(pipeline, name)
        ids = _known_ids(tokenizer, settings.initial_word or subject(prompt))
        if not ids and settings.initial_word:
            raise SettingsError(
                f"initial_word: expected a word the model's tokenizers know, got "
                f"{settings.initial_word!r}. Use another, or None for the prompt's subject."
            )
        table = getattr(pipeline, encoder).get_input_embeddings().weight.detach()
        ids = ids or _known_ids(tokenizer, prompt) or list(range(len(table)))
        rows[key] = table[ids].float().mean(0, keepdim=True).cpu().repeat(settings.token_vectors, 1)
    return rows


def _known_ids(tokenizer: Any, text: str) -> list[int]:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    return [i for i in ids if i not in (tokenizer.unk_token_id, tokenizer.eos_token_id)]


class EmbeddingScale:
    """Spread and norm of the known words' rows, by encoder: the yardstick of the new ones (pitfall 4)."""

    def __init__(self, pipeline: Any) -> None:
        tables = {
            key: getattr(pipeline, encoder).get_input_embeddings().weight.detach().float()
            for key, encoder, _ in encoders(pipeline)
        }
        self.std = {key: float(table.std()) for key, table in tables.items()}
        self.norm = {key: float(table.norm(dim=-1).mean()) for key, table in tables.items()}

    def norms(self, rows: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Mean norm of the new rows relative to the vocabulary's, by encoder."""
        return {key: float(row.detach().norm(dim=-1).mean()) / self.norm[key] for key, row in rows.items()}

    @torch.no_grad()
    def pull(self, rows: Mapping[str, torch.Tensor], settings: Settings) -> None:
        """Pull the rows towards the vocabulary's spread (a tenth of the way, in logarithms) or norm."""
        for key, row in rows.items():
            if settings.embedding_rule == "std":
                row *= (self.std[key] / row.std().clamp(min=1e-8)) ** 0.1
            elif settings.embedding_rule == "norm":
                length = row.norm(dim=-1, keepdim=True).clamp(min=1e-8)
                pull = min(1.0, 100 * settings.token_learning_rate)
                row *= (length + pull * (self.norm[key] - length)) / length
