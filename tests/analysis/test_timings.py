"""What the benchmark's page says, from an invented measurement whose sums can be made by hand."""

import json
import math

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbclient import NotebookClient

from lrd import ROOT
from lrd.analysis import timings
from lrd.cell import grid
from lrd.report import display, figures


def row(who: str, regime: str, arm: str, step: float, tokens: int = 1536, **parts) -> dict:
    about = {"who": who, "regime": regime, "arm": arm, "completion_tokens": tokens, "step": step}
    return about | {"parts": parts, "peak_gib": 10 * step, "steps": 3, "mean_length": tokens}


INVENTED = {
    "gpu": "Invented <GPU>",
    "date": "2026-01-02",
    "packages": {"torch": "2.13.0", "trl": None},
    "shapes": {"prompts": 4, "samples": 4, "prompt_tokens": 100, "completion_tokens": 1536},
    "ceilings": {"copy_tb_s": 4.3, "bf16_tflop_s": 1790},
    "roofline": {"decode": 1.5, "learner": 0.25, "reference": 0.25},
    "rows": [
        row(
            "ours",
            "outcome",
            "r16",
            6.0,
            rollout=5.0,
            learner=0.5,
            reward=0.0,
            reference=0.25,
            update=0.125,
            sync=0.125,
        ),
        row(
            "ours", "outcome", "full", 7.0, rollout=5.0, learner=0.75, reward=0.0, reference=0.25, update=0.5, sync=0.5
        ),
        row(
            "ours", "outcome", "r1", 5.0, rollout=4.0, learner=0.5, reward=0.0, reference=0.25, update=0.125, sync=0.125
        ),
        row("ours", "outcome", "r16", 2.0, tokens=450, rollout=1.5, learner=0.5),
        row("ours", "process", "r16", 7.5, rollout=5.0, learner=0.5, reward=1.5),
        row("trl", "outcome", "r16", 9.0),
        row("trl", "outcome", "full", 8.4),
    ],
    "cells": [
        {
            "regime": "outcome",
            "arm": "r16",
            "cold_start_seconds": 130.0,
            "warm_start_seconds": 100.0,
            "eval_seconds": 10.0,
        }
    ],
    "tokens": [{"engine": "vllm", "clock": 2.5, "greedy": 2.25, "card": {"products": 1.5, "drawing": 0.25}}],
    "notes": ["what stands between: <b>sampling</b>"],
}


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "b.json").write_text(json.dumps(INVENTED))
    return tmp_path


@pytest.fixture
def bench(runs) -> timings.Bench:
    return timings.load(runs)[0][0]


def test_the_latest_comes_last_and_a_broken_file_is_named(runs):
    (runs / "bench" / "a.json").write_text(json.dumps(INVENTED | {"date": "2026-01-03"}))
    (runs / "bench" / "c.json").write_text('{"gpu"')
    (runs / "bench" / "d.json").write_text('{"gpu": "x"}')
    found, problems = timings.load(runs)
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
    hours = timings.matrix_hours(bench).set_index(["regime", "arm"])
    assert hours.loc[("outcome", "full"), "hours"] == pytest.approx(3 * (100 + 100 * 7 + 11 * 10) / 3600)
    assert hours.loc[("process", "r1"), "hours"] == pytest.approx(3 * (100 + 100 * 6.5 + 11 * 10) / 3600)
    assert hours.measured.to_dict()[("outcome", "full")] and not hours.measured.to_dict()[("process", "r1")]
    assert hours.cells.sum() == len(grid("paper")) == 54
    assert math.isnan(hours.loc[("distillation", "r1"), "hours"])


def test_sentences(bench):
    said = timings.facts([bench])
    assert said["headline"] == (
        "A step of ours against one of TRL's trainer: rank 16 6.0 s against 9.0 s (1.5 times as fast), "
        "full fine-tuning 7.0 s against 8.4 s (1.2 times as fast)."
    )
    assert (said["least"], said["copy"], said["rate"]) == ("2.0", "4.3", "1,790")
    assert (said["their_step"], said["their_hours"], said["packages"]) == ("135.8", "150", "torch 2.13.0")
    assert said["hours"] == "not measured"  # one regime is missing: no sum of the rest passes for the whole
    assert set(said) == set(timings.facts([]))
    assert "Nothing has been measured yet" in timings.facts([])["headline"]


def test_tables(bench):
    table = display.step_table(bench)
    assert "<th>ours: outcome, rank 16, 450 tokens</th><td>2.00</td>" in table
    assert "<th>ours: process, rank 16</th><td>7.50</td>" in table and "<td>75.0</td>" in table
    assert "trl: outcome, rank 16" in table
    cost = display.cost_table(bench)
    assert "<th>process, full fine-tuning</th><td>≈</td><td>8.5</td><td>3</td>" in cost
    assert "not" in display.step_table(None).lower() and display.cost_table(None)
    tokens = display.token_table(bench)
    assert "<th>drawing</th><th>products</th><th>no kernel</th>" in tokens
    assert "<th>vllm</th><td>2.50</td><td>2.25</td><td>0.25</td><td>1.50</td><td>0.75</td>" in tokens
    assert "Not measured" in display.token_table(None)


def test_the_figure_draws_every_row_to_its_length(bench):
    figure = figures.step_times(bench)
    [ax] = figure.axes
    assert len(ax.get_yticks()) == len(bench.rows)
    for y, seconds in enumerate(bench.rows.step):
        bars = [bar for bar in ax.patches if bar.get_y() < y < bar.get_y() + bar.get_height()]
        assert sum(bar.get_width() for bar in bars) == pytest.approx(seconds)
    figure.canvas.draw()
    assert figures.step_times(None).axes
    plt.close("all")


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_runs_with_a_measurement_and_without(measured, runs, tmp_path, monkeypatch):
    monkeypatch.setenv("LRD_RUNS", str(runs if measured else tmp_path / "none"))
    notebook = nbformat.read(ROOT / "notebooks" / "bench.ipynb", as_version=4)
    NotebookClient(notebook, resources={"metadata": {"path": str(ROOT)}}, timeout=120).execute()
    html = "".join(o.data.get("text/html", "") for c in notebook.cells for o in c.get("outputs", []) if "data" in o)
    assert ("trl: outcome, full fine-tuning" in html) == measured
    assert ("Not measured yet" in html) != measured
    assert "<b>sampling</b>" not in html
