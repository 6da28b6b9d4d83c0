"""Decoding in fixed shapes, as on CUDA; here the same steps are not captured."""

import pytest
import torch
from fakes import likes_to_end, sampler_of

from lrd.sampling import graphs, static as fixed
from lrd.sampling.static import StaticDecoder
from lrd.sampling.torch import TorchSampler

CPU = torch.device("cpu")


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
