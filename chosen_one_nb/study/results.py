"""What the answers say. The unit is the character: other raters of the same characters are no new evidence of a method.

Three levels, as far as there are answers for them: means with intervals over characters and raters; the paper's tests
(Kruskal-Wallis and Tukey's HSD, section 4.2), which treat every rating as independent and so find differences that are
not there (``python tools/false_alarms.py``); and the decision by character (Friedman, max-T permutation of pairs).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kruskal, tukey_hsd

from chosen_one_nb.analysis.statistics import friedman, interval, krippendorff_alpha, max_t, two_way
from chosen_one_nb.run import store
from chosen_one_nb.settings import user_path
from chosen_one_nb.study.records import QUESTIONS, Answer, StudyError
from chosen_one_nb.study.study import Study

RATERS, CHARACTERS = 3, 8
"""With fewer there is no p value: what was made is a demonstration."""
FAST = 700
"""Milliseconds below which an answer is counted as fast."""
MODEL = """answers <- subset(read.csv("answers.csv"), counted == "True" & question == "same")
ordinal::clmm(factor(rating) ~ method + (1|rater) + (1|character) + (1|method:character), data = answers)"""
"""The ordinal mixed model, in R; no Python package here fits it."""


@dataclass
class StudyResults:
    """The tables of a study; NaN where there is too little to say, and ``notes`` say why.

    Attributes
    ----------
    answers : DataFrame
        A row per answer that stands, unblinded: with its item's method, character, context and seeds, and whether it
        is ``counted``: not those to golden and training items, second answers, and of raters who are left out.
    raters : DataFrame
        By rater: answers, ``golden`` (share of golden items answered rightly), ``repeated`` (mean distance of the two
        answers to one item), ``fast`` (share), ``left_out``.
    methods : DataFrame
        By question and method: mean, low, high (95 %, other characters and raters drawn; from two of each), ratings.
    tests : DataFrame
        By question: raters, characters, alpha (Krippendorff, ordinal), the decision's Friedman statistic and p, and as
        the paper Kruskal-Wallis H and p.
    pairs : DataFrame
        By question and pair of methods: difference, p of the decision, and as the paper p of Tukey's HSD.
    notes : list of str
    """

    answers: pd.DataFrame
    raters: pd.DataFrame
    methods: pd.DataFrame
    tests: pd.DataFrame
    pairs: pd.DataFrame
    notes: list[str]

    def __str__(self) -> str:
        tables = {
            "Raters": self.raters,
            "Means, with 95 % intervals over characters and raters": self.methods,
            "Decision by character; as the paper (treats every rating as independent)": self.tests,
            "Pairs: decision by character; as the paper": self.pairs,
        }
        form = {"na_rep": "–", "float_format": "{:.3g}".format}
        shown = [f"{title}\n{table.to_string(**form) if len(table) else '–'}" for title, table in tables.items()]
        return "\n\n".join([*shown, f"Ordinal mixed model, in R\n{MODEL}", "\n".join(self.notes)])

    def write(self, folder: str | Path) -> Path:
        """Write ``answers.csv`` and ``analysis.txt`` into a folder, and return it."""
        folder = store.make_folder(user_path("folder", folder, StudyError))
        store.write_bytes(folder / "answers.csv", self.answers.to_csv(index=False).encode())
        store.write_bytes(folder / "analysis.txt", f"{self}\n".encode())
        return folder


def analyse(study: Study) -> StudyResults:
    """Analyse the answers there are; too few, or none, give dashes and reasons.

    Raises
    ------
    StudyError
        Synthetic answers lie among those of people.
    """
    read, notes = study.read_answers()
    answers = _unblinded(study, read)
    if (synthetic := answers.rater.str.startswith("synthetic")).any():
        if not synthetic.all():
            raise StudyError("Expected answers by people, or synthetic ones alone, got both. Take the latter away.")
        notes.append("SYNTHETIC RATINGS: a test of the plumbing, no evidence of anything.")
    raters = _raters(answers, study.key.pass_share)
    kept = answers.rater.isin(raters.index[raters.left_out == ""])
    first = ~answers.duplicated(["rater", "item"])  # the second answer to a repeated item is a check
    answers["counted"] = kept & first & (answers.kind == "rated")
    rated = answers[answers.counted]
    methods = sorted({item.method for item in study.key.items if item.kind == "rated"})
    parts = [_compare(question, rated[rated.question == question], methods) for question in QUESTIONS]
    means, tests, pairs = (pd.concat(each) for each in zip(*parts, strict=True))
    for question, row in tests[tests.p.isna()].iterrows():
        notes.append(
            f"{question}: a demonstration, without p values. Expected {RATERS} raters, {CHARACTERS} characters rated "
            f"for every method, and ratings that differ; got {row.raters:.0f} and {row.characters:.0f}."
        )
    return StudyResults(answers, raters, means, tests, pairs, [*notes, *study.key.left_out])


def _unblinded(study: Study, read: list[Answer]) -> pd.DataFrame:
    """Return the answers that stand, the last at each place, in the order of the sheets, with what was shown."""
    withdrawn = {(answer.rater, answer.supersedes) for answer in read}
    standing = [answer for answer in read if answer.rating and (answer.rater, answer.number) not in withdrawn]
    items = pd.DataFrame([item.model_dump(exclude={"files", "note"}) for item in study.key.items])
    rows = pd.DataFrame([answer.model_dump() for answer in standing], columns=list(Answer.model_fields))
    rows = rows.sort_values(["rater", "position", "number"]).drop_duplicates(["rater", "position"], keep="last")
    return rows.astype({"rater": str, "item": str}).merge(items, left_on="item", right_on="id").drop(columns="id")


def _raters(answers: pd.DataFrame, pass_share: float) -> pd.DataFrame:
    """Tell careless raters by what was fixed before anybody was asked."""
    rows = {}
    for rater, own in answers.groupby("rater"):
        golden = own[own.kind == "golden"]
        right = golden.rating.between(golden.low, golden.high).mean()
        twice = own[own.kind == "rated"].groupby("item").rating.agg(["count", np.ptp]).query("count > 1")
        reason = f"golden items below {pass_share:g}" if right < pass_share else ""
        rows[rater] = (len(own), right, twice["ptp"].mean(), (own.ms < FAST).mean(), reason)
    return pd.DataFrame.from_dict(rows, "index", columns=["answers", "golden", "repeated", "fast", "left_out"])


def _compare(question: str, rated: pd.DataFrame, methods: list[str]) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return one question's rows of `StudyResults`' tables of methods, tests and pairs."""
    by_character = rated.pivot_table("rating", "character", "method").reindex(columns=methods)
    scores = by_character.dropna().to_numpy(float)
    n_raters = rated.rater.nunique()
    decided = max_t(scores)
    unknown = np.full_like(decided.p, np.nan)
    chi, p, h, pooled_p, p_pairs, tukey = np.nan, np.nan, np.nan, np.nan, unknown, unknown
    if n_raters >= RATERS and len(scores) >= CHARACTERS and np.ptp(rated.rating):
        by_method = [rated.rating[rated.method == method] for method in methods]
        h, pooled_p = kruskal(*by_method)
        tukey, p_pairs = tukey_hsd(*by_method).pvalue, decided.p
        chi, p = friedman(scores) if len(methods) > 2 else (np.nan, decided.p[0, 1])
    alpha = krippendorff_alpha(rated.pivot_table("rating", "rater", "item").to_numpy(float))
    row = {"raters": n_raters, "characters": len(scores), "alpha": alpha}
    row |= {"Friedman": chi, "p": p, "paper: H": h, "paper: p": pooled_p}
    first, second = np.triu_indices(len(methods), 1)
    columns = {"difference": decided.difference, "p": p_pairs, "paper: p": tukey}
    names = [f"{question}: {methods[a]} - {methods[b]}" for a, b in zip(first, second, strict=True)]
    tests = pd.DataFrame(row, index=[question])
    pairs = pd.DataFrame({name: table[first, second] for name, table in columns.items()}, index=names)
    return _means(question, rated).reindex([f"{question}: {method}" for method in methods]), tests, pairs


def _means(question: str, rated: pd.DataFrame) -> pd.DataFrame:
    """Return mean, interval over characters and raters, and number of ratings of each method that has any."""
    if rated.empty:
        return pd.DataFrame(columns=["mean", "low", "high", "ratings"], dtype=float)
    cells = rated.groupby(["character", "rater", "method"]).rating.mean().unstack()
    sides = cells.index.levels  # characters, raters
    grid = cells.reindex(pd.MultiIndex.from_product(sides)).to_numpy(float).reshape(*map(len, sides), -1)
    several = min(map(len, sides)) > 1  # of one rater, or one character, nothing tells how others would differ
    low, high = interval(two_way(grid)) if several else (np.nan, np.nan)
    means = {"mean": np.nanmean(grid, axis=(0, 1)), "low": low, "high": high}
    table = pd.DataFrame(means, index=cells.columns).assign(ratings=rated.method.value_counts())
    return table.set_axis([f"{question}: {method}" for method in table.index])
