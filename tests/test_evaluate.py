"""Measuring and evaluating: figures by hand; scores are read again only for the same models, prompt and settings."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from menagerie import world
from menagerie.evaluate import (
    LINE,
    SIDE,
    agreement,
    context_present,
    evaluate,
    identity_agreement,
    image_sheet,
    interval,
    prompt_table,
    score_clusters,
    table,
)
from menagerie.measure import entropy, hits, mean_over_kinds, pose_rows, posed, prompts, row
from menagerie.reader import Reader


def scored(folder, models, settings, prompt="a fox", **more):
    return evaluate(prompt, models, None, settings, folder, **more)


def test_scores_of_other_settings_or_another_prompt_are_not_taken_for_these(tmp_path, models, quick, monkeypatch):
    monkeypatch.setattr("menagerie.evaluate.score", lambda run, reader: {"prompt": run.prompt})
    settings = quick.replace(n_images=6, max_iterations=1)
    first = scored(tmp_path, models, settings)
    assert first["seconds"] > 0
    monkeypatch.setattr("menagerie.evaluate.score", lambda run, reader: pytest.fail("scored again"))
    assert scored(tmp_path, models, settings) == first == json.loads((tmp_path / "scores.json").read_text())
    with pytest.raises(SystemExit, match="got those of others"):
        scored(tmp_path, models, settings.replace(seed=5))
    with pytest.raises(SystemExit, match="got those of others"):
        scored(tmp_path, models, settings, "a cat")
    monkeypatch.setattr("menagerie.evaluate.score", lambda run, reader: {"prompt": "by another reader"})
    other = scored(tmp_path, models, settings, ruler="another reader")
    assert other["prompt"] == "by another reader"
    assert other["seconds"] > 0.5 * first["seconds"], "the run is not made again, and its seconds stay"


def test_agreement_and_entropy_by_hand():
    assert agreement(["red", "red", "blue"]) == pytest.approx(1 / 3)
    assert agreement(["red"] * 4) == 1
    assert np.isnan(agreement(["red"]))
    assert entropy(pd.Series(["a", "b"])) == pytest.approx(np.log(2))


def test_images_of_one_seed_are_no_evidence():
    """Two contexts on the same two seeds, each seed of one colour throughout: by its noise, not by a character."""
    colours, seeds = ["red", "blue", "red", "blue"], [0, 1, 0, 1]
    assert agreement(colours) == pytest.approx(1 / 3)
    assert agreement(colours, seeds) == 0
    read = pd.DataFrame(dict.fromkeys(world.IDENTITY, colours) | {"kind": ["fox"] * 4})
    assert identity_agreement(read, seeds) == pytest.approx(1 / len(world.IDENTITY))
    assert np.isnan(agreement(["red", "red"], [3, 3]))


def gallery():
    """Six images in three clusters: the first of one identity in two places, the second of two identities in one
    place, the third too small."""
    kinds, places = ["fox", "fox", "cat", "cat", "dog", "owl"], ["snow", "city", "beach", "beach", "beach", "room"]
    read = pd.DataFrame(dict.fromkeys(world.IDENTITY, kinds) | {"place": places})
    return read, np.array([0, 0, 1, 1, 1, 2]), np.array([True, True, False])


def test_the_chosen_cluster_beside_the_best_and_the_whole():
    found = score_clusters(*gallery(), chosen=(2, 3, 4))
    assert found == pytest.approx(
        {"identity_first": 2 / 15, "identity_chosen": 1 / 3, "identity_best": 1, "place_first": 3 / 15,
         "place_chosen": 1})  # fmt: skip


def test_nothing_chosen_has_no_agreement():
    found = score_clusters(*gallery()[:2], np.zeros(3, bool), chosen=())
    assert np.isnan([found["identity_chosen"], found["identity_best"], found["place_chosen"]]).all()
    assert found["identity_first"] == pytest.approx(2 / 15)


def test_context_is_present_when_all_of_it_is():
    read = pd.DataFrame({"place": ["snow", "snow"], "action": ["book", "ball"]})
    asked = [{"place": "snow", "action": "book"}] * 2
    assert context_present(read, asked) == 0.5


def test_interval_holds_the_mean():
    value, low, high = interval([0.0, 1.0] * 20)
    assert low < value == 0.5 < high
    assert interval([2.0] * 5 + [np.nan]) == (2.0, 2.0, 2.0)
    assert np.isnan(interval([np.nan])).all()


def row_of(**more):
    numbers = ["ratio", "seconds", "place_first", "place_chosen"]
    numbers += [f"identity_{name}" for name in ("first", "chosen", "best", "final")]
    numbers += [f"identity_contexts{base}{way}" for base in ("", "_base") for way in ("", "_plain")]
    found = dict.fromkeys(numbers, 0.5) | {"outcome": "converged", "context_base": 0.8, "context": 0.6}
    return found | {"context_base_plain": 0.5, "context_plain": 0.2, "fell": True, "prompt": "a fox"} | more


def test_table_of_one_prompt():
    found = table(pd.DataFrame([row_of(identity_chosen=0.6, identity_best=0.8)])).set_index("figure")
    value, base = found["value"], found["base"]
    assert value["prompts that converged"] == 1
    assert value["galleries that fall to 0.8 of the first distance"] == 1
    assert value["asked context present, relative to the base model"] == pytest.approx(0.75)
    assert value["asked context present, relative to the base model, plain"] == pytest.approx(0.4)
    assert base["asked context present"] == pytest.approx(0.8)
    assert value["identity agreement, chosen relative to the best"] == pytest.approx(0.75)
    assert base["identity agreement, chosen relative to the best"] == pytest.approx(0.5 / 0.8)


def test_prompts_that_are_not_one_character_are_named():
    rows = [row_of(identity_contexts=value) for value in (0.79, 0.81)]
    assert prompt_table(pd.DataFrame(rows))["below"].tolist() == ["below 0.8", ""]


def test_a_sheet_has_two_rows_under_each_title():
    grey, red = Image.new("RGB", (64, 64), "grey"), Image.new("RGB", (128, 128), "red")
    sheet = image_sheet([[grey] * 8, [red] * 8] * 2, ["a fox", "a cat"])
    assert sheet.size == (8 * SIDE, 2 * (LINE + 2 * SIDE))
    column = [sheet.getpixel((5, y)) for y in (LINE + 5, LINE + SIDE + 5, 2 * LINE + 3 * SIDE + 5)]
    assert column == [(128, 128, 128), (255, 0, 0), (255, 0, 0)]
    assert sheet.crop((0, 0, 60, LINE)).getextrema()[0][0] < 128, "the title"


# --- measure ----------------------------------------------------------------------------------------------


def test_held_out_prompts_ask_for_something():
    assert all(len(caption.named) >= 4 for caption in prompts(20))


def test_posed_prompts_ask_for_a_pose_that_is_not_the_usual_one():
    wanted = [posed(caption) for caption in prompts(20, poses=True)]
    assert all(wanted)
    assert {name for one in wanted for name in one} == set(world.NEUTRAL)
    assert not any(world.NEUTRAL[name] == value for one in wanted for name, value in one.items())


def test_hits_are_of_what_was_asked_and_the_reader_knows():
    read = pd.DataFrame({"kind": ["fox", "cat"], "place": ["snow", "snow"]})
    found = hits([{"kind": "fox", "legs": "sitting"}, {"kind": "dog", "place": "snow"}], read)
    np.testing.assert_equal(found.to_numpy(), [[1, np.nan], [0, 1]])


def test_mean_over_kinds_counts_every_kind_once():
    asked = np.array([[1.0, np.nan], [1.0, 0.0], [1.0, np.nan]])
    assert mean_over_kinds(asked, np.ones((1, 3))) == pytest.approx([0.5])
    assert mean_over_kinds(asked, np.array([[1.0, 0.0, 1.0]])) == pytest.approx([1.0])  # the other kind: not asked
    _, _, value, low, high = row("asked", "mean", asked, mean_over_kinds)
    assert low <= value == 0.5 <= high


def test_poses_that_the_reader_finds(monkeypatch, quick):
    """Images are what was asked for, but for the arms, which hang down in all of them."""
    monkeypatch.setattr("menagerie.measure.drawn", lambda models, asked, settings: [c.named for c in asked])

    def obedient(images):
        return pd.DataFrame([world.NEUTRAL | posed_only(named) | {"arms": "down"} for named in images])

    found = {figure: value for _, figure, value, _, _ in pose_rows(None, obedient, 60, quick)}
    assert found["pose asked for and there, mean over kinds"] == pytest.approx(2 / 3)
    [arms] = [value for figure, value in found.items() if figure.startswith("  arms up")]
    [legs] = [value for figure, value in found.items() if figure.startswith("  legs sitting")]
    assert (arms, legs) == (0, 1)
    assert found["  the same where nobody asks for it"] == 0


def posed_only(named):
    return {name: value for name, value in named.items() if name in world.NEUTRAL}


def test_a_reader_without_poses_measures_none(monkeypatch, quick):
    monkeypatch.setattr("menagerie.measure.drawn", lambda models, asked, settings: asked)
    [(part, figure, *values)] = pose_rows(None, lambda images: pd.DataFrame({"kind": ["fox"] * len(images)}), 5, quick)
    assert (part, figure) == ("poses", "the reader knows no poses")
    assert np.isnan(values).all()


def test_images_of_two_sizes_are_read_at_one(request):
    """An image, and the same at twice its size, give the reader the same pixels where one size is asked for."""
    folder = request.config.rootpath / "data" / "menagerie" / "reader"
    small = Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    large = small.resize((128, 128), Image.Resampling.NEAREST)
    one, two = Reader(folder, size=64).pixels([small, large])
    assert one.shape == Reader(folder).pixels([large])[0].shape
    assert (one == two).all()
    assert not (Reader(folder).pixels([small])[0] == Reader(folder).pixels([large])[0]).all()
