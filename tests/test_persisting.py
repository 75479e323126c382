"""Whether flagged attributes persist: counts and intervals by hand, and a run whose images are words."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from chosen_one_nb.analysis.vocabulary import read_vocabulary
from menagerie import persisting, world
from menagerie.persisting import cases, in_contexts, odds_ratio, odds_rows, persists, run_table, shown

TEXTS = [text for text, _ in world.CONTEXTS]
SEEDS = 4


def attributes(a, b, c, d, **more):
    """Flagged and persisting, flagged only, persisting only, neither."""
    kinds = [(True, True)] * a + [(True, False)] * b + [(False, True)] * c + [(False, False)] * d
    return pd.DataFrame(kinds, columns=["flagged", "persists"]).assign(seen=True, answer="incidental", **more)


def values(rows, figure):
    return [value for _, name, value in rows if figure in name]


@pytest.mark.parametrize(
    ("counts", "ratio"),
    [((9, 1, 2, 8), 9.5 * 8.5 / (1.5 * 2.5)), ((5, 5, 5, 5), 1.0), ((2, 0, 0, 7), 2.5 * 7.5 / (0.5 * 0.5))],
)
def test_the_odds_ratio_by_hand(counts, ratio):
    assert odds_ratio(cases(attributes(*counts))) == pytest.approx(ratio)


def test_the_interval_is_over_prompts():
    same = pd.concat([attributes(3, 1, 2, 30, prompt=str(i)) for i in range(6)])
    rows = odds_rows(same, repeats=50)
    ratio = float(odds_ratio(np.array([18, 6, 12, 180])))
    assert values(rows, "odds ratio over 6 prompts")[0] == pytest.approx(ratio)
    assert values(rows, "interval")[:2] == pytest.approx([ratio] * 2)  # whichever prompts are drawn, shares stay


def test_the_interval_of_two_prompts_by_hand():
    """Drawn are: twice the first (1/4), one of each (1/2), twice the second (1/4); so the ends are those of pairs."""
    table = pd.concat([attributes(4, 0, 0, 4, prompt="a"), attributes(0, 4, 4, 0, prompt="b")])
    low, high = persisting.ratio_interval(table, repeats=2000)
    assert high == pytest.approx(8.5 * 8.5 / (0.5 * 0.5))
    assert low == pytest.approx(1 / high)


def test_no_prompts_have_no_interval():
    assert np.isnan(persisting.ratio_interval(attributes(0, 0, 0, 0, prompt="a"))).all()


def test_what_no_chosen_image_shows_is_not_compared_with():
    nowhere = attributes(0, 0, 0, 90, prompt="a").assign(seen=False)
    rows = odds_rows(pd.concat([attributes(2, 1, 1, 2, prompt="a"), nowhere]), repeats=10)
    first, flattering, _ = values(rows, "odds ratio")
    assert first == pytest.approx(2.5 * 2.5 / (1.5 * 1.5))
    assert flattering == pytest.approx(2.5 * 92.5 / (1.5 * 1.5))


@pytest.mark.parametrize(
    ("base", "character", "answer"),
    [(0, 32, True), (16, 16, False), (0, 5, False), (0, 6, False), (0, 7, True), (32, 0, False)],
)
def test_persisting_is_more_than_the_base_model_beyond_luck(base, character, answer):
    """One-sided p of 0 and 6 of 32 is 0.012, of 0 and 7 it is 0.005."""
    assert persists(np.arange(32) < base, np.arange(32) < character) is answer


def test_a_context_that_asks_for_the_value_itself_is_left_out():
    read = pd.DataFrame({"place": ["snow"] * len(TEXTS) * SEEDS, "context": np.repeat(range(len(TEXTS)), SEEDS)})
    assert len(shown(read, "place", "snow")) == (len(TEXTS) - 1) * SEEDS
    assert shown(read, "place", "snow").all()  # at the beach, too, where it does not belong
    assert len(shown(read, "place", "underwater")) == len(TEXTS) * SEEDS


def test_a_context_is_remembered_with_what_the_reader_sees():
    asked = []

    def contexts(node, texts, base, weight):
        asked.append(base)
        return {text: [text, text] for text in texts}

    run = SimpleNamespace(samples=SimpleNamespace(contexts=contexts))
    read = in_contexts(run, None, lambda images: pd.DataFrame({"place": images}))
    assert asked == [True]
    assert [TEXTS[at] for at in read["context"]] == read["place"].tolist()


VOCABULARY = read_vocabulary({"groups": {
    "place": {"kind": "incidental", "one_of": True, "phrases": ["at the beach", "in the snow", "underwater"]},
    "kind": {"kind": "identity", "one_of": True, "phrases": ["a fox", "a cat"]},
}})  # fmt: skip


class WordRun:
    """A run whose images are dicts; Θ draws everything under water, whatever is asked for."""

    prompt = "a fox"
    root = SimpleNamespace(
        refined=True,
        images=[{"place": place, "kind": "fox"} for place in ("underwater", "underwater", "beach", "snow")],
        decision=SimpleNamespace(images=(0, 1, 2)),
    )

    @property
    def samples(self):
        return self

    @property
    def attributes(self):
        return self

    def inquiry(self, node, vocabulary):
        assert node is self.root
        names = [attribute.name for attribute in vocabulary.attributes]
        findings = pd.DataFrame({"finding": [name in ("underwater", "a fox") for name in names], "answer": [
            "asked" if name == "a fox" else attribute.kind
            for name, attribute in zip(names, vocabulary.attributes, strict=True)]})  # fmt: skip
        return SimpleNamespace(findings=lambda: findings.iloc[::-1])  # its order is not that of the vocabulary

    def contexts(self, node, texts, base, weight):
        places = [wanted.get("place", "plain") if base else "underwater" for _, wanted in world.CONTEXTS]
        return {text: [{"place": place, "kind": "fox"}] * SEEDS for text, place in zip(texts, places, strict=True)}


def test_a_run_that_holds_on_to_what_was_flagged(capsys):
    table = persisting.timed(WordRun(), VOCABULARY, pd.DataFrame).set_index("value")
    assert "1 flagged, 1 of them persist (place underwater)" in capsys.readouterr().out
    assert set(table.index) == {"underwater", "beach", "snow"}  # the prompt has said what kind it is
    assert table.flagged.to_dict() == table.persists.to_dict() == {"underwater": True, "beach": False, "snow": False}
    assert table.seen.to_dict() == {"underwater": True, "beach": True, "snow": False}
    assert table.chosen["underwater"] == pytest.approx(2 / 3)
    assert (table.base["underwater"], table.character["underwater"]) == (0, 1)


def test_what_the_reader_does_not_know_is_not_counted():
    """Poses came into the world after some readers had learnt."""
    words = read_vocabulary({"groups": {"legs": {"kind": "incidental", "phrases": ["sitting"]}}})
    assert run_table(WordRun(), words, pd.DataFrame).empty


def test_a_run_that_was_not_refined_is_refined_first():
    run, done = WordRun(), []
    run.root = SimpleNamespace(**{**vars(WordRun.root), "refined": False})
    run.select, run.next_iteration = done.append, lambda: done.append("refined")
    run_table(run, VOCABULARY, pd.DataFrame)
    assert done == [run.root, "refined"]
