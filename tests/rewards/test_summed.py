"""Sums of rewards, evaluations scored by a reward, and problems without a gold answer."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import call

from lrd import UserError, results, rewards
from lrd.cell import Cell, grid
from lrd.data import problems
from lrd.models.logps import TokenLogps
from lrd.names import reward_terms
from lrd.rewards import process
from lrd.rewards.outcome import on_last_token
from lrd.runs import sources
from lrd.runs.files import read_json, read_jsonl
from lrd.train import inputs
from lrd.train.metrics import describe

CPU = torch.device("cpu")
MINE = """
import beside

def short(completions, **columns):
    return [-len(text) / 100 for text in completions]

def sums(completions, answer, **columns):
    return [None if "=" not in text else float(text.count(answer[0])) for text in completions]

def gold(completions, answer, **columns):
    return [float(right) for right in answer]
"""


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A directory of somebody's own, from which `lrd` is called."""
    (tmp_path / "ours.py").write_text(MINE)
    (tmp_path / "beside.py").write_text("x = 1\n")
    monkeypatch.setenv(sources.CALLED_FROM, str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("ours", "beside"):
        sys.modules.pop(name, None)


def test_a_sum_is_read_as_it_is_written():
    assert reward_terms("outcome") == [(1.0, "outcome")]
    assert reward_terms("outcome+0.5*a.b:f-2*process") == [(1.0, "outcome"), (0.5, "a.b:f"), (-2.0, "process")]
    for wrong in ("", "+outcome", "-outcome", "outcome+", "outcome + process", "0.5", "0.5*", "a*b", "2**outcome"):
        assert reward_terms(wrong) == []
    cell = Cell.load("tiny", regime="outcome-0.01*m:f", rank=4, seed=0)
    assert cell.name == "outcome-0.01_m.f-r4-s0" and cell.config["regime"] == "outcome-0.01*m:f"
    assert len(grid("tiny", {"regime": ["outcome", "outcome+m:f", "outcome-m:f", "2*outcome", "m:f"]})) == 5 * 18
    for wrong in ("outcome+proces", "outcome+0.5*m", "outcome+m:f:g", "outcome +m:f", "outcome+" + "a" * 150 + ":f"):
        with pytest.raises(UserError, match="unknown regime .*, or a sum such as outcome"):
            Cell.load("tiny", regime=wrong, rank=4, seed=0)
    with pytest.raises(UserError, match=r"unknown eval_reward 'outcom' \(did you mean outcome\?\)"):
        Cell.load("tiny", regime="outcome", rank=4, seed=0, eval_reward="outcom")


def test_deposits_add_up_by_weight(here, make_cell, tokenizer, mixed):
    """By hand: the verifier's 1, 0, 0 of the first three completions, less half of a hundredth of their characters."""
    logps = torch.zeros(mixed.completion_mask.shape)
    cell = make_cell(regime="outcome+0.5*ours:short")
    deposits = rewards.load(cell, tokenizer, CPU)(mixed, logps)
    by_hand = [right - 0.5 * len(text) / 100 for right, text in zip([1, 0, 0, 0], mixed.texts)]
    assert mixed.lengths.tolist()[-1] == 0 and mixed.texts[-1] == ""
    assert deposits.trajectory_rewards.tolist() == pytest.approx(by_hand)
    assert deposits.deposit_mask.sum(1).tolist() == [1, 1, 1, 0] and not deposits.dense
    shorts = [-len(text) / 100 for text in mixed.texts[:3]]
    assert deposits.means == pytest.approx({"outcome": 1 / 3, "ours:short": sum(shorts) / 3})
    # Where one has nothing to say, the other's value stands alone; where neither has, nothing is deposited.
    both = rewards.load(make_cell(regime="2*ours:sums-ours:short"), tokenizer, CPU)(mixed, logps)
    said = ["=" in text for text in mixed.texts]
    assert said == [True, False, True, False]
    counts = [2 * text.count("6") * has + len(text) / 100 for text, has in zip(mixed.texts, said)]
    assert both.trajectory_rewards.tolist() == pytest.approx(counts)
    assert (
        rewards.load(make_cell(regime="ours:sums+ours:sums"), tokenizer, CPU)(mixed, logps).deposit_mask.any(1).tolist()
        == said
    )


def test_steps_and_the_outcome_are_summed_where_they_lie(make_cell, tokenizer, mixed):
    logps = torch.zeros(mixed.completion_mask.shape)
    steps, ends, both = (
        rewards.load(make_cell(regime=regime), tokenizer, CPU)(mixed, logps)
        for regime in ("process", "outcome", "process+0.25*outcome")
    )
    assert steps.deposit_mask.sum() > ends.deposit_mask.sum() == 3
    torch.testing.assert_close(both.token_rewards, steps.token_rewards + 0.25 * ends.token_rewards)
    assert torch.equal(both.deposit_mask, steps.deposit_mask | ends.deposit_mask)
    cell = make_cell(regime="process+outcome")
    assert rewards.model_of(cell) == "PRM" and rewards.model_of(make_cell(regime="2*outcome")) is None
    pool, _ = problems.train_pool("chain")
    alone = process.probe(rewards.load(make_cell(regime="process"), tokenizer, CPU), cell, tokenizer, pool, CPU)
    assert rewards.probe(rewards.load(cell, tokenizer, CPU), cell, tokenizer, pool, CPU) == alone


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"regime": "outcome+distillation"}, "sums 'distillation', which deposits for each token alone; a sum takes"),
        ({"regime": "0.5*supervised"}, "sums 'supervised', which deposits for each token alone"),
        ({"regime": "outcome+nowhere:f"}, "the reward 'nowhere:f' cannot be imported"),
        ({"eval_reward": "nowhere:f"}, "the reward 'nowhere:f' cannot be imported"),
        ({"eval_reward": "distillation"}, "eval_reward 'distillation' scores tokens; give one that scores completions"),
        ({"eval_reward": "process"}, "eval_reward 'process' scores with a PRM, which only its own regime loads"),
        ({"train_data": "{free}"}, "regime 'outcome' needs gold answers, and '.*' has problems without .for one, 'a'."),
        ({"train_data": "{free}", "regime": "ours:short+outcome"}, "regime 'outcome' needs gold answers"),
        ({"train_data": "{free}", "regime": "ours:short", "outcome_weight": 1.0}, "regime 'ours:short' needs gold"),
        ({"train_data": "{free}", "regime": "ours:gold"}, "'ours:gold' fails, .*TypeError: .*NoneType.* at line 11 of"),
        ({"eval_data": "{free}"}, "the verifier needs gold answers, and '.*' has .*give them, or eval_reward a reward"),
        ({"eval_data": "{free}", "eval_reward": "outcome"}, "regime 'outcome' needs gold answers, and '.*free.jsonl'"),
    ],
)
def test_what_is_refused_before_training(here, make_cell, tokenizer, changes, said):
    free = here / "free.jsonl"
    free.write_text("".join(json.dumps({"id": i, "problem": f"{i}?"}) + "\n" for i in "abcd"))
    cell = make_cell(**{key: str(value).format(free=free) if key != "outcome_weight" else value
                        for key, value in changes.items()})  # fmt: skip
    pool, held_out = problems.train_pool(cell.train_data)[0], problems.held_out(cell.eval_data, 4)
    with pytest.raises(UserError, match=said) as refused:
        inputs.check(cell, tokenizer, pool, held_out)
    assert "\n" not in str(refused.value)


def test_the_code_of_each_term_counts(here):
    plain = sources.digests("cell", ["ours:short"])
    summed = sources.digests("cell", ["outcome+0.5*ours:short"])
    assert summed.keys() - plain.keys() == {"lrd/rewards/summed.py"}
    assert {"ours.py", "beside.py"} < plain.keys() and "lrd/rewards/summed.py" not in plain
    assert sources.own(["outcome+0.5*ours:short"]).keys() == {"ours.py", "beside.py"}


# --- from outside of the library, through the command line

PRESET = """
base = "tiny"

[axes]
regime = ["free:short+0.5*free:echoes"]
rank = [1]
seed = [0]

[cell]
train_data = {data}
eval_data = {data}
eval_reward = "free:echoes"
logged_completions = 16
"""
FREE = """
def short(completions, **columns):
    return [-float(len(text)) for text in completions]

def echoes(prompts, completions, **columns):
    return [float(len(set(prompt) & set(text))) for prompt, text in zip(prompts, completions)]
"""


def test_problems_without_answers_are_trained_on_and_evaluated_by_rewards(settings, tmp_path, monkeypatch):
    folder, runs = tmp_path / "mine", tmp_path / "runs"
    folder.mkdir()
    (folder / "free.py").write_text(FREE)
    rows = [{"problem": f"{i}a+2b*{i}c-1", "level": 3} for i in range(6)]
    (folder / "free.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cell = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    (folder / "free.toml").write_text(PRESET.format(data=json.dumps(str(folder / "free.jsonl"))) + cell)
    done = call(["cell", "./free.toml", "--runs", runs], folder)
    assert done.returncode == 0, done.stderr
    path = runs / "free" / "free.short+0.5_free.echoes-r1-s0"
    metrics, evals = read_jsonl(path / "metrics.jsonl"), read_jsonl(path / "evals.jsonl")
    rows = [row for row in read_jsonl(path / "completions.jsonl") if row["step"] == 1]
    texts = ["".join(token for token in row["tokens"] if not re.fullmatch("<.*>", token)) for row in rows]
    shorts = [-len(text) for text in texts]
    echoes = [len(set(f"Last digit:{row['problem']}\n") & set(text)) for row, text in zip(rows, texts)]
    by_hand = [one + 0.5 * other for one, other in zip(shorts, echoes)]
    assert [sum(row["token_rewards"]) for row in rows] == pytest.approx(by_hand)
    assert metrics[0]["reward"] == pytest.approx(sum(by_hand) / 16)
    assert metrics[0]["rewards/free:short/mean"] == pytest.approx(sum(shorts) / 16)
    assert metrics[0]["rewards/free:echoes/mean"] == pytest.approx(sum(echoes) / 16)
    assert metrics[0]["accuracy"] is None and all(row["correct"] is None for row in [*rows, *evals])
    assert [row["step"] for row in evals] == [0] * 4 + [2] * 4
    assert all(row["score"] == int(row["score"]) >= 0 for row in evals) and len({r["score"] for r in evals}) > 1
    assert re.search(rf"{re.escape(path.name)}: score -?\d", (path / "cell.ipynb").read_text())
    monkeypatch.setenv("LRD_RUNS", str(runs))
    found = results.load("free")
    (row,) = found.finished.itertuples()
    assert row.final == pytest.approx(sum(r["score"] for r in evals[4:]) / 4) and found.problems == []
    assert found.curves.score.tolist() == [row.base, row.final]
    assert "free.py" in next(iter(read_json(path / "provenance.json")["code"].values()))["own"]
    shown = call(["status", "free", "--runs", runs, "--json"], folder)
    (state,) = json.loads(shown.stdout)["cells"]
    assert state["state"] == "finished" and state["pass@1"] is None


def test_a_batch_of_which_some_have_gold_counts_those(make_cell, make_rollouts, tokenizer):
    two, three, four = (f"The answer is \\boxed{{{i}}}." for i in (2, 3, 4))
    batch = make_rollouts([("1a+1", "2", [two, three]), ("1a+2", "3", [three, four])])
    free = [replace(p, answer=None) if p.problem == "1a+2" else p for p in batch.problems]
    batch, zeros = replace(batch, problems=free), torch.zeros(batch.completion_mask.shape)
    deposits = on_last_token([1.0, 2.0, 3.0, 4.0], batch)
    cell = make_cell(samples_per_prompt=2)
    found = describe(batch, deposits, zeros, TokenLogps(zeros, zeros), cell)
    assert found["accuracy"] == 0.5 and found["deposits/last_if_wrong"] == 2.0
