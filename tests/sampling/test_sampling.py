"""The torch sampler against `transformers.generate` and a full forward pass, its draws against their definition."""

import math

import pytest
import torch
from hypothesis import given, strategies as st
from peft import PeftModel
from scipy import stats
from transformers import TopPLogitsWarper

from lrd.data.problems import Problem
from lrd.models.logps import token_logps
from lrd.models.policy import Policy
from lrd.rollouts import Completion, collate
from lrd.sampling import graphs, static as fixed, torch as engine
from lrd.sampling.draw import draw
from lrd.sampling.fused import FusedDecoder
from lrd.sampling.generic import ModelDecoder
from lrd.sampling.nucleus import CapturedNucleus, nucleus as find_nucleus
from lrd.sampling.static import StaticDecoder
from lrd.sampling.torch import TorchSampler

CPU = torch.device("cpu")
KINDS = {"qwen3": FusedDecoder, "llama": FusedDecoder, "gpt2": ModelDecoder, "neox": ModelDecoder}
NEOX_LINEAR = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
TEXTS = ["Last digit:6a*2b-6c+3\n", "1a+2", "Last digit:9a-9b-9c*8d+7e*1f-0\na", "=", "b", "The answer is", "3*3=9\n"]


@pytest.fixture(scope="module")
def prompts(tokenizer) -> list[list[int]]:
    """Seven, of 1 to 28 tokens."""
    return [tokenizer(text).input_ids for text in TEXTS]


def sampler_of(model, tokenizer) -> TorchSampler:
    sampler = TorchSampler(model, tokenizer)
    sampler.sync(model.named_parameters())
    return sampler


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


def likes_to_end(model, tokenizer):
    """The end's logit becomes 1.3 times another token's: now and then it wins."""
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        head[tokenizer.eos_token_id] = 1.3 * head[tokenizer.convert_tokens_to_ids("=")]
    return model


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


# --- in fixed shapes, as on CUDA; here the same steps are not captured


def in_fixed_shapes(sampler: TorchSampler) -> TorchSampler:
    sampler._static = StaticDecoder(sampler._decoder)
    return sampler


@pytest.mark.parametrize("temperature, top_p", [(0, 1.0), (0.7, 0.95), (1.5, 1.0)])
@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_fixed_shapes_change_nothing(kind, temperature, top_p, pretrained, tokenizer, prompts, monkeypatch):
    """The same tokens, whether rows move to smaller buffers at once, at times or never."""
    model = likes_to_end(pretrained(kind, 3), tokenizer)
    plain, static = sampler_of(model, tokenizer), in_fixed_shapes(sampler_of(model, tokenizer))
    options = dict(temperature=temperature, top_p=top_p, seed=5)
    moves = 0
    for least, look, n in ((1, 1, 7), (2, 3, 42), (16, 16, 7), (4, 16, 5)):
        monkeypatch.setattr(graphs, "ROWS", least)
        monkeypatch.setattr(fixed, "LOOK_EVERY", look)
        batch = (prompts * 6)[:n]
        for cap in (1, 2, 40):
            before = len(static._static._buffers)
            got = static.sample(batch, max_tokens=cap, **options)
            want = plain.sample(batch, max_tokens=cap, **options)
            assert [(c.ids, c.truncated) for c in got] == [(c.ids, c.truncated) for c in want]
            for a, b in zip(got, want):
                torch.testing.assert_close(a.logps, b.logps, atol=1e-4, rtol=0)
            moves += max(0, len(static._static._buffers) - before - 1)
    assert moves > 1


def test_fixed_shapes_read_prompts_at_their_own_width(pretrained, tokenizer, prompts, monkeypatch):
    """And buffers of one width serve them all."""
    static = in_fixed_shapes(sampler_of(pretrained("qwen3", 3), tokenizer))
    widths, real = [], static._decoder.prefill
    monkeypatch.setattr(static._decoder, "prefill", lambda ids, *rest: widths.append(ids.shape[1]) or real(ids, *rest))
    short = min(prompts, key=len)
    for batch in ([short], prompts):
        static.sample(batch, max_tokens=4, temperature=0)
    assert widths == [len(short), max(map(len, prompts))] and widths[0] < widths[1]
    assert len({width for _, width, *_ in static._static._buffers}) == 1


def test_fixed_shapes_leave_nothing_behind(pretrained, tokenizer, prompts):
    """Buffers are used again: a batch after other ones is what it is alone, also after new weights."""
    model, other = pretrained("qwen3", 3), pretrained("qwen3", 1)
    static = in_fixed_shapes(sampler_of(model, tokenizer))
    options = dict(max_tokens=20, temperature=1.0, seed=2)
    first = static.sample(prompts[:3], **options)
    static.sample(prompts, **options)  # more rows in the same buffers
    assert static.sample(prompts[:3], **options) == first
    static.sync(other.named_parameters())
    assert [c.ids for c in static.sample(prompts[:3], **options)] != [c.ids for c in first]
    static.sync(model.named_parameters())
    assert static.sample(prompts[:3], **options) == first
    assert len(static._static._buffers) == 1


def test_a_large_batch_goes_step_by_step(pretrained, tokenizer, prompts, monkeypatch):
    """Its cache would be kept, and with it the memory."""
    static = in_fixed_shapes(sampler_of(pretrained("qwen3", 3), tokenizer))
    cache = static._decoder.empty(16, 128 + 128)  # 7 prompts of at most 28 tokens, and 20 more
    size = sum(x.nbytes for x in [*cache.keys, *cache.values])
    monkeypatch.setattr(fixed, "LARGEST", size - 1)
    first = static.sample(prompts, max_tokens=20, temperature=0)
    assert not static._static._buffers
    monkeypatch.setattr(fixed, "LARGEST", size)
    assert [c.ids for c in static.sample(prompts, max_tokens=20, temperature=0)] == [c.ids for c in first]
    assert len(static._static._buffers) == 1


def addresses(weights) -> list[int]:
    if isinstance(weights, tuple | list):
        return [address for part in weights for address in addresses(part)]
    return [] if weights is None else [weights.data_ptr()]


def test_weights_stay_where_they_are_on_cuda(pretrained, tokenizer, prompts):
    """A captured step reads the addresses that it was captured with: new weights are copied there, and nowhere else."""
    model, other = pretrained("qwen3", 3), pretrained("qwen3", 1)
    sampler, plain = sampler_of(model, tokenizer), sampler_of(other, tokenizer)
    untouched = {name: weight.clone() for name, weight in model.named_parameters()}
    decoder = sampler._decoder
    decoder.device = torch.device("cuda")  # what decides how weights are kept
    decoder.load(dict(model.named_parameters()))
    places = addresses(decoder.weights)
    decoder.load(dict(other.named_parameters()))
    decoder.device = CPU
    assert addresses(decoder.weights) == places
    assert len(places) == 3 + 7 * 2  # embedding, head, norm; seven in each of two layers
    options = dict(max_tokens=20, temperature=0)
    assert sampler.sample(prompts, **options) == plain.sample(prompts, **options)
    assert all(torch.equal(weight, untouched[name]) for name, weight in model.named_parameters())


# --- the distribution


def nucleus(logits: list[float], temperature: float, top_p: float) -> list[float]:
    """By definition: the likeliest tokens one by one until their mass is at least top_p, then renormalized."""
    top = max(logits)
    weights = [math.exp((x - top) / temperature) for x in logits]
    probs = [w / sum(weights) for w in weights]
    kept, mass = set(), 0.0
    for i in sorted(range(len(probs)), key=lambda i: -probs[i]):
        if mass >= top_p:
            break
        kept.add(i)
        mass += probs[i]
    return [p / mass if i in kept else 0.0 for i, p in enumerate(probs)]


@pytest.mark.parametrize(
    "temperature, top_p", [(1.0, 1.0), (0.7, 0.95), (0.7, 0.5), (2.0, 0.9), (0.3, 0.95), (1.0, 0.01)]
)
def test_draws_have_the_nucleus_frequencies(temperature, top_p):
    """On an even grid of 20 000 uniforms each token comes up as often as its probability says, to one grid point."""
    grid = (torch.arange(20_000) + 0.5) / 20_000
    for seed in range(5):
        logits = 2 * torch.randn(1, 35, generator=torch.Generator().manual_seed(seed))
        drawn = draw(logits.expand(len(grid), -1), grid, temperature, top_p)
        counts = torch.bincount(drawn, minlength=35)
        want = torch.tensor(nucleus(logits[0].tolist(), temperature, top_p)) * len(grid)
        assert (counts - want).abs().max() <= 1.1
        assert torch.equal(counts[want == 0], torch.zeros_like(counts[want == 0]))


@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.9, 0.95, 0.999])
def test_the_nucleus_is_transformers(top_p):
    """The same tokens can come up as with transformers' own TopPLogitsWarper."""
    logits = 3 * torch.randn(50, 35, generator=torch.Generator().manual_seed(1))
    support = TopPLogitsWarper(top_p)(None, logits / 0.7).isfinite()
    grid = (torch.arange(2_000) + 0.5) / 2_000
    for row, allowed in zip(logits, support):
        drawn = draw(row.expand(len(grid), -1), grid, 0.7, top_p)
        assert allowed[drawn].all()
        # Every token that has the mass of a grid point and more must come up.
        probs = torch.softmax(row / 0.7, -1) * allowed
        assert set((probs / probs.sum() > 1.5 / len(grid)).nonzero()[:, 0].tolist()) <= set(drawn.tolist())


@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=300),
    top_p=st.floats(0.01, 0.99),
    shift=st.floats(-50, 50, width=32),
)
def test_the_nucleus_is_the_least_that_has_the_mass(logits, top_p, shift):
    rows = torch.tensor([logits, logits[::-1]]) + shift
    kept = torch.isfinite(find_nucleus(rows, torch.tensor([top_p, top_p])))
    probs = torch.softmax(rows.double(), -1)
    for row, inside in zip(probs, kept):
        least = row[inside].min()
        assert row[inside].sum() >= top_p - 1e-5
        assert row[row > least].sum() < top_p + 1e-5  # without the least likely of them it is not enough
        assert inside[row > least].all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a graph is captured on a GPU, and there is none here")
def test_a_captured_nucleus_is_the_nucleus_whatever_the_rows_before():
    find = CapturedNucleus()
    for rows in (20, 5, 40, 20):
        logits, top_p = torch.randn(rows, 1000, device="cuda"), torch.rand(rows, device="cuda").clamp(0.1, 0.9)
        assert torch.equal(find(logits, top_p).isfinite(), find_nucleus(logits, top_p).isfinite())


def test_the_nucleus_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.125, 0.25, 0.125, 0.5]]).log()
    kept = torch.isfinite(find_nucleus(logits, torch.tensor([0.6, 0.8])))
    assert kept.tolist() == [[True, True, False, False], [True, True, True, True]]  # equally likely: both or none
    assert torch.equal(find_nucleus(logits, 0.6)[0, :2], logits[0, :2])
    assert find_nucleus(torch.full((1, 3), torch.nan), 0.9).isnan().all()


def test_the_ends_of_the_unit_interval():
    """Uniforms are in [0, 1): the smallest gives the likeliest token, the largest the last of the nucleus."""
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().expand(2, -1)[:, [3, 0, 2, 1]]
    edges = torch.tensor([0.0, 1 - 2**-24])
    assert draw(logits, edges, 1.0, 0.9).tolist() == [1, 2]  # 0.5 + 0.3 + 0.15 ≥ 0.9: the 0.05 is never drawn
    assert draw(logits, edges, 1.0, 1.0).tolist() == [1, 0]
    assert draw(torch.zeros(2, 1000), edges, 1.0, 1.0).tolist() == [0, 999]


def test_greedy_draws_the_likeliest_whatever_the_uniform():
    logits = torch.tensor([[0.0, 2.0, 1.0]] * 3)
    assert draw(logits, torch.tensor([0.0, 0.5, 0.999]), 0, 0.9).tolist() == [1, 1, 1]


def test_first_tokens_follow_the_models_distribution(pretrained, tokenizer, prompts):
    """Chi-square of 4000 first tokens against temperature and nucleus applied to the model's own logits."""
    model = pretrained()
    n = 4000
    got = sampler_of(model, tokenizer).sample([prompts[0]] * n, max_tokens=1, temperature=0.7, top_p=0.95, seed=11)
    with torch.no_grad():
        logits = model(torch.tensor([prompts[0]])).logits[0, -1]
    want = torch.tensor(nucleus(logits.tolist(), 0.7, 0.95))
    counts = torch.bincount(torch.tensor([c.ids[0] for c in got]), minlength=len(want))
    assert not counts[want == 0].any() and (want > 0).sum() > 3
    often = want * n >= 5
    observed, expected = counts[often].double(), want[often].double() * n
    assert stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3


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
