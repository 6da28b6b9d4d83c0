"""The rule of sweeps: which value it picks, and where it cannot."""

import math

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from fakes import small_sweep, write_cell

from lrd import ROOT, results
from lrd.analysis import sweep
from lrd.cell import grid
from lrd.report import figures

AXIS = "learning_rate"


@pytest.fixture
def swept(tmp_path):
    return results.load("small-lr", small_sweep(tmp_path))


def test_the_rule(swept):
    table = sweep.areas(swept, AXIS)
    assert sweep.chosen(table) == {"r4": 1e-3, "r16": 3e-4, "r64": 3e-3}
    assert list(table.columns) == [3e-4, 1e-3, 3e-3] and list(table.index) == swept.arms
    assert table.loc["r16", 3e-4] == pytest.approx((4 + 16) / 2 / 20)  # of 20 problems, from 4 to 16 right
    assert table.loc["r1"].isna().tolist() == [False, False, True] and table.loc["r256"].isna().all()
    assert [sweep.at_end(table, value) for value in table.columns] == [True, False, True]


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
    empty = results.load("small-lr", tmp_path)
    assert sweep.chosen(sweep.areas(empty, AXIS)) == sweep.unlike(empty, AXIS) == {}
    figure = figures.sweep(empty, AXIS, {}, "learning rate")
    assert all("no finished cell" in [t.get_text() for t in ax.texts] for ax in figure.axes)
    plt.close(figure)


def test_the_chosen_curve_is_bold(swept):
    figure = figures.sweep(swept, AXIS, sweep.chosen(sweep.areas(swept, AXIS)), "learning rate")
    panel = next(ax for ax in figure.axes if ax.get_title(loc="left") == "rank 16")
    assert [line.get_linewidth() > 2 for line in panel.lines] == [False, True, False, False]  # the first is the base
    assert list(panel.lines[1].get_ydata()) == [0.2, 0.8]
    plt.close(figure)


def test_an_experiment_on_another_preset_is_not_what_the_book_is_about(swept, tmp_path, monkeypatch):
    monkeypatch.delenv("LRD_PRESET", raising=False)
    assert results.studied(tmp_path) == results.DEFAULT
    write_cell(tmp_path, grid("law")[0], {0: 4})
    assert results.studied(tmp_path) == results.DEFAULT


def test_rates_that_the_rule_did_not_choose_are_named(swept):
    """The fixture's winners are others than preset small has."""
    ours = {cell.arm: cell.learning_rate for cell in grid("small")}
    assert sweep.unlike(swept, AXIS) == {"r16": (3e-4, ours["r16"]), "r64": (3e-3, ours["r64"])}


def test_rates_that_the_rule_chose(tmp_path):
    ours = {cell.arm: cell.learning_rate for cell in grid("small")}
    for cell in grid("small-lr"):
        write_cell(tmp_path, cell, {0: 4, 10: 16 if cell.learning_rate == ours[cell.arm] else 8})
    assert sweep.unlike(results.load("small-lr", tmp_path), AXIS) == {}


def test_preset_small_has_the_rates_that_its_sweep_chose():
    """Of the committed sweep; before its cells are there, nothing was chosen."""
    for preset in ("small-lr", "small-lr-full"):
        assert sweep.unlike(results.load(preset, ROOT / "runs"), AXIS) == {}
