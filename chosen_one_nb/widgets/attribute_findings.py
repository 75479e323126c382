"""What is known of the attributes that a gallery and its clusters share: asked once, kept, shown by several panels."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chosen_one_nb.analysis.vocabulary import Vocabulary, VocabularyError, load_vocabulary

from .attribute_rows import Shared, shared
from .session import Session

if TYPE_CHECKING:
    from chosen_one_nb.analysis.inquiry import Inquiry
    from chosen_one_nb.analysis.vocabulary import Attribute
    from chosen_one_nb.run.run import Node

Tint = tuple[str, list[float]]
NOT_ASKED = (
    "Press Ask to look for what the images of a cluster share although the prompt does not say it. "
    "It takes seconds, and is kept with the run."
)


class AttributeFindings:
    """What has been found about the iteration that a session shows.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._corrected: tuple[Any, Inquiry] | None = None
        self._vocabulary: Vocabulary | None = None

    def vocabulary(self) -> Vocabulary | None:
        """Give the phrases that are asked about, as they were when the screen opened or somebody last asked.

        An edit of their file counts from the next *Ask* on, so that tables never meet answers to other questions. None
        while the file cannot be used; what asks then says why.
        """
        if self._vocabulary is None:
            with suppress(VocabularyError):
                self._vocabulary = load_vocabulary(self.session.run.attributes.vocabulary_file)
        return self._vocabulary

    def key(self, node: Node) -> tuple[Any, ...]:
        """Under what the answers about a node are kept."""
        path, vocabulary = tuple(each.gallery_of for each in self.session.run.path(node)), self.vocabulary()
        return ("inquiry", path, node.segmentation is not None, vocabulary.digest if vocabulary else "")

    def key_of_clusters(self, name: str, inquiry: Inquiry) -> tuple[Any, ...]:
        """Under what is kept that follows from an inquiry for the clusters as they are now, merged or made anew."""
        node = self.session.node
        return (name, *self.key(node)[1:], bool(inquiry.segmentation), node.id, node.edit.clusters)

    def inquiry(self) -> Inquiry | None:
        """Give what is known of the gallery shown; None before it has been asked, or while that is computed."""
        session, node, key = self.session, self.session.node, self.key(self.session.node)
        if node.clip is None or not (session.background.asked(key) or session.run.attributes.cached):
            return None
        words = self.vocabulary()
        found = session.background.get(
            key, lambda: session.run.attributes.inquiry(node, vocabulary=words, segment=False)
        )
        if found is None:
            return None
        corrections = session.run.attributes.corrections
        mine = (key, tuple(sorted(corrections.items())), id(found))
        if self._corrected is None or self._corrected[0] != mine:
            self._corrected = (mine, dataclasses.replace(found, corrections=corrections))
        return self._corrected[1]

    def shared(self) -> dict[int, Shared]:
        """Give what each cluster shares; empty until it is computed in the background."""
        inquiry, clusters = self.inquiry(), self.session.node.clusters
        if inquiry is None or clusters is None:
            return {}
        key = self.key_of_clusters("shared", inquiry)
        return self.session.background.get(key, lambda: shared(inquiry, clusters), {})

    def on_card(self, cluster: int, warning: str) -> dict[str, str]:
        """Say on a cluster's card what it shares, and whether its scene holds it together."""
        node, inquiry, found = self.session.node, self.inquiry(), self.shared().get(cluster)
        if found is not None:
            return found.on_card(inquiry, warning)
        if inquiry is not None or node.clip is None or self.session.background.asked(self.key(node)):
            return {}
        return {"shares": "What it shares: not asked yet.", "shares_tip": f"In the tab “What it shares”: {NOT_ASKED}"}

    def lit(self, inquiry: Inquiry | None) -> Attribute | None:
        """Give the attribute that map and gallery follow, if it is one of an inquiry's."""
        known = inquiry is not None and 0 <= self.session.lit < len(inquiry.attributes)
        return inquiry.attributes[self.session.lit] if known else None

    def tint(self) -> Tint | None:
        """Give the attribute that map and gallery follow: its name, and how surely each image has it."""
        inquiry = self.inquiry()
        if (lit := self.lit(inquiry)) is None:
            return None
        return lit.name, inquiry.found.values[:, self.session.lit].tolist()

    def take(self, node: Node, words: Vocabulary, found: Inquiry) -> None:
        """Go on with an inquiry just made; columns of another vocabulary mean nothing in it."""
        before = self.vocabulary()
        if before is None or before.digest != words.digest:
            self.session.lit = -1
        self._vocabulary = words
        self.session.background.put(self.key(node), found)
