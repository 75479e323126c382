"""What a prompt is about, in a word: where the token starts from, and what CLIP is asked about."""

from __future__ import annotations

import re

__all__ = ["subject"]

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
