"""The capacity budget: counts and bits by hand, and pages' sentences that stay true without runs."""

import math
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
import pytest
from fakes import write_lines, write_run

from lrd import ROOT, results
from lrd.analysis import budget
from lrd.report import display, figures


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
    frame = budget.scale().set_index("cell")
    assert len(frame) == 18
    row = frame.loc["outcome-r1-s0"]
    assert (row.parameters, row.episodes, row.at_most, row.capacity) == (1_089_536, 1600, 1600, 2_179_072)
    assert frame.loc["process-r16-s0"].at_most == 1600 * 1536 * 8
    assert frame.loc["distillation-full-s0"].at_most == pytest.approx(1600 * 1536 * math.log2(151936))
    assert frame.measured.isna().all()


def test_verdicts_follow_the_numbers(two_cells):
    found = results.load("tiny", two_cells)
    frame, _ = budget.cells(found, two_cells)
    assert "every arm has room for all of it, and a flat curve decides nothing" in budget.verdict(frame, "outcome")
    assert "0.20 times at most was measured: going by that, a flat curve" in budget.verdict(frame, "process")
    assert budget.verdict(frame, "distillation") == "Under distillation nothing has been measured."
    assert "far below 1" in budget.verdict(frame.assign(largest_ratio=0.01), "outcome")
    assert "is not measured" in budget.verdict(frame.assign(ratio=math.nan), "process")
    over = budget.verdict(frame.assign(ratio=3.0), "process")
    assert "1 of 1 cells were sent more than they hold, no arm has room" in over
    facts = budget.facts(frame, budget.scale(), found)
    assert facts["undecided"].startswith("A flat rank curve decides nothing under outcome:")
    assert (facts["cells"], facts["paper_rank_one"], facts["paper_fill"]) == ("2 finished cells", "1,089,536", "1,362")


def test_numbers_as_shown():
    shown = {0.187: "0.19", 5.24: "5.2", 1320.0: "1,300", 0.00073: "0.00073", 9.96: "10", 0.0: "0"}
    assert {x: budget.times(x) for x in shown} == shown
    assert budget.times(math.nan) == "an unknown number of"


def test_without_runs_every_piece_is_still_shown(tmp_path):
    found = results.load("tiny", tmp_path)
    frame, problems = budget.cells(found, tmp_path)
    assert not len(frame) and problems == []
    texts = list(budget.facts(frame, budget.scale(), found).values())
    texts += [budget.verdict(frame, regime) for regime in found.regimes]
    texts += [display.budget_table(frame), display.budget_cells(found, frame), display.budget_table(budget.scale())]
    assert all(texts) and not any("nan" in text for text in texts)
    for theirs in (budget.scale(), frame):
        plt.close(figures.budget(frame, theirs, found))


def test_a_record_without_numbers_raises_nothing(two_cells):
    path = two_cells / "tiny" / "process-r4-s0"
    (path / "provenance.json").write_text('{"run": {"trainable_parameters": "many"}}')
    path = two_cells / "tiny" / "outcome-r1-s0" / "metrics.jsonl"
    path.write_text(path.read_text().replace("deposits_per_episode", "deposits"))
    found = results.load("tiny", two_cells)
    frame, _ = budget.cells(found, two_cells)
    budget.facts(frame, budget.scale(), found)
    assert [budget.verdict(frame, r).endswith("nothing has been measured.") for r in found.regimes] == [True] * 3
    plt.close(figures.budget(frame, budget.scale(), found))


def test_the_figure_has_a_mark_for_every_cell(two_cells):
    found = results.load("tiny", two_cells)
    ours, theirs = budget.cells(found, two_cells)[0], budget.scale()
    figure = figures.budget(ours, theirs, found)
    marks = [sum(len(line.get_xdata()) == 1 for line in ax.lines) for ax in figure.axes]
    assert marks == [len(ours) + len(theirs), len(ours)]
    plt.close(figure)


def test_it_never_imports_torch():
    code = "import sys, lrd.analysis.budget, lrd.report.figures, lrd.report.display; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
