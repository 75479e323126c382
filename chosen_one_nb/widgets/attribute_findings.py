"""What is known of the attributes that a gallery and its clusters share: asked once, kept, shown by several panels."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from chosen_one_nb.analysis.vocabulary import Vocabulary, VocabularyError, load_vocabulary

from .session import Session

if TYPE_CHECKING:
    import pandas as pd

    from chosen_one_nb.analysis.inquiry import Inquiry
    from chosen_one_nb.analysis.localization import HeldBy
    from chosen_one_nb.analysis.segmentation import NotAvailable
    from chosen_one_nb.analysis.vocabulary import Attribute
    from chosen_one_nb.run.node import Node
    from chosen_one_nb.steps.cluster import Clusters

Tint = tuple[str, list[float]]
NOT_ASKED = (
    "Press Ask to look for what the images of a cluster share although the prompt does not say it. "
    "It takes seconds, and is kept with the run."
)
NOT_SEGMENTED = "Press Ask in the tab “What it shares” to tell foregrounds and scenes of this gallery apart."
ON_CARD = 4  # attributes named


def has_clip(node: Node) -> bool:
    """Whether a node's gallery has been seen through CLIP."""
    return node.embedding is not None and node.embedding.clip is not None


@dataclasses.dataclass(frozen=True)
class Shared:
    """What one cluster shares.

    Attributes
    ----------
    table : DataFrame or None
        Of `attributes.contrast`; None where there is nothing to compare with.
    held : HeldBy or NotAvailable
    """

    table: pd.DataFrame | None
    held: HeldBy | NotAvailable

    def flagged(self, inquiry: Inquiry) -> list[str]:
        """Names of what it shares although nobody asked for it, each said once."""
        if self.table is None:
            return []
        free = inquiry.answers.answer[self.table.index] != "asked"
        return self.table[free & self.table.finding & (self.table.same_as < 0)].attribute.tolist()


def find_shared(inquiry: Inquiry, clusters: Clusters) -> dict[int, Shared]:
    """Ask what each cluster shares, and what holds it together."""
    from chosen_one_nb.analysis.attributes import contrast

    members = {cluster: clusters.members(cluster) for cluster in range(len(clusters.sizes))}
    return {
        c: Shared(contrast(inquiry.found, m) if 0 < len(m) < len(clusters.labels) else None, inquiry.held_by(m))
        for c, m in members.items()
    }


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
        segmented = node.embedding is not None and node.embedding.segmentation is not None
        return ("inquiry", path, segmented, vocabulary.digest if vocabulary else "")

    def key_of_clusters(self, name: str, inquiry: Inquiry) -> tuple[Any, ...]:
        """Under what is kept that follows from an inquiry for the clusters as they are now, merged or made anew."""
        node = self.session.node
        return (name, *self.key(node)[1:], bool(inquiry.segmentation), node.id, node.edits.current.clusters)

    def inquiry(self) -> Inquiry | None:
        """Give what is known of the gallery shown; None before it has been asked, or while that is computed."""
        session, node, key = self.session, self.session.node, self.key(self.session.node)
        if not has_clip(node) or not (session.background.asked(key) or session.run.attributes.cached):
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
        return self.session.background.get(key, lambda: find_shared(inquiry, clusters), {})

    def on_card(self, cluster: int, warning: str) -> dict[str, str]:
        """Say on a cluster's card what it shares, and whether its scene holds it together.

        Parameters
        ----------
        cluster : int
        warning : str
            What the card warns of already.
        """
        from chosen_one_nb.run.attributes import NOT_LOOKED

        node, inquiry, found = self.session.node, self.inquiry(), self.shared().get(cluster)
        if found is None:
            if inquiry is not None or not has_clip(node) or self.session.background.asked(self.key(node)):
                return {}
            tip = f"In the tab “What it shares”: {NOT_ASKED}"
            return {"shares": "What it shares: not asked yet.", "shares_tip": tip}
        names = found.flagged(inquiry)
        more = f" and {len(names) - ON_CARD} more" if len(names) > ON_CARD else ""
        said = f"Shares, though not asked for: {', '.join(names[:ON_CARD])}{more}." if names else ""
        if found.held == NOT_LOOKED:
            said = f"{said} Whether its scene holds it together: not asked yet.".strip()
            return {"shares": said, "shares_tip": NOT_SEGMENTED}
        if not found.held:
            return {"shares": said}
        if found.held.answer == "scene":
            return {"shares": said, "warning": f"{warning} {found.held.sentence}".strip()}
        return {"shares": said, "shares_tip": found.held.sentence}

    def lit(self) -> Attribute | None:
        """Give the attribute that map and gallery follow, if it is one of those asked about."""
        inquiry, column = self.inquiry(), self.session.lit
        return inquiry.attributes[column] if inquiry and 0 <= column < len(inquiry.attributes) else None

    def tint(self) -> Tint | None:
        """Give the attribute that map and gallery follow: its name, and how surely each image has it."""
        lit = self.lit()
        return (lit.name, self.inquiry().found.values[:, self.session.lit].tolist()) if lit else None

    def take(self, node: Node, words: Vocabulary, found: Inquiry) -> None:
        """Go on with an inquiry just made; columns of another vocabulary mean nothing in it."""
        before = self.vocabulary()
        if before is None or before.digest != words.digest:
            self.session.lit = -1
        self._vocabulary = words
        self.session.background.put(self.key(node), found)
