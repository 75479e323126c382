"""The panel of what a cluster shares, driven by events, on painted runs whose CLIP knows colours."""

import io
import json
import shutil

import numpy as np
import pytest
from helpers import painted
from PIL import Image

from chosen_one_nb.analysis.counterfactual import counterfactual
from chosen_one_nb.analysis.vocabulary import read_vocabulary
from chosen_one_nb.models.load import Features
from chosen_one_nb.run.attributes import RunAttributes
from chosen_one_nb.run.run import Run
from chosen_one_nb.widgets.attribute_findings import Shared
from chosen_one_nb.widgets.attribute_rows import _row, counterfactual_strips, sentences
from chosen_one_nb.widgets.explorer import Explorer

COLOURS = ["orange", "blue", "grey", "green"]
WORDS = {"groups": {
    "fur": {"kind": "identity", "one_of": True, "template": "a {} {noun}", "phrases": COLOURS},
    "place": {"kind": "incidental", "phrases": [{"text": "<b>snow</b>", "opposite": "beach"}, "beach"]}}}  # fmt: skip


class SeeingClip:
    """Images are their truth's colour; texts the colour they name."""

    logit_scale = 20.0

    def images(self, images, **_):
        truths = [painted.truth_of(int(image.info["seed"]), None) if "seed" in image.info else None for image in images]
        return np.stack([self._vector(truth["colour"] if truth else "") for truth in truths])

    def texts(self, texts, **_):
        return np.stack([self._vector(next((colour for colour in COLOURS if colour in text), "")) for text in texts])

    def patches(self, images, **_):
        return np.tile(self.images(images)[:, None], (1, 16, 1)), (4, 4)

    @staticmethod
    def _vector(colour):
        vector = np.array([float(colour == each) for each in COLOURS] + [0.5], np.float32)
        return vector / np.linalg.norm(vector)


def look(models, images, settings, callbacks=None, *, patches=False):
    """The painted features, and patch tokens that know the middle from the rim."""
    cls = np.stack([painted._pixels(image) for image in images])
    tokens = None
    if patches:
        middle = np.zeros((4, 4, 1), np.float32)
        middle[1:, 1:3] = 1
        colour = np.stack([np.asarray(image.convert("RGB").resize((4, 4)), np.float32) / 255 for image in images])
        where = np.tile(np.concatenate([middle, 1 - middle], -1), (len(images), 1, 1, 1))
        tokens = np.concatenate([colour, where], -1)
        tokens = tokens.reshape(len(images), 16, 5).astype(np.float16)
    return Features(painted.unit(cls - 0.5), tokens, (4, 4))


@pytest.fixture(autouse=True)
def quick_steps(monkeypatch):
    painted.paint(monkeypatch)
    monkeypatch.setattr("chosen_one_nb.steps.embed.embed", look)
    monkeypatch.setattr(painted, "pause", 0.0)
    monkeypatch.setattr(painted.MODELS, "clip", SeeingClip())
    monkeypatch.setattr("chosen_one_nb.widgets.cards.RESAMPLES", 5)


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        painted.paint(patch)
        patch.setattr("chosen_one_nb.steps.embed.embed", look)
        patch.setattr(painted.MODELS, "clip", SeeingClip())
        run = painted.start(tmp_path_factory.mktemp("painted") / "run", prompt="a sticker of a fox", n_images=32)
        (run.folder / "vocabulary.json").write_text(json.dumps(WORDS))
        while run.next_stage != "choose":
            run.step()
        run.close()
        return run.folder


@pytest.fixture
def explorer(waiting, tmp_path):
    place = shutil.copytree(waiting, tmp_path / "run")
    return Explorer(Run.open(place, painted.MODELS), method="pca", raise_errors=True)


@pytest.fixture
def asked(explorer):
    """An explorer that has asked, and shows the answer."""
    return ask(explorer)


def ask(explorer):
    explorer.attributes.ask.click()
    explorer.session.wait(60)
    explorer.settle()
    return explorer


def line(explorer, name):
    return next(row for row in explorer.attributes.view.rows if row["name"] == name)


def press(explorer, do, **more):
    explorer.attributes.act({"do": do, **more})


def test_nothing_is_asked_before_a_person_asks(explorer, monkeypatch):
    monkeypatch.setattr(RunAttributes, "inquiry", lambda *_, **__: pytest.fail("asked unasked"))
    explorer.session.refresh()
    explorer.settle()
    assert "Press Ask" in explorer.attributes.view.words[0][1]
    assert explorer.attributes.view.rows == []
    assert all(card["shares"] == "What it shares: not asked yet." for card in explorer.clusters.view.cards)


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


def test_cards_say_what_is_shared(asked):
    lines = [card.get("shares", "") for card in asked.clusters.view.cards]
    assert any(text.startswith("Shares, though not asked for:") for text in lines)


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


def test_strips_of_what_holds_it_together_and_of_common_parts(asked):
    titles = [strip["title"] for strip in asked.attributes.view.strips]
    assert titles == ["What makes this cluster hold together:", "The same part in the same colour:"]
    assert all(each["data"][8:12] == b"WEBP" for strip in asked.attributes.view.strips for each in strip["images"])


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


def test_markup_in_a_phrase_is_shown_not_obeyed(asked):
    column = [a.name for a in asked.attributes.findings.inquiry().attributes].index("<b>snow</b>")
    press(asked, "light", column=column)
    assert asked.map.figure.points["marker"]["colorbar"]["title"]["text"] == "&lt;b&gt;snow&lt;/b&gt;"
    assert "<b>snow" not in asked.attributes.drift.value + asked.attributes.about.value


def test_a_cluster_of_one_and_one_of_all(asked):
    asked.run.selection.recluster(1)
    asked.settle()
    assert "nothing to compare it with" in asked.attributes.view.words[0][1]
    asked.run.selection.recluster(len(asked.node.seeds))
    asked.settle()
    assert asked.attributes.view.words
    inquiry = asked.attributes.findings.inquiry()
    assert sentences(inquiry, Shared(None, inquiry.held_by([0])))[1][0] == "quiet"


def test_a_broken_vocabulary_is_told_in_the_status_line(explorer):
    (explorer.run.folder / "vocabulary.json").write_text('{"groups": []}')
    explorer.session.raise_errors = False
    ask(explorer)
    assert "vocabulary.json" in explorer.status.text
    assert explorer.status.kind == "error"


def test_thousands_of_phrases_show_a_table_that_people_read(explorer):
    many = {"groups": {"many": {"phrases": [f"thing {i}" for i in range(3000)] + ["orange", "orange"]}, "none": []}}
    (explorer.run.folder / "vocabulary.json").write_text(json.dumps(many))
    ask(explorer)
    assert len(explorer.attributes.view.rows) <= 14


def test_a_gallery_of_one_image_many_times_finds_nothing(waiting, tmp_path, monkeypatch):
    monkeypatch.setattr(SeeingClip, "images", lambda self, images, **_: np.tile(self._vector("blue"), (len(images), 1)))
    place = shutil.copytree(waiting, tmp_path / "run")
    run = Run.open(place, painted.MODELS)
    run.redo_stage("embed")
    while run.next_stage != "choose":
        run.step()
    explorer = ask(Explorer(run, method="pca", raise_errors=True))
    assert explorer.attributes.view.words[0][1].startswith("Nothing that the prompt leaves open")


def test_an_extractor_without_patches_shows_the_rest_and_says_so(waiting, tmp_path, monkeypatch):
    blind = lambda *args, **more: Features(look(*args, **more).cls, None, (0, 0))  # noqa: E731
    monkeypatch.setattr("chosen_one_nb.steps.embed.embed", blind)
    place = shutil.copytree(waiting, tmp_path / "run")
    explorer = ask(Explorer(Run.open(place, painted.MODELS), method="pca", raise_errors=True))
    assert explorer.attributes.view.rows
    assert any("no patch tokens" in text for _, text in explorer.attributes.view.words)
    assert explorer.attributes.view.strips == []


def test_a_read_only_run_can_be_asked_but_not_changed(waiting, tmp_path):
    place = shutil.copytree(waiting, tmp_path / "run")
    run = Run.open(place, painted.MODELS, read_only=True)
    explorer = ask(Explorer(run, method="pca", raise_errors=True))
    assert explorer.attributes.view.rows
    assert explorer.attributes.findings.inquiry().segmentation
    assert not explorer.attributes.view.can_choose
    assert not explorer.attributes.view.can_answer
    assert not (place / "texts.npz").exists()


def edit(explorer, words):
    (explorer.run.folder / "vocabulary.json").write_text(json.dumps(words))


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
    asked.session.wait(60)
    ((key, found),) = put
    assert key == panel.findings.key(later)
    assert len(found.galleries) == 2


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


def second_gallery(explorer):
    """Go on to the choice of the gallery after the one shown."""
    run, before = explorer.run, explorer.node
    run.selection.choose()
    while run.current is before or run.next_stage not in ("choose", None):
        run.step()
    explorer.settle()


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


def test_the_drift_of_the_lit_attribute_is_drawn_too(asked):
    second_gallery(asked)
    inquiry = asked.attributes.findings.inquiry()
    steady = next(c for c in range(4) if c not in inquiry.risen())
    name = inquiry.attributes[steady].name
    assert f" {name}: " not in asked.attributes.drift.value
    press(asked, "light", column=steady)
    shares = [found.has_it[:, steady].mean() for found in inquiry.galleries.values()]
    assert f" {name}: {shares[0]:.0%}, {shares[1]:.0%}" in asked.attributes.drift.value


def test_what_was_left_out_of_the_vocabulary_is_said_as_text(explorer):
    edit(explorer, {"groups": {"<i>many</i>": ["orange", "blue"] + ["orange"] * 5, "none": []}})
    ask(explorer)
    said = explorer.attributes.about.value
    assert said.count("&quot;orange&quot; is there twice") == 3
    assert "and 3 more" in said
    assert "<i>" not in said
    edit(explorer, WORDS)
    ask(explorer)
    assert "Left out" not in explorer.attributes.about.value


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
    asked.session.wait(60)
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
