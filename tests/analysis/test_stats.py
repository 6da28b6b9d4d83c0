"""Paired differences by hand, and what they say of an arm, of density and of rank."""

import math

import pytest
from fakes import falling, matrix, write_run

from lrd import results
from lrd.analysis import stats
from lrd.analysis.stats import Difference, Trend, Verdict


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
    verdicts = {regime: d.verdict for regime, d in stats.lowest_against_full(found).items()}
    assert verdicts == {"outcome": Verdict.UNDECIDED, "process": Verdict.BEHIND, "distillation": Verdict.BEHIND}
    assert Difference(0.3, 0.1, 0.5, 3).verdict is Verdict.AHEAD
    assert Difference(0.3, math.nan, math.nan, 1).verdict is Verdict.UNDECIDED
    assert stats.below_base(found) == {"outcome": (0, 9), "process": (6, 9), "distillation": (0, 9)}
    assert stats.deposits_at_start(found) == {"outcome": 1, "process": 10, "distillation": 100}


def test_a_trend_falls_from_each_regime_to_the_next(tmp_path):
    assert stats.trend(stats.lowest_against_full(results.load("tiny", falling(tmp_path / "a")))) is Trend.FALLS
    assert stats.trend(stats.lowest_against_full(results.load("tiny", matrix(tmp_path / "b")))) is Trend.OTHER
    assert stats.trend({"outcome": Difference(0.3, 0.1, 0.5, 3)}) is Trend.UNKNOWN


def test_an_order_of_differences_that_may_all_be_zero_is_no_trend():
    falls = {regime: Difference(mean, mean - 1, mean + 1, 3) for regime, mean in (("a", 0.2), ("b", 0.1), ("c", 0.0))}
    assert stats.trend(falls) is Trend.NONE


def test_a_gap_that_every_rank_has_is_not_laid_to_rank(tmp_path):
    for seed in range(3):
        for rank, process, outcome in (
            (1, 2, 4),
            (4, 2, 5),
            (16, 3, 8),
            (64, 2, 8),
            (256, 1 + seed, 9),
            (None, 12, 12),
        ):
            write_run(tmp_path, "process", rank, seed, {0: 10, 10: process + seed % 2})
            write_run(tmp_path, "outcome", rank, seed, {0: 10, 10: outcome + seed % 2})
            noisy = 12 if rank is None else 10 + (seed - 1) * (rank == 256)
            write_run(tmp_path, "distillation", rank, seed, {0: 10, 10: noisy})
    # Under outcome every rank ends below full fine-tuning, too, but the more so the smaller it is; under distillation
    # the interval from lowest to highest is as wide as the gap.
    assert stats.beyond_rank(results.load("tiny", tmp_path)) == ["process"]


def test_of_nothing_nothing_is_known(tmp_path):
    empty = results.load("tiny", tmp_path)
    assert stats.lowest_against_full(empty) == stats.below_base(empty) == stats.deposits_at_start(empty) == {}
    assert stats.beyond_rank(empty) == []
