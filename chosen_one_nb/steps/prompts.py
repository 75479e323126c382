"""Prompts: what they are about, checked before anything long begins, and turned into conditions for the UNet."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from chosen_one_nb.settings import is_text

if TYPE_CHECKING:
    import torch

__all__ = ["Condition", "PromptError", "check_prompt", "condition", "condition_pair", "encoders", "subject"]

TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"
"""What transformers calls its own warning of a prompt that is too long."""

_MEDIA = (
    "animation|cartoon|clipart|doodle|drawing|emoji|icon|illustration|image|logo|painting|photo|photograph|picture|"
    "portrait|poster|print|render|rendering|sketch|sticker|watercolou?r"
)
_MEDIUM = re.compile(rf"^(?:(?:an?|the)\s+)?(?:[\w-]+\s+){{0,4}}?(?:{_MEDIA})\s+of\s+")
# What ends the description of the subject: after it come scene, dress, deeds or style. A deed that comes before the
# subject ("a sleeping fox") is one of its adjectives.
_END = re.compile(
    r"[,.;:(]|\b(?:with|without|wearing|holding|having|carrying|reading|dressed|made|in|on|at|by|from|near|under|behind|"
    r"beside|against|between|and|that|which|who|while)\b"
    r"|\b(?:dancing|drinking|driving|eating|flying|jumping|lying|looking|playing|riding|running|sitting|sleeping|"
    r"standing|swimming|walking)(?=\s*$|\s+(?:an?|the|his|her|its|some|up|down|in|on|at|by|with|under|over|to|and)\b)"
)


class PromptError(ValueError):
    """A prompt that the models cannot take: the message says what was expected and what came."""


@dataclass(frozen=True)
class Condition:
    """What the UNet sees of a text: `embeds` (B, T, C) and, for SDXL, `pooled` (B, D) or None."""

    embeds: torch.Tensor
    pooled: torch.Tensor | None

    @classmethod
    def of(cls, texts: list[Condition]) -> Condition:
        """Put conditions of one text each together; a single one where all are the same."""
        import torch

        first = texts[0]
        if all(text is first for text in texts):
            return first
        pooled = [text.pooled for text in texts if text.pooled is not None]
        return cls(torch.cat([text.embeds for text in texts]), torch.cat(pooled) if pooled else None)

    def expand(self, n: int) -> Condition:
        """Repeat a condition of one text for n images, without copying."""
        return self._map(lambda tensor: tensor.expand(n, *tensor.shape[1:]))

    def rows(self, numbers: list[int]) -> Condition:
        """Take texts by their numbers, repeats allowed."""
        return self._map(lambda tensor: tensor[numbers])

    def beyond(self, other: Condition, weight: float) -> Condition:
        """Emphasise what this text adds to another one: other + weight * (this - other), both of B texts.

        0 gives the other text, 1 this one, and more goes past this one.
        """
        return self._map(lambda ours, theirs: theirs.lerp(ours, weight), other)

    def where(self, choose: torch.Tensor, other: Condition) -> Condition:
        """Take this condition for the rows where `choose` (B,) is True, and the other one elsewhere."""
        return self._map(lambda ours, theirs: ours.where(choose.view(-1, *[1] * (ours.ndim - 1)), theirs), other)

    def arguments(self, n: int, prefix: str = "") -> dict[str, torch.Tensor]:
        """Return the condition, expanded to n images, as the arguments of a stock pipeline."""
        expanded = self.expand(n)
        named = {f"{prefix}prompt_embeds": expanded.embeds, f"{prefix}pooled_prompt_embeds": expanded.pooled}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def _map(self, function: Callable[..., torch.Tensor], *others: Condition) -> Condition:
        pooled = None if self.pooled is None else function(self.pooled, *(other.pooled for other in others))
        return Condition(function(self.embeds, *(other.embeds for other in others)), pooled)


def subject(prompt: str) -> str:
    """Guess the word a prompt is about: "a sticker of a red fox on the beach" -> "fox".

    The medium ("a sticker of") is skipped and the last word before the first scene, dress, deed or style is taken.
    A guess by rule, not grammar: `Settings.initial_word` overrides where the token starts from.

    Examples
    --------
    >>> subject("a photo of a 50 years old man with curly hair")
    'man'
    >>> subject("a knight without a helmet")
    'knight'
    """
    text = _MEDIUM.sub("", prompt.strip().lower())
    words = re.findall(r"[^\W\d_]+", _END.split(text)[0]) or re.findall(r"[^\W\d_]+", text)
    return words[-1] if words else prompt.strip()


def in_medium(prompt: str, medium: str) -> str:
    """Say a prompt in another medium; one that names none gets it.

    Examples
    --------
    >>> in_medium("a sticker of a red fox", "a watercolour")
    'a watercolour of a red fox'
    """
    found = _MEDIUM.match(prompt.lower())
    return f"{medium} of {prompt[found.end() :] if found else prompt}"


def encoders(pipeline: Any) -> list[tuple[str, str, str]]:
    """Name a pipeline's text encoders: (file key, encoder attribute, tokenizer attribute).

    The keys are those of SDXL embedding files: `clip_l` for the first encoder, `clip_g` for the second,
    whatever their widths.
    """
    pairs = [("clip_l", "text_encoder", "tokenizer"), ("clip_g", "text_encoder_2", "tokenizer_2")]
    return [pair for pair in pairs if getattr(pipeline, pair[1], None) is not None]


def check_prompt(pipeline: Any, prompt: str, *, forbidden: str | None = None) -> str:
    """Return the prompt stripped, or say why it cannot be used.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        Its tokenizers set the limit, start and end tokens included (77 in SDXL).
    prompt : str
        The text.
    forbidden : str, optional
        The placeholder token, where no character is on the pipeline that could give it a meaning.

    Raises
    ------
    PromptError
        If the prompt is empty, too long for a tokenizer, or holds the forbidden token.
    """
    if not is_text(prompt) or not prompt.strip():
        raise PromptError(f"prompt: expected a description such as 'a sticker of a fox', got {reprlib.repr(prompt)}.")
    if forbidden and forbidden in prompt:
        raise PromptError(
            f"prompt: expected text without {forbidden!r}, got {prompt!r}. That word will stand for "
            "the character as its placeholder; choose other words, or another token in the settings."
        )
    for _, _, name in encoders(pipeline):
        tokenizer = getattr(pipeline, name)
        tokenizer.deprecation_warnings[TOO_LONG] = True  # the error below says it in words that help
        length = len(tokenizer(pipeline.maybe_convert_prompt(prompt, tokenizer)).input_ids)
        if length > tokenizer.model_max_length:
            raise PromptError(
                f"prompt: expected at most {tokenizer.model_max_length} tokens (start and end included), "
                f"got {length}: {shorten(prompt, 80, placeholder=' …')!r}. The model would not see the end of it; use "
                "fewer words."
            )
    return prompt.strip()


def condition(pipeline: Any, prompts: str | list[str]) -> Condition:
    """Encode a prompt, or B of them. Gradients flow unless the caller forbids them.

    Parameters
    ----------
    pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
    prompts : str or list of str

    Returns
    -------
    Condition
        Of as many texts as prompts (B = 1 for a single one).
    """
    prompts = [prompts] if isinstance(prompts, str) else prompts
    # Each different one once: the images of a batch mostly share their caption.
    different = list(dict.fromkeys(prompts))
    embeds, _, pooled, _ = _encode(pipeline, different)
    encoded = Condition(embeds, pooled)
    return encoded if different == prompts else encoded.rows([different.index(prompt) for prompt in prompts])


def condition_pair(pipeline: Any, prompt: str, negative: str | None = None) -> tuple[Condition, Condition]:
    """Encode a prompt and what guidance contrasts it with, each of one text.

    Parameters
    ----------
    pipeline : StableDiffusionXLPipeline or StableDiffusionPipeline
    prompt : str
    negative : str, optional
        What to steer away from; None is the model's own unconditional input (zeros in SDXL).
    """
    embeds, opposite, pooled, opposite_pooled = _encode(
        pipeline, [prompt], do_classifier_free_guidance=True, negative_prompt=negative and [negative]
    )
    return Condition(embeds, pooled), Condition(opposite, opposite_pooled)


def _encode(pipeline: Any, prompts: list[str], **guidance: Any) -> tuple[Any, Any, Any, Any]:
    # Why (pitfall 21): by the pipeline's own `encode_prompt`, in training too, so that token ids, the layer taken and
    # the pooling are those of sampling.
    encoded = pipeline.encode_prompt(
        prompt=prompts,
        device=getattr(pipeline, encoders(pipeline)[0][1]).device,
        num_images_per_prompt=1,
        **{"do_classifier_free_guidance": False, **guidance},
    )
    return encoded if len(encoded) == 4 else (*encoded, None, None)  # SD 1.x pools nothing


def unknown_words(pipeline: Any, prompt: str) -> list[str]:
    """Name the words of a prompt that a pipeline's tokenizers can only spell: its text encoders never learned them.

    A word counts as spelled where every tokenizer cuts it into pieces of fewer than two letters on average. CLIP's
    similarity between a word and images drawn of it does not tell known from unknown words: `tools/unknown_words.py`.

    Parameters
    ----------
    pipeline : DiffusionPipeline
    prompt : str

    Returns
    -------
    list of str
        In lower case, in the prompt's order.
    """
    tokenizers = [getattr(pipeline, name) for _, _, name in encoders(pipeline)]
    words = dict.fromkeys(re.findall(r"[^\W\d_]{2,}", prompt.lower()))
    return [word for word in words if all(len(word) < 2 * len(cut.tokenize(word)) > 2 for cut in tokenizers)]
