"""The rules of sweeps: which rate they pick, and where they cannot."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from fakes import swept_rates

from lrd import ROOT, results
from lrd.analysis import sweep
from lrd.report import figures

PRESET = "fair-lr"


def test_the_rule():
    """By area; of equal areas by the last step; none where a cell is missing."""
    cells = sweep.cells_of(PRESET, swept_rates())
    best = sweep.rates(cells)
    assert best["outcome", "r1"] == 3.16e-4 and best["process", "full"] == 1e-5 and best["outcome", "full"] == 3.16e-5
    assert best["outcome", "r4"] == 1e-3  # the same area as 3.16e-4, and a higher end
    assert ("outcome", "r256") not in best and len(best) == 17
    assert math.isnan(sweep.areas(cells).loc[("outcome", "r256"), 1e-3])
    assert sweep.unlike("fair", best) == {("outcome", "r4"): (1e-3, 3.16e-4)}
    assert sweep.ratios(best)["process"] == pytest.approx((10, 10))
    assert sweep.spacing(cells) == pytest.approx(10**0.5, 0.01)
    assert sweep.by_student(cells)["1"]["outcome", "r256"] == 3.16e-4  # its cells are there


def test_the_line_of_the_chosen_rate_is_bold():
    curves = swept_rates()
    best = sweep.rates(sweep.cells_of(PRESET, curves))
    figure = figures.by_rate(curves, ["outcome"], ["r1", "r256"], best)
    tried = sorted(curves.learning_rate.unique())
    for ax, arm in zip(figure.axes, ("r1", "r256")):
        lines = ax.get_lines()[1:]  # the first is the base
        bold = [rate for rate, line in zip(tried, lines, strict=True) if line.get_linewidth() > 2]
        assert bold == [best[key] for key in [("outcome", arm)] if key in best]
    plt.close(figure)


def test_a_mean_is_over_all_cells():
    """One row each of two columns; of equal scores the smaller value, and none where a cell has no score."""
    cells = pd.DataFrame(
        [(regime, rate, seed, score)
         for regime, rates in {"a": {2.0: (1, 3), 1.0: (2, 2)}, "b": {2.0: (1, 1), 1.0: (5, math.nan)}}.items()
         for rate, scores in rates.items() for seed, score in enumerate(scores)],
        columns=["regime", "rate", "seed", "score"],
    )  # fmt: skip
    table = sweep.scores(cells.assign(adapter="x"), "rate", "score", ["regime", "adapter"])
    assert list(table.columns) == [1.0, 2.0] and table.loc["a", "x"].tolist() == [2, 2]
    assert sweep.chosen(table) == {("a", "x"): 1.0} and math.isnan(table.loc[("b", "x"), 1.0])


def test_a_sweep_that_was_not_run(tmp_path):
    curves = sweep.curves(PRESET, tmp_path)
    assert sweep.rates(sweep.cells_of(PRESET, curves)) == sweep.off_rate("fair", tmp_path) == {}
    figure = figures.by_rate(curves, ["outcome"], ["r1", "full"], {})
    assert all("not finished" in [t.get_text() for t in ax.texts] for ax in figure.axes)
    plt.close(figure)


def test_presets_without_a_sweep():
    assert all(sweep.off_rate(preset) == {} for preset in ("tiny", "small", "law"))


def test_published_curves_fill_the_gaps_of_cells_at_hand():
    runs = ROOT / "runs"
    curves = sweep.curves(PRESET, runs)
    swept = sweep.with_kept(results.load(PRESET, runs), curves)
    there = swept.cells.state.isin(["published", "finished"])
    assert set(swept.cells.cell[there]) == set(curves.cell)
