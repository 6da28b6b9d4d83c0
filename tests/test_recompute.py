"""The start page's numbers against those of a script that shares no code with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrd import ROOT, results
from lrd.analysis import objections
from lrd.report import answer
from lrd.report.text import signed


def test_a_script_without_our_code_finds_the_same_numbers():
    runs = Path(os.environ.get("LRD_RUNS", ROOT / "runs"))
    found = results.load("fair", runs)
    if len(found.finished) < len(found.cells):
        pytest.skip(f"{len(found.cells) - len(found.finished)} cells of preset fair are not among these runs")
    command = [sys.executable, str(Path(__file__).with_name("recompute.py")), str(runs)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    theirs = {reward: list(map(float, values)) for reward, *values in map(str.split, printed.splitlines())}
    last = {regime: each["final"].mean for regime, each in objections.by_measure(found).items()}
    assert list(theirs) == sorted(found.regimes)
    for regime, _, full, adapters, gap, slope, _ in answer.rows(found):
        full_again, mean, gap_again, last_again, slope_again = theirs[regime]
        assert full.split()[-1] == f"{full_again:.3f}"
        assert gap.split()[0] == signed(gap_again) and slope.split()[0] == signed(slope_again, 4)
        assert float(adapters.split()[0]) <= mean <= float(adapters.split()[-1])
        assert signed(last[regime]) == signed(last_again)
