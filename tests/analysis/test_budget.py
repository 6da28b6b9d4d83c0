"""The capacity budget: counts and bits by hand, and pages' sentences that stay true without runs."""

import math
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from fakes import write_lines, write_run

from lrd import ROOT, results
from lrd.analysis import budget
from lrd.analysis.budget import Room
from lrd.report import budget as page, figures


@pytest.fixture
def two_cells(tmp_path):
    """Outcome with rank 1 (100 parameters), and process with rank 4 (400), ten steps of 16 episodes each."""
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 10: 10})
    path = write_run(tmp_path, "process", 4, 0, {0: 5, 10: 10})
    row = {"step": 1, "token_rewards": [0.0, 0.1, 0.9, 0.5], "deposit_mask": [False, True, True, False]}
    write_lines(path / "completions.jsonl", [row] * 50)
    return tmp_path


def test_parameters_are_those_that_a_policy_trains(make_cell):
    import torch

    from lrd.models.policy import Policy

    one = {"lora_targets": ("k_proj", "down_proj"), "lora_layers": (1,)}
    for rank, placed in ((4, {}), (None, {}), (1, one), (2, one | {"lora_layers": (0, 1)})):
        cell = make_cell(rank=rank, **placed)
        trained = sum(p.numel() for p in Policy(cell, torch.device("cpu")).trainable.values())
        assert trained == budget.trained_parameters(cell)
    assert math.isnan(budget.trained_parameters(make_cell(student="no/such-model")))


def test_a_shape_that_is_not_at_hand():
    assert budget.shape_of("no/such-model") is None
    assert budget.shape_of("./notebooks") is None


def test_entropies_by_hand():
    assert budget.binary_entropy(0.5) == 1
    assert budget.binary_entropy(0.25) == pytest.approx(2 - 0.75 * math.log2(3))
    assert budget.binary_entropy(0) == budget.binary_entropy(1) == 0
    assert math.isnan(budget.binary_entropy(1.2)) and math.isnan(budget.binary_entropy(math.nan))
    assert budget.entropy([0.3] * 9) == 0
    assert budget.entropy([0.0, 0.5] * 8) == pytest.approx(1 + 1 / (32 * math.log(2)))
    assert budget.entropy([0.1, 0.2], width=1.0) == 0  # one bin
    assert math.isnan(budget.entropy([])) and math.isnan(budget.entropy([math.nan]))


def test_entropy_of_many_levels_is_found_from_few_values():
    """Uniform over 256 levels: 8 bits. The plug-in estimate of 1000 values is a fifth of a bit short."""
    values = np.random.default_rng(0).random(1000)
    assert abs(budget.entropy(values) - 8) < 0.06
    p = np.unique(np.floor(values * 256), return_counts=True)[1] / 1000
    assert -(p * np.log2(p)).sum() < 7.85


def test_reverse_kl_in_bits():
    assert budget.reverse_kl_bits([-math.log(2), -3 * math.log(2)]) == pytest.approx(2)
    assert budget.reverse_kl_bits([0.5]) == 0  # an estimate below zero
    assert budget.reverse_kl_bits([math.nan, -math.log(2)]) == pytest.approx(1)
    assert math.isnan(budget.reverse_kl_bits([]))


def test_bounds_of_a_deposit():
    assert budget.bits_a_deposit("outcome", 151936) == 1
    assert budget.bits_a_deposit("process", 151936) == 8
    assert budget.bits_a_deposit("distillation") == budget.bits_a_deposit("distillation", 35) == 8
    assert budget.bits_a_deposit("distillation", 151936) == pytest.approx(17.213, abs=1e-3)


def test_cells_by_hand(two_cells):
    frame, problems = budget.cells(results.load("tiny", two_cells), two_cells)
    assert problems == [] and len(frame) == 2
    outcome, process = (row for _, row in frame.sort_values("regime").iterrows())
    assert (outcome.parameters, outcome.capacity, outcome.episodes, outcome.at_most) == (100, 200, 160, 160)
    assert outcome.measured == pytest.approx(160 * budget.binary_entropy(0.55))  # rewards 0.1, 0.2, … 1.0
    assert outcome.largest_ratio == 0.8
    assert (process.capacity, process.at_most) == (800, 160 * 8)
    assert process.measured == pytest.approx(160 * (1 + 1 / (200 * math.log(2))))  # two values, 50 times each
    assert process.ratio == pytest.approx(process.measured / 800)
    assert budget.required_rank(frame, 1000) == pytest.approx(5)  # one rank: 200 bits


def test_distillation_counts_reverse_kl(tmp_path):
    path = write_run(tmp_path, "distillation", 1, 0, {0: 5, 10: 10}) / "metrics.jsonl"
    path.write_text(path.read_text().replace('"reward": 0', '"reward": -0').replace('"reward": 1', '"reward": -1'))
    frame, problems = budget.cells(results.load("tiny", tmp_path), tmp_path)
    assert frame.measured.item() == frame.kl.item() == pytest.approx(160 * 0.55 / math.log(2))
    assert math.isnan(frame.entropy.item())
    assert problems == ["distillation-r1-s0: completions.jsonl is missing: the entropy of its deposits is not known"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("{}\n{broken\n", "completions.jsonl: 2 lines cannot be read"), ('{"step": 1}\n', "completions.jsonl has no dep")],
)
def test_a_broken_completions_file_is_named(two_cells, text, fault):
    (two_cells / "tiny" / "process-r4-s0" / "completions.jsonl").write_text(text)
    frame, problems = budget.cells(results.load("tiny", two_cells), two_cells)
    assert len(problems) == 1 and problems[0].startswith(f"process-r4-s0: {fault}")
    assert frame[frame.regime == "process"].measured.isna().all()


def test_the_reports_scale():
    frame = budget.scale("paper").set_index("cell")
    assert len(frame) == 18
    row = frame.loc["outcome-r1-s0"]
    assert (row.parameters, row.episodes, row.at_most, row.capacity) == (1_089_536, 1600, 1600, 2_179_072)
    assert frame.loc["process-r16-s0"].at_most == 1600 * 1536 * 8
    assert frame.loc["distillation-full-s0"].at_most == pytest.approx(1600 * 1536 * math.log2(151936))
    assert frame.measured.isna().all()


def test_what_there_is_room_for(two_cells):
    results_ = results.load("tiny", two_cells)
    frame, _ = budget.cells(results_, two_cells)
    rooms = {regime: budget.filling(frame, regime).room for regime in results_.regimes}
    assert rooms == {"outcome": Room.BY_BOUND, "process": Room.BY_MEASURE, "distillation": Room.NOT_MEASURED}
    assert budget.filling(frame.assign(ratio=math.nan), "process").room is Room.UNDECIDED
    over = budget.filling(frame.assign(ratio=3.0), "process")
    assert over == budget.Filling(800, 1.6, 3.0, 1, 1) and over.room is Room.OVERFILLED


def test_what_an_outcome_can_deliver(two_cells, tmp_path):
    held = budget.outcome_budget(results.load("tiny", two_cells))
    assert (held.episodes, held.delivered, held.parameters, held.capacity) == (1280, 1280, 100, 200)
    assert math.isnan(budget.outcome_budget(results.load("tiny", tmp_path / "none")).parameters)


def test_silent_prompts_and_oversized_arms(two_cells):
    results_ = results.load("tiny", two_cells)
    assert math.isnan(budget.silent_share(results_))
    steps = results_.steps.assign(frac_reward_zero_std=[0.25, 0.75] * 10)
    assert budget.silent_share(replace(results_, steps=steps)) == 0.5
    frame = pd.DataFrame({"arm": ["r1", "full", "r256"], "parameters": [10.0, 100, 200], "kl": [1.0, 4, 0]})
    assert budget.oversized(frame) == ["r256"] and budget.oversized(frame[:1]) == []
    assert budget.measures_apart(frame.assign(entropy=[2.0, 2, 2])) == 1.25
    assert math.isnan(budget.measures_apart(frame.assign(entropy=math.nan)))


def test_a_record_without_numbers_raises_nothing(two_cells):
    path = two_cells / "tiny" / "process-r4-s0"
    (path / "provenance.json").write_text('{"run": {"trainable_parameters": "many"}}')
    path = two_cells / "tiny" / "outcome-r1-s0" / "metrics.jsonl"
    path.write_text(path.read_text().replace("deposits_per_episode", "deposits"))
    results_ = results.load("tiny", two_cells)
    frame, _ = budget.cells(results_, two_cells)
    assert {budget.filling(frame, regime).room for regime in results_.regimes} == {Room.NOT_MEASURED}
    page.glued(frame, budget.scale("paper"), results_)
    plt.close(figures.budget(frame, budget.scale("paper"), results_))


def test_the_figure_has_a_mark_for_every_cell(two_cells):
    found = results.load("tiny", two_cells)
    ours, theirs = budget.cells(found, two_cells)[0], budget.scale("paper")
    figure = figures.budget(ours, theirs, found)
    marks = [sum(len(line.get_xdata()) == 1 for line in ax.lines) for ax in figure.axes]
    assert marks == [len(ours) + len(theirs), len(ours)]
    plt.close(figure)


def test_it_never_imports_torch():
    code = "import sys, lrd.analysis.budget, lrd.report.figures, lrd.report.display; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
