"""The sweep of learning rates: which one the rule picks, and what is said where it cannot."""

import json

import matplotlib.pyplot as plt
import pytest
from fakes import write_cell

from lrd import ROOT, results
from lrd.analysis import sweep
from lrd.cell import grid
from lrd.report import figures, rates
from lrd.report.text import NOTHING

AXIS = "learning_rate"


@pytest.fixture
def swept(tmp_path):
    """Rank 16 likes 3e-4 and 1e-3 the same, rank 4 the middle, rank 64 the largest; of rank 1 a cell is missing."""
    right = {"r16": {3e-4: 16, 1e-3: 16, 3e-3: 2}, "r64": {3e-4: 8, 1e-3: 9, 3e-3: 10}}
    right["r4"] = {3e-4: 8, 1e-3: 10, 3e-3: 2}
    right["r1"] = {3e-4: 9, 1e-3: 9}
    for cell in grid("small-lr"):
        if cell.learning_rate in right.get(cell.arm, {}):
            seeds = 1 if cell.seed == 101 else -1  # the mean over seeds is the number above
            write_cell(tmp_path, cell, {0: 4, 10: right[cell.arm][cell.learning_rate] + seeds})
    return results.load("small-lr", tmp_path)


def test_the_rule(swept):
    assert sweep.chosen(sweep.areas(swept, AXIS)) == {"r4": 1e-3, "r16": 3e-4, "r64": 3e-3}
    table = sweep.areas(swept, AXIS)
    assert list(table.columns) == [3e-4, 1e-3, 3e-3]
    assert table.loc["r16", 3e-4] == pytest.approx((4 + 16) / 2 / 20)  # of 20 problems, from 4 to 16 right
    rows = {row[0]: row[1:] for row in rates.rows(swept, AXIS)}
    assert rows["rank 16"] == ("0.500", "0.500", "0.150", "0.0003 (at the end)")
    assert rows["rank 64"][-1] == "0.003 (at the end)" and rows["rank 4"][-1] == "0.001"
    assert rows["rank 1"][-2:] == (NOTHING, "not finished")
    assert rows["rank 256"] == (NOTHING,) * 3 + ("not finished",)
    assert rates.verdict(swept, AXIS) == "Rank 4 gets 0.001; rank 16 gets 0.0003; rank 64 gets 0.003."


def test_a_sweep_that_was_not_run_says_so(tmp_path):
    empty = results.load("small-lr", tmp_path)
    assert rates.verdict(empty, AXIS) == "No arm's cells are all finished, so that none has been chosen."
    assert {row[-1] for row in rates.rows(empty, AXIS)} == {"not finished"}
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
    assert rates.in_use(swept, AXIS) == (
        f"Preset small has others: {ours['r16']:g} in place of 0.0003 for rank 16; {ours['r64']:g} in place of 0.003 "
        "for rank 64."
    )


def test_rates_that_the_rule_chose(tmp_path):
    ours = {cell.arm: cell.learning_rate for cell in grid("small")}
    for cell in grid("small-lr"):
        write_cell(tmp_path, cell, {0: 4, 10: 16 if cell.learning_rate == ours[cell.arm] else 8})
    found = results.load("small-lr", tmp_path)
    assert sweep.unlike(found, AXIS) == {} and rates.in_use(found, AXIS) == "Preset small has these values."
    assert "a guess" in rates.in_use(results.load("small-lr", tmp_path / "none"), AXIS)


def test_preset_small_has_the_rates_that_its_sweep_chose():
    """Of the committed sweep; before its cells are there, nothing was chosen."""
    for preset in ("small-lr", "small-lr-full"):
        assert sweep.unlike(results.load(preset, ROOT / "runs"), AXIS) == {}


def test_whether_a_sweep_has_the_student_of_its_preset(tmp_path):
    assert rates.student("small-lr", tmp_path) == ""
    for preset, print_of in (("small-lr", "a"), ("small", "b")):
        path = write_cell(tmp_path, grid(preset)[0], {0: 4, 10: 8})
        (path / "provenance.json").write_text(json.dumps({"run": {"models": {"student": print_of}}}))
    said = rates.student("small-lr", tmp_path)
    assert said == "The cells of small-lr began from another training of the student than those of small."
    (path / "provenance.json").write_text(json.dumps({"run": {"models": {"student": "a"}}}))
    said = rates.student("small-lr", tmp_path)
    assert said == "The cells of small-lr began from the student of small."
    assert rates.student("small", tmp_path, base="small-lr").endswith("the student of small-lr.")


def test_what_arms_lose_after_their_best(tmp_path):
    for cell in grid("tiny", {"regime": ["outcome"], "seed": [0], "rank": [1, 16, "full"]}):
        write_cell(tmp_path, cell, {0: 4, 10: 16, 20: 14 if cell.rank else 16})
    said = rates.past_best(results.load("tiny", tmp_path), "outcome").replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "of tiny an adapter's cell loses 0.100 ± 0.000 of pass@1 under outcome, one of full fine-tuning 0.000" in said
    )
