"""What a group of pictures shares that the rest does not have, corrected for looking at many things at once.

Everything starts from CLIP's vectors of the pictures and of a vocabulary's texts. `presence` turns them into one
number per picture and attribute, `contrast` compares a group with the rest, `leave_out` and `prefer_least` turn a
finding into a decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from chosen_one_nb.looking.statistics import auroc, balanced, random_groups, standardised, two_kinds
from chosen_one_nb.looking.vocabulary import Attribute, Vocabulary

__all__ = ["Presence", "Suggestion", "contrast", "leave_out", "most_and_least", "prefer_least", "presence", "explain"]
