"""The study: how it is made, what raters may know, what is kept of their answers, what the answers say."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers import studies
from PIL import Image

from chosen_one_nb import cli
from chosen_one_nb.models.images import ImageError
from chosen_one_nb.run.store import StoreError
from chosen_one_nb.study import Study, StudyError, analyse
from chosen_one_nb.widgets.rating import RatingPanel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))


@pytest.fixture
def study(tmp_path):
    return studies.study(tmp_path)


def items(study):
    return {item.id: item for item in study.key.items}


def rate_all(study, rater, sheet=0, rating=None):
    """Answer a whole sheet rightly where that is known, else as told or 3."""
    for position, name in enumerate(study.key.sheets[sheet]):
        item = items(study)[name]
        given = rating or (item.low if item.low > 1 else min(3, item.high))
        study.record(studies.line(study, rater, position, given, sheet))


# --- design


def test_each_character_is_asked_about_by_every_method_in_the_same_two_contexts(study):
    rated = pd.DataFrame([item.model_dump() for item in study.key.items if item.kind == "rated"])
    assert rated.groupby(["character", "method"]).question.value_counts().unstack().to_numpy().tolist() == [[2, 1]] * 12
    fit = rated[rated.question == "fit"]
    assert (fit.groupby("character").context.nunique() == 2).all()
    assert (fit.text == fit.character + " " + fit.context).all()


def test_order_is_seeded_mixed_and_ends_with_repeated_items(tmp_path):
    study, again, other = (studies.study(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert study.key == again.key != other.key
    for sheet in study.key.sheets:
        shown = [items(study)[name] for name in sheet]
        assert sum(first.question != second.question for first, second in pairwise(shown)) == 1  # two blocks
        for question in ("fit", "same"):
            block = [item for item in shown if item.question == question and item.kind != "training"]
            first = list({item.id: item for item in block}.values())
            assert len(block) > len(first) == len({item.id for item in first})
            assert block[: len(first)] == first
            followed = [a.character != b.character for a, b in pairwise([item for item in first if item.character])]
            assert all(followed)
    assert {items(study)[sheet[0]].question for sheet in study.key.sheets} == {"fit", "same"}


def test_characters_are_dealt_out_evenly_and_whole(tmp_path):
    study = studies.study(tmp_path, n_characters=6, per_rater=20, sheets=6)  # 9 items each: two characters a rater
    seen = [{items(study)[name].character for name in sheet} - {""} for sheet in study.key.sheets]
    assert {len(each) for each in seen} == {2}
    assert set(pd.Series([c for each in seen for c in each]).value_counts()) == {2}


def test_a_method_without_two_contexts_costs_the_character_only(tmp_path):
    table = studies.table(tmp_path)
    gone = [row for row in table["images"] if not (row["character"].endswith("0") and row["context"] != "in the snow")]
    manifest = {**table, "images": gone}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    study = Study.make(tmp_path, tmp_path / "study", side=32)
    assert study.key.left_out == ["a fox of kind 0: expected two contexts that every method has drawn, got 1"]
    assert str(study).startswith("3 characters by 3 methods")


# --- blinding


def test_raters_may_know_nothing_of_methods_seeds_and_files(study):
    page = (study.folder / "page" / "index.html").read_text()
    state = json.dumps(RatingPanel(study, "anna").get_state(), default=lambda value: value.hex())
    words = [*studies.METHODS, "1000", ".png", "golden", "pass_share"]
    assert not [word for word in words if word in page or word in state]
    listed = list(RatingPanel(study, "anna").shown["items"])
    assert listed == sorted(listed)
    shown = {path.name for path in (study.folder / "page").rglob("*")}
    assert not [name for name in shown if "method" in name or "100" in name]


def test_images_are_of_one_size_and_format_without_metadata(study):
    images = [Image.open(path) for path in (study.folder / "page" / "images").iterdir()]
    assert {(image.format, image.size) for image in images} == {("WEBP", (32, 32))}
    assert not any({"method", "exif", "xmp", "icc_profile"} & set(image.info) for image in images)


def test_text_from_a_manifest_ends_no_element_of_the_page(tmp_path):
    table = studies.table(tmp_path, n_characters=1)
    for row in table["images"]:
        row["character"] = "</script><b>&"
    (tmp_path / "manifest.json").write_text(json.dumps(table))
    Study.make(tmp_path, tmp_path / "study", side=32)
    assert (tmp_path / "study" / "page" / "index.html").read_text().count("</script>") == 2


# --- bad input when a study is made


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"images": []}, "at least 1 item"),
        ({"repeated": 2}, "less than or equal to 1"),
        ({"known": [{"kind": "golden", "question": "same", "files": []}]}, "at least 1 item"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path, change, told):
    with pytest.raises(StudyError, match=told):
        Study.make(studies.table(tmp_path, n_characters=1) | change, tmp_path / "study")
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("file", ["/etc/hostname", "../other/image.png", "a/../../b.png", ".hidden", "C:\\b.png", ""])
def test_a_manifest_reads_no_file_outside_its_folder(tmp_path, file):
    table = studies.table(tmp_path, n_characters=1)
    table["images"][0]["file"] = file
    (tmp_path / "manifest.json").write_text(json.dumps(table))
    with pytest.raises(StoreError, match="images: 0: file"):
        Study.make(tmp_path, tmp_path / "study")


def test_a_missing_image_is_named_and_leaves_no_study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = studies.table(tmp_path, n_characters=1)
    for path in tmp_path.glob("base*"):
        path.write_bytes(b"no image")
    with pytest.raises(ImageError, match="base model-0"):
        Study.make(pd.DataFrame(table["images"]), "study")
    with pytest.raises(StoreError, match=r"key\.json"):
        Study("study")


def test_a_single_method_is_no_comparison(tmp_path):
    rows = [row for row in studies.table(tmp_path)["images"] if row["method"] == "base model"]
    with pytest.raises(StudyError, match="Expected two methods"):
        Study.make({"images": rows}, tmp_path / "study")


def test_a_study_is_not_overwritten(study):
    with pytest.raises(StudyError, match="holds a study already"):
        Study.make(study.folder.parent / "drawn", study.folder)


# --- answers


def test_an_answer_is_a_line_at_once_and_undo_another(study):
    study.record(studies.line(study, "anna", 0, 4))
    study.record(studies.line(study, "anna", 0, None, number=2, supersedes=1))
    lines = (study.folder / "answers" / "anna.csv").read_text().splitlines()
    assert lines[0] == "study,rater,sheet,number,position,item,rating,ms,shown_at,supersedes,build"
    assert [line.split(",")[6] for line in lines[1:]] == ["4", ""]
    assert analyse(study).answers.empty
    study.record(studies.line(study, "anna", 0, 2, number=3))
    assert analyse(study).answers.rating.tolist() == [2]


@pytest.mark.parametrize(
    "wrong",
    [{"rating": 6}, {"rating": "<b>"}, {"rater": "a,b"}, {"rater": "../x"}, {"position": 1}, {"study": "other"},
     {"sheet": 99}, {"shown_at": "=1+1"}, {"build": "a,b"}],
)  # fmt: skip
def test_what_is_no_answer_is_not_kept(study, wrong):
    with pytest.raises(StudyError):
        study.record(studies.line(study, "anna", 0, 3) | wrong)
    assert study.read_answers() == ([], [])


def test_files_that_came_back_damaged_twice_or_as_something_else(study):
    rate_all(study, "anna")
    file = study.folder / "answers" / "anna.csv"
    (file.parent / "copy.csv").write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    file.write_text(file.read_text()[:-30])  # the last line is torn
    (file.parent / "empty.csv").write_text("")
    (file.parent / "huge.csv").write_text("study\n" + "x" * 200_000)
    (file.parent / "other.csv").write_text("a;b\n1;2\n")
    answers, problems = study.read_answers()
    assert len(answers) == len(study.key.sheets[0])
    assert [problem.split(" is")[0] for problem in problems] == [
        f"anna.csv, line {len(answers) + 1}", "huge.csv", "other.csv, line 2",
    ]  # fmt: skip


# --- results


def test_no_answers_give_dashes_and_reasons(study):
    results = analyse(study)
    assert results.methods["mean"].isna().all()
    assert "fit: a demonstration, without p values. Expected 3 raters, 8 characters" in str(results)
    assert "nan" not in str(results).lower()


def test_half_filled_answers_give_means_and_no_p_values(study):
    for position in range(9):
        study.record(studies.line(study, "anna", position, 4))
    results = analyse(study)
    assert results.raters.answers.tolist() == [9]
    assert set(results.methods["mean"].dropna()) == {4}
    assert results.methods.low.isna().all()  # one rater
    assert results.tests[["p", "paper: p"]].isna().all(axis=None)
    assert results.pairs[["p", "paper: p"]].isna().all(axis=None)


def test_careless_raters_are_left_out_and_repeated_items_count_once(study):
    rate_all(study, "anna")
    rate_all(study, "bob", rating=5)  # also where a red car was asked for
    results = analyse(study)
    assert results.raters.left_out.tolist() == ["", "golden items below 0.75"]
    assert results.raters.golden.tolist() == [1, 0.5]
    counted = results.answers[results.answers.counted]
    assert set(counted.rater) == {"anna"}
    assert len(counted) == len(counted.item.unique()) == 36
    assert results.raters.repeated["anna"] == 0


def test_means_by_hand_and_fast_answers(study):
    first, second = (next(p for p, name in enumerate(study.key.sheets[0]) if items(study)[name].method == method)
                     for method in studies.METHODS[:2])  # fmt: skip
    study.record(studies.line(study, "anna", first, 5, ms=100))
    study.record(studies.line(study, "anna", second, 1))
    results = analyse(study)
    question = items(study)[study.key.sheets[0][first]].question
    assert results.methods["mean"][f"{question}: {studies.METHODS[0]}"] == 5
    assert results.methods["mean"][f"{question}: {studies.METHODS[1]}"] == 1
    assert results.raters.fast.tolist() == [0.5]


def test_synthetic_raters_test_the_plumbing_and_are_never_mixed_with_people(tmp_path):
    import synthetic_ratings

    study = studies.study(tmp_path, n_characters=12, sheets=6)
    synthetic_ratings.fill(study, {"our method": 4.2}, spread=0.3)
    results = analyse(study)
    assert "SYNTHETIC RATINGS" in str(results)
    assert (results.tests.p < 0.05).all()
    assert results.pairs.loc["same: base model - our method", "p"] < 0.05
    assert results.pairs.loc["same: base model - textual inversion", "p"] > 0.05
    assert (results.methods.low < results.methods["mean"]).all()
    assert (results.tests.alpha.between(0, 1)).all()
    rate_all(study, "anna")
    with pytest.raises(StudyError, match="got both"):
        analyse(study)


def test_ratings_that_are_all_equal_have_no_p_value(tmp_path):
    study = studies.study(tmp_path, n_characters=8, sheets=3, per_rater=100)
    for sheet in range(3):
        rate_all(study, f"r{sheet}", sheet)
    results = analyse(study)
    assert results.tests.loc["fit", ["raters", "characters"]].tolist() == [3, 8]
    assert np.isnan(results.tests.loc["fit", "p"])


# --- widget and shell


def test_the_widget_keeps_each_answer_and_goes_on_where_it_stopped(study):
    panel = RatingPanel(study, "anna")
    item = panel.shown["sheets"][0][0]
    given = {"number": 1, "position": 0, "item": item, "rating": 4, "ms": 900, "shown_at": "", "supersedes": None}
    panel._handle_custom_msg(given, [])
    panel._handle_custom_msg(given, [])  # the same from a second view
    assert [line["rating"] for line in panel.lines] == [4]
    assert len(RatingPanel(study, "anna").lines) == 1
    assert RatingPanel(study, "bob").lines == []
    panel._handle_custom_msg(given | {"number": 2, "rating": 9}, [])
    assert "less than or equal to 5" in panel.problem
    with pytest.raises(StudyError, match="alias"):
        RatingPanel(study, "synthetic-1")


def test_from_the_shell(tmp_path, capsys):
    folder = tmp_path / "drawn"
    (folder / "manifest.json").write_text(json.dumps(studies.table(folder)))
    assert cli.main(["study", "make", str(folder), "--out", str(tmp_path / "s"), "--side", "32", "--sheets", "2"]) == 0
    assert "4 characters by 3 methods, 2 sheets" in capsys.readouterr().out
    assert cli.main(["study", "analyse", str(tmp_path / "s")]) == 0
    assert "a demonstration" in capsys.readouterr().out
    assert (tmp_path / "s" / "analysis" / "answers.csv").read_text().startswith("study,rater,")
    assert cli.main(["study", "analyse", str(tmp_path)]) == 1
    assert "key.json" in capsys.readouterr().err
