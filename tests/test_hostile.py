"""A small share of `tools/hostile.py`: bad inputs end in one sentence of the kit's own."""

from __future__ import annotations

from pathlib import Path

from tools.hostile import cases, outcome

SHARE = 11


def test_a_share_of_the_hostile_inputs_is_told(tmp_path: Path):
    found = {f"{case.family}: {case.name}": outcome(case) for i, case in enumerate(cases(tmp_path)) if i % SHARE == 0}
    assert len(found) > 40
    assert {name: what for name, what in found.items() if what not in ("told", "harmless")} == {}
