"""The loop: what a cell records, that it resumes exactly, and what it does with gradients that are not finite."""

import json
import math
import os
import signal
import time
from collections import Counter

import pytest
import safetensors
import torch
from fakes import ScriptedSampler

from lrd import UserError, grpo, rewards
from lrd.checks.verification import TIMES
from lrd.data.problems import train_pool
from lrd.runs.directory import Run, state
from lrd.runs.files import read_json, read_jsonl
from lrd.train import checkpoint, loop as training
from lrd.train.loop import Diverged, train

SHORT = {"steps": 4, "eval_every": 2, "eval_problems": 5, "max_completion_tokens": 12, "logged_completions": 2}


def finish(cell, runs):
    run = Run(cell, runs)
    rows = list(train(run))
    run.finish()
    return run, rows


def untimed(path):
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_jsonl(path)]


@pytest.mark.parametrize("regime", ["outcome", "process", "distillation"])
@pytest.mark.parametrize("rank", [4, None])
def test_every_regime_and_arm_trains_and_leaves_its_records(make_cell, tmp_path, regime, rank):
    run, rows = finish(make_cell(regime=regime, rank=rank, **SHORT), tmp_path)
    assert state(run.path) == "finished"
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    metrics = read_jsonl(run.path / "metrics.jsonl")
    for name in (
        "reward reward_std frac_reward_zero_std accuracy advantage_std deposits_per_episode kl entropy grad_norm loss "
        "completions/mean_length completions/clipped_ratio clip_ratio/region_mean step_time skipped_updates "
        "sampling/sampling_logp_difference/mean"
    ).split():
        assert all(name in row for row in metrics), name
    assert all(row["sampling/sampling_logp_difference/max"] < 1e-4 for row in metrics)
    assert metrics[0]["kl"] == 0  # before its first update the policy is the reference
    assert metrics[-1]["skipped_updates"] == 0
    evals = read_jsonl(run.path / "evals.jsonl")
    assert [row["step"] for row in evals] == [0] * 5 + [2] * 5 + [4] * 5
    assert set(evals[0]) == {"step", "problem", "correct", "answered", "length", "truncated"}
    logged = read_jsonl(run.path / "completions.jsonl")
    assert [row["step"] for row in logged] == [1, 1, 3, 3, 4, 4]
    row = logged[0]
    assert len(row["tokens"]) == len(row["token_rewards"]) == len(row["deposit_mask"]) == len(row["advantages"])
    expected = {"outcome": 1, "process": sum("\n" in t for t in row["tokens"]), "distillation": len(row["tokens"])}
    assert 0 <= sum(row["deposit_mask"]) - expected[regime] <= (1 if regime == "process" else 0)
    assert {p.name for p in run.path.iterdir()} & {"adapter", "model"} == {"adapter" if rank else "model"}
    assert (run.weights / ("adapter_model" if rank else "model")).with_suffix(".safetensors").is_file()
    assert not list(run.path.rglob("*.bin")) + list(run.path.rglob("*.pt"))  # safetensors only


def test_a_finished_cell_yields_nothing_and_is_not_touched(make_cell, tmp_path):
    run, _ = finish(make_cell(**SHORT), tmp_path)
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file() and p.name != "lock"}
    _, rows = finish(make_cell(**SHORT), tmp_path)
    assert rows == []
    assert before == {p: p.stat().st_mtime_ns for p in run.path.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_a_resumed_cell_is_bit_identical_to_one_that_was_never_stopped(make_cell, tmp_path, rank, stop_at):
    cell = make_cell(rank=rank, regime="distillation", validation_problems=3, **SHORT)
    whole, _ = finish(cell, tmp_path / "whole")
    broken = Run(cell, tmp_path / "broken")
    for metrics in train(broken):
        if metrics["step"] == stop_at:
            break
    broken.close()
    assert state(broken.path) == "interrupted"
    resumed, rows = finish(cell, tmp_path / "broken")
    assert rows[0]["step"] == stop_at // 2 * 2 + 1  # after the last checkpoint
    assert untimed(resumed.path / "metrics.jsonl") == untimed(whole.path / "metrics.jsonl")
    for name in ("evals.jsonl", "validation.jsonl", "completions.jsonl"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    assert Counter(row["step"] for row in read_jsonl(whole.path / "validation.jsonl")) == {0: 3, 2: 3, 4: 3}
    weights = [next(r.weights.glob("*.safetensors")).read_bytes() for r in (resumed, whole)]
    assert weights[0] == weights[1]


def signal_at(monkeypatch, step, *numbers):
    """Sends signals to this very process in the middle of a step."""
    real, calls = training.update, iter(range(1, 100))

    def update(*args):
        if next(calls) == step:
            for number in numbers:
                os.kill(os.getpid(), number)
        return real(*args)

    monkeypatch.setattr(training, "update", update)


def saved_step(run):
    with safetensors.safe_open(run.checkpoint, "pt") as file:
        return int(file.metadata()["step"])


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,), (signal.SIGINT,), (signal.SIGTERM, signal.SIGTERM)])
@pytest.mark.parametrize(("rank", "stop_at"), [(4, 1), (None, 3), (4, 4)])
def test_a_signal_ends_training_after_its_step_and_loses_nothing(
    make_cell, tmp_path, monkeypatch, rank, stop_at, numbers
):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    cell = make_cell(rank=rank, regime="process", **SHORT | {"eval_every": 4})
    whole, _ = finish(cell, tmp_path / "whole")
    signal_at(monkeypatch, stop_at, *numbers)
    stopped = Run(cell, tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {stop_at}; its state is saved"):
        list(train(stopped))
    monkeypatch.undo()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert state(stopped.path) == "interrupted"
    assert saved_step(stopped) == stop_at  # between two evaluations
    assert [row["step"] for row in read_jsonl(stopped.path / "metrics.jsonl")] == list(range(1, stop_at + 1))
    resumed, rows = finish(cell, tmp_path / "stopped")
    assert [row["step"] for row in rows] == list(range(stop_at + 1, 5))
    assert [session["from_step"] for session in resumed.sessions] == [0, stop_at]
    assert untimed(resumed.path / "metrics.jsonl") == untimed(whole.path / "metrics.jsonl")
    for name in ("evals.jsonl", "completions.jsonl"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes()
    weights = [next(r.weights.glob("*.safetensors")).read_bytes() for r in (resumed, whole)]
    assert weights[0] == weights[1]


def test_a_second_interrupt_does_not_wait_for_the_step(make_cell, tmp_path, monkeypatch):
    signal_at(monkeypatch, 3, signal.SIGINT, signal.SIGINT)
    run = Run(make_cell(**SHORT), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        list(train(run))
    assert state(run.path) == "interrupted"
    assert saved_step(run) == 2  # the last evaluation's
    assert len(read_jsonl(run.path / "metrics.jsonl")) == 2


def test_checkpoints_that_take_seconds_wait_and_nothing_is_lost_but_time(make_cell, tmp_path, monkeypatch):
    saved, real = [], checkpoint.save_file

    def save(tensors, part, about):
        time.sleep(1.05)
        saved.append(int(about["step"]))
        real(tensors, part, about)

    monkeypatch.setattr(checkpoint, "save_file", save)
    cell = make_cell(rank=4, **SHORT | {"eval_every": 1})  # all of it in less than ten times that second
    run = Run(cell, tmp_path / "broken")
    for metrics in train(run):
        if metrics["step"] == 3:
            break
    run.close()
    assert saved == [0] and len(read_jsonl(run.path / "evals.jsonl")) == 4 * cell.eval_problems
    resumed, rows = finish(cell, tmp_path / "broken")
    assert rows[0]["step"] == 1 and saved == [0, 1, 4]  # how long it takes is not known before; the last one always
    monkeypatch.undo()
    whole, _ = finish(cell, tmp_path / "whole")
    assert untimed(resumed.path / "metrics.jsonl") == untimed(whole.path / "metrics.jsonl")
    assert (resumed.path / "evals.jsonl").read_bytes() == (whole.path / "evals.jsonl").read_bytes()


def test_a_checkpoint_replaces_the_one_before_once_it_is_whole_and_on_disk(make_cell, tmp_path, monkeypatch):
    run = Run(make_cell(**SHORT), tmp_path)
    steps = train(run)
    next(steps)
    flushed = []
    real = os.fsync

    def fsync(file):
        flushed.append(os.readlink(f"/proc/self/fd/{file}"))
        if flushed[-1].endswith("state.safetensors.part"):
            assert saved_step(run) == 0  # still there while the next is written
            raise OSError(5, "Input/output error")
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="Input/output"):
        next(steps)
    monkeypatch.undo()
    assert str(run.path / "metrics.jsonl") in flushed  # what a checkpoint counts on is on disk before it
    assert saved_step(run) == 0
    _, rows = finish(make_cell(**SHORT), tmp_path)
    assert rows[0]["step"] == 1


def test_out_of_memory_is_said_in_those_words_with_what_to_change(make_cell, tmp_path, monkeypatch):
    def load(cell, tokenizer, device):
        return lambda rollouts, logps: torch.empty(1 << 50)

    monkeypatch.setattr(rewards, "load", load)
    run = Run(make_cell(**SHORT), tmp_path)
    with pytest.raises(RuntimeError):
        list(train(run))
    reason = read_json(run.path / "failed.json")
    assert reason["error"].startswith("out of memory: ") and "eval_batch" in reason["error"]
    assert "can't allocate memory" in reason["error"] and "Traceback" in reason["traceback"]


def test_how_many_weights_moved(make_cell, tmp_path):
    """Updates of 1e-9 vanish in bf16, but for the weights that are zero: the padding token's."""

    def last(**changes):
        runs = tmp_path / str(len(list(tmp_path.iterdir())))
        _, rows = finish(make_cell(regime="distillation", **SHORT, **changes), runs)
        return rows[-1].get("weights_moved")

    bf16 = {"dtype": "bfloat16", "master_dtype": "bfloat16"}
    assert last(rank=None, learning_rate=1e-9, **bf16) < 0.002
    assert last(rank=None, learning_rate=0.1, **bf16) > 0.9
    assert last(rank=None, learning_rate=1e-2) > 0.9
    assert last(rank=4) is None  # an adapter leaves the base's weights as they are


def test_cells_of_a_seed_see_the_same_prompts_in_the_same_order(make_cell, tmp_path):
    def seen(**changes):
        run, _ = finish(make_cell(**SHORT, **changes), tmp_path / str(changes))
        return [row["problem"] for row in read_jsonl(run.path / "completions.jsonl")]

    assert seen(regime="outcome", rank=1) == seen(regime="distillation", rank=None)
    assert seen(regime="outcome", rank=1) != seen(regime="outcome", rank=1, seed=1)


def test_only_a_reward_that_differs_within_a_group_moves_the_policy(make_cell, tmp_path, tokenizer):
    wrong = [tokenizer("The answer is 3.").input_ids + [tokenizer.eos_token_id]]
    run = Run(make_cell(kl_estimator="k3", **SHORT), tmp_path)  # the report's estimator pulls even at the base itself
    rows = list(train(run, ScriptedSampler(wrong)))
    assert [row["advantage_std"] for row in rows] == [0] * 4
    assert [row["kl"] for row in rows] == [0] * 4  # no advantage, no gradient: still the base
    assert rows[-1]["frac_reward_zero_std"] == 1
    run.close()


def test_training_that_goes_on_after_an_interruption_holds_the_directory_again(make_cell, tmp_path):
    run = Run(make_cell(**SHORT), tmp_path)
    steps = train(run)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)  # the stop button of a notebook
    assert state(run.path) == "interrupted"
    steps = train(run)  # the same notebook cell once more
    next(steps)
    assert state(run.path) == "running"
    with pytest.raises(UserError, match="is open in this one"):
        Run(make_cell(**SHORT), tmp_path)
    steps.close()


def test_log_probabilities_at_other_temperatures_are_not_compared(make_cell, tmp_path):
    for temperature in (1.0, 0.5):
        (row,) = train(
            Run(make_cell(**SHORT | {"steps": 1}, logp_temperature=temperature), tmp_path / str(temperature))
        )
        assert ("sampling/sampling_logp_difference/mean" in row) == (temperature == 1)


def nan_loss_at(monkeypatch, steps):
    real, calls = grpo.loss, iter(range(1, 100))

    def loss(*args, **kwargs):
        value, about = real(*args, **kwargs)
        return (value * math.nan if next(calls) in steps else value), about

    monkeypatch.setattr(grpo, "loss", loss)


def test_an_update_that_is_not_finite_is_skipped_and_counted(make_cell, tmp_path, monkeypatch):
    nan_loss_at(monkeypatch, {1, 3})
    run, rows = finish(make_cell(**SHORT), tmp_path)
    assert [row["skipped_updates"] for row in rows] == [1, 0, 1, 0]
    assert rows[1]["kl"] == 0  # the first update was skipped
    assert read_jsonl(run.path / "metrics.jsonl")[0]["loss"] is None
    assert state(run.path) == "finished"


def test_three_in_a_row_fail_the_cell_with_its_state_saved(make_cell, tmp_path, monkeypatch):
    cell = make_cell(**SHORT | {"steps": 9, "eval_every": 4})
    nan_loss_at(monkeypatch, {3, 4, 5})
    run = Run(cell, tmp_path)
    with pytest.raises(Diverged, match="steps 3 to 5"):
        list(train(run))
    assert state(run.path) == "failed"
    assert "steps 3 to 5" in read_json(run.path / "failed.json")["error"]
    assert [row["step"] for row in read_jsonl(run.path / "metrics.jsonl")] == [1, 2, 3, 4, 5]
    monkeypatch.undo()
    _, rows = finish(cell, tmp_path)
    assert rows[0]["step"] == 6
    assert state(run.path) == "finished"


def test_a_cell_that_failed_where_an_evaluation_was_due_makes_up_for_it(make_cell, tmp_path, monkeypatch):
    cell = make_cell(**SHORT | {"steps": 6, "eval_every": 3})
    nan_loss_at(monkeypatch, {1, 2, 3})
    run = Run(cell, tmp_path)
    with pytest.raises(Diverged, match="steps 1 to 3"):
        list(train(run))
    monkeypatch.undo()
    _, rows = finish(cell, tmp_path)
    assert rows[0]["step"] == 4
    assert [row["step"] for row in read_jsonl(run.path / "evals.jsonl")] == [0] * 5 + [3] * 5 + [6] * 5


def test_a_nan_reward_skips_the_update_too(make_cell, tmp_path, monkeypatch):
    def load(cell, tokenizer, device):
        def reward(rollouts, logps):
            mask = rollouts.completion_mask
            return rewards.Deposits(torch.where(mask, math.nan, 0.0), mask, dense=True)

        return reward

    monkeypatch.setattr(rewards, "load", load)
    run = Run(make_cell(**SHORT), tmp_path)
    with pytest.raises(Diverged):
        list(train(run))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"student": "./models/tiny/nothing"}, "lrd testbed tiny"),
        ({"teacher": "./models/tiny/nothing", "regime": "distillation"}, "teacher './models/tiny/nothing'"),
        ({"eval_problems": 10**6}, "held-out problems; eval_problems asks for 1000000"),
        ({"prompts_per_step": 10**6}, "a step takes 1000000 prompts"),
        ({"train_data": "no/such-data-set"}, "cannot load data set 'no/such-data-set'"),
        ({"train_data": "none.jsonl"}, "there is no file 'none.jsonl'"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(make_cell, tmp_path, changes, sentence):
    run = Run(make_cell(**SHORT | changes), tmp_path)
    with pytest.raises(UserError, match=sentence):
        list(train(run))
    assert [p.name for p in run.path.iterdir()] == ["lock"]
    assert state(run.path) == "absent"


def test_a_checkpoint_that_does_not_fit_is_refused(make_cell, tmp_path):
    run = Run(make_cell(**SHORT), tmp_path)
    next(iter(train(run)))
    run.close()
    run.checkpoint.write_bytes(b"garbage")
    with pytest.raises(UserError, match="checkpoint cannot be read"):
        list(train(Run(make_cell(**SHORT), tmp_path)))
    weight = {"w": torch.nn.Parameter(torch.zeros(1))}
    optimizer = torch.optim.AdamW(weight.values())
    checkpoint.Checkpoint(run.checkpoint, make_cell(seed=1).config, weight, optimizer).save(2)
    with pytest.raises(UserError, match="of another configuration"):
        checkpoint.Checkpoint(run.checkpoint, make_cell(seed=0).config, weight, optimizer).restore()


def test_multiple_epochs_take_that_many_updates(make_cell, tmp_path, monkeypatch):
    steps = []
    real = torch.optim.AdamW.step
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, *a: (steps.append(1), real(self, *a))[1])
    finish(make_cell(epochs=3, regime="distillation", **SHORT), tmp_path)
    assert len(steps) == 3 * SHORT["steps"]


def test_config_and_provenance_are_complete(make_cell, tmp_path):
    cell = make_cell(**SHORT)
    run, _ = finish(cell, tmp_path)
    assert json.loads((run.path / "config.json").read_text()) == cell.config
    about = read_json(run.path / "provenance.json")
    # 7 linear layers of hidden 32, heads 4·16, key-value heads 2·16, intermediate 48: rank · (in + out), two layers
    linear = [(32, 64), (32, 32), (32, 32), (64, 32), (32, 48), (32, 48), (48, 32)]
    assert about["run"]["trainable_parameters"] == 2 * cell.rank * sum(map(sum, linear))
    assert about["run"]["train_problems"] == len(train_pool("chain")[0])
    names = {"started", "from_step", "git", "host", "code", "ended", "seconds", "cpu_seconds"}
    assert about["sessions"][0].keys() == names
    assert about["run"]["engine"] == "torch"
