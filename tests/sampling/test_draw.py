"""Draws against their definition, and against the distribution that they are from."""

import math

import pytest
import torch
from fakes import sampler_of
from scipy import stats
from transformers import TopPLogitsWarper

from lrd.sampling.draw import draw


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
