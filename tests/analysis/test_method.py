"""What differs from the original, by hand."""

import json

import pytest
from fakes import write_lines, write_run

from lrd import results
from lrd.analysis import method
from lrd.analysis.stats import Verdict


def test_peaks_and_ends_by_hand(tmp_path):
    write_run(tmp_path, "process", 1, 0, {0: 10, 10: 20, 20: 2})  # of 20: base 0.5, peak 1.0, final 0.1
    write_run(tmp_path, "process", 4, 0, {0: 10, 10: 16, 20: 4})  # peak 0.8, final 0.2
    above = method.above_base(results.load("tiny", tmp_path))
    assert above == {"process": pytest.approx((0.4, -0.35))}


def test_bars_that_overlap_and_bars_that_stand_apart(tmp_path):
    for seed, (one, four, full) in enumerate([(10, 20, 10), (12, 20, 11), (14, 20, 12)]):
        for rank, right in ((1, one), (4, four), (None, full)):
            write_run(tmp_path, "outcome", rank, seed, {0: 5, 10: right})
    # r1: 0.60 ± 0.10 against 0.55 ± 0.05; r4: 1.00 ± 0.00, and 8 to 10 problems more in each seed
    verdicts = method.bars(results.load("tiny", tmp_path))
    assert verdicts == {True: {Verdict.UNDECIDED: 1}, False: {Verdict.AHEAD: 1}}


def test_the_time_of_a_third_pass(tmp_path):
    path = write_run(tmp_path, "outcome", 1, 0, {0: 5, 2: 10}) / "metrics.jsonl"
    rows = [json.loads(line) | {"step_time": 2.0, "time/update": 1.5} for line in path.read_text().splitlines()]
    write_lines(path, rows)
    assert method.third_pass(results.load("tiny", tmp_path)) == {"outcome": 0.25}
    assert method.third_pass(results.load("tiny", tmp_path / "none")) == {}
