"""What the attribute panel shows, as plain values: sentences, rows of the table, images with heat over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .images import webp

if TYPE_CHECKING:
    import pandas as pd

    from chosen_one_nb.analysis.counterfactual import Counterfactual
    from chosen_one_nb.analysis.inquiry import Inquiry
    from chosen_one_nb.analysis.localization import HeldBy
    from chosen_one_nb.analysis.segmentation import NotAvailable
    from chosen_one_nb.analysis.vocabulary import Vocabulary
    from chosen_one_nb.run.run import Node, Run
    from chosen_one_nb.steps.cluster import Clusters

MOST_ROWS, REST = 14, 3
FACES = 3
STRIP, STRIP_SIDE = 8, 128  # images, and pixels of each
ON_CARD = 4  # attributes named
NOTES = 3  # of a vocabulary, in full


@dataclass(frozen=True)
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
        free = [c for c in self.table.index if inquiry.answers.answer[c] != "asked"]
        table = self.table.loc[free]
        return table[table.finding & (table.same_as < 0)].attribute.tolist()

    def on_card(self, inquiry: Inquiry, warning: str) -> dict[str, str]:
        """Give the lines of a card; `warning` is what stands there already."""
        from chosen_one_nb.run.attributes import NOT_LOOKED

        names = self.flagged(inquiry)
        more = f" and {len(names) - ON_CARD} more" if len(names) > ON_CARD else ""
        lines = {"shares": f"Shares, though not asked for: {', '.join(names[:ON_CARD])}{more}." if names else ""}
        if self.held == NOT_LOOKED:
            lines["shares"] = f"{lines['shares']} Whether its scene holds it together: not asked yet.".strip()
            lines["shares_tip"] = (
                "Press Ask in the tab “What it shares” to tell foregrounds and scenes of this gallery apart."
            )
        if self.held and self.held.answer == "scene":
            lines["warning"] = f"{warning} {self.held.sentence}".strip()
        elif self.held:
            lines["shares_tip"] = self.held.sentence
        return lines


def shared(inquiry: Inquiry, clusters: Clusters) -> dict[int, Shared]:
    """Ask what each cluster shares, and what holds it together."""
    from chosen_one_nb.analysis.attributes import contrast

    found = {}
    for cluster in range(len(clusters.sizes)):
        members = clusters.members(cluster)
        alone = not 0 < len(members) < len(clusters.labels)
        found[cluster] = Shared(None if alone else contrast(inquiry.found, members), inquiry.held_by(members))
    return found


def notes_of(vocabulary: Vocabulary | None) -> str:
    """Say what of a vocabulary's file is not asked about (repeated phrases, empty groups); "" if all is."""
    notes = vocabulary.notes if vocabulary else ()
    more = f"; and {len(notes) - NOTES} more" if len(notes) > NOTES else ""
    return f"Left out of it: {'; '.join(notes[:NOTES])}{more}." if notes else ""


def words_of(inquiry: Inquiry, found: Shared) -> list[list[str]]:
    """Say in sentences what a cluster shares and what holds it together, what is not available too."""
    said = []
    if found.table is None:
        said.append(["quiet", "This cluster is the whole gallery: there is nothing to compare it with."])
    elif not (names := found.flagged(inquiry)):
        said.append(["plain", "Nothing that the prompt leaves open stands out here beyond chance (5 %)."])
    else:
        said.append(["plain", f"Shared although nobody asked for it, beyond chance (5 %): {', '.join(names)}."])
    if not found.held:
        return [*said, ["quiet", found.held.reason]]
    return [*said, ["warning" if found.held.answer == "scene" else "plain", found.held.sentence]]


def rows(inquiry: Inquiry, found: Shared, members: list[int]) -> list[dict[str, Any]]:
    """Give the rows of the table: findings first, then a few that come next."""
    from chosen_one_nb.analysis.recommendations import most_and_least

    if found.table is None:
        return []
    findings = int(found.table.finding.sum())
    columns = found.table.index[: min(MOST_ROWS, findings + REST)]
    images = {c: most_and_least(inquiry.found.values[:, c], members, FACES) for c in columns}
    return [_row(inquiry, found.table.loc[c], int(c), *images[c]) for c in columns]


def _row(inquiry: Inquiry, line: Any, column: int, most: list[int], least: list[int]) -> dict[str, Any]:
    told = not np.isnan(line.share_in)
    shares = f"{line.share_in:.0%} here, {line.share_out:.0%} elsewhere" if told else "more surely here than elsewhere"
    says = [f"{shares[0].upper()}{shares[1:]}."]
    if told and len(inquiry.galleries) > 1:
        says.append(f"{inquiry.first.has_it[:, column].mean():.0%} of the first gallery.")
    lift = f"Lift {line.lift:.2g} (how many times as often here). " if told else ""
    says.append(f"{lift}Effect size {line.effect:.2g} (difference in standard deviations).")
    same = inquiry.attributes[line.same_as].name if line.same_as >= 0 else ""
    return {
        "column": column, "name": line.attribute, "finding": bool(line.finding), "auroc": float(line.auroc),
        "note": f"{line.group}" + (f", as “{same}”" if same else ""),
        "share_in": float(line.share_in) if told else None, "share_out": float(line.share_out) if told else None,
        "text": f"{shares} · p {_p(line.p)}", "says": " ".join(says),
        "answer": inquiry.answers.answer[column], "why": inquiry.answers.why[column], "most": most, "least": least,
    }  # fmt: skip


def _p(p: float) -> str:
    return "< 0.001" if p <= 0.001 else f"= {p:.2g}"


def strips(node: Node, inquiry: Inquiry, members: list[int]) -> list[dict[str, Any]]:
    """Show which patches make a cluster cohesive, and the common parts of its foregrounds."""
    from chosen_one_nb.analysis.heatmaps import cohesion_heat, cosegment, scaled
    from chosen_one_nb.plots import heat_over, parts_over

    if node.patches is None or not inquiry.segmentation:
        return []
    made, order, first = [], sorted(members), members[:STRIP]
    heat = cohesion_heat(node.patches, order, inquiry.segmentation.masks.shape[1:])
    if not isinstance(heat, np.ndarray):
        return [{"title": "Where it holds together:", "note": heat.reason, "images": []}]
    warm = dict(zip(order, scaled(heat), strict=True))
    made.append(_strip("What makes this cluster hold together:", "bright patches recur in it and not outside",
                       [(i, heat_over(node.images[i], warm[i])) for i in first]))  # fmt: skip
    parts = cosegment(node.patches, inquiry.segmentation, order)
    if parts:
        where = {image: at for at, image in enumerate(order)}
        missing = {i: len(parts.missing[where[i]]) for i in first}
        made.append(_strip("The same part in the same colour:", "a colour that is missing is a part that is not there",
                           [(i, parts_over(node.images[i], parts.labels[where[i]])) for i in first],
                           missing))  # fmt: skip
    return made


def phrase_strip(run: Run, node: Node, inquiry: Inquiry, column: int, members: list[int]) -> dict[str, Any]:
    """Show which patches say an attribute, in the images that have it most and least."""
    from chosen_one_nb.analysis.heatmaps import scaled
    from chosen_one_nb.analysis.recommendations import most_and_least
    from chosen_one_nb.plots import heat_over

    most, least = most_and_least(inquiry.found.values[:, column], members, STRIP // 2)
    heat = scaled(run.attributes.heat(inquiry.attributes[column], [*most, *least], node))
    name = inquiry.attributes[column].name
    return _strip(f"Where “{name}” shows:", f"{len(most)} images that have it most, then those that have it least",
                  [(i, heat_over(node.images[i], h)) for i, h in zip([*most, *least], heat, strict=True)])  # fmt: skip


def _strip(
    title: str, note: str, images: list[tuple[int, Any]], missing: dict[int, int] | None = None
) -> dict[str, Any]:
    def text(i: int) -> str:
        gone = (missing or {}).get(i, 0)
        return f"image {i}" + (f", {gone} common {'part is' if gone == 1 else 'parts are'} missing" if gone else "")

    return {"title": title, "note": note,
            "images": [{"data": webp(image, STRIP_SIDE), "text": text(i)} for i, image in images]}  # fmt: skip


def proof_strips(proof: Counterfactual) -> list[dict[str, Any]]:
    """Show what came of asking for the opposite of an attribute: the base model's images, then Θ's, same seeds."""
    (line,) = proof.table.to_dict("records")
    told = "baked in" if line["persists"] else "not proved to be baked in"
    answer = f"{line['baked_in']:+.0%} ({line['low']:+.0%} to {line['high']:+.0%}): {told}."
    notes = (f"{line['base']:.0%} show it all the same.", f"{line['character']:.0%} do, on the same seeds, {answer}")
    title = f"“{line['attribute']}”, though asked “{line['asked_for']}”,"
    sides = zip(("base model", "character"), notes, proof.images[line["asked_for"]], strict=True)
    return [_strip(f"{title} {who}:", note, list(enumerate(images))) for who, note, images in sides]
