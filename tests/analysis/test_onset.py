"""Onsets, their order and lead–lag on signals whose truth is known. All seeds are fixed."""

import math

import numpy as np
import pandas as pd
import pytest
from fakes import change_metrics, collapse, write_lines, write_run

from lrd import results
from lrd.analysis import onset
from lrd.analysis.onset import Onset, Support

STEPS = np.arange(1, 101.0)


def rise(at: float, width: float) -> np.ndarray:
    """From 1 to 2, half-way at step `at`, over `width` steps."""
    way = STEPS - at
    return 1.0 + (way >= 0) if width == 0 else 1 + np.clip(way / width + 0.5, 0, 1)


def step_of(found: Onset | None) -> float:
    """The step that a smoothed signal's onset was found at."""
    return math.nan if found is None else found.by - 1


@pytest.mark.parametrize("width, sd", [(0, 0.0), (0, 0.1), (0, 0.2), (8, 0.1)])
def test_planted_onsets_are_found_to_two_steps(width, sd):
    rng, near = np.random.default_rng(1), []
    for _ in range(200):
        at = int(rng.integers(14, 85))
        found = onset.logged_onset(STEPS, rise(at, width) + rng.normal(0, sd, 100), 0.25, relative=True)
        near.append(abs(step_of(found) - at) <= 2)
    assert np.mean(near) >= 0.95


def test_a_departure_comes_before_the_bulk_of_a_slow_change():
    slow = rise(50, 40)
    departure, bulk = (step_of(onset.logged_onset(STEPS, slow, 0.1, fraction=fraction)) for fraction in (0.0, 0.5))
    assert (departure, bulk) == (34, 50)  # 0.1 of the way, and half of it


def test_nothing_is_found_in_flat_signals():
    rng, found = np.random.default_rng(2), 0
    for draw in (rng.normal, rng.laplace):
        found += sum(onset.logged_onset(STEPS, draw(10, 1, 100), 0.01) is not None for _ in range(200))
    shares = [rng.binomial(16, 0.03, 100) / 16 for _ in range(200)]  # now and then a completion is cut
    found += sum(onset.logged_onset(STEPS, share, 0.1) is not None for share in shares)
    assert found <= 6  # of 600
    assert (
        onset.logged_onset(STEPS, np.ones(100), 0.1) is None
        and onset.logged_onset(STEPS, np.zeros(100), 0.1, True) is None
    )


def test_a_spike_is_no_onset_and_a_return_does_not_undo_one():
    spike, hill = np.ones(100), np.ones(100)
    spike[40:42], hill[40:60] = 9, 3
    assert onset.logged_onset(STEPS, spike, 0.25) is None
    assert step_of(onset.logged_onset(STEPS, hill, 0.25)) == 41


def test_a_short_or_empty_or_broken_signal_has_none():
    assert onset.logged_onset(STEPS[:3], STEPS[:3], 0.1) is None
    assert onset.logged_onset(STEPS, np.full(100, np.nan), 0.1) is None
    assert onset.evaluated_onset(np.array([0.0]), np.array([0.5]), 0.1) is None
    assert onset.evaluated_onset(np.zeros(0), np.zeros(0), 0.1) is None


@pytest.mark.parametrize("at", [10, 40, 90])
def test_an_evaluated_onset_lies_between_two_evaluations(at):
    steps = np.arange(0, 101, 10.0)
    found = onset.evaluated_onset(steps, np.where(steps >= at, 0.8, 0.02), 0.1)
    assert found == Onset(at - 10, at)
    assert onset.evaluated_onset(steps, np.where(steps == 50, 0.8, 0.02), 0.1) is None  # does not stay


def test_order_counts_only_what_the_resolution_decides():
    signal = [Onset(9, 12), Onset(19, 22), Onset(27, 30), None, Onset(50, 53)]
    share = [Onset(10, 20), Onset(10, 20), Onset(30, 40), Onset(0, 10), Onset(40, 50)]
    found = onset.order(pd.DataFrame({"a": signal, "b": share}, dtype=object), "a", "b")
    assert (found.before, found.after, found.undecided, found.decided) == (1, 1, 2, 2)
    low, high = onset.Order(9, 1, 5).interval()
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-3)  # Wilson's, by hand
    assert onset.Order(0, 0, 4).interval() == (0, 1)
    alike, apart = onset.Order(27, 3, 0, ((9, 1),) * 3), onset.Order(27, 3, 0, ((10, 0), (10, 0), (7, 3)))
    one, single = onset.Order(27, 3, 0, ((27, 3), (0, 0))), onset.Order(27, 3, 0)
    widths = [high - low for low, high in (order.interval() for order in (single, alike, apart, one))]
    assert widths == sorted(widths) and len(set(widths)) == 4 and widths[-1] == 1  # the less, the fewer students say
    assert all(low <= 0.9 <= high for low, high in (alike.interval(), apart.interval()))
    assert onset.Order(30, 0, 0, ((10, 0),) * 3).interval()[1] == pytest.approx(1)
    orders = [onset.Order(9, 1, 5), onset.Order(1, 9, 0), onset.Order(2, 0, 0), onset.Order(0, 0, 4)]
    assert [o.support for o in orders] == [Support.SHOWN, Support.CONTRADICTED, Support.OPEN, Support.OPEN]


@pytest.mark.parametrize("lag", [-4, 0, 6])
def test_a_planted_lag_is_where_the_correlation_peaks(lag):
    rng = np.random.default_rng(3)
    drive = np.cumsum(rng.normal(size=160))
    x, y = drive[20:120], drive[20 - lag : 120 - lag] + rng.normal(0, 0.3, 100)  # y moves `lag` steps after x
    assert int(np.nanargmax(onset.correlation(x, y, 10))) - 10 == lag
    assert np.isnan(onset.correlation(x, np.ones(100), 10)).all()


@pytest.fixture
def collapsing(tmp_path) -> results.Results:
    """Two process cells with a chain as it is suspected, and one outcome cell that learns."""
    for seed in (0, 1):
        correct = {step: 10 if step < 60 else 1 for step in range(0, 81, 10)}
        collapse(write_run(tmp_path, "process", 1, seed, correct))
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 12, 20: 15})
    return results.load("tiny", tmp_path)


def test_the_chain_of_a_cell(collapsing):
    found = onset.onsets(collapsing).set_index("cell")
    chain = found.loc["process-r1-s0", [signal.name for signal in onset.CHAIN]]
    assert list(chain) == [Onset(13, 16), Onset(23, 26), Onset(33, 36), Onset(40, 50), Onset(50, 60)]
    assert found.loc["outcome-r1-s0", "collapse"] is None
    process = pd.DataFrame(found[found.regime == "process"])
    assert all(onset.order(process, *link) == onset.Order(2, 0, 0) for link in onset.LINKS)
    assert onset.collapsed(onset.onsets(collapsing)) == {"process": (2, 2), "outcome": (0, 1)}
    assert onset.example(onset.onsets(collapsing)) == "process-r1-s0"


def test_lead_and_lag_over_cells(collapsing):
    first, second = onset.CHAIN[:2]
    found = onset.lead_lag(collapsing, "process", first, second)
    assert found.cells == 2 and found.lags[found.best] == 10 and found.mean[found.best] == pytest.approx(1)
    coarse = onset.lead_lag(collapsing, "process", *onset.CHAIN[3:])
    assert coarse.cells == 2 and coarse.lags[coarse.best] == 10 and set(np.diff(coarse.lags)) == {10}
    nothing = onset.lead_lag(collapsing, "distillation", first, second)
    assert nothing.cells == 0 and nothing.best is None


def test_peaks_and_losses_by_hand(tmp_path):
    """One cell gains 10 of 20 problems and has lost 6 for good from step 30 on; others come back or gain too little."""
    curves = {0: (5, 15, 14, 9, 8), 1: (5, 15, 8, 15, 15), 2: (5, 5, 5, 0, 0)}
    for seed, right in curves.items():
        path = write_run(tmp_path, "process", 1, seed, dict(zip(range(0, 41, 10), right)))
        change_metrics(path, lambda row: {"advantage_std": 3.0 if row["step"] == 17 else 1.0})
    flat = write_run(tmp_path, "process", 4, 0, {0: 5, 10: 15, 20: 9})
    change_metrics(flat, lambda row: {"advantage_std": 1.0})
    found = onset.peaks_and_losses(results.load("tiny", tmp_path)).set_index("cell")
    assert dict(found.loss) == {"process-r1-s0": Onset(20, 30), "process-r4-s0": Onset(10, 20)}
    assert dict(found.peak) == {"process-r1-s0": Onset(16, 17), "process-r4-s0": None}
    assert onset.order(found, "peak", "loss") == onset.Order(1, 0, 0)


def test_no_runs_at_all(tmp_path):
    empty = results.load("tiny", tmp_path)
    found = onset.onsets(empty)
    assert not len(found) and onset.example(found) is None
    assert onset.order(found, "magnitude", "length").decided == 0


def test_three_completions_to_show():
    rows = [{"step": step} for step in (1, 1, 10, 20, 30)]
    assert [r["step"] for r in onset.moments(rows, Onset(10, 20))] == [1, 20, 30]
    assert [r["step"] for r in onset.moments(rows, None)] == [1, 20, 30]
    assert [r["step"] for r in onset.moments(rows[:1], None)] == [1]
    assert onset.moments([], None) == []


def test_the_examples_completions_are_read_where_its_runs_lie(collapsing, tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(tmp_path))
    onsets = onset.onsets(collapsing)
    assert onset.example_completions(collapsing, onsets) == []
    rows = [{"step": step} for step in (10, 60, 80)]
    write_lines(tmp_path / "tiny" / "process-r1-s0" / "completions.jsonl", rows)
    assert [r["step"] for r in onset.example_completions(collapsing, onsets)] == [10, 60, 80]
