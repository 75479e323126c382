"""Rows of a table of measurements: a figure and its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd

from chosen_one_nb.analysis.statistics import Statistic, bootstrap, mean

Row = tuple[str, str, float, float, float]
"""Part, figure, value, and the interval's ends, NaN where there is none."""
NONE = float("nan")


def row(part: str, figure: str, values: np.ndarray | pd.Series, statistic: Statistic = mean) -> Row:
    """A statistic of values of N images, (N,) or (N, ...), with its interval over images."""
    found = bootstrap(np.asarray(values, dtype=float), statistic)
    return part, figure, found.value, found.low, found.high
