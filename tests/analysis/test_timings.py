"""What `lrd bench` measured, in numbers that can be made by hand from an invented measurement."""

import math

import pytest
from fakes import write_bench

from lrd.analysis import timings
from lrd.cell import grid


@pytest.fixture
def bench(tmp_path) -> timings.Bench:
    write_bench(tmp_path)
    return timings.load(tmp_path)[0][0]


def test_the_latest_comes_last_and_a_broken_file_is_named(tmp_path):
    write_bench(tmp_path, date="2026-01-03")
    write_bench(tmp_path)
    (tmp_path / "bench" / "c.json").write_text('{"gpu"')
    (tmp_path / "bench" / "d.json").write_text('{"gpu": "x"}')
    found, problems = timings.load(tmp_path)
    assert [bench.date for bench in found] == ["2026-01-02", "2026-01-03"]
    assert [text.split()[0] for text in problems] == ["c.json", "d.json"]


@pytest.mark.parametrize(
    "regime, arm, seconds",
    [
        ("outcome", "r16", 6.0),  # of full length: not the short one
        ("outcome", "full", 7.0),
        ("outcome", "r4", 6.0),  # as far from 1 as from 16: the larger of the two
        ("outcome", "r256", 6.0),
        ("process", "r16", 7.5),
        ("process", "full", 8.5),  # the reward adds 1.5 to what full fine-tuning takes under outcome
        ("process", "r1", 6.5),
        ("distillation", "r16", math.nan),
    ],
)
def test_seconds_of_a_step_measured_or_put_together(bench, regime, arm, seconds):
    assert timings.step_seconds(bench, regime, arm) == pytest.approx(seconds, nan_ok=True)


def test_hours_of_the_matrix_by_hand(bench):
    """3 seeds of 100 steps and 11 evaluations of 10 s, after 100 s to start."""
    hours = timings.matrix_hours(bench, "paper").set_index(["regime", "arm"])
    assert hours.loc[("outcome", "full"), "hours"] == pytest.approx(3 * (100 + 100 * 7 + 11 * 10) / 3600)
    assert hours.loc[("process", "r1"), "hours"] == pytest.approx(3 * (100 + 100 * 6.5 + 11 * 10) / 3600)
    assert hours.measured.to_dict()[("outcome", "full")] and not hours.measured.to_dict()[("process", "r1")]
    assert hours.cells.sum() == len(grid("paper")) == 54
    assert math.isnan(hours.loc[("distillation", "r1"), "hours"])


def test_what_a_step_is_made_of(bench, tmp_path):
    spent, least = timings.decode_times(bench)
    assert (spent, least) == pytest.approx((5000 / 1536, 1500 / 1536))
    assert timings.start_seconds(bench, "cold") == 130 and math.isnan(timings.start_seconds(bench, "no"))
    [row] = timings.token_parts(bench).to_dict("records")
    times = {"on the clock": 2.5, "greedily": 2.25, "drawing": 0.25, "products": 1.5, "no kernel": 0.75}
    assert row == {"engine": "vllm"} | times
    both = timings.beside(bench, "trl").set_index("arm")
    assert both.ratio.to_dict() == pytest.approx({"r16": 1.5, "full": 1.2}) and not len(timings.beside(bench, "verl"))
    write_bench(tmp_path, date="2026-01-03", roofline={}, cells=[], tokens=[])
    bare = timings.load(tmp_path)[0][-1]
    assert math.isnan(timings.decode_times(bare)[0]) and not len(timings.token_parts(bare))
