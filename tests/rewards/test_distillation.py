"""The distillation reward by hand, on two models."""

import json

import pytest
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from lrd import UserError, rewards
from lrd.models.logps import token_logps

CPU = torch.device("cpu")


def by_hand(model, rollouts, i: int) -> list[float]:
    """log π of a completion's tokens, one trajectory by itself, without padding or a batch."""
    prompt = rollouts.prompt_ids[i, rollouts.prompt_mask[i]].tolist()
    ids = rollouts.ids_of(i)
    with torch.no_grad():
        logits = model(torch.tensor([prompt + ids])).logits[0].double()
    return [
        (logits[len(prompt) + t - 1, token] - logits[len(prompt) + t - 1].logsumexp(0)).item()
        for t, token in enumerate(ids)
    ]


def test_distillation_is_the_gap_between_teacher_and_learner(rollouts, make_cell, tokenizer, pretrained):
    cell = make_cell(regime="distillation")
    student, teacher = pretrained("qwen3", 0), pretrained("qwen3", 1)
    logps = token_logps(student, rollouts).logps.requires_grad_()
    got = rewards.load(cell, tokenizer, CPU)(rollouts, logps)
    assert got.dense and not got.token_rewards.requires_grad
    assert torch.equal(got.deposit_mask, rollouts.completion_mask)  # every valid token, the end included
    for i in range(len(rollouts.problems)):
        want = [a - b for a, b in zip(by_hand(teacher, rollouts, i), by_hand(student, rollouts, i))]
        n = len(want)
        torch.testing.assert_close(got.token_rewards[i, :n].tolist(), want, atol=2e-5, rtol=0)
        assert not got.token_rewards[i, n:].any()
        assert got.trajectory_rewards[i].item() == pytest.approx(sum(want), abs=2e-4)


def test_both_are_read_at_the_learners_temperature(rollouts, make_cell, tokenizer, pretrained):
    cell = make_cell(regime="distillation", logp_temperature=0.7)
    student, teacher = (token_logps(pretrained("qwen3", seed), rollouts, 0.7).logps for seed in (0, 1))
    got = rewards.load(cell, tokenizer, CPU)(rollouts, student)
    torch.testing.assert_close(got.token_rewards, (teacher - student).detach(), atol=1e-6, rtol=0)


def test_a_student_that_is_its_teacher_learns_nothing(rollouts, make_cell, tokenizer, checkpoint, pretrained):
    logps = token_logps(pretrained(), rollouts).logps
    got = rewards.load(make_cell(regime="distillation", teacher=checkpoint()), tokenizer, CPU)(rollouts, logps)
    assert not got.token_rewards.any()


def test_log_probabilities_at_a_temperature(rollouts, pretrained):
    model, t = pretrained(), 0.7
    got = token_logps(model, rollouts, temperature=t)
    prompt, ids = rollouts.prompt_ids[2, rollouts.prompt_mask[2]].tolist(), rollouts.ids_of(2)
    with torch.no_grad():
        p = torch.softmax(model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].double() / t, -1)
    want = p[range(len(ids)), ids].log().float()
    torch.testing.assert_close(got.logps[2, : len(ids)], want, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.entropy[2, : len(ids)], -(p * p.log()).sum(-1).float(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "neox"])
def test_log_probabilities_do_not_depend_on_padding(kind, rollouts, pretrained):
    """GPT-2 has absolute positions: a left-padded prompt must count from its first token."""
    got = token_logps(pretrained(kind), rollouts).logps
    for i in range(len(rollouts.problems)):
        want = torch.tensor(by_hand(pretrained(kind), rollouts, i))
        torch.testing.assert_close(got[i, : len(want)], want, atol=2e-5, rtol=0)


def test_a_teacher_with_another_vocabulary_is_a_user_error(make_cell, tokenizer, checkpoint, tmp_path):
    AutoModelForCausalLM.from_pretrained(checkpoint("qwen3", 1)).save_pretrained(tmp_path)
    raw = json.loads(tokenizer._tokenizer.to_str())
    words = raw["model"]["vocab"]
    words["+"], words["-"] = words["-"], words["+"]
    other = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(raw)), eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )
    other.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"teacher .* cannot score .*2 of 35 .*'[+-]'"):
        rewards.load(make_cell(regime="distillation", teacher=str(tmp_path)), tokenizer, CPU)


def test_a_teacher_with_more_tokens_will_do(make_cell, tokenizer, checkpoint, tmp_path, rollouts):
    model = AutoModelForCausalLM.from_pretrained(checkpoint("qwen3", 1))
    model.resize_token_embeddings(len(tokenizer) + 1)
    model.save_pretrained(tmp_path)
    larger = AutoTokenizer.from_pretrained(checkpoint())
    larger.add_tokens(["<think>"])
    larger.save_pretrained(tmp_path)
    reward = rewards.load(make_cell(regime="distillation", teacher=str(tmp_path)), tokenizer, CPU)
    assert reward(rollouts, torch.zeros(rollouts.completion_ids.shape)).token_rewards.isfinite().all()
