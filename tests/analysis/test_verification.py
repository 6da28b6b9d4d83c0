"""Numbers of the verification page, by hand."""

import json

import pytest
import torch
from fakes import write_run

from lrd import results
from lrd.analysis import verification
from lrd.analysis.verification import GAP, Graded


def test_graded_pairs_are_summed_over_kinds():
    kinds = {"a": {"right": [5, 4, 2], "wrong": [3, 3, 1]}, "b": {"right": [10, 10, 7], "wrong": [2, 1, 0]}}
    assert verification.graded({"grading": {"kinds": kinds}}) == {"right": Graded(15, 14, 9), "wrong": Graded(5, 4, 1)}


def test_the_largest_difference_is_that_of_any_loss_or_gradient():
    rows = {"token": {"loss": 0.0, "gradient": 2.5e-7}, "sequence": {"loss": 1e-7, "gradient": 0.0}}
    assert verification.loss_difference({"loss": {"aggregations": rows}}) == 2.5e-7


@pytest.mark.parametrize("learning_rate", [1e-5, 3e-5, 3e-4, 2.0**-17])
def test_from_the_barrier_on_a_bf16_weight_stays(learning_rate):
    barrier = verification.bf16_barrier(learning_rate)
    sizes = torch.tensor([barrier, 1.5 * barrier, 4 * barrier], dtype=torch.bfloat16)
    for sign in (1, -1):
        assert ((sizes.float() + sign * learning_rate * 0.999).bfloat16() == sizes)[1:].all()
    below = torch.tensor([0.75 * barrier], dtype=torch.bfloat16)
    assert ((below.float() + learning_rate * 1.001).bfloat16() != below).all()


def measured(runs, regime, rank, seed, gap, entropy=0.5):
    path = write_run(runs, regime, rank, seed, {0: 5, 2: 10}) / "metrics.jsonl"
    more = {f"{GAP}/mean": gap, f"{GAP}/max": 10 * gap, "entropy": entropy, "accuracy": 0.25}
    rows = [json.loads(line) | more for line in path.read_text().splitlines()]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def test_live_numbers_by_hand(tmp_path):
    measured(tmp_path, "outcome", 1, 0, 1e-6)
    measured(tmp_path, "outcome", 4, 0, 3e-6)
    measured(tmp_path, "process", 1, 0, 2e-6, entropy=0.6)
    measured(tmp_path, "process", 1, 1, 2e-6)
    found = results.load("tiny", tmp_path)
    gaps = verification.sampler_gap(found)
    assert gaps.index.tolist() == ["outcome", "process"] and gaps.steps.tolist() == [4, 4]
    assert gaps["mean"].tolist() == pytest.approx([2e-6, 2e-6])
    assert gaps["max"].tolist() == pytest.approx([3e-5, 2e-5])
    first = verification.first_batches(found)
    assert first.cells.to_dict() == {0: 3, 1: 1} and first.batches.to_dict() == {0: 2, 1: 1}


def test_without_runs_and_without_measurements(tmp_path):
    write_run(tmp_path, "outcome", 1, 0, {0: 5, 2: 10})  # a sampler that tells no log-probabilities
    for runs in (tmp_path, tmp_path / "none"):
        found = results.load("tiny", runs)
        assert not len(verification.sampler_gap(found)) and not len(verification.first_batches(found))
