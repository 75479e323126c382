"""The menagerie's world: chance, drawing and grammar."""

import json
from collections import Counter
from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from menagerie import world

SEEDS = st.integers(0, 2**32)


def pixels(truth, size=64):
    return np.asarray(world.render(truth, size).image, dtype=float)


# --- sampling ---------------------------------------------------------------------------------------------


def test_a_truth_is_json_and_the_same_for_the_same_seed():
    truth = world.sample(Random(3))
    assert truth == world.sample(Random(3)) == json.loads(json.dumps(truth))
    assert truth != world.sample(Random(4))


@given(SEEDS)
@settings(max_examples=100, deadline=None)
def test_a_new_scene_keeps_the_identity_and_changes_the_rest(seed):
    truth = world.sample(Random(seed))
    scene = world.new_scene(truth, Random(seed + 1))
    kept = (*world.IDENTITY, *world.PROPORTIONS)
    assert all(scene[name] == truth[name] for name in kept)
    assert scene["seed"] != truth["seed"]


@given(SEEDS, st.data())
@settings(max_examples=100, deadline=None)
def test_any_single_value_can_be_fixed(seed, data):
    name = data.draw(st.sampled_from(sorted(world.ATTRIBUTES)))
    value = data.draw(st.sampled_from(world.ATTRIBUTES[name]))
    assert world.sample(Random(seed), **{name: value})[name] == value


def test_values_are_nearly_uniform_beside_the_usual_ones():
    rng = Random(0)
    truths = [world.sample(rng) for _ in range(6000)]
    for name, values in world.ATTRIBUTES.items():
        usual, share = world.USUAL.get(name, (None, 0.0))
        free = [truth for truth in truths if can_be_posed(truth)] if name in world.NEUTRAL else truths
        counts = Counter(truth[name] for truth in free)
        shares = np.array([counts[value] for value in values if value not in ("none", usual)]) / len(free)
        assert shares.min() > 0.75 * shares.mean(), name
        assert shares.max() < 1.25 * shares.mean(), name
        if usual:
            assert abs(counts[usual] / len(free) - share) < 0.04, name


def can_be_posed(truth):
    return truth["framing"] != "close" and truth["action"] == "standing"


def test_attributes_are_drawn_independently():
    rng = Random(1)
    truths = [world.sample(rng) for _ in range(6000)]
    for a, b in (("kind", "colour"), ("colour", "garment"), ("place", "style"), ("kind", "extra")):
        pairs = Counter((truth[a], truth[b]) for truth in truths)
        left, right = Counter(t[a] for t in truths), Counter(t[b] for t in truths)
        for (x, y), count in pairs.items():
            expected = left[x] * right[y] / 6000
            assert abs(count - expected) < 5 * expected**0.5, (x, y)


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"kind": "unicorn"}, "'kind' is one of"),
        ({"hat": "red"}, "unknown attribute 'hat'"),
        ({"ear_size": 2}, "lies in"),
        ({"tilt": 90}, "degrees"),
        ({"colour": "red", "garment_colour": "red", "garment": "scarf"}, "must differ"),
        ({"garment": "none", "garment_colour": "red"}, "exactly when"),
        (
            {"arms": "up", "action": "book"},
            "'arms' is 'up' only where 'action' is one of",
        ),
        ({"legs": "sitting", "framing": "close"}, "'legs' is 'sitting' only where 'framing' is one of"),
    ],
)
def test_impossible_wishes_are_refused(wish, words):
    with pytest.raises(world.WorldError, match=words):
        world.sample(Random(0), **wish)


def test_half_a_truth_and_a_tiny_size_are_refused():
    truth = world.sample(Random(0))
    with pytest.raises(world.WorldError, match="missing or unknown"):
        world.render({"kind": "fox"})
    with pytest.raises(world.WorldError, match="at least 16"):
        world.render(truth, 8)


# --- drawing ----------------------------------------------------------------------------------------------


def test_the_same_truth_gives_the_same_pixels():
    for style in world.ATTRIBUTES["style"]:
        truth = world.sample(Random(5), style=style)
        assert np.array_equal(pixels(truth), pixels(dict(truth)))


def test_images_of_both_sizes_agree():
    rng = Random(2)
    for style in world.ATTRIBUTES["style"] * 2:
        truth = world.sample(rng, style=style)
        small, large = world.render(truth, 64), world.render(truth, 128)
        reduced = np.asarray(large.image.resize((64, 64), Image.Resampling.BOX), dtype=float)
        assert large.image.size == (128, 128)
        assert np.abs(reduced - np.asarray(small.image)).mean() < 6, style
        assert abs(large.mask.mean() - small.mask.mean()) < 0.02


def test_the_mask_is_the_figure():
    rng = Random(6)
    for kind in world.ATTRIBUTES["kind"]:
        truth = world.sample(rng, kind=kind)
        render = world.render(truth)
        assert render.mask.shape == (128, 128)
        assert render.mask.dtype == bool
        assert 0.08 < render.mask.mean() < 0.75
        assert render.mask[60:72, 52:76].all()  # the face, whatever the framing
        assert not render.mask[:4, :4].any()


def test_extras_and_places_leave_the_mask_alone():
    truth = world.sample(Random(7), extra="none", place="plain")
    mask = world.render(truth).mask
    assert np.array_equal(mask, world.render(truth | {"extra": "stars", "place": "city"}).mask)


BARE = {"garment": "none", "garment_colour": "none", "accessory": "none", "accessory_colour": "none"}
DRESSED = {"garment": "scarf", "garment_colour": "blue", "accessory": "hat", "accessory_colour": "red"}


def variants(name, style):
    """One character in every value of one attribute."""
    base = {
        "style": style,
        "framing": "medium",
        "colour": "grey",
        "second": "white",
        "action": "book",
        "extra": "none",
    } | (BARE if name in ("colour", "second") else DRESSED)
    base |= world.NEUTRAL | ({"action": "standing"} if name == "arms" else {})
    truth = world.sample(Random(8), **base)
    for value in world.ATTRIBUTES[name]:
        if value == "none" and f"{name}_colour" in truth:
            yield truth | {name: value, f"{name}_colour": "none"}
        elif (value, name) not in (("none", "garment_colour"), ("none", "accessory_colour")):
            yield truth | {name: value}


@pytest.mark.parametrize("style", world.ATTRIBUTES["style"])
@pytest.mark.parametrize("name", world.ATTRIBUTES)
def test_every_value_shows(style, name):
    images = [pixels(truth) for truth in variants(name, style)]
    for i, a in enumerate(images):
        for b in images[:i]:
            assert (np.abs(a - b).max(axis=-1) > 40).sum() >= 12


@pytest.mark.parametrize("name", world.PROPORTIONS)
def test_every_proportion_shows(name):
    truth = world.sample(Random(9), style="cartoon", kind="bear", garment="none")
    difference = np.abs(pixels(truth | {name: -1.0}) - pixels(truth | {name: 1.0})).max(axis=-1)
    assert (difference > 60).sum() >= 12


# --- poses ------------------------------------------------------------------------------------------------

POSES = [dict(zip(world.NEUTRAL, values, strict=True))
         for values in product(*(world.ATTRIBUTES[name] for name in world.NEUTRAL))]  # fmt: skip
AT = {name: row for row, name in enumerate(world.JOINTS)}


def posed(seed=0, **pose):
    """The joints of one character that stands upright with empty hands, in another pose."""
    truth = world.sample(Random(seed), framing="medium", action="standing", garment="none", **world.NEUTRAL)
    return world.render(truth | {"tilt": 0.0} | pose, 128).joints


def test_joints_are_where_the_pose_says():
    neutral, up, out, raised = (posed(arms=arms) for arms in world.ATTRIBUTES["arms"])
    for side in ("left", "right"):
        assert up[AT[f"{side} hand"], 1] < neutral[AT["neck"], 1] < neutral[AT[f"{side} hand"], 1]
        assert abs(out[AT[f"{side} hand"], 1] - out[AT[f"{side} shoulder"], 1]) < 0.06
    assert raised[AT["left hand"], 1] < up[AT["left hand"], 1]
    assert raised[AT["right hand"]] == pytest.approx(neutral[AT["right hand"]])
    assert np.ptp(out[:, 0]) > np.ptp(up[:, 0]) > np.ptp(neutral[:, 0])


def test_legs_apart_and_sitting_by_their_joints():
    together, apart, sitting = (posed(legs=legs) for legs in world.ATTRIBUTES["legs"])
    width = [joints[AT["right foot"], 0] - joints[AT["left foot"], 0] for joints in (together, apart, sitting)]
    assert width[0] * 1.8 < min(width[1:])
    height = [joints[AT["left foot"], 1] - joints[AT["left hip"], 1] for joints in (apart, sitting)]
    assert height[0] > 2 * height[1]
    assert apart[AT["head"], 1] < together[AT["head"], 1] < sitting[AT["head"], 1]


def test_leaning_moves_the_head_beside_the_feet():
    for lean, sign in (("left", -1), ("right", 1)):
        joints = posed(lean=lean)
        feet = (joints[AT["left foot"], 0] + joints[AT["right foot"], 0]) / 2
        assert sign * (joints[AT["head"], 0] - feet) > 0.1


@pytest.mark.parametrize("tilt", [-12.0, 12.0])
@pytest.mark.parametrize("pose", POSES, ids=lambda pose: " ".join(pose.values()))
def test_every_pose_lies_inside_the_image_and_its_hands_are_seen(pose, tilt):
    for seed, width in enumerate((-1.0, 1.0)):
        truth = world.sample(Random(seed), framing="medium", action="standing", body_width=width, tilt=tilt, **pose)
        joints = world.render(truth).joints
        assert joints.shape == (14, 3)
        assert joints[:, :2].min() > 0.03
        assert joints[:, :2].max() < 0.97
        assert joints[[AT["left hand"], AT["right hand"]], 2].all()


@given(SEEDS)
@settings(max_examples=60, deadline=None)
def test_joints_that_are_seen_lie_on_the_figure(seed):
    render = world.render(world.sample(Random(seed)))
    for x, y, seen in render.joints:
        if seen:
            row, column = int(y * 128), int(x * 128)
            assert render.mask[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3].any()


def test_what_covers_a_joint_hides_it():
    book = world.sample(Random(3), action="book", framing="medium", **world.NEUTRAL)
    empty = book | {"action": "standing"}
    torso = [AT["left hip"], AT["right hip"]]
    assert world.render(empty).joints[torso, 2].all()
    assert not world.render(book).joints[torso, 2].any()
    close = world.render(book | {"framing": "close"}).joints[[AT["left foot"], AT["right foot"]]]
    assert close[:, 1].max() > 1, "below the image"
    assert not close[:, 2].any()


@pytest.mark.parametrize("kind", world.ATTRIBUTES["kind"])
def test_every_kind_shows_every_pose(kind):
    base = world.sample(Random(4), kind=kind, action="standing", framing="medium", **world.NEUTRAL)
    images = [pixels(base | {name: value}) for name in world.NEUTRAL for value in world.ATTRIBUTES[name][1:]]
    for i, a in enumerate([*images, pixels(base)]):
        for b in images[:i]:
            assert (np.abs(a - b).max(axis=-1) > 40).sum() >= 30


# --- captions ---------------------------------------------------------------------------------------------


@given(SEEDS)
@settings(max_examples=300, deadline=None)
def test_a_caption_says_exactly_what_it_names(seed):
    rng = Random(seed)
    truth = world.sample(rng)
    said = world.caption(truth, rng)
    assert world.named_in(said.text) == said.named
    assert all(truth[name] == value for name, value in said.named.items())
    tokens = said.text.replace(",", " ,").split()
    assert len(tokens) <= 30
    assert set(tokens) <= set(world.vocabulary())


def test_captions_name_a_random_part():
    rng = Random(10)
    truths = [world.sample(rng) for _ in range(4000)]
    named = [world.caption(truth, rng).named for truth in truths]
    for name, values in world.ATTRIBUTES.items():
        for value in values:
            if value in world.NEUTRAL.values():
                continue
            asked = [name in n for n, truth in zip(named, truths, strict=True) if truth[name] == value]
            quiet = value in ("none", "plain", "medium") and name != "place"
            if not (value == "none" and name.endswith("_colour")):
                assert (0.003 if quiet else 0.1) < np.mean(asked) < (0.2 if quiet else 0.99), (name, value)


def test_captions_vary_and_the_vocabulary_is_small():
    rng = Random(11)
    truth = world.sample(rng)
    texts = {world.caption(truth, rng).text for _ in range(200)}
    assert len(texts) > 150
    assert len(world.vocabulary()) <= 220
    assert world.vocabulary()[-len(world.late_words()) :] == world.late_words()
    assert all(word == "," or (word.isalpha() and word.islower()) for word in world.vocabulary())


def test_no_caption_says_that_one_who_sits_is_standing():
    rng = Random(12)
    truths = [world.sample(rng, legs="sitting") for _ in range(300)]
    assert not any("standing" in world.caption(truth, rng).text for truth in truths)


def test_contexts_are_read_back_and_known():
    assert len(world.CONTEXTS) == 8
    for text, asked in world.CONTEXTS:
        assert world.named_in(text) == asked
        assert set(text.split()) <= set(world.vocabulary())


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("a sticker of a fox", {"style": "sticker", "kind": "fox"}),
        ("A photo of a gray owl!", {"style": "photo", "colour": "grey", "kind": "owl"}),
        ("a cat, wearing a shiny orange hat", {"kind": "cat", "accessory": "hat"}),
        ("a red green eyed dog", {"eyes": "green", "kind": "dog"}),
        ("a cat sitting with both arms raised", {"kind": "cat", "legs": "sitting", "arms": "up"}),
        (
            "a bear raising one arm, leaning to the left, up close",
            {"kind": "bear", "arms": "raised", "lean": "left", "framing": "close"},
        ),
        ("something else entirely", {}),
        ("", {}),
    ],
)
def test_any_prompt_can_be_read(prompt, asked):
    assert world.named_in(prompt) == asked
