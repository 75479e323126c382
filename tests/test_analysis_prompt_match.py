import numpy as np
import pytest

from chosen_one_nb.analysis.prompt_match import asked, classify, descriptions, pieces
from chosen_one_nb.analysis.vocabulary import read_vocabulary, score_attributes

WORDS = read_vocabulary(
    {
        "accessory": {"kind": "identity", "phrases": ["wearing a red hat", "wearing a hat", "wearing glasses"]},
        "place": {"kind": "incidental", "phrases": ["in a forest", "at the beach"]},
        "around": ["leaves around it"],
        "fur": {"kind": "identity", "phrases": [{"text": "with orange fur", "attribute": "orange fur"}]},
    }
).attributes
NAMES = [attribute.name for attribute in WORDS]


def said(prompt, **options):
    return {name for name, reason in zip(NAMES, asked(WORDS, prompt, **options), strict=True) if reason}


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("a sticker of a fox", set()),
        ("a fox wearing a red hat in the forest", {"wearing a red hat", "wearing a hat", "in a forest"}),
        ("a fox with a hat", {"wearing a hat"}),
        ("a fox with a red scarf and a blue hat", {"wearing a hat"}),  # no red hat
        ("a fox without a hat at the beach", {"at the beach"}),
        ("a fox with no red hat, wearing glasses", {"wearing glasses"}),
        ("a fox in forests", {"in a forest"}),
        ("A FOX IN A FOREST", {"in a forest"}),
        ("", set()),
        ("!?", set()),
    ],
)
def test_what_the_words_of_a_prompt_ask_for(prompt, names):
    assert said(prompt) == names


def test_words_close_in_meaning_count_too_if_there_is_an_encoder():
    meanings = {"ginger cat": [1, 0], "orange fur": [0.96, 0.28]}

    def encode(texts):
        return np.array([meanings.get(text, [0, 1]) for text in texts], float)

    reasons = asked(WORDS, "a sticker of a ginger cat", encode=encode, threshold=0.95)
    assert reasons[NAMES.index("orange fur")] == 'close to "ginger cat" in the prompt (cosine 0.96)'
    assert "orange fur" not in said("a sticker of a ginger cat")


def test_words_that_say_what_they_mean_stand_for_nothing_else():
    asked_for = asked(WORDS, "leaves around it", encode=lambda texts: np.ones((len(texts), 1)), threshold=0.5)
    assert [name for name, reason in zip(NAMES, asked_for, strict=True) if reason] == ["leaves around it"]


def test_an_encoder_to_which_all_texts_are_the_same_says_nothing():
    assert not any(asked(WORDS, "a ginger tiger", encode=lambda texts: np.ones((len(texts), 1)), threshold=0.5))


def test_pieces_do_not_reach_over_a_gap():
    assert pieces("a red hat, no leaves, a fox") == ["red", "red hat", "hat", "fox"]


def test_asked_comes_before_the_group_and_the_image_speaks_where_it_is_open():
    evidence = np.array([-1, -1, -1, 1, 1, 0.4, -1])
    table = classify(WORDS, "a fox with glasses in a forest", on_foreground=evidence).set_index("attribute")
    assert table.answer.to_dict() == {
        "wearing a red hat": "identity",
        "wearing a hat": "identity",
        "wearing glasses": "asked",
        "in a forest": "asked",
        "at the beach": "incidental",
        "leaves around it": "identity",
        "orange fur": "identity",
    }
    assert table.why["leaves around it"] == "it shows on the foreground"
    assert table.why["in a forest"] == 'the prompt says "forest"'


@pytest.mark.parametrize("evidence", [None, np.full(7, np.nan), np.full(7, 0.01), np.full(7, -0.4)])
def test_without_clear_evidence_it_is_incidental(evidence):
    table = classify(WORDS, "a fox", on_foreground=evidence).set_index("attribute")
    assert table.answer["leaves around it"] == "incidental"


def test_a_person_has_the_last_word():
    corrections = {"wearing glasses": "incidental", "place: in a forest": "identity"}
    table = classify(WORDS, "a fox with glasses in a forest", corrections=corrections).set_index("attribute")
    assert table.answer["wearing glasses"] == "incidental"
    assert table.answer["in a forest"] == "identity"
    assert table.why["in a forest"] == "you said so"


def test_wrong_corrections_and_evidence_are_refused():
    with pytest.raises(ValueError, match="one of asked, identity, incidental, got"):
        classify(WORDS, "a fox", corrections={"hat": "spurious"})
    with pytest.raises(ValueError, match="evidence for 7 attributes, got 2"):
        classify(WORDS, "a fox", on_foreground=np.zeros(2))


# --- descriptions

FOLLOWING = {"one_of": True, "kind": "incidental", "template": "a {noun} {}"}
SCENES = read_vocabulary({
    "place": FOLLOWING | {"phrases": ["at the beach", "in the snow"]},
    "pose": FOLLOWING | {"phrases": ["standing", "reading a book"]},
    "style": FOLLOWING | {"template": "{} of a {noun}", "phrases": ["a sticker", "a drawing"]},
    "garment": FOLLOWING | {"kind": "identity", "phrases": ["wearing a scarf", "without clothes"]},
    "things": {"kind": "incidental", "template": "a {noun} {}", "phrases": ["with a ball", "with a hat"]},
})  # fmt: skip
# One image: snow for sure, standing rather; a sticker, in a scarf, with a ball.
IMAGE = np.array([[0, 1, 0.6, 0.4, 1, 0, 1, 0, 1, 0]])


def described(prompt, image=IMAGE):
    return descriptions(score_attributes(image, np.eye(10), SCENES, logit_scale=10), SCENES, prompt)


def test_scene_words_that_can_follow_a_caption_surest_first():
    assert described("a fox") == [["in the snow", "standing"]]


def test_what_the_prompt_says_is_not_said_again():
    assert described("a fox at the beach") == [["standing"]]


def test_an_image_that_shows_nothing_clearly_gets_no_words():
    three = read_vocabulary({"place": FOLLOWING | {"phrases": ["at the beach", "in the snow", "in the city"]}})
    found = score_attributes(np.ones((1, 3)), np.eye(3), three, logit_scale=10)
    assert descriptions(found, three, "a fox") == [[]]
