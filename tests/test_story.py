"""Stories: plans, ranking by hand, one panel redrawn alone, pages as files."""

import json

import numpy as np
import pytest
from helpers.tiny_models import SIZE, made_for

from chosen_one_nb.applications.story import Scene, Story, StoryError, StoryPanel, StoryPlan, story
from chosen_one_nb.settings import Settings
from chosen_one_nb.steps.prompts import PromptError

FAST = Settings(sampling_steps=2, guidance_scale=2.0)
SCENES = ["on the beach", {"text": "in snow", "style": "a photo", "caption": "Winter came."}, "in a hat"]


@pytest.fixture(params=["models", "sd_models"])
def base(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def told(models):
    return story(models, made_for(models.pipeline), SCENES, title="A fox", candidates=2, settings=FAST)


def test_each_panel_has_its_candidates_and_says_how_they_were_made(told):
    assert [panel.image.size for panel in told.panels] == [(SIZE, SIZE)] * 3
    assert all(len(panel.images) == 2 for panel in told.panels)
    first, second, _ = (panel.image.info for panel in told.panels)
    assert first["prompt"] == "a red fox <v> on the beach"
    assert second["prompt"] == "a photo of a red fox <v> in snow"
    assert json.loads(second["scene"])["caption"] == "Winter came."
    assert len({image.info["seed"] for panel in told.panels for image in panel.images}) == 6, "free seeds"


def test_fixed_seeds_are_the_same_in_all_panels(base):
    made = story(base, made_for(base.pipeline), ["in snow", "in a hat"], candidates=2, seeds="fixed", settings=FAST)
    first, second = ([image.info["seed"] for image in panel.images] for panel in made.panels)
    assert first == second


def test_candidates_are_ranked_by_fit_and_likeness_to_the_other_panels(models):
    """The second candidate fits a little less than the third, and is far more like the other panel."""
    made = Story(models, None, StoryPlan.of(["one", "two"]), FAST)
    alike, none = np.array([[0.0, 1.0], [1.0, 0.0], [0.6, 0.8]]), np.full(1, np.nan)
    made.panels = [
        StoryPanel(Scene(text="one"), [1, 2, 3], alike, np.array([0.1, 0.3, 0.2]), none),
        StoryPanel(Scene(text="two"), [1], np.array([[1.0, 0.0]]), np.array([0.2]), none),
    ]
    made._rank(0)
    assert made.panels[0].chosen == 1
    assert made.panels[0].identity.tolist() == [0.0, 1.0, 0.6]


def test_a_panel_is_redrawn_alone(models, told):
    before = [panel.images for panel in told.panels]
    told.choose(0, 1)
    told.redraw(2, text="in the beach")
    assert told.panels[0].images is before[0]
    assert told.panels[0].chosen == 1, "a person's choice stays"
    assert told.panels[2].image.info["prompt"].endswith("in the beach")
    assert told.plan.scenes[2].text == "in the beach"
    with pytest.raises(PromptError):
        told.redraw(2, text="fox " * 40)
    assert told.plan.scenes[2].text == "in the beach", "what was there stays"
    with pytest.raises(StoryError, match="Expected a panel below 3 and a candidate below 2, got 3 and 0"):
        told.choose(3, 0)


@pytest.mark.parametrize("layout", ["grid", "strip"])
def test_a_story_is_written_as_image_pdf_and_page(told, tmp_path, layout):
    told.plan = told.plan.model_copy(update={"layout": layout, "title": "<b>A fox"})
    page = told.save(tmp_path / "story.html").read_text()
    assert page.count("data:image/webp;base64") == 3
    assert "&lt;b&gt;A fox" in page
    assert told.save(tmp_path / "story.pdf").read_bytes().startswith(b"%PDF")
    assert told.save(tmp_path / "story.png").stat().st_size > 1000
    told.panels.append(told.panels[0])
    image, columns = told.image(tile=1.0), {"grid": 3, "strip": 4}[layout]
    told.panels.pop()
    assert image.width == 144 * columns
    with pytest.raises(StoryError, match=r"expected an ending .png, .pdf or .html, got none"):
        told.save(tmp_path / "story")


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ([], "scenes: expected it to have at least 1 item"),
        (["on the beach", " "], "scenes: 1: text"),
        ({"scenes": ["a"], "layout": "ring"}, "layout"),
        ({"scenes": "a fox"}, "scenes: expected a valid tuple, got 'a fox'"),
        ({"scenes": ["a"], "candidates": "4"}, "candidates: expected a valid integer, got '4'"),
        ({"scenes": ["a"], "candidates": 99}, "candidates: expected less than or equal to 16, got 99"),
        ("none.json", "expected a JSON file, or a list of sentences"),
        (3, "expected a JSON file, or a list of sentences"),
    ],
)
def test_a_plan_that_cannot_be_told_is_refused_in_one_sentence(models, plan, sentence):
    with pytest.raises(StoryError, match=sentence) as refused:
        story(models, None, plan, settings=FAST)
    assert "\n" not in str(refused.value)


def test_a_sentence_that_is_too_long_is_told_of_before_anything_is_drawn(models, monkeypatch):
    monkeypatch.setattr("chosen_one_nb.applications.story.generate", lambda *_: pytest.fail("drawn"))
    with pytest.raises(PromptError, match="expected at most 32 tokens"):
        story(models, made_for(models.pipeline), ["on the beach", "fox " * 40], settings=FAST)


def test_a_plan_is_read_from_a_file(tmp_path):
    (tmp_path / "story.json").write_text(json.dumps({"title": "A fox", "scenes": SCENES, "layout": "strip"}))
    plan = StoryPlan.of(tmp_path / "story.json")
    assert (plan.layout, plan.scenes[0].text, plan.scenes[1].style) == ("strip", "on the beach", "a photo")
