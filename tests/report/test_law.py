"""What the pages on capacity say of numbers, where `sentences.txt` does not have it."""

import math
import re
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakes import ARMS, INFORMATION, PARAMETERS, legible, quiet, world

from lrd.analysis import codebooks, law
from lrd.analysis.bootstrap import Estimate
from lrd.report import figures, law as page
from lrd.report.text import NBSP, NOTHING
from lrd.runs import published


def test_an_estimate_as_shown():
    assert page.shown(Estimate(1.23, -0.5, 2.0, 6)) == f"1.2 [−0.50,{NBSP}2.0]"
    assert page.shown(Estimate(1.23, math.nan, math.nan, 1)) == "1.2"
    assert page.shown(Estimate(math.nan, math.nan, math.nan, 1)) == NOTHING


@pytest.mark.parametrize(
    ("at_end", "at_bits", "expected"),
    [
        (1.1, 1.1, "more is required under supervised than outcome"),
        (1.1, 0.9, "more is required under supervised than outcome (at equally many exposures per key alone)"),
        (0.9, 1.1, "more is required under supervised than outcome (at equal bits alone)"),
        (0.9, 0.9, "no denser reward requires significantly more"),
        (math.nan, math.nan, "no denser reward requires significantly more"),
    ],
)
def test_where_a_denser_reward_requires_more(monkeypatch, at_end, at_bits, expected):
    lows = {False: at_end, True: at_bits}
    monkeypatch.setattr(law, "compare", lambda a, b, equal_bits: Estimate(1.2, lows[equal_bits], 2.0, 6))
    m = quiet()
    rewards = {"supervised": m, "outcome": m}
    assert expected in page.verdict_at_exposures(rewards)
    shown = "supervised against outcome" if at_bits > 1 else "no two rewards"
    assert page.tested(rewards).endswith(f"at equal bits is significant for {shown}.")


def test_whether_a_slope_held():
    """One size grows in proportion to the information, the other does not change with it."""
    about = dict(c=0.6, absorbed=0.5, bent=True)
    loud, calm = (world(np.random.default_rng(i), noise=n, between=n, **about) for i, n in enumerate((0.3, 0.02)))
    fixed = replace(calm, bits=np.repeat(calm.bits[:, :, :1], 3, 2))
    text = page.held({"supervised": loud, "outcome": calm}, {"supervised": calm, "outcome": fixed})
    assert text == (
        "At equally many episodes the slope lies within the first run's interval under supervised (its own is "
        "narrower; they overlap) and outside the first run's interval under outcome (its own is narrower; they have "
        "no value in common)."
    )
    again = page.held({"supervised": calm}, {"supervised": loud})
    assert "(its own is no narrower; they overlap)" in again


def test_the_most_that_a_fit_can_tell_is_named():
    less = replace(world(np.random.default_rng(0)), parameters=PARAMETERS * 10)
    whole = np.broadcast_to(INFORMATION[:, None], less.bits.shape)
    all_know = replace(less, bits=whole.copy())
    some_know = replace(less, bits=np.where(np.arange(6)[:, None, None, None] < 4, whole, less.bits))
    texts = [page.stored({"supervised": m}, None)[-60:] for m in (less, some_know, all_know)]
    which = [re.findall("The (.*) is the most that the fit can tell", text) for text in texts]
    assert which == [[], ["upper end"], ["estimate"]]


def test_students_and_versions(monkeypatch):
    records = {"a": {"student": ["x"], "torch": ["2.11.0"]}, "b": {"student": ["x"], "torch": ["2.13.0", "2.11.0"]}}
    records["c"] = {"student": ["y", "z"]}
    monkeypatch.setattr(
        published, "record", lambda preset: {"environment": records[preset]} if preset in records else None
    )
    assert page.students("a", "b") == "all began from one training of it"
    assert page.students("a", "c") == "began from 3 trainings of it"
    assert [page.versions("a"), page.versions("a", "b", "c")] == ["PyTorch 2.11.0", "PyTorch 2.11.0 and 2.13.0"]


def test_how_far_repeated_cells_are_apart(monkeypatch):
    monkeypatch.setattr(codebooks, "apart", lambda a, b: pd.Series([0.25, 0.0]))
    text = "shows in 2 cells that both have: their ends are 12.5 % of a codebook on average, 25 % at most apart"
    assert page.repeated(pd.DataFrame(), pd.DataFrame()) == text


def test_tables_of_worlds():
    known = world(np.random.default_rng(0), tau=100.0)
    head, [row] = page.equal_table({"supervised": known})
    assert head[1].startswith("256 bits, at 2") and len(row) == 4
    assert page.arm_rows(known)[0][:3] == ("a0", "96", "192")


def test_rates_in_rows():
    rows = pd.MultiIndex.from_tuples([("outcome", "up"), ("outcome", "full"), ("outcome", "mlp")])
    shares = pd.DataFrame([[0.1, 0.3, 0.3], [-0.1, 0.0, 0.05], [0.1, 0.2, math.nan]], rows, [1e-3, 3e-3, 1e-2])
    assert page.rate_rows(shares) == [
        ("outcome, up", "10 %", "30 %", "30 %", "0.003"),
        ("outcome, full", "0 %", "0 %", "5 %", "0.01 (at the end)"),
        ("outcome, mlp", "10 %", "20 %", NOTHING, NOTHING),
    ]


def test_other_cells_on_the_same_axes():
    columns = ["regime", "capacity", "largest_ratio"]
    frame = pd.DataFrame(
        [["outcome", 200.0, 0.8], ["outcome", 800.0, 0.2], ["process", 800.0, math.nan]], columns=columns
    )
    assert page.other_rows({"some": frame, "none": frame[:0]}) == [
        ("some: outcome", "2", "200 to 800", "0.20 to 0.80"),
        ("some: process", "0", NOTHING, NOTHING),
        ("none: any", "0", NOTHING, NOTHING),
    ]


def test_the_figure_of_worlds():
    known = world(np.random.default_rng(0), tau=100.0)
    figure = figures.law({"supervised": known})
    legible(figure)
    lines = [
        line for line in figure.axes[0].lines if len(line.get_xdata()) == len(ARMS) and line.get_linestyle() != "None"
    ]
    np.testing.assert_allclose(lines[1].get_ydata(), known.mean()[:, 0, -1])
    plt.close(figure)
