"""The outcome reward against what the verifier says."""

from dataclasses import replace

import torch
from fakes import deposited

from lrd import rewards

CPU = torch.device("cpu")


def test_outcome_deposits_once_on_the_last_valid_token(mixed, make_cell, tokenizer):
    got = rewards.load(make_cell(regime="outcome"), tokenizer, CPU)(mixed, torch.zeros(mixed.completion_ids.shape))
    assert not got.dense
    assert mixed.lengths.tolist() == [22, 8, 17, 0]
    assert [deposited(row) for row in got.deposit_mask] == [[21], [7], [16], []]  # wrong and cut: 0.0, and deposited
    assert got.trajectory_rewards.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert got.token_rewards[0, 21] == 1.0 and got.token_rewards.count_nonzero() == 1


def test_outcome_does_not_ask_the_learner(mixed, make_cell, tokenizer):
    reward = rewards.load(make_cell(regime="outcome"), tokenizer, CPU)
    shape = mixed.completion_ids.shape
    one, other = reward(mixed, torch.zeros(shape)), reward(mixed, torch.full(shape, -9.0))
    assert torch.equal(one.token_rewards, other.token_rewards)


def test_outcome_grades_as_the_cell_says(make_rollouts, make_cell, tokenizer):
    """The original's verifier reads a bare gold answer as it stands, and fails on a bare set of points."""
    batch = make_rollouts([("1a+1", "6", ["The answer is \\boxed{6}."] * 2)])
    text, answer = "\\boxed{\\text{east}}", "\\text{east}"
    batch = replace(batch, texts=[text] * 2, problems=[replace(p, answer=answer) for p in batch.problems])
    graded = {
        how: rewards.load(make_cell(grading=how), tokenizer, CPU)(batch, torch.zeros(batch.completion_ids.shape))
        for how in ("boxed", "bare")
    }
    assert graded["boxed"].trajectory_rewards.tolist() == [1.0, 1.0]
    assert graded["bare"].trajectory_rewards.tolist() == [0.0, 0.0]
