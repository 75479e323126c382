"""What an image shows beside its character, in words that can follow a caption."""

from __future__ import annotations

from chosen_one_nb.analysis.prompt_match import asked
from chosen_one_nb.analysis.vocabulary import Vocabulary
from chosen_one_nb.analysis.zero_shot import AttributeScores

__all__ = ["descriptions"]

FOLLOWS = "a {noun} {}"  # the template of groups whose phrases can stand after a caption


def descriptions(found: AttributeScores, vocabulary: Vocabulary, prompt: str) -> list[list[str]]:
    """Describe the scene of each image.

    Of every group that belongs to the scene and of which an image has one (a place, a pose, surroundings): the
    attribute that it surely has. What the prompt asks for is left out, since the caption says it already.

    Parameters
    ----------
    found : AttributeScores
        Of N images.
    vocabulary : Vocabulary
        The one that `found` was made with.
    prompt : str

    Returns
    -------
    list of list of str, length N
        Phrases, the surest first.
    """
    told = asked(found.attributes, prompt)
    spoken = {attribute.group for attribute, reason in zip(found.attributes, told, strict=True) if reason}
    columns = [
        column for column, attribute in enumerate(found.attributes)
        if attribute.one_of and attribute.kind == "incidental" and attribute.group not in spoken
        and vocabulary.groups[attribute.group].template == FOLLOWS
    ]  # fmt: skip
    has = found.has_it
    return [
        [found.attributes[c].phrases[0] for c in sorted(columns, key=lambda c: -row[c]) if has[i, c]]
        for i, row in enumerate(found.values)
    ]
