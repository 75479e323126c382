"""Sentences, rows and strips of the attribute panel, as plain values."""

import io

import numpy as np
from helpers.attributes import WORDS, second_gallery
from PIL import Image

from chosen_one_nb.analysis.counterfactual import counterfactual
from chosen_one_nb.analysis.vocabulary import read_vocabulary
from chosen_one_nb.widgets.attribute_findings import Shared, _row, counterfactual_strips, sentences

pytest_plugins = ["helpers.attributes"]


def test_strips_of_what_holds_it_together_and_of_common_parts(asked):
    titles = [strip["title"] for strip in asked.attributes.view.strips]
    assert titles == ["What makes this cluster hold together:", "The same part in the same colour:"]
    assert all(each["data"][8:12] == b"WEBP" for strip in asked.attributes.view.strips for each in strip["images"])


def test_a_cluster_of_one_and_one_of_all(asked):
    asked.run.selection.recluster(1)
    asked.settle()
    assert "nothing to compare it with" in asked.attributes.view.words[0][1]
    asked.run.selection.recluster(len(asked.node.seeds))
    asked.settle()
    assert asked.attributes.view.words
    inquiry = asked.attributes.findings.inquiry()
    assert sentences(inquiry, Shared(None, inquiry.held_by([0])))[1][0] == "quiet"


def test_the_tooltip_says_lift_effect_and_the_first_gallery(asked):
    best = asked.attributes.view.rows[0]
    assert "Lift " in best["says"]
    assert "Effect size " in best["says"]
    assert "first gallery" not in best["says"]
    second_gallery(asked)
    inquiry = asked.attributes.findings.inquiry()
    table = inquiry.findings([0, 1, 2])
    said = _row(inquiry, table.loc[0], 0, [], [])["says"]
    assert f"{inquiry.first.has_it[:, 0].mean():.0%} of the first gallery." in said
    unclear = table.loc[0].copy()
    unclear[["share_in", "share_out", "lift"]] = np.nan
    said = _row(inquiry, unclear, 0, [], [])["says"]
    assert said.startswith("More surely here than elsewhere. Effect size")


def test_a_proof_says_what_theta_baked_in():
    snow = read_vocabulary(WORDS).attributes[4]
    coloured = {who: [Image.new("RGB", (200, 200), who)] * 8 for who in ("red", "blue")}
    likeness = lambda images, texts: np.array([[float(image.getpixel((0, 0))[2] > 0), 0.5] for image in images])  # noqa: E731
    proof = counterfactual([snow], lambda _: coloured["red"], lambda _: coloured["blue"], likeness)
    base, character = counterfactual_strips(proof)
    assert base["note"] == "0% show it all the same."
    assert character["note"] == "100% do, on the same seeds, +100% (+100% to +100%): baked in."
    thumbnail = Image.open(io.BytesIO(character["images"][0]["data"]))
    assert thumbnail.size == (128, 128)
    assert thumbnail.convert("RGB").getpixel((64, 64))[2] > 200
    (_, other) = counterfactual_strips(counterfactual([snow], *[lambda _: coloured["blue"]] * 2, likeness))
    assert other["note"].endswith("+0% (+0% to +0%): not proved to be baked in.")
