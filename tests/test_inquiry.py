"""From a run on disk to what its clusters share: asked, answered, corrected, proved."""

import json

import numpy as np
import pytest

from chosen_one_nb.analysis.inquiry import Inquiry
from chosen_one_nb.analysis.vocabulary import AttributeScores, VocabularyError, read_vocabulary
from chosen_one_nb.run.attributes import ClipVectors
from chosen_one_nb.run.run import Run, RunError
from chosen_one_nb.run.stages import vocabulary_file
from chosen_one_nb.run.state import RunState

PROMPT = "a sticker of a fox"
WORDS = {"groups": {
    "place": {"kind": "incidental", "one_of": True, "template": "a {noun} {}",
              "phrases": [{"text": "in snow", "opposite": "on the beach"},
                          {"text": "on the beach", "opposite": "in snow"}]},
    "style": {"kind": "incidental", "one_of": True, "template": "{} of a {noun}", "phrases": ["a sticker", "a photo"]},
    "wear": {"kind": "identity", "template": "a {noun} with {}", "phrases": ["a red hat", "a blue hat"]}}}  # fmt: skip


@pytest.fixture(scope="module")
def waiting(models, tmp_path_factory):
    """The folder of a run of six images that waits for a choice."""
    from chosen_one_nb.settings import Settings

    settings = Settings.preset(
        "quick",
        n_images=6,
        target_cluster_size=3,
        min_cluster_size=1,
        sampling_steps=2,
        refine_steps=2,
        refine_batch_size=2,
        lora_rank=2,
        max_iterations=2,
        convergence=0.01,
    )
    with Run.start(PROMPT, models, settings, tmp_path_factory.mktemp("asked") / "run") as run:
        while run.next_stage != "choose":
            run.step()
        return run.folder


@pytest.fixture
def run(waiting, models, tmp_path):
    with Run.open(waiting, models, read_only=True).copy(tmp_path / "run") as run:
        (run.folder / "vocabulary.json").write_text(json.dumps(WORDS))
        yield run


def toy(shares):
    """Images of which the first have snow (or not), as a presence of one attribute."""
    attribute = read_vocabulary({"place": {"kind": "incidental", "phrases": ["snow"]}}).attributes
    return {
        name: AttributeScores(np.array([[1.0]] * count + [[0.0]] * (40 - count)), attribute, np.ones(1, bool))
        for name, count in shares.items()
    }


def test_the_headline_names_what_rose_and_how_often_it_was_there():
    asked = Inquiry("a fox", toy({"base": 8, "iteration 1": 38}))
    assert asked.headline.startswith('"snow" rose from 20% to 95% of the images')
    assert asked.drift()["share"].tolist() == [0.2, 0.95]
    assert Inquiry("a fox in the snow", toy({"base": 8, "iteration 1": 38})).headline.startswith("Nothing")
    assert "from the second gallery on" in Inquiry("a fox", toy({"base": 8})).headline
    assert Inquiry("a fox", toy({"base": 8})).drift().empty


def test_what_is_asked_for_is_not_flagged_and_a_correction_decides():
    galleries = toy({"base": 8})
    assert Inquiry("a fox", galleries).flagged(range(8)).attribute.tolist() == ["snow"]
    assert Inquiry("a fox in the snow", galleries).flagged(range(8)).empty
    assert Inquiry("a fox", galleries, corrections={"place: snow": "asked"}).flagged(range(8)).empty
    with pytest.raises(ValueError, match="none has been chosen yet"):
        Inquiry("a fox", galleries).findings()


def test_a_group_against_the_first_gallery_shows_what_fills_the_last_one():
    asked = Inquiry("a fox", toy({"base": 8, "iteration 1": 40}))
    assert not asked.findings(range(10)).finding.any()  # snow everywhere: the group is like the rest
    line = asked.findings(range(10), against="first").loc[0]
    assert (line.attribute, line.finding, line.share_in, line.share_out) == ("snow", True, 1.0, 0.2)
    assert line.answer == "incidental"
    everything = asked.findings(np.ones(40, bool), against="first").loc[0]
    assert (everything.finding, everything.share_in) == (True, 1.0)
    assert not Inquiry("a fox", toy({"base": 8, "iteration 1": 8})).findings(range(40), against="first").finding.any()


def test_a_group_of_the_first_gallery_has_none_before_it():
    with pytest.raises(ValueError, match="This is the first gallery"):
        Inquiry("a fox", toy({"base": 8})).findings(range(8), against="first")
    with pytest.raises(ValueError, match='"rest" or "first", got \'last\''):
        Inquiry("a fox", toy({"base": 8})).findings(range(8), against="last")


def test_suspects_of_all_clusters_strongest_first():
    galleries = toy({"base": 12})
    table = Inquiry("a fox", galleries).suspects(np.r_[np.zeros(14, int), np.ones(26, int)])
    assert table[["cluster", "column", "attribute", "opposite"]].to_numpy().tolist() == [[0, 0, "snow", None]]
    assert Inquiry("a fox in the snow", galleries).suspects(np.arange(40) % 2).empty
    assert Inquiry("a fox", galleries).suspects(np.zeros(40, int)).empty
    assert set(Inquiry("a fox", galleries).suspects(np.arange(40) % 2, level=1.0).cluster) == {0, 1}


def test_an_inquiry_of_a_run(run):
    asked = run.attributes.inquiry()
    assert list(asked.galleries) == ["base"]
    table = asked.findings([0, 1, 2])
    assert set(table.attribute) == {"in snow", "on the beach", "a sticker", "a photo", "a red hat", "a blue hat"}
    assert table.set_index("attribute").answer["a sticker"] == "asked"
    assert asked.held_by([0, 1, 2]).answer in ("foreground", "scene", "neither")
    assert run.root.embedding.segmentation.masks.shape == (6, 4, 4)


def test_what_was_asked_once_needs_no_models_again(run, monkeypatch):
    first = run.attributes.inquiry().findings([0, 1, 2])
    run.close()
    again = Run.open(run.folder, read_only=True)
    monkeypatch.setattr(RunState, "models", property(lambda self: pytest.fail("models are not needed")))
    assert again.attributes.inquiry().findings([0, 1, 2]).equals(first)


def test_before_foregrounds_are_looked_for_the_rest_is_shown(run):
    asked = run.attributes.inquiry(segment=False)
    assert "have not been told apart yet" in asked.segmentation.reason
    assert len(asked.findings([0, 1])) == 6


def test_a_correction_is_kept_logged_and_taken_back(run):
    heard = []
    run.listeners.append(heard.append)
    before = run.attributes.inquiry(segment=False)
    snow = before.attributes[0]
    run.attributes.correct(snow, "identity")
    assert heard[-1]["kind"] == "correct"
    assert run.attributes.inquiry(segment=False).answers.answer[0] == "identity"
    assert Run.open(run.folder).attributes.inquiry(segment=False).answers.why[0] == "you said so"
    run.attributes.correct(snow, None)
    assert run.attributes.inquiry(segment=False).answers.equals(before.answers)
    with pytest.raises(RunError, match="Expected one of asked, identity, incidental"):
        run.attributes.correct(snow, "maybe")


@pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")
def test_persistence_draws_once_and_keeps_the_images(run, monkeypatch):
    attributes = run.attributes.inquiry(segment=False).attributes
    with pytest.raises(RunError, match="no character to test yet"):
        run.attributes.counterfactual(attributes)
    run.selection.choose(images=[0, 1, 2])
    run.step()
    made = run.attributes.counterfactual(attributes, seeds=2)
    assert made.table.asked_for.tolist() == ["on the beach", "in snow"]
    assert [len(side) for side in made.images["in snow"]] == [2, 2]
    assert "a red hat" in made.skipped
    monkeypatch.setattr("chosen_one_nb.steps.generate.generate", lambda *_, **__: pytest.fail("drawn again"))
    again = run.attributes.counterfactual(attributes, seeds=2)
    assert again.table.equals(made.table)
    monkeypatch.setattr(RunState, "models", property(lambda self: pytest.fail("models are not needed")))
    with Run.open(run.folder, read_only=True) as reopened:
        again = reopened.attributes.counterfactual(attributes, seeds=2)
    assert again.table.equals(made.table)


@pytest.mark.filterwarnings("ignore:.*d_min-c:RuntimeWarning")
def test_the_opposite_of_a_medium_is_asked_for_as_a_medium(run):
    words = json.loads(json.dumps(WORDS))
    words["groups"]["style"]["phrases"] = [{"text": "a sticker", "opposite": "a photo"}]
    (run.folder / "vocabulary.json").write_text(json.dumps(words))
    run.selection.choose(images=[0, 1, 2])
    run.step()
    sticker = next(a for a in run.attributes.inquiry(segment=False).attributes if a.name == "a sticker")
    run.attributes.counterfactual([sticker], seeds=1)
    made = run.attributes.counterfactual([sticker], seeds=1)  # from disk, with what they were drawn from
    ((base, character),) = made.images.values()
    assert base[0].info["prompt"] == f"{PROMPT} as a photo"
    assert character[0].info["prompt"].endswith(" as a photo")


@pytest.mark.parametrize(
    ("template", "phrase", "asked"),
    [
        ("a {noun} {}", "in the snow", "in the snow"),
        ("a {noun}, {}", "bright colours", ", bright colours"),
        ("a {noun} with {} eyes", "green", "with green eyes"),
        ("{} of a {noun}", "a photograph", "as a photograph"),
        ("{} {noun}", "an old", "as an old fox"),
        ("{}", "bare head", "bare head"),
    ],
)
def test_how_an_opposite_follows_a_caption(template, phrase, asked):
    words = read_vocabulary({"g": {"template": template, "phrases": ["x"]}})
    assert words.request("fox")(words.attributes[0], phrase) == asked


def test_the_second_gallery_is_compared_with_the_first(run):
    run.step()
    run.step()
    while run.next_stage != "choose":
        run.step()
    asked = run.attributes.inquiry(segment=False)
    assert list(asked.galleries) == ["base", "iteration 1"]
    assert set(asked.drift([0])["gallery"]) == {"base", "iteration 1"}
    assert isinstance(asked.headline, str)


def test_which_vocabulary_goes_with_a_run(tmp_path):
    assert vocabulary_file(tmp_path, "somewhere/menagerie").name == "attributes_menagerie.json"
    assert vocabulary_file(tmp_path, "stabilityai/sdxl").name == "attributes.json"
    (tmp_path / "vocabulary.json").write_text("{}")
    assert vocabulary_file(tmp_path, "menagerie") == tmp_path / "vocabulary.json"


def test_a_vocabulary_that_cannot_be_used_is_named(run):
    (run.folder / "vocabulary.json").write_text('{"groups": {}}')
    with pytest.raises(VocabularyError, match=r"vocabulary\.json: expected at least one phrase"):
        run.attributes.inquiry(segment=False)


def test_words_of_other_models_and_a_damaged_file_are_asked_anew(tmp_path, models):
    path = tmp_path / "texts.npz"
    first = ClipVectors(path, lambda: models, "a", keep=True).texts(["a fox", "a cat"])
    known = ClipVectors(path, lambda: pytest.fail("known"), "a", keep=True)
    assert np.array_equal(known.texts(["a cat"])[0], first[1])
    asked = []
    ClipVectors(path, lambda: asked.append(1) or models, "b", keep=False).texts(["a fox"])
    assert asked
    path.write_bytes(b"no archive")
    assert np.allclose(ClipVectors(path, lambda: models, "a", keep=True).texts(["a fox"])[0], first[0])


def test_a_run_without_clip_says_so(run, models, monkeypatch):
    monkeypatch.setattr(models, "clip", None)
    with pytest.raises(RunError, match="without CLIP"):
        run.attributes.inquiry(segment=False)
