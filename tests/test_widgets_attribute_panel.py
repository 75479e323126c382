"""The panel of what a cluster shares, driven by events: the table, the lit attribute, what is done about it."""

import json

import numpy as np
import pytest
from helpers.attributes import COLOURS, WORDS, ask, edit, line, press, second_gallery

from chosen_one_nb.run.attributes import RunAttributes
from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets import attribute_panel
from chosen_one_nb.widgets.attribute_findings import counterfactual_strips

pytest_plugins = ["helpers.attributes"]


def test_nothing_is_asked_before_a_person_asks(unasked, monkeypatch):
    monkeypatch.setattr(RunAttributes, "inquiry", lambda *_, **__: pytest.fail("asked unasked"))
    unasked.session.refresh()
    unasked.settle()
    assert "Press Ask" in unasked.attributes.view.words[0][1]
    assert unasked.attributes.view.rows == []
    assert all(card["shares"] == "What it shares: not asked yet." for card in unasked.clusters.view.cards)


def test_the_table_of_the_proposed_cluster(asked):
    panel, view = asked.attributes, asked.attributes.view
    assert panel.cluster.value == asked.node.clusters.proposed
    members = set(asked.node.clusters.members(panel.cluster.value).tolist())
    best = view.rows[0]
    assert best["name"] in COLOURS
    assert best["finding"]
    assert best["share_in"] > best["share_out"]
    assert 1 <= len(best["most"]) <= 3
    assert set(best["most"]) | set(best["least"]) <= members
    assert best["name"] in view.words[0][1]
    assert any("held together" in text or "than by chance" in text for _, text in view.words)
    assert "6 attributes in 2 groups, from vocabulary.json" in panel.about.value


def test_another_cluster_is_a_turn_of_the_dropdown(asked):
    other = next(value for _, value in asked.attributes.cluster.options if value != asked.attributes.cluster.value)
    before = [row["most"] for row in asked.attributes.view.rows]
    asked.attributes.cluster.value = other
    asked.settle()
    assert [row["most"] for row in asked.attributes.view.rows] != before


def test_a_click_colours_the_map_and_sorts_the_gallery_and_another_takes_it_back(asked):
    best = asked.attributes.view.rows[0]
    press(asked, "light", column=best["column"])
    asked.settle()
    values = asked.attributes.findings.inquiry().found.values[:, best["column"]]
    (section,) = asked.gallery.view.sections
    assert section["title"] == f"“{best['name']}”, surest first"
    assert section["ids"][0] in np.flatnonzero(values == values.max())
    assert asked.map.figure.points["marker"]["color"] == pytest.approx(values.tolist())
    assert asked.attributes.view.strips[0]["title"] == f"Where “{best['name']}” shows:"
    press(asked, "light", column=-1)
    assert len(asked.gallery.view.sections) > 1


def test_leaving_out_is_a_decision_with_its_reason(asked):
    panel = asked.attributes
    found, column = panel.findings.inquiry().found, None
    members = asked.node.clusters.members(panel.cluster.value)
    for row in panel.view.rows:
        if 0 < found.has_it[members, row["column"]].sum() < len(members):
            column = row["column"]
    if column is None:  # every image of the cluster has it
        column = panel.view.rows[0]["column"]
    press(asked, "leave_out", column=column)
    decision = asked.node.decision
    assert decision.note.startswith(f"left out {len(decision.excluded)} of {len(members)} images")
    assert decision.by == "person"
    assert decision.cluster == panel.cluster.value
    assert asked.status.text.startswith("Chosen: cluster")
    asked.choice.undo.click()
    assert asked.node.decision is None


def test_nothing_to_leave_out_decides_nothing(asked):
    has_it = asked.attributes.findings.inquiry().found.has_it[
        asked.node.clusters.members(asked.attributes.cluster.value)
    ]
    press(asked, "leave_out", column=int(np.flatnonzero(~has_it.any(axis=0))[0]))
    assert "nothing to leave out" in asked.status.text
    assert asked.node.decision is None


def has(explorer, *columns):
    """Let the first three images of the cluster shown have none of these phrases, and every other one exactly one."""
    panel = explorer.attributes
    members = explorer.node.clusters.members(panel.cluster.value)
    values = panel.findings.inquiry().found.values
    values[np.ix_(members, columns)] = 0.0
    for at, image in enumerate(members[3:]):
        values[image, columns[at % len(columns)]] = 1.0
    panel.findings.inquiry().found.separable[list(columns)] = True
    return members


def test_a_second_leaving_out_goes_on_from_the_first(asked):
    asked.run.selection.recluster(2)
    asked.settle()
    members = has(asked, 4, 5)
    press(asked, "leave_out", column=4)
    first = asked.node.decision
    assert len(first.excluded) == len(members[3::2])
    press(asked, "leave_out", column=5)
    second = asked.node.decision
    assert second.images == tuple(members[:3])  # still enough to learn from
    assert (
        second.note == f'{first.note}; left out {len(members[4::2])} of {len(first.images)} images for having "beach"'
    )


def test_leaving_out_stops_where_too_few_would_stay(asked):
    asked.run.selection.recluster(2)
    asked.settle()
    members = asked.node.clusters.members(asked.attributes.cluster.value)
    asked.run.selection.exclude(members[3:].tolist())
    asked.attributes.findings.inquiry().found.values[members, 4] = 1.0
    asked.attributes.findings.inquiry().found.separable[4] = True
    press(asked, "leave_out", column=4)
    assert "but 3 must stay to learn from" in asked.status.text
    assert asked.node.decision is None


def test_preferring_the_least_takes_another_cluster_and_says_why(asked):
    best, before = asked.attributes.view.rows[0], asked.attributes.cluster.value
    press(asked, "prefer_least", column=best["column"])
    decision = asked.node.decision
    assert decision.cluster != before
    assert f'has "{best["name"]}" least' in decision.note
    assert f"cluster {before}:" in decision.note
    assert Run.open(asked.run.folder).tables.history().action.iloc[-1] == "choose"


def test_a_correction_is_kept_and_changes_what_is_flagged(asked):
    best = asked.attributes.view.rows[0]
    press(asked, "answer", column=best["column"], answer="asked")
    assert line(asked, best["name"])["why"] == "you said so"
    assert best["name"] not in asked.attributes.view.words[0][1]
    assert json.loads((asked.run.folder / "corrections.json").read_text()) == {f"fur: {best['name']}": "asked"}


def test_a_last_gallery_without_clusters_shows_its_drift(asked):
    asked.run.selection.choose()
    asked.run.step()
    asked.run.step()
    asked.run.step()
    assert asked.node.clusters is None
    asked.settle()
    assert "has no clusters" in asked.attributes.view.words[0][1]
    assert "<svg" in asked.attributes.drift.value
    press(asked, "light", column=0)
    assert asked.gallery.view.sections[0]["title"] == f"“{COLOURS[0]}”, surest first"


def test_the_drift_of_the_lit_attribute_is_drawn_too(asked):
    second_gallery(asked)
    inquiry = asked.attributes.findings.inquiry()
    steady = next(c for c in range(4) if c not in inquiry.risen())
    name = inquiry.attributes[steady].name
    assert f" {name}: " not in asked.attributes.drift.value
    press(asked, "light", column=steady)
    shares = [found.has_it[:, steady].mean() for found in inquiry.galleries.values()]
    assert f" {name}: {shares[0]:.0%}, {shares[1]:.0%}" in asked.attributes.drift.value


def test_the_drift_is_drawn_again_only_when_it_changes(asked, monkeypatch):
    second_gallery(asked)
    drawn, draw = [], attribute_panel.drift_plot
    monkeypatch.setattr(attribute_panel, "drift_plot", lambda drift: drawn.append(len(drift)) or draw(drift))
    asked.session.refresh()
    assert drawn == []
    press(asked, "light", column=0)
    asked.settle()
    assert len(drawn) == 1


def test_markup_in_a_phrase_is_shown_not_obeyed(asked):
    column = [a.name for a in asked.attributes.findings.inquiry().attributes].index("<b>snow</b>")
    press(asked, "light", column=column)
    assert asked.map.figure.points["marker"]["colorbar"]["title"]["text"] == "&lt;b&gt;snow&lt;/b&gt;"
    assert "<b>snow" not in asked.attributes.drift.value + asked.attributes.about.value


def test_thousands_of_phrases_show_a_table_that_people_read(unasked):
    many = {"groups": {"many": {"phrases": [f"thing {i}" for i in range(3000)] + ["orange", "orange"]}, "none": []}}
    (unasked.run.folder / "vocabulary.json").write_text(json.dumps(many))
    ask(unasked)
    assert len(unasked.attributes.view.rows) <= 14


def test_what_was_left_out_of_the_vocabulary_is_said_as_text(unasked):
    edit(unasked, {"groups": {"<i>many</i>": ["orange", "blue"] + ["orange"] * 5, "none": []}})
    ask(unasked)
    said = unasked.attributes.about.value
    assert said.count("&quot;orange&quot; is there twice") == 3
    assert "and 3 more" in said
    assert "<i>" not in said
    edit(unasked, WORDS)
    ask(unasked)
    assert "Left out" not in unasked.attributes.about.value


def test_a_lit_attribute_is_proved_when_there_is_a_theta_and_an_opposite(asked):
    panel = asked.attributes
    press(asked, "light", column=4)  # <b>snow</b>, whose opposite is beach
    assert panel.prove.disabled
    assert "no Θ to test yet" in panel.prove.tooltip
    second_gallery(asked)
    assert not panel.prove.disabled
    press(asked, "light", column=0)
    assert panel.prove.disabled
    assert "knows no opposite of “orange”" in panel.prove.tooltip
    press(asked, "light", column=-1)
    assert "Press the name of an attribute first" in panel.prove.tooltip
    panel.prove_lit()  # from a cell
    assert asked.status.kind == "warning"


def test_the_proof_is_drawn_in_the_background_and_stays_with_its_attribute(asked):
    second_gallery(asked)
    press(asked, "light", column=4)
    asked.settle()
    before = len(asked.attributes.view.strips)
    asked.attributes.prove.click()
    asked.wait(60)
    strips = asked.attributes.view.strips
    assert len(strips) == before + 2
    assert [len(strip["images"]) for strip in strips[:2]] == [8, 8]
    assert strips[0]["title"] == "“<b>snow</b>”, though asked “beach”, base model:"
    assert "Asked “beach”" in asked.status.text
    assert "&lt;b&gt;snow" in asked.status.value  # shown, not obeyed
    lit = asked.attributes.findings.inquiry().attributes[4]
    assert strips[:2] == counterfactual_strips(asked.run.attributes.counterfactual([lit], asked.node.parent))
    press(asked, "light", column=0)
    asked.settle()
    assert "though asked" not in asked.attributes.view.strips[0]["title"]
