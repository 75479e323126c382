"""What the attribute panel shows, as plain values: sentences, rows of the table, images with heat over them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from chosen_one_nb.plots import heat_over, parts_over

from .attribute_findings import Shared
from .images import webp

if TYPE_CHECKING:
    from chosen_one_nb.analysis.counterfactual import Counterfactual
    from chosen_one_nb.analysis.inquiry import Inquiry
    from chosen_one_nb.analysis.vocabulary import Vocabulary
    from chosen_one_nb.run.node import Node

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
    shown = found.table.head(min(MOST_ROWS, int(found.table.finding.sum()) + REST))
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
    from chosen_one_nb.analysis.heatmaps import cohesion_heat, cosegment, scaled

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
    from chosen_one_nb.analysis.heatmaps import scaled
    from chosen_one_nb.analysis.inquiry import most_and_least

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
