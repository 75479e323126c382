import json

import pytest

from chosen_one_nb.analysis.vocabulary import MAX_PHRASES, VocabularyError, load_vocabulary, read_vocabulary

BUNDLED = ["data/attributes.json", "data/attributes_menagerie.json"]

TOY = {
    "noun": "fox",
    "groups": {
        "place": {
            "kind": "incidental",
            "one_of": True,
            "template": "a {noun} {}",
            "phrases": [
                "at the beach",
                {"text": "in the snow", "opposite": "in the desert"},
                {"text": "in the cold", "attribute": "in the snow"},
            ],
        },
        "hat": ["a hat", "a crown"],
    },
}


def test_texts_are_sentences_and_attributes_gather_what_means_the_same():
    toy = read_vocabulary(TOY)
    assert toy.texts() == ["a fox at the beach", "a fox in the snow", "a fox in the cold", "a hat", "a crown"]
    assert toy.texts(noun="cat")[0] == "a cat at the beach"
    assert [attribute.name for attribute in toy.attributes] == ["at the beach", "in the snow", "a hat", "a crown"]
    snow = toy.attributes[1]
    assert (snow.columns, snow.phrases, snow.opposite) == ((1, 2), ("in the snow", "in the cold"), "in the desert")
    assert (snow.kind, snow.one_of) == ("incidental", True)
    assert (toy.attributes[2].kind, toy.attributes[2].one_of, toy.attributes[2].columns) == ("seen", False, (3,))
    assert len(toy) == 5


def test_the_digest_tells_vocabularies_apart_that_ask_differently():
    changed = json.loads(json.dumps(TOY))
    assert read_vocabulary(changed).digest == read_vocabulary(TOY).digest
    assert read_vocabulary({**changed, "about": "words", "groups": {**TOY["groups"], "none": []}}).digest == (
        read_vocabulary(TOY).digest)  # fmt: skip
    changed["groups"]["place"]["phrases"].reverse()
    digests = {read_vocabulary(TOY).digest, read_vocabulary(changed).digest}
    assert len(digests | {read_vocabulary({**TOY, "noun": "cat"}).digest}) == 3


def test_repeated_phrases_and_empty_groups_are_left_out_and_noted():
    read = read_vocabulary({"a": ["Red  hat", "red hat"], "b": [], "c": {"phrases": []}})
    assert read.texts() == ["Red  hat"]
    assert len(read.notes) == 3
    assert 'group "b" is empty' in read.notes[1]


def test_html_stays_text_and_braces_do_no_harm():
    nasty = "<img src=x onerror=alert(1)> {0} {name}"
    assert read_vocabulary({"a": {"phrases": [nasty], "template": "a {}"}}).texts() == [f"a {nasty}"]


def test_thousands_of_phrases_are_read_and_too_many_refused():
    assert len(read_vocabulary({"a": [f"thing {i}" for i in range(5000)]})) == 5000
    with pytest.raises(VocabularyError, match=f"at most {MAX_PHRASES} phrases, got"):
        read_vocabulary({"a": [f"thing {i}" for i in range(MAX_PHRASES + 1)]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a"], "expected an object of groups, got list"),
        ({}, "at least one phrase, found none"),
        ({"a": "hat"}, "group \"a\", phrases: Input should be a valid list, got 'hat'"),
        ({"a": [3]}, "a phrase is a text, or an object"),
        ({"a": [{"words": "hat"}]}, "phrases, 0, text: Field required"),
        ({"a": ["  "]}, "phrases, 0, text: String should have at least 1 character"),
        ({"a": ["x" * 301]}, "at most 300 characters"),
        (
            {"a": {"phrases": ["x"], "kind": "figure"}},
            "kind: Input should be 'identity', 'incidental' or 'seen', got 'figure'",
        ),
        ({"a": {"phrases": ["x"], "one_of": "yes"}}, "one_of: Input should be a valid boolean, got 'yes'"),
        ({"a": {"phrases": ["x"], "template": "a"}}, "expected a text with .* in it once, got 'a'"),
        ({"a": {"phrases": ["x"], "sort": 1}}, "sort: Extra inputs are not permitted, got 1"),
        ({"noun": 3, "groups": {"a": ["x"]}}, "noun is a word"),
    ],
)
def test_what_has_another_form_is_refused_with_its_place(data, message):
    with pytest.raises(VocabularyError, match=message):
        read_vocabulary(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ["x",]}', "expected JSON in UTF-8, but"),
        (b"<html>", "expected JSON in UTF-8, but"),
        (b'{"a": ["\xff"]}', "expected JSON in UTF-8"),
        (b'{"a": 1}', "should be a valid list, got 1"),
        (b"[" * 100_000, "expected JSON in UTF-8, but"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_named(tmp_path, content, message):
    file = tmp_path / "mine.json"
    file.write_bytes(content)
    with pytest.raises(VocabularyError, match=message) as caught:
        load_vocabulary(file)
    assert "mine.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(VocabularyError, match=r"none\.json"):
        load_vocabulary(tmp_path / "none.json")


@pytest.mark.parametrize("path", BUNDLED)
def test_bundled_vocabularies_have_no_faults(path, request):
    read = load_vocabulary(request.config.rootpath / path)
    assert read.notes == ()
    names = [(attribute.group, attribute.name) for attribute in read.attributes]
    assert len(set(names)) == len(names)
    assert not any("{" in attribute.name or "  " in attribute.name for attribute in read.attributes)
    raw = json.loads((request.config.rootpath / path).read_text())
    assert set(raw) == {"about", "noun", "groups"}


def test_the_one_for_photographs_and_art_has_the_groups_one_looks_for(request):
    read = load_vocabulary(request.config.rootpath / BUNDLED[0])
    wanted = {
        "setting",
        "lighting",
        "colour",
        "clothing",
        "accessory",
        "object held",
        "viewpoint",
        "framing",
        "medium",
        "expression",
        "species",
        "age",
        "gender presentation",
        "text in the image",
    }
    assert wanted <= set(read.groups)
    assert 300 <= len(read) <= 1200


def test_the_menagerie_is_asked_in_words_that_its_captions_use(request):
    from menagerie import world

    read = load_vocabulary(request.config.rootpath / BUNDLED[1])
    known = set(world.vocabulary())
    assert not [text for text in read.texts() if set(text.split()) - known]
    assert not [text for text in read.texts() if not world.named_in(text)]


def test_the_menageries_opposites_ask_for_something_else_after_a_caption(request):
    """Not of styles: captions name them first, and the generator passes over one that comes later."""
    from menagerie import world

    read = load_vocabulary(request.config.rootpath / BUNDLED[1])
    ask, say = read.request("fox"), read.sentence("fox")
    opposed = [attribute for attribute in read.attributes if attribute.opposite]
    assert {"expression", "place", "garment"} <= {attribute.group for attribute in opposed}
    for attribute in opposed:
        shown = world.named_in(say(attribute, attribute.phrases[0])).items()
        asked = world.named_in(f"a fox {ask(attribute, attribute.opposite)}").items()
        assert asked - {("kind", "fox")}, attribute
        assert not shown - {("kind", "fox")} <= asked, attribute
