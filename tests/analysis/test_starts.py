"""Trials of supervised starts: the parts of pass@1 and their changes by hand, and what the rule says."""

import math

import numpy as np
import pandas as pd
import pytest
from fakes import start_trials

from lrd import results
from lrd.analysis import starts
from lrd.analysis.starts import Serves
from lrd.presets import read_preset


def evaluated(step, *rows):
    """Problem, correct, answered, truncated, length."""
    names = ["problem", "correct", "answered", "truncated", "length"]
    return pd.DataFrame([dict(zip(names, row)) | {"step": step} for row in rows])


BEFORE = evaluated(
    0,
    ("seen-1-0", True, True, False, 10),
    ("seen-1-1", False, True, False, 10),
    ("unseen-2-2", False, False, False, 30),  # ends without a box
    ("unseen-2-3", False, True, True, 190),  # boxes, and is cut
)
AFTER = evaluated(
    100,
    ("seen-1-0", True, True, False, 40),
    ("seen-1-1", True, True, False, 20),
    ("unseen-2-2", False, True, False, 21),
    ("unseen-2-3", False, False, True, 192),
)
BOTH = starts.described(pd.concat([BEFORE, AFTER], ignore_index=True))


@pytest.mark.parametrize(
    ("part", "before", "after"),
    [
        ("pass@1", 1 / 4, 2 / 4),
        ("form", 2 / 4, 3 / 4),
        ("content", 1 / 2, 2 / 3),
        ("length", 60, 273 / 4),
        ("worked", 2 / 4, 3 / 4),
        ("content if worked", 0, 1 / 3),
    ],
)
def test_parts_and_their_changes_by_hand(part, before, after):
    assert starts.value(BOTH[BOTH.step == 0], part) == pytest.approx(before)
    assert starts.value(BOTH[BOTH.step == 100], part) == pytest.approx(after)
    changed = starts.change(BOTH, part)
    assert (changed.value, changed.n) == (pytest.approx(after - before), 2)
    assert math.isnan(changed.low)  # two templates give no interval


def test_templates_and_whether_they_were_seen():
    assert list(BOTH.template.unique()) == ["seen-1", "unseen-2"]
    assert list(BOTH.seen) == [True, True, False, False] * 2


def test_an_interval_is_over_templates_not_over_problems():
    """Half of 8 templates of 10 problems become right: ten times as many problems would be sqrt(10) times as sure."""
    evals = starts.described(
        pd.concat(
            evaluated(
                step, *((f"seen-{t}-{i}", step > 0 and t % 2 == 0, True, False, 9) for t in range(8) for i in range(10))
            )
            for step in (0, 100)
        )
    )
    drawn_together = starts.change(evals, "pass@1")
    one_by_one = starts.change(evals.assign(template=evals.problem), "pass@1")
    assert (drawn_together.n, one_by_one.n) == (8, 80) and drawn_together.value == one_by_one.value == 0.5
    assert one_by_one.high - one_by_one.low < (drawn_together.high - drawn_together.low) / 2
    one_each = evals[evals.problem.str.endswith("-0")]
    assert starts.change(one_each, "pass@1") == drawn_together


def test_the_table_has_every_part_of_every_cell(tmp_path):
    start_trials(tmp_path)
    frame = starts.table(results.load("smollm-starts", tmp_path))
    assert frame.cell.nunique() == 12 and len(frame) == 12 * (len(starts.PARTS) + 2 * 2)
    gained = frame[(frame.part == "pass@1")].set_index("problems")
    # of 24 seen templates with 5 problems and 6 unseen ones, one problem a seen template was right, and then two
    assert {p: gained.before[p].unique().tolist() for p in ("all", "seen", "unseen")} == {
        "all": [24 / 150], "seen": [24 / 120], "unseen": [0.0]
    }  # fmt: skip
    assert [change.value for change in gained.change["seen"]] == pytest.approx([0.2] * 12)
    assert [change.value for change in gained.change["unseen"]] == [0.0] * 12
    slow = starts.at_smaller_rate(frame)
    assert {(arm, rate) for arm, rate in zip(slow.arm, slow.learning_rate)} == {("full", 1e-5), ("r16", 1e-4)}


def test_no_cell_makes_an_empty_table(tmp_path):
    found = results.load("smollm-starts", tmp_path)
    frame = starts.table(found)
    assert not len(frame) and not len(starts.at_smaller_rate(frame))
    assert set(starts.judged(found.cells).values()) == {Serves.OPEN}


def planned(**changes):
    """A start whose arms gain 0.12 from 0.2 in each of three seeds, but for `changes`: name of a cell → base, final."""
    kinds = [("full", 1e-5, "full"), ("r16", 1e-4, "slow"), ("r16", 3e-4, "fast")]
    rows = []
    for arm, rate, name in kinds:
        for seed in range(3):
            base, final = changes.get(f"{name}_{seed}", changes.get(name, (0.2, 0.32)))
            rows.append(dict(start="x", arm=arm, learning_rate=rate, seed=seed, base=base, final=final))
    return pd.DataFrame(rows)


ABSENT = (np.nan, np.nan)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, Serves.YES),
        ({"fast": (0.2, 0.1)}, Serves.YES),  # one rate of an arm is enough
        ({"fast": ABSENT}, Serves.YES),
        ({"full_1": ABSENT}, Serves.OPEN),
        ({"slow_1": ABSENT, "fast": ABSENT}, Serves.OPEN),
        ({"slow_1": (0.2, 0.3), "fast": ABSENT}, Serves.OPEN),  # the other rate may still
        ({"full_1": (0.2, 0.3)}, Serves.NO),
        ({"slow_1": (0.2, 0.3), "fast_2": (0.2, 0.3)}, Serves.NO),
        ({"full": (0.14, 0.9), "slow": ABSENT, "fast": ABSENT}, Serves.NO),  # from too low a base
        ({"slow": (0.46, 0.9)}, Serves.NO),  # from too high a one
        ({"full": (0.15, 0.27), "slow": (0.45, 0.57)}, Serves.YES),  # the ends are within
        ({"full": ABSENT, "slow": ABSENT, "fast": ABSENT}, Serves.OPEN),
    ],
)
def test_the_verdict_turns_with_the_data(changes, word):
    assert starts.judged(planned(**changes)) == {"x": word}


def test_a_gain_of_just_the_least_counts():
    assert 0.27 - 0.15 != 0.12  # in floating point
    assert starts.judged(planned(full=(0.15, 0.27), slow=(0.19875, 0.31875))) == {"x": Serves.YES}


def test_the_rule_is_the_presets():
    statistic = read_preset("smollm-starts")["about"]["statistic"]
    assert f"gain at least {starts.GAIN:g} in each of three seeds" in statistic
    assert f"between {starts.LEAST_BASE:g} and {starts.MOST_BASE:g}" in statistic
    cells = results.load("smollm-starts", "nowhere").cells
    assert cells.groupby(["start", "arm", "learning_rate"]).seed.nunique().eq(3).all()
