"""The torch sampler against `transformers.generate` and a full forward pass, and what a completion depends on."""

import pytest
import torch
from fakes import likes_to_end, sampler_of
from peft import PeftModel

from lrd.data.problems import Problem
from lrd.models.logps import token_logps
from lrd.models.policy import Policy
from lrd.rollouts import Completion, collate
from lrd.sampling import torch as engine
from lrd.sampling.fused import FusedDecoder
from lrd.sampling.generic import ModelDecoder
from lrd.sampling.torch import TorchSampler

CPU = torch.device("cpu")
KINDS = {"qwen3": FusedDecoder, "llama": FusedDecoder, "gpt2": ModelDecoder, "neox": ModelDecoder}
NEOX_LINEAR = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def generate(model, tokenizer, prompts: list[list[int]], max_tokens: int) -> list[list[int]]:
    """Greedy completions as transformers makes them: one left-padded batch, cut behind the end-of-sequence token."""
    width = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=max_tokens)
    rows = out[:, width:].tolist()
    end = tokenizer.eos_token_id
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def full_forward(model, tokenizer, prompts, completions: list[Completion]) -> torch.Tensor:
    problems = [Problem(str(i), "", "") for i in range(len(prompts))]
    with torch.no_grad():
        return token_logps(model, collate(problems, prompts, completions, 1, tokenizer)).logps


# --- greedy is transformers.generate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_generate(kind, seed, pretrained, tokenizer, prompts):
    model = pretrained(kind, seed)
    sampler = sampler_of(model, tokenizer)
    assert isinstance(sampler._decoder, KINDS[kind])
    got = sampler.sample(prompts, max_tokens=40, temperature=0)
    want = generate(model, tokenizer, prompts, 40)
    assert [c.ids for c in got] == want
    assert len({t for ids in want for t in ids}) > 3  # models that say one thing would prove nothing


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_of_one_token_and_of_one_length(kind, pretrained, tokenizer, prompts):
    """No padding at all, and a first step that is as wide as the others."""
    model = pretrained(kind)
    sampler = sampler_of(model, tokenizer)
    for batch in ([[5], [7], [22]], [prompts[0]] * 2, [prompts[2]]):
        got = sampler.sample(batch, max_tokens=10, temperature=0)
        assert [c.ids for c in got] == generate(model, tokenizer, batch, 10)


def test_greedy_is_generate_where_rows_end_at_different_steps(pretrained, tokenizer, prompts):
    lengths = set()
    for kind in KINDS:
        model = likes_to_end(pretrained(kind, 3), tokenizer)
        got = sampler_of(model, tokenizer).sample(prompts * 2, max_tokens=30, temperature=0)
        assert [c.ids for c in got] == generate(model, tokenizer, prompts * 2, 30)
        assert [c.truncated for c in got] == [c.ids[-1] != tokenizer.eos_token_id for c in got]
        lengths |= {len(c.ids) for c in got}
    assert len(lengths) > 4


def randomized(policy: Policy, seed: int = 7) -> Policy:
    """A policy away from its initialization: adapters (B is zero at first) or weights moved by noise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.trainable.values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return policy


@pytest.mark.parametrize("kind, rank", [("qwen3", 4), ("llama", 1), ("neox", 4), ("qwen3", None), ("gpt2", None)])
def test_greedy_from_a_policy_is_its_models_own(kind, rank, make_cell, checkpoint, tokenizer, prompts):
    """Through `Policy.weights()`, against the unmerged PEFT model's generate, or the fully trained model's."""
    targets = {"lora_targets": NEOX_LINEAR} if kind == "neox" else {}
    policy = Policy(make_cell(student=checkpoint(kind), rank=rank, **targets), CPU)
    sampler = TorchSampler(policy.base, tokenizer)
    sampler.sync(policy.weights())
    before = [c.ids for c in sampler.sample(prompts, max_tokens=30, temperature=0)]
    randomized(policy)
    assert isinstance(policy.model, PeftModel) == (rank is not None)
    assert [c.ids for c in sampler.sample(prompts, max_tokens=30, temperature=0)] == before  # its own copy
    sampler.sync(policy.weights())
    got = sampler.sample(prompts, max_tokens=30, temperature=0)
    assert [c.ids for c in got] == generate(policy.model, tokenizer, prompts, 30)
    assert [c.ids for c in got] != before
    logps = full_forward(policy.model, tokenizer, prompts, got)
    for row, c in zip(logps, got):
        torch.testing.assert_close(torch.tensor(c.logps), row[: len(c.ids)], atol=1e-4, rtol=0)


# --- log-probabilities are those of a full forward pass, at temperature 1


@pytest.mark.parametrize("temperature", [0, 0.7, 1.5])
@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_a_full_forward_pass(kind, temperature, pretrained, tokenizer, prompts):
    model = pretrained(kind)
    got = sampler_of(model, tokenizer).sample(prompts, max_tokens=40, temperature=temperature, top_p=0.95, seed=5)
    logps = full_forward(model, tokenizer, prompts, got)
    for row, c in zip(logps, got):
        assert len(c.logps) == len(c.ids)
        torch.testing.assert_close(torch.tensor(c.logps), row[: len(c.ids)], atol=1e-4, rtol=0)


# --- what a completion depends on


def test_one_seed_one_output(pretrained, tokenizer, prompts):
    sampler = sampler_of(pretrained(), tokenizer)
    options = dict(max_tokens=20, temperature=1.0, top_p=0.95)
    first = sampler.sample(prompts, seed=1, **options)
    torch.manual_seed(99)  # the global generator is not asked, nor moved
    state = torch.get_rng_state()
    assert sampler.sample(prompts, seed=1, **options) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert [c.ids for c in sampler.sample(prompts, seed=2, **options)] != [c.ids for c in first]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_one_prompt_are_not_copies(kind, pretrained, tokenizer, prompts):
    got = sampler_of(pretrained(kind), tokenizer).sample([prompts[0]] * 8, max_tokens=12, temperature=1.0)
    assert len({tuple(c.ids) for c in got}) > 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_does_not_depend_on_when_rows_are_dropped(kind, pretrained, tokenizer, prompts, monkeypatch):
    sampler = sampler_of(pretrained(kind), tokenizer)
    results, batch = [], [p for p in prompts for _ in range(6)]
    for share in (0.0, 0.8, 1.1):  # never, as it is, at once
        monkeypatch.setattr(engine, "DROP_BELOW", share)
        results.append(sampler.sample(batch, max_tokens=40, temperature=1.3, seed=4))
    for other in results[1:]:
        assert [c.ids for c in other] == [c.ids for c in results[0]]
        for a, b in zip(other, results[0]):
            torch.testing.assert_close(a.logps, b.logps, atol=1e-4, rtol=0)
    assert len({len(c.ids) for c in results[0]}) > 8  # rows did end at different steps


@pytest.mark.parametrize("kind", KINDS)
def test_a_completion_does_not_depend_on_the_other_rows(kind, pretrained, tokenizer, prompts):
    """Other prompts in the other rows, longer ones too, leave a row as it was."""
    sampler = sampler_of(pretrained(kind), tokenizer)
    options = dict(max_tokens=25, temperature=1.0, top_p=0.95, seed=8)
    one, other = prompts[:4], [prompts[0], prompts[6] * 8, prompts[2], prompts[5]]
    a, b = sampler.sample(one, **options), sampler.sample(other, **options)
    assert [a[i].ids for i in (0, 2)] == [b[i].ids for i in (0, 2)]
    assert [a[i].ids for i in (1, 3)] != [b[i].ids for i in (1, 3)]


def test_a_cap_cuts_a_completion_and_does_not_change_it(pretrained, tokenizer, prompts):
    sampler = sampler_of(pretrained(), tokenizer)
    options = dict(temperature=1.0, top_p=0.95, seed=8)
    long, short = (sampler.sample(prompts, max_tokens=cap, **options) for cap in (25, 6))
    assert [c.ids for c in short] == [c.ids[:6] for c in long]


# --- ends


@pytest.mark.parametrize("kind", KINDS)
def test_ends_and_caps(kind, pretrained, tokenizer, prompts):
    """Up to and with the end, which comes once and last; whole or truncated, never more than the cap."""
    end, batch = tokenizer.eos_token_id, prompts * 6
    for cap in (1, 2, 15):
        got = sampler_of(pretrained(kind), tokenizer).sample(batch, max_tokens=cap, temperature=1.5, seed=cap)
        assert len(got) == len(batch)
        for c in got:
            assert 1 <= len(c.ids) <= cap and len(c.logps) == len(c.ids)
            assert c.truncated == (end not in c.ids)
            assert end not in c.ids[:-1]
            assert not c.truncated or len(c.ids) == cap
    assert {c.truncated for c in got} == {True, False}


def test_ending_on_the_last_token_is_not_truncated(pretrained, tokenizer, prompts):
    sampler = sampler_of(likes_to_end(pretrained("qwen3", 3), tokenizer), tokenizer)
    whole = sampler.sample(prompts, max_tokens=30, temperature=0)
    i = next(i for i, c in enumerate(whole) if not c.truncated and len(c.ids) > 2)
    n = len(whole[i].ids)
    at, below = (sampler.sample(prompts, max_tokens=cap, temperature=0)[i] for cap in (n, n - 1))
    assert (at.ids, at.truncated) == (whole[i].ids, False)
    assert (below.ids, below.truncated) == (whole[i].ids[:-1], True)


def test_every_end_of_the_generation_config_counts(pretrained, tokenizer, prompts):
    model = pretrained()
    other = generate(model, tokenizer, [prompts[0]], 3)[0][0]  # what it would say first becomes an end
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, other]
    (got,) = sampler_of(model, tokenizer).sample([prompts[0]], max_tokens=10, temperature=0)
    assert got.ids == [other] and not got.truncated
