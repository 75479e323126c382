"""What is known of the attributes that a gallery and its clusters share: asked once, kept, shown by several panels.

`AttributeFindings` keeps it; the functions below say it in plain values: sentences, rows of a table, images with heat.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.analysis.vocabulary import Vocabulary, VocabularyError, load_vocabulary
from chosen_one_nb.plots import heat_over, parts_over

from .images import webp
from .session import Session

if TYPE_CHECKING:
    import pandas as pd

    from chosen_one_nb.analysis.counterfactual import Counterfactual
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
NOT_SEGMENTED = "Press Ask in the tab “Shares” to tell foregrounds and scenes of this gallery apart."
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
            tip = f"In the tab “Shares”: {NOT_ASKED}"
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
        """Give what map and gallery follow, the phrase searched for or the attribute lit, and each image's score."""
        if (scores := self.searched()) is not None:
            return self.session.phrase, scores.tolist()
        lit = self.lit()
        return (lit.name, self.inquiry().found.values[:, self.session.lit].tolist()) if lit else None

    def searched(self) -> np.ndarray | None:
        """How well each image fits the phrase searched for, (N,); None without one, or while it is being computed."""
        session, node = self.session, self.session.node
        if not session.phrase or not has_clip(node):
            return None
        key = ("search", node.gallery_of, session.phrase)
        return session.background.get(key, lambda: session.run.attributes.search(session.phrase, node))

    def take(self, node: Node, words: Vocabulary, found: Inquiry) -> None:
        """Go on with an inquiry just made; columns of another vocabulary mean nothing in it."""
        before = self.vocabulary()
        if before is None or before.digest != words.digest:
            self.session.lit = -1
        self._vocabulary = words
        self.session.background.put(self.key(node), found)


MOST_ROWS, REST = 14, 3
FACES = 3
STRIP, STRIP_SIDE = 8, 128  # images, and pixels of each
NOTES = 3  # of a vocabulary, in full


def vocabulary_notes(vocabulary: Vocabulary | None) -> str:
    """Say what of a vocabulary's file is not asked about (repeated phrases, empty groups); "" if all is."""
    notes = vocabulary.notes if vocabulary else ()
    more = f"; and {len(notes) - NOTES} more" if len(notes) > NOTES else ""
    return f". Left out of it: {'; '.join(notes[:NOTES])}{more}." if notes else ""


def sentences(inquiry: Inquiry, found: Shared) -> list[list[str]]:
    """Say what a cluster shares and what holds it together, what is not available too: kind and text of each."""
    if found.table is None:
        said = ["quiet", "This cluster is the whole gallery: there is nothing to compare it with."]
    elif names := found.flagged(inquiry):
        said = ["plain", f"Shared although nobody asked for it, beyond chance (5 %): {', '.join(names)}."]
    else:
        said = ["plain", "Nothing that the prompt leaves open stands out here beyond chance (5 %)."]
    if not found.held:
        return [said, ["quiet", found.held.reason]]
    return [said, ["warning" if found.held.answer == "scene" else "plain", found.held.sentence]]


def rows(inquiry: Inquiry, found: Shared, members: list[int]) -> list[dict[str, Any]]:
    """Give the rows of the table: findings first, then a few that come next."""
    from chosen_one_nb.analysis.inquiry import most_and_least

    if found.table is None:
        return []
    there = found.table[found.table.finding | (found.table.share_in != 0)]  # what no image has is nothing to look at
    shown = there.head(min(MOST_ROWS, int(there.finding.sum()) + REST))
    images = {c: most_and_least(inquiry.found.values[:, c], members, FACES) for c in shown.index}
    return [_row(inquiry, line, int(c), *images[c]) for c, line in shown.iterrows()]


def _row(inquiry: Inquiry, line: Any, column: int, most: list[int], least: list[int]) -> dict[str, Any]:
    known = not np.isnan(line.share_in)
    shares = f"{line.share_in:.0%} here, {line.share_out:.0%} elsewhere" if known else "more surely here than elsewhere"
    says = [f"{shares[0].upper()}{shares[1:]}."]
    if known and len(inquiry.galleries) > 1:
        says.append(f"{inquiry.first.has_it[:, column].mean():.0%} of the first gallery.")
    if known:
        says.append(f"Lift {line.lift:.2g} (how many times as often here).")
    says.append(f"Effect size {line.effect:.2g} (difference in standard deviations).")
    same = f", as “{inquiry.attributes[line.same_as].name}”" if line.same_as >= 0 else ""
    p = "< 0.001" if line.p <= 0.001 else f"= {line.p:.2g}"
    answer = inquiry.answers.loc[column]
    return {
        "column": column, "name": line.attribute, "finding": bool(line.finding), "auroc": float(line.auroc),
        "note": f"{line.group}{same}", "text": f"{shares} · p {p}", "says": " ".join(says),
        "share_in": float(line.share_in) if known else None, "share_out": float(line.share_out) if known else None,
        "answer": answer.answer, "why": answer.why, "most": most, "least": least,
    }  # fmt: skip


def cohesion_strips(node: Node, inquiry: Inquiry, members: list[int]) -> list[dict[str, Any]]:
    """Show which patches make a cluster cohesive, and the common parts of its foregrounds."""
    from chosen_one_nb.analysis.localization import cohesion_heat, cosegment, scaled

    if node.embedding is None or node.embedding.patches is None or not inquiry.segmentation:
        return []
    order = sorted(members)
    shown = {i: order.index(i) for i in members[:STRIP]}
    heat = cohesion_heat(node.embedding.patches, order, inquiry.segmentation.masks.shape[1:])
    if not isinstance(heat, np.ndarray):
        return [_strip("Where it holds together:", heat.reason)]
    warm = scaled(heat)
    heated = [(i, heat_over(node.images[i], warm[at])) for i, at in shown.items()]
    strips = [_strip("What makes this cluster hold together:", "bright patches recur in it and not outside", heated)]
    if parts := cosegment(node.embedding.patches, inquiry.segmentation, order):
        coloured = [(i, parts_over(node.images[i], parts.labels[at])) for i, at in shown.items()]
        missing = {i: len(parts.missing[at]) for i, at in shown.items()}
        note = "a colour that is missing is a part that is not there"
        strips.append(_strip("The same part in the same colour:", note, coloured, missing))
    return strips


def phrase_strip(run: Any, node: Node, inquiry: Inquiry, column: int, members: list[int]) -> dict[str, Any]:
    """Show which patches say an attribute, in the images that have it most and least."""
    from chosen_one_nb.analysis.inquiry import most_and_least
    from chosen_one_nb.analysis.localization import scaled

    attribute = inquiry.attributes[column]
    most, least = most_and_least(inquiry.found.values[:, column], members, STRIP // 2)
    heat = scaled(run.attributes.heat(attribute, [*most, *least], node))
    heated = [(i, heat_over(node.images[i], h)) for i, h in zip([*most, *least], heat, strict=True)]
    note = f"{len(most)} images that have it most, then those that have it least"
    return _strip(f"Where “{attribute.name}” shows:", note, heated)


def counterfactual_strips(proof: Counterfactual) -> list[dict[str, Any]]:
    """Show the result of asking for the opposite of an attribute: the base model's images, then Θ's, same seeds."""
    (line,) = proof.table.to_dict("records")
    verdict = "baked in" if line["persists"] else "not proved to be baked in"
    answer = f"{line['baked_in']:+.0%} ({line['low']:+.0%} to {line['high']:+.0%}): {verdict}."
    base, character = proof.images[line["asked_for"]]
    title = f"“{line['attribute']}”, though asked “{line['asked_for']}”,"
    kept = f"{line['base']:.0%} show it all the same."
    told = f"{line['character']:.0%} do, on the same seeds, {answer}"
    return [
        _strip(f"{title} base model:", kept, enumerate(base)),
        _strip(f"{title} character:", told, enumerate(character)),
    ]


def _strip(
    title: str, note: str, images: Iterable[tuple[int, Any]] = (), missing: Mapping[int, int] | None = None
) -> dict[str, Any]:
    def text(i: int) -> str:
        gone = (missing or {}).get(i, 0)
        return f"image {i}" + (f", {gone} common {'part is' if gone == 1 else 'parts are'} missing" if gone else "")

    shown = [{"data": webp(image, STRIP_SIDE), "text": text(i)} for i, image in images]
    return {"title": title, "note": note, "images": shown}
