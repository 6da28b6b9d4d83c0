"""Scoring tokens: passes by length and logits in slices change nothing."""

import pytest
import torch

from lrd import rollouts as rollouts_module
from lrd.models import logps
from lrd.models.logps import target_logps, token_logps
from lrd.models.policy import Policy

CPU = torch.device("cpu")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_and_gradients_are_those_of_all_logits_at_once(bias, temperature, monkeypatch):
    monkeypatch.setattr(logps, "LOGITS_AT_ONCE", 3 * 11)  # 7 tokens: slices of 3, 3 and 1
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (7, 11))
    offset = torch.randn(11, generator=generator, dtype=torch.float64) if bias else None
    inputs = [x.float().requires_grad_() for x in (hidden, weight, offset) if x is not None]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    targets = torch.tensor([0, 10, 3, 3, 7, 1, 9])

    def whole(hidden, weight, offset=None):
        return torch.log_softmax(torch.nn.functional.linear(hidden, weight, offset) / temperature, -1)

    got = target_logps(inputs[0], inputs[1], inputs[2] if bias else None, targets, temperature)
    want = whole(*exact)
    torch.testing.assert_close(got.logps.double(), want.gather(1, targets[:, None])[:, 0], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.entropy.double(), -(want.exp() * want).sum(1), atol=1e-6, rtol=0)
    assert not got.entropy.requires_grad
    upstream = torch.randn(7, generator=generator)
    ours = torch.autograd.grad((got.logps * upstream).sum(), inputs)
    theirs = torch.autograd.grad((want.gather(1, targets[:, None])[:, 0] * upstream).sum(), exact)
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.double(), right, atol=2e-6, rtol=0)


@pytest.mark.parametrize("rank", [4, None])
def test_micro_batches_and_slices_change_nothing(rank, make_cell, rollouts, monkeypatch):
    """An adapter's are of float64 weights: in float32 the order of sums moves them, on some processors by more."""
    policy = Policy(make_cell(rank=rank), CPU)
    policy.model.double()
    with torch.no_grad():
        for name, p in policy.trainable.items():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(len(name)))

    def measured():
        out = policy.logps(rollouts)
        return out, torch.autograd.grad(out.logps.square().sum(), list(policy.trainable.values()))

    whole, of_whole = measured()
    monkeypatch.setattr(rollouts_module, "PASS_COSTS", 0)
    monkeypatch.setattr(rollouts_module, "TOKENS_PER_PASS", 1)  # a pass a row
    monkeypatch.setattr(logps, "LOGITS_AT_ONCE", 5 * policy.base.config.vocab_size)
    parts, of_parts = measured()
    torch.testing.assert_close(parts.logps, whole.logps, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(parts.entropy, whole.entropy, atol=1e-6, rtol=1e-6)
    largest = max(g.abs().max().item() for g in of_whole)
    for a, b in zip(of_parts, of_whole, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6 * largest, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rank", [4, None])
@pytest.mark.parametrize(
    "kind, target", [("qwen3", "o_proj"), ("gpt2", "c_proj"), ("neox", "dense"), ("opt", "out_proj")]
)
def test_what_is_computed_again_gives_the_same_gradients(kind, target, rank, dtype, make_cell, checkpoint, rollouts):
    """Micro-batches and layers: sums over passes may round otherwise, a layer's second run is its first to the bit."""
    made, seen = {}, {}
    for micro_batch, checkpointing in ((0, "none"), (0, "layers"), (1, "none"), (2, "layers"), (3, "none")):
        changes = {"micro_batch": micro_batch, "checkpointing": checkpointing, "dtype": dtype}
        policy = Policy(make_cell(student=checkpoint(kind), rank=rank, lora_targets=(target,), **changes), CPU)
        with torch.no_grad():
            for name, p in policy.trainable.items():
                if "lora_B" in name:
                    p.normal_(generator=torch.Generator().manual_seed(len(name)))
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x.numel()) or x, lambda x: x):
            out = policy.logps(rollouts).logps
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()  # outside of any state
        made[micro_batch, checkpointing] = out.detach(), {name: p.grad for name, p in policy.trainable.items()}
        seen[micro_batch, checkpointing] = sum(kept)
        assert all("forward" not in vars(m) or m.forward.__self__ is m for m in policy.base.modules())
        again = policy.logps(rollouts).logps  # the model is as it was
        assert torch.equal(again, out)
    (want, gradients), largest = made[0, "none"], max(g.abs().max() for g in made[0, "none"][1].values())
    close = 1e-5 if dtype == "float32" else 2e-2
    for how, (got, grads) in made.items():
        exact = how == (0, "layers")
        torch.testing.assert_close(got, want, atol=0 if exact else close * want.abs().max(), rtol=0)
        for name, g in gradients.items():
            assert g.any() and (grads[name] - g).abs().max() <= (0 if exact else close * largest), (how, name)
    assert seen[0, "layers"] < 0.5 * seen[0, "none"] and seen[1, "none"] < 0.5 * seen[0, "none"]


def test_bfloat16_gradients_are_those_of_float32_to_rounding(make_cell, rollouts):
    """The mixed-precision policy against plain float32, eager, with all logits: 7 %, on random weights of 0.15."""
    for rank in (4, None):
        mixed, plain = (Policy(make_cell(rank=rank, dtype=dtype), CPU) for dtype in ("bfloat16", "float32"))
        with torch.no_grad():
            for name, p in mixed.trainable.items():
                if "lora_B" in name:
                    p.normal_(0, 0.1, generator=torch.Generator().manual_seed(len(name)))
                plain.trainable[name].copy_(p)
        ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], 1)
        mask = torch.cat([rollouts.prompt_mask, rollouts.completion_mask], 1)
        width = rollouts.completion_ids.shape[1]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = plain.model(input_ids=ids, attention_mask=mask.long(), position_ids=positions).logits[
            :, -width - 1 : -1
        ]
        full = torch.log_softmax(logits, -1).gather(-1, rollouts.completion_ids[..., None])[..., 0]
        weights = torch.randn(full.shape, generator=torch.Generator().manual_seed(0)) * rollouts.completion_mask
        want = torch.autograd.grad((full * weights).sum(), list(plain.trainable.values()))
        out = mixed.logps(rollouts).logps
        got = torch.autograd.grad((out * weights).sum(), list(mixed.trainable.values()))
        assert all(g.dtype == torch.float32 for g in got)
        error = sum((a - b).square().sum() for a, b in zip(got, want)) / sum(b.square().sum() for b in want)
        assert error.sqrt() < 0.07


def test_padding_reaches_no_value(make_rollouts, pretrained):
    """A row scored beside a longer one is scored as by itself."""
    long = ("1a+2b*3c-4d+5", "0", ["The answer is \\boxed{0}."])
    short = ("6a*2", "2", ["=2"])
    both, alone = make_rollouts([long, short]), make_rollouts([short])
    model = pretrained()
    n = int(alone.lengths[0])
    got, want = token_logps(model, both).logps[1, :n], token_logps(model, alone).logps[0, :n]
    torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    assert not token_logps(model, both).logps[1, n:].any()
