"""Updates with losses other than the study's, and the learning rate of each step."""

import json

import pytest
import torch
from transformers import get_scheduler

from lrd import UserError
from lrd.runs.directory import Run
from lrd.runs.files import read_jsonl
from lrd.train.loop import train
from lrd.train.update import rate

SHORT = {"steps": 4, "eval_every": 2, "eval_problems": 5, "max_completion_tokens": 12, "logged_completions": 2}


def finish(cell, runs) -> list[dict]:
    run = Run(cell, runs)
    list(train(run))
    run.finish()
    return read_jsonl(run.path / "metrics.jsonl")


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 1, 3, 7])
def test_learning_rates_are_those_of_transformers(make_cell, schedule, warmup):
    name = "constant_with_warmup" if schedule == "constant" else schedule
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.03)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=9)
    cell = make_cell(steps=9, learning_rate=0.03, warmup_steps=warmup, lr_schedule=schedule)
    for step in range(1, 10):
        assert rate(step, cell) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-12, abs=1e-18)
        optimizer.step()
        scheduler.step()


def test_a_run_warms_up_and_decays_and_goes_on_where_it_stopped(make_cell, tmp_path):
    cell = make_cell(**SHORT, regime="distillation", warmup_steps=2, lr_schedule="linear", learning_rate=0.01)
    whole = finish(cell, tmp_path / "whole")
    assert [row["learning_rate"] for row in whole] == [0.0, 0.005, 0.01, 0.005]
    assert whole[1]["kl"] == 0 and whole[2]["kl"] != 0  # at rate 0 nothing moved
    run = Run(cell, tmp_path / "parts")
    steps = train(run)
    next(steps), next(steps), next(steps)
    steps.close()
    again = finish(cell, tmp_path / "parts")
    for one, other in zip(whole, again, strict=True):
        assert all(one[key] == other[key] for key in ("learning_rate", "loss", "grad_norm", "kl"))


@pytest.mark.parametrize(
    "changes",
    [
        {"clip_epsilon_high": 0.28, "epochs": 2},
        {"ratio_level": "sequence", "loss_aggregation": "sequence", "epochs": 2},
        {"advantage_norm": "mean", "loss_aggregation": "constant"},
        {"truncated_completions": "masked"},
        {"importance_cap": 0.5},
    ],
    ids=json.dumps,
)
def test_each_loss_trains_and_is_another_one(make_cell, tmp_path, changes):
    short = SHORT | {"regime": "distillation", "steps": 2}
    usual = finish(make_cell(**short, epochs=changes.get("epochs", 1)), tmp_path / "one")
    rows = finish(make_cell(**short | changes), tmp_path / "two")
    assert all(row["skipped_updates"] == 0 and row["grad_norm"] > 0 for row in rows)
    assert [row["loss"] for row in rows] != [row["loss"] for row in usual]
    if "importance_cap" in changes:  # sampler and learner agree, so that every weight would be 1
        assert all(row["sampling/importance_sampling_ratio/mean"] == 0.5 for row in rows)


@pytest.mark.parametrize("rank", [4, None])
def test_a_cell_in_micro_batches_trains_as_the_whole(make_cell, tmp_path, rank):
    """Its first update, that is: Adam makes the sign of a gradient of what is but rounding, and so a step of it."""
    short = SHORT | {"regime": "distillation", "steps": 2, "rank": rank, "loss_aggregation": "sequence"}
    whole, *_ = finish(make_cell(**short), tmp_path / "one")
    for n, changes in enumerate(({"micro_batch": 3}, {"micro_batch": 5, "checkpointing": "layers"})):
        parts, last = finish(make_cell(**short, **changes), tmp_path / str(n))
        for key in ("loss", "grad_norm", "kl", "entropy", "reward"):
            assert parts[key] == pytest.approx(whole[key], rel=1e-3, abs=1e-6), key
        assert last["grad_norm"] > 0 and last["skipped_updates"] == 0


def test_completions_without_the_samplers_log_probabilities_cannot_be_weighted(make_cell, tmp_path):
    cell = make_cell(**SHORT, regime="supervised", advantage_norm="none", importance_cap=2.0)
    with pytest.raises(UserError, match="importance_cap weighs what a sampler draws, and regime 'supervised' samples"):
        list(train(Run(cell, tmp_path)))
