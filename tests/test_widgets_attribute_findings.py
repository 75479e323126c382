"""What is known of the attributes: when it is asked, kept and asked anew; and how it is said, as plain values."""

import io
import json
import shutil

import numpy as np
import pytest
from helpers import painted
from helpers.attributes import COLOURS, WORDS, SeeingClip, ask, edit, look, press, second_gallery
from PIL import Image

from chosen_one_nb.analysis.counterfactual import counterfactual
from chosen_one_nb.analysis.vocabulary import read_vocabulary
from chosen_one_nb.models.features import Features
from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets.attribute_findings import Shared, _row, counterfactual_strips, sentences
from chosen_one_nb.widgets.explorer import Explorer

pytest_plugins = ["helpers.attributes"]


def test_cards_say_what_is_shared(asked):
    lines = [card.get("shares", "") for card in asked.clusters.view.cards]
    assert any(text.startswith("Shares, though not asked for:") for text in lines)


def test_a_later_card_says_that_foreground_and_scene_were_not_told_apart(asked):
    assert not any("not asked yet" in card["shares"] for card in asked.clusters.view.cards)
    second_gallery(asked)
    if asked.node.clusters is None:
        asked.run.go_on()
        asked.run.step()
        asked.settle()
    said = [card["shares"] for card in asked.clusters.view.cards]
    assert said
    assert all("Whether its scene holds it together: not asked yet." in text for text in said)
    asked.run.attributes.segment(asked.node)  # as Ask does, and as settings do that compare foregrounds
    asked.settle()
    assert not any("not asked yet" in card["shares"] for card in asked.clusters.view.cards)


def test_asked_once_it_is_there_on_opening_and_a_second_gallery_shows_drift(asked, tmp_path):
    asked.run.selection.choose()
    asked.run.step()
    while asked.run.next_stage != "choose":
        asked.run.step()
    asked.close()
    again = Explorer(asked.run, method="pca", raise_errors=True)
    again.settle()
    assert again.attributes.view.rows
    assert "<h3>Drift over the iterations</h3>" in again.attributes.drift.value
    assert list(again.attributes.findings.inquiry().galleries) == ["base", "iteration 1"]


def test_a_broken_vocabulary_is_told_in_the_status_line(unasked):
    (unasked.run.folder / "vocabulary.json").write_text('{"groups": []}')
    unasked.session.raise_errors = False
    ask(unasked)
    assert "vocabulary.json" in unasked.status.text
    assert unasked.status.kind == "error"


def test_a_gallery_of_one_image_many_times_finds_nothing(seeing_steps, waiting, tmp_path, monkeypatch):
    monkeypatch.setattr(SeeingClip, "images", lambda self, images, **_: np.tile(self._vector("blue"), (len(images), 1)))
    place = shutil.copytree(waiting, tmp_path / "run")
    run = Run.open(place, painted.MODELS)
    run.redo_stage("embed")
    while run.next_stage != "choose":
        run.step()
    explorer = ask(Explorer(run, method="pca", raise_errors=True))
    assert explorer.attributes.view.words[0][1].startswith("Nothing that the prompt leaves open")


def test_an_extractor_without_patches_shows_the_rest_and_says_so(seeing_steps, waiting, tmp_path, monkeypatch):
    blind = lambda *args, **more: Features(look(*args, **more).cls, None, (0, 0))  # noqa: E731
    monkeypatch.setattr("chosen_one_nb.steps.embed.embed", blind)
    place = shutil.copytree(waiting, tmp_path / "run")
    explorer = ask(Explorer(Run.open(place, painted.MODELS), method="pca", raise_errors=True))
    assert explorer.attributes.view.rows
    assert any("no patch tokens" in text for _, text in explorer.attributes.view.words)
    assert explorer.attributes.view.strips == []


def test_a_read_only_run_can_be_asked_but_not_changed(seeing_steps, waiting, tmp_path):
    place = shutil.copytree(waiting, tmp_path / "run")
    run = Run.open(place, painted.MODELS, read_only=True)
    explorer = ask(Explorer(run, method="pca", raise_errors=True))
    assert explorer.attributes.view.rows
    assert explorer.attributes.findings.inquiry().segmentation
    assert not explorer.attributes.view.can_choose
    assert not explorer.attributes.view.can_answer
    assert not (place / "texts.npz").exists()


def test_an_edited_vocabulary_counts_from_the_next_ask_on(asked):
    before, names = asked.attributes.view.rows, ["green", "blue"]
    press(asked, "light", column=5)
    edit(asked, {"groups": {"fur": {"kind": "identity", "one_of": True, "template": "a {} {noun}", "phrases": names}}})
    asked.session.refresh()
    asked.settle()
    assert asked.attributes.view.rows == before  # the old table, whole
    assert asked.attributes.view.lit == 5
    ask(asked)
    assert {row["name"] for row in asked.attributes.view.rows} <= set(names)
    assert asked.attributes.view.lit == -1
    assert asked.attributes.findings.tint() is None
    assert "2 attributes in 1 groups" in asked.attributes.about.value


def test_the_same_columns_of_other_phrases_are_no_old_table(asked):
    column, before = asked.attributes.view.rows[0]["column"], asked.attributes.view.rows[0]["name"]
    turned = json.loads(json.dumps(WORDS))
    turned["groups"]["fur"]["phrases"] = COLOURS[::-1]
    edit(asked, turned)
    ask(asked)
    best = asked.attributes.view.rows[0]
    assert best["name"] == before
    assert best["column"] == len(COLOURS) - 1 - column


@pytest.mark.parametrize("regroup", ["recluster", "merge"])
def test_where_a_phrase_shows_follows_the_clusters(asked, regroup):
    press(asked, "light", column=asked.attributes.view.rows[0]["column"])
    for cluster in range(len(asked.node.clusters.sizes)):
        asked.attributes.cluster.value = cluster
        asked.settle()
    if regroup == "merge":
        asked.run.selection.merge(0, 1)
    else:
        asked.run.selection.recluster(2)
    for cluster in range(len(asked.node.clusters.sizes)):
        asked.attributes.cluster.value = cluster
        asked.settle()
        where = asked.attributes.view.strips[0]
        assert where["title"].startswith("Where “")
        shown = {int(each["text"].split()[1]) for each in where["images"]}
        assert shown <= set(asked.node.clusters.members(cluster).tolist())


def test_going_elsewhere_while_it_asks_keeps_the_answers_where_they_belong(asked):
    """An answer is kept under the iteration that was asked about, not the one that is shown when it comes."""
    root = asked.node
    asked.run.selection.choose()
    while asked.run.next_stage not in ("choose", None) or asked.node is root:
        asked.run.step()
    later, panel = asked.node, asked.attributes
    real, put = asked.run.attributes.inquiry, []
    panel.session.background.put = lambda key, value: put.append((key, value))
    asked.run.attributes.inquiry = lambda node, **more: (asked.run.select(root), real(node, **more))[1]
    panel.ask.click()
    asked.wait(60)
    ((key, found),) = put
    assert key == panel.findings.key(later)
    assert len(found.galleries) == 2


# --- said as plain values --------------------------------------------------------------------------------------------


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
