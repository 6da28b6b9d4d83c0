"""Paired differences by hand, and what they say of an arm."""

import math

import pytest
from fakes import matrix, write_run

from lrd import results
from lrd.analysis import stats
from lrd.analysis.stats import Difference, Verdict


def test_paired_difference_by_hand(tmp_path):
    for seed, (low, full) in enumerate([(10, 8), (12, 12), (14, 10)]):
        write_run(tmp_path, "outcome", 1, seed, {0: 5, 10: low})
        write_run(tmp_path, "outcome", None, seed, {0: 5, 10: full})
    write_run(tmp_path, "process", 1, 0, {0: 5, 10: 0})
    found = results.load("tiny", tmp_path)
    d = stats.paired(found.finished, "outcome", "r1", "full")
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's quantile with two degrees of freedom; the gaps are 0.1, 0, 0.2
    assert d is not None and (d.mean, d.low, d.high) == pytest.approx((0.1, 0.1 - half, 0.1 + half))
    assert d.n == 3 and d.includes_zero
    assert stats.paired(found.finished, "process", "r1", "full") is None
    one = stats.paired(found.finished[found.finished.seed == 0], "outcome", "r1", "full")
    assert one is not None and one.n == 1 and math.isnan(one.low) and one.includes_zero


def test_verdicts_and_ends_below_the_base(tmp_path):
    found = results.load("tiny", matrix(tmp_path))
    pairs = {regime: stats.paired(found.finished, regime, "r1", "full") for regime in found.regimes}
    verdicts = {regime: d.verdict for regime, d in pairs.items() if d}
    assert verdicts == {"outcome": Verdict.UNDECIDED, "process": Verdict.BEHIND, "distillation": Verdict.BEHIND}
    assert Difference(0.3, 0.1, 0.5, 3).verdict is Verdict.AHEAD
    assert Difference(0.3, math.nan, math.nan, 1).verdict is Verdict.UNDECIDED
    assert stats.below_base(found) == {"outcome": (0, 9), "process": (6, 9), "distillation": (0, 9)}
    assert stats.deposits_at_start(found) == {"outcome": 1, "process": 10, "distillation": 100}


def test_of_nothing_nothing_is_known(tmp_path):
    empty = results.load("tiny", tmp_path)
    assert stats.below_base(empty) == stats.deposits_at_start(empty) == {}
