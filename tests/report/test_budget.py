"""The capacity budget's words and tables, where `sentences.txt` does not have them."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lrd import results
from lrd.analysis import budget
from lrd.analysis.budget import Budget
from lrd.report import budget as page, figures
from lrd.report.text import times


@pytest.mark.parametrize(
    ("at_most", "ratios", "ending"),
    [
        (0.8, [0.5, 0.5], "0.80 times what its arm holds (the smallest: 200 bits): every arm has room for all of it"),
        (0.05, [0.01, 0.01], "holds (the smallest: 200 bits), far below 1: every arm has room for all of it"),
        (8.0, [math.nan] * 2, "; what was delivered is not measured, and so a flat curve decides nothing yet."),
        (8.0, [0.2, 0.1], "but 0.20 times at most was measured: going by that, a flat curve decides nothing."),
        (8.0, [0.02, 0.01], "but 0.020 times at most was measured, far below 1: going by that, a flat curve"),
        (8.0, [3.0, 0.1], "1 of 2 cells were sent more than they hold, the others have room for all that was measured"),
        (
            8.0,
            [3.0, 2.0],
            "up to 3.0 times was measured: 2 of 2 cells were sent more than they hold, no arm has room",
        ),
    ],
)
def test_verdicts(at_most, ratios, ending):
    frame = pd.DataFrame({"regime": "process", "capacity": [200.0, 800.0], "largest_ratio": at_most, "ratio": ratios})
    assert ending in page.verdict(frame, "process")
    assert page.verdict(frame, "outcome") == "Under outcome nothing has been measured."


def test_what_follows_for_outcomes():
    texts = [page.consequence(Budget(100, 100.0, size, 2 * size)) for size in (math.nan, 10.0, 100.0)]
    assert [text.split(" ")[2] for text in texts] == ["is", "be", "less"]


def test_without_runs_every_piece_is_still_shown(tmp_path):
    found = results.load("tiny", tmp_path)
    frame, problems = budget.cells(found, tmp_path)
    assert not len(frame) and problems == []
    texts = [page.table(frame), page.cell_table(found, frame), page.table(budget.scale("paper"))]
    assert all(texts) and not any("nan" in text for text in texts)
    for theirs in (budget.scale("paper"), frame):
        plt.close(figures.budget(frame, theirs, found))


def test_numbers_as_shown():
    shown = {0.187: "0.19", 5.24: "5.2", 1320.0: "1,300", 0.00073: "0.00073", 9.96: "10", 0.0: "0"}
    assert {x: times(x) for x in shown} == shown
    assert times(math.nan) == "an unknown number of"
