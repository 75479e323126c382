import json
from pathlib import Path

import pytest

from chosen_one_nb.steps.prompts import subject

EVALUATED = (  # of data/prompts.json, in its order: the token starts from these words
    "fox fox cat dog rabbit bear mouse pig frog owl penguin dragon dragon robot robot astronaut astronaut "
    "wizard wizard character creature cat bear dog"
)


def test_the_prompts_of_the_evaluation_keep_their_subjects():
    prompts = json.loads((Path(__file__).parent.parent / "data" / "prompts.json").read_text())["prompts"]
    assert " ".join(subject(prompt) for prompt in prompts) == EVALUATED


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("a fox", "fox"),
        ("a sticker of a red fox on the beach", "fox"),
        ("a picture of a wolf", "wolf"),
        ("A photo of a 50 years old man with curly hair", "man"),
        ("a 3D animation of a happy pig", "pig"),
        ("a low poly render of a dragon", "dragon"),
        ("a purple astronaut, digital art", "astronaut"),
        ("a knight without a helmet", "knight"),
        ("a sticker of a fox reading a book", "fox"),
        ("a cartoon of a cat riding a bike", "cat"),
        ("a fox sleeping", "fox"),
        ("a happy sleeping fox on a sofa", "fox"),
        ("an old king on a throne", "king"),
        ("a robot made of wood", "robot"),
        ("a cat and a dog", "cat"),
        ("in a forest, a bear", "bear"),
        ("a rendering of a cute albino porcupine, cozy indoor lighting", "porcupine"),
        ("a portrait of a man with a mustache and a hat, fauvism", "man"),
        ("ein Ritter", "ritter"),
        ("<>", "<>"),
    ],
)
def test_subject_of_a_prompt(prompt, word):
    assert subject(prompt) == word
