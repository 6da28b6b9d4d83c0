"""PEFT's words for an adapter: with each that is offered, sampler, learner and PEFT's own forward pass agree."""

import itertools
import json

import pytest
import torch
from peft import AutoPeftModelForCausalLM

from lrd import UserError
from lrd.cell import Cell, Table
from lrd.models import placement
from lrd.models.loading import load_model, skeleton
from lrd.models.logps import token_logps
from lrd.models.memory import needed_gib, size
from lrd.models.policy import Policy
from lrd.rollouts import collate
from lrd.runs.directory import Run
from lrd.runs.files import read_jsonl
from lrd.sampling.torch import TorchSampler
from lrd.train.loop import train

CPU = torch.device("cpu")
OFFERED = [
    {"use_rslora": rs, "use_dora": dora, "init_lora_weights": start}
    for rs, dora, start in itertools.product((True, False), (True, False), placement.STARTS)
]
TARGETS = {"qwen3": ("q_proj", "down_proj"), "gpt2": ("c_attn", "c_proj")}


def agree(policy: Policy, problems, close: float) -> torch.Tensor:
    """The learner's log-probabilities of what the sampler drew, having checked them against the sampler and PEFT."""
    prompts = [[5, 6, 7], [8]]
    sampler = TorchSampler(policy.base, policy.tokenizer)
    sampler.sync(policy.weights())
    said = sampler.sample(prompts, max_tokens=8, temperature=1.0, seed=0)
    batch = collate(problems, prompts, said, 1, policy.tokenizer)
    learner, mask = policy.logps(batch).logps, batch.completion_mask
    for other in (batch.sampler_logps, token_logps(policy.model, batch).logps):
        torch.testing.assert_close(other[mask], learner[mask], atol=close, rtol=0)
    return learner


@pytest.mark.parametrize("dtype, close", [("float32", 1e-4), ("bfloat16", 0.2)])
@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("lora", OFFERED, ids=json.dumps)
def test_sampler_learner_and_peft_agree(kind, lora, dtype, close, make_cell, checkpoint, rollouts):
    cell = make_cell(student=checkpoint(kind), lora_targets=TARGETS[kind], lora=Table(lora), dtype=dtype)
    if kind == "gpt2" and lora["init_lora_weights"] == "olora":  # whose weights are transposed, which PEFT forgets
        with pytest.raises(UserError, match="'olora', which PEFT does not make for transposed weights"):
            placement.check(cell)
        return
    placement.check(cell)
    policy = Policy(cell, CPU)
    assert all(p.dtype == torch.float32 for p in policy.trainable.values())
    reference = token_logps(load_model(cell.student, "student", dtype, CPU), rollouts).logps
    assert torch.equal(policy.reference_logps(rollouts), reference)  # the student as it was, whatever the adapter is
    if lora["init_lora_weights"]:
        torch.testing.assert_close(policy.logps(rollouts).logps, reference, atol=close, rtol=0)  # starts as it
    agree(policy, rollouts.problems[:2], close)
    for name, p in policy.trainable.items():
        noise = torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name)))
        p.data.add_(0.1 * noise)
    agree(policy, rollouts.problems[:2], close)
    assert (policy.logps(rollouts).logps - reference).abs().max() > 2 * close
    if dtype == "float32":  # the gradient is PEFT's, that of each part
        ours, theirs = (
            torch.autograd.grad(logps.square().sum(), list(policy.trainable.values()))
            for logps in (policy.logps(rollouts).logps, token_logps(policy.model, rollouts).logps)
        )
        largest = max(g.abs().max() for g in theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert other.any() and (one - other).abs().max() < 1e-4 * largest


@pytest.mark.parametrize("lora", [o for o in OFFERED if o["use_rslora"]], ids=json.dumps)
def test_a_saved_adapter_is_the_policy_in_peft(lora, make_cell, rollouts, tmp_path):
    policy = Policy(make_cell(lora=Table(lora)), CPU)
    for name, p in policy.trainable.items():
        p.data.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(len(name))))
    policy.save(tmp_path)
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(token_logps(loaded, rollouts).logps, policy.logps(rollouts).logps, atol=1e-4, rtol=0)


@pytest.mark.parametrize("start", placement.STARTS)
def test_a_resumed_cell_goes_on_to_the_bit(start, make_cell, tmp_path):
    """With all words at once; sampler and learner agree at each step before and after."""
    lora = Table(use_rslora=True, use_dora=True, init_lora_weights=start)
    cell = make_cell(steps=3, eval_every=3, eval_problems=2, max_completion_tokens=8, regime="distillation", lora=lora)

    def rows(run: Run) -> list[dict]:
        run.finish()
        return [{k: v for k, v in row.items() if "time" not in k} for row in read_jsonl(run.path / "metrics.jsonl")]

    whole = Run(cell, tmp_path / "whole")
    list(train(whole))
    parts = Run(cell, tmp_path / "parts")
    steps = train(parts)
    next(steps)
    steps.close()
    parts = Run(cell, tmp_path / "parts")
    list(train(parts))
    one, other = rows(whole), rows(parts)
    assert one == other and len(one) == 3
    assert all(row["sampling/sampling_logp_difference/max"] < 1e-4 and row["grad_norm"] > 0 for row in one)


@pytest.mark.parametrize(
    "lora, rank, said",
    [
        ({"r": 8}, 4, "lora sets r, which has a setting of its own: rank"),
        ({"target_modules": ["q_proj"]}, 4, "which has a setting of its own: lora_targets"),
        (
            {"use_dorra": True},
            4,
            r"lora sets 'use_dorra' \(did you mean use_dora or .*\?\); sampler and learner",
        ),
        ({"lora_dropout": 0.1}, 4, "lora sets 'lora_dropout'; sampler and learner are shown to agree with use_rslora"),
        ({"init_lora_weights": "eva"}, 4, "init_lora_weights of lora is 'eva'; .* alone"),
        ({"init_lora_weights": 1}, 4, "init_lora_weights of lora is 1; .* alone"),
        ({"use_dora": "yes"}, 4, "use_dora of lora is 'yes'; .* with true, false alone"),
        ({"init_lora_weights": "orthogonal"}, 3, "PEFT refuses rank 3 with lora = .*even"),
    ],
)
def test_what_cannot_agree_is_refused_before_any_weight_is_read(lora, rank, said, make_cell, tmp_path, monkeypatch):
    monkeypatch.setattr("lrd.models.policy.load_model", None)
    run = Run(make_cell(lora=Table(lora), rank=rank), tmp_path)
    with pytest.raises(UserError, match=said) as error:
        list(train(run))
    assert "\n" not in str(error.value)


def test_a_reference_of_its_own_takes_memory(make_cell):
    student = size(skeleton(make_cell().student, "student"), Cell.lora_targets)
    usual, moved = (
        needed_gib(make_cell(lora=Table(init_lora_weights=start)), student)["student and reference"]
        for start in (True, "pissa")
    )
    assert moved == 2 * usual


def test_a_table_is_given_by_options_and_names_an_axis(make_cell):
    cell = Cell.load("tiny", regime="outcome", rank=4, seed=0, lora={"use_dora": True})
    assert cell.lora == {"use_dora": True} == json.loads(json.dumps(cell.config))["lora"]
    assert hash(cell) == hash(Cell.load("tiny", regime="outcome", rank=4, seed=0, lora=cell.config["lora"]))
