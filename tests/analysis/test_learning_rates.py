"""What has collapsed by when at several learning rates, by hand."""

import math

import matplotlib.pyplot as plt
import pytest
from fakes import legible, slowed

from lrd import results
from lrd.analysis import learning_rates
from lrd.analysis.learning_rates import Extent
from lrd.report import figures

SOON, LATE = 80, 240


@pytest.fixture
def found(tmp_path):
    return learning_rates.with_rates(results.load("pace", slowed(tmp_path)))


def test_what_has_collapsed_by_when(found):
    assert learning_rates.last_steps("pace") == (SOON, LATE)
    cells = learning_rates.collapses(found, SOON)
    by_name = {name: its for name, its in cells.groupby("pace", sort=False)}
    onsets = {name: [step for step in its.collapse if not math.isnan(step)] for name, its in by_name.items()}
    assert onsets == {
        "rank-16": [80, 80, 80],
        "rank-16-third": [80, 160, 160],
        "rank-16-tenth": [160, 160, 160],
        "full": [80],
        "full-third": [160],
        "full-tenth": [],
    }
    assert [its.learning_rate.iloc[0] for its in by_name.values()] == [1e-3, 3e-4, 1e-4, 3e-4, 1e-4, 3e-5]
    assert list(by_name["rank-16-third"].at_soon) == [0.1, 0.9, 0.9]
    assert learning_rates.extents(cells, SOON, LATE) == {
        "rank-16": (Extent.ALL, Extent.ALL),
        "rank-16-third": (Extent.SOME, Extent.ALL),
        "rank-16-tenth": (Extent.NONE, Extent.ALL),
        "full": (Extent.SOME, Extent.SOME),
        "full-third": (Extent.NONE, Extent.SOME),
        "full-tenth": (Extent.NONE, Extent.NONE),
    }


def test_the_figure_has_a_line_a_rate(found):
    figure = figures.sweep(found, "learning_rate", {"r16": 1e-3}, "learning rate")
    legible(figure)
    panels = {ax.get_title(loc="left"): ax for ax in figure.axes}
    drawn = {name: [line for line in ax.lines if len(line.get_xdata())] for name, ax in panels.items()}
    assert {name: len(lines) for name, lines in drawn.items()} == {"rank 16": 1 + 3, "FullFT": 1 + 3}
    base, *rates = drawn["rank 16"]
    assert list(base.get_ydata()) == pytest.approx([rates[0].get_ydata()[0]] * 2)
    assert [line.get_linewidth() > 2 for line in rates] == [False, False, True]  # 1e-4, 3e-4, 1e-3
    plt.close(figure)


def test_the_usual_rate_is_that_of_the_preset_below(tmp_path):
    for name, full in (("pace", 3e-4), ("pace-small", 3e-5)):
        usual = learning_rates.usual(results.load(name, tmp_path))
        assert (usual["full"], usual["r16"]) == (full, 1e-3)
