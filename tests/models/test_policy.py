"""What is trained and what is not: LoRA, full fine-tuning, the reference, and the weights that samplers get."""

import math
from pathlib import Path
from shutil import copy

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM, AutoTokenizer, BertGenerationConfig, DeepseekV3Config

from lrd import UserError
from lrd.models import placement
from lrd.models.logps import token_logps
from lrd.models.policy import Policy, seed_of
from lrd.rollouts import collate
from lrd.sampling.torch import TorchSampler

CPU = torch.device("cpu")
LINEAR = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


@pytest.fixture
def policy_of(make_cell):
    return lambda rank=4, **changes: Policy(make_cell(rank=rank, **changes), CPU)


def train(policy: Policy, rollouts, steps: int = 1) -> None:
    optimizer = torch.optim.AdamW(policy.trainable.values(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        policy.logps(rollouts).logps.mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def snapshot(tensors) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in dict(tensors).items()}


# --- what is trained


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_lora_trains_adapters_on_all_linear_layers_and_nothing_else(rank, policy_of):
    policy = policy_of(rank)
    adapted = {name for name, m in policy.base.named_modules() if isinstance(m, LoraLayer)}
    assert adapted == {
        f"model.layers.{i}.{'mlp' if kind in ('gate_proj', 'up_proj', 'down_proj') else 'self_attn'}.{kind}"
        for i in range(2)
        for kind in LINEAR
    }
    assert all(".lora_A." in name or ".lora_B." in name for name in policy.trainable)
    # rank·(in + out) a layer. q 32→64, k and v 32→32, o 64→32, gate and up 32→48, down 48→32; two layers:
    # 96 + 64 + 64 + 96 + 80 + 80 + 80 = 560, twice.
    assert sum(p.numel() for p in policy.trainable.values()) == rank * 2 * 560
    assert all(p.dtype == torch.float32 for p in policy.trainable.values())


@pytest.mark.parametrize("kind, targets", [("qwen3", ("q_proj", "up_proj")), ("neox", ("query_key_value", "dense"))])
def test_an_adapter_sits_where_it_is_placed(kind, targets, policy_of, checkpoint):
    policy = policy_of(1, student=checkpoint(kind), lora_targets=targets, lora_layers=(1,))
    adapted = {name for name, m in policy.base.named_modules() if isinstance(m, LoraLayer)}
    assert {name.rsplit(".", 1)[-1] for name in adapted} == set(targets) and len(adapted) == len(targets)
    assert all(".1." in name for name in adapted)


def test_a_lora_step_moves_adapters_alone(policy_of, rollouts, pretrained):
    policy = policy_of()
    before = snapshot(policy.model.named_parameters())
    train(policy, rollouts, steps=2)  # B is zero at first, so A has no gradient before the second
    for name, p in policy.model.named_parameters():
        assert torch.equal(p, before[name]) == (name not in policy.trainable), name
    base = pretrained().state_dict()
    for name, p in policy.base.named_parameters():
        if "lora_" not in name:
            assert torch.equal(p, base[name.replace(".base_layer.", ".")]), name


def test_full_fine_tuning_trains_everything(policy_of, rollouts, pretrained):
    policy = policy_of(None)
    assert set(policy.trainable) == {name for name, _ in pretrained().named_parameters()}
    before = snapshot(policy.trainable)
    train(policy, rollouts)
    assert [name for name, p in policy.trainable.items() if torch.equal(p, before[name])] == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("master", ["float32", "bfloat16"])
def test_master_weights_have_their_own_dtype(dtype, master, policy_of, rollouts):
    policy = policy_of(None, dtype=dtype, master_dtype=master)
    compute = getattr(torch, dtype)
    assert {p.dtype for p in policy.trainable.values()} == {getattr(torch, master)}
    assert {p.dtype for p in policy.reference.parameters()} == {compute}
    assert {w.dtype for _, w in policy.weights()} == {compute}
    before = snapshot(policy.trainable)
    train(policy, rollouts)
    assert all(torch.isfinite(p).all() and not torch.equal(p, before[n]) for n, p in policy.trainable.items())


def test_small_updates_are_lost_in_bfloat16_and_kept_in_float32(policy_of):
    """Spec §5.2: a learning rate of 1e-5 on weights of 0.01 to 0.1 is below half a bfloat16 step for most of them."""
    moved = {}
    for master in ("float32", "bfloat16"):
        policy = policy_of(None, dtype="bfloat16", master_dtype=master)
        optimizer = torch.optim.AdamW(policy.trainable.values(), lr=1e-5, weight_decay=0.0)
        name = "model.layers.0.self_attn.q_proj.weight"
        p = policy.trainable[name]
        p.grad, before = torch.ones_like(p), p.detach().clone()
        optimizer.step()
        moved[master] = (p != before).float().mean().item()
    assert moved["float32"] > 0.99 and moved["bfloat16"] < 0.1


def test_adapters_are_float32_on_a_bfloat16_base(policy_of, rollouts):
    policy = policy_of(dtype="bfloat16")
    assert {p.dtype for p in policy.trainable.values()} == {torch.float32}
    assert {p.dtype for n, p in policy.model.named_parameters() if "lora_" not in n} == {torch.bfloat16}
    assert {w.dtype for _, w in policy.weights()} == {torch.bfloat16}
    assert torch.equal(policy.logps(rollouts).logps, policy.reference_logps(rollouts))


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_values_and_gradients_are_those_of_the_peft_model(kind, policy_of, checkpoint, rollouts):
    """However the policy multiplies its adapters out. Sums in another order: 1e-5 of the largest gradient."""
    policy = policy_of(student=checkpoint(kind))
    train(policy, rollouts, steps=2)
    gradients = []
    for logps in (policy.logps(rollouts).logps, token_logps(policy.model, rollouts).logps):
        gradients.append(torch.autograd.grad(logps.square().sum(), list(policy.trainable.values())))
    want = token_logps(policy.model, rollouts).logps
    torch.testing.assert_close(policy.logps(rollouts).logps, want, atol=1e-5, rtol=0)
    for ours, theirs in zip(*gradients, strict=True):
        assert theirs.any()
        torch.testing.assert_close(ours, theirs, atol=1e-5 * max(g.abs().max().item() for g in gradients[1]), rtol=0)


# --- the reference


@pytest.mark.parametrize("kind", ["qwen3", "llama", "neox"])
def test_a_new_lora_policy_is_its_base_exactly(kind, policy_of, rollouts, checkpoint, pretrained):
    targets = {"lora_targets": ("query_key_value", "dense", "dense_4h_to_h")} if kind == "neox" else {}
    policy = policy_of(student=checkpoint(kind), **targets)
    base = token_logps(pretrained(kind), rollouts).logps
    assert torch.equal(policy.logps(rollouts).logps, base)
    assert torch.equal(policy.reference_logps(rollouts), base)


@pytest.mark.parametrize("rank", [4, None])
def test_the_reference_stays_where_the_policy_began(rank, policy_of, rollouts, pretrained):
    policy = policy_of(rank)
    base = token_logps(pretrained(), rollouts).logps
    train(policy, rollouts, steps=2)
    assert torch.equal(policy.reference_logps(rollouts), base)
    assert (policy.logps(rollouts).logps - base).abs().max() > 0.1
    assert not policy.reference_logps(rollouts).requires_grad and policy.logps(rollouts).logps.requires_grad


def test_log_probabilities_are_at_the_cells_temperature(policy_of, rollouts, pretrained):
    policy = policy_of(None, logp_temperature=0.7)
    want = token_logps(pretrained(), rollouts, temperature=0.7).logps
    assert torch.equal(policy.logps(rollouts).logps, want) and torch.equal(policy.reference_logps(rollouts), want)
    assert not torch.allclose(want, token_logps(pretrained(), rollouts).logps)


# --- randomness


def test_initialization_is_a_function_of_the_seed(policy_of):
    def adapters(seed: int, noise: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(noise)
        torch.rand(noise)
        return snapshot(policy_of(seed=seed).trainable)

    one, same, other = adapters(0, 1), adapters(0, 2), adapters(1, 1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if "lora_A" in name]
    assert drawn and all(not torch.equal(one[name], other[name]) for name in drawn)
    assert all(not one[name].any() for name in one if "lora_B" in name)


@pytest.mark.parametrize("rank", [4, None])
def test_creating_a_policy_leaves_the_global_generator_alone(rank, policy_of):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    policy_of(rank)
    assert torch.equal(torch.get_rng_state(), state)


def test_seeds_for_different_uses_differ():
    uses = [(use, seed, step) for use in ("initialization", "sampling") for seed in range(3) for step in range(50)]
    seeds = {seed_of(*use) for use in uses}
    assert len(seeds) == len(uses) and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of("sampling", 1, 12) != seed_of("sampling", 11, 2)  # the parts do not run into one another
    assert seed_of("sampling", 0, 1) == seed_of("sampling", 0, 1)


# --- weights for the sampler


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
@pytest.mark.parametrize("rank", [4, None])
def test_weights_are_the_base_plus_the_adapters(kind, rank, policy_of, checkpoint, pretrained, rollouts):
    policy = policy_of(rank, student=checkpoint(kind))
    train(policy, rollouts, steps=2)
    before = snapshot(policy.model.named_parameters())
    got = list(policy.weights())
    names, weights = [name for name, _ in got], dict(got)
    base = dict(pretrained(kind).named_parameters())
    assert sorted(names) == sorted(base)  # the checkpoint's own names, each once; a tied head is not repeated
    learned = dict(policy.model.named_parameters())
    for name, w in base.items():
        layer = "base_model.model." + name.removesuffix(".weight")
        if rank is None:
            want = learned[name]
        elif f"{layer}.lora_A.default.weight" in learned:
            b, a = learned[f"{layer}.lora_B.default.weight"], learned[f"{layer}.lora_A.default.weight"]
            want = w + (32 / rank) * b @ a  # s = α/r, α = 32
            assert (want - w).abs().max() > 1e-2
        else:
            want = w
        torch.testing.assert_close(weights[name], want, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
        assert not weights[name].requires_grad
    for name, p in policy.model.named_parameters():
        assert torch.equal(p, before[name]), name  # nothing merged in place


@pytest.mark.parametrize("rank", [4, None])
def test_weights_do_not_follow_the_policy(rank, policy_of, rollouts):
    """A sampler keeps what it was given until it is given more, all of it."""
    policy = policy_of(rank)
    given = dict(policy.weights())
    before = snapshot(given)
    train(policy, rollouts)
    assert [name for name, w in given.items() if not torch.equal(w, before[name])] == []


def test_a_loaded_model_with_these_weights_is_the_policy(policy_of, pretrained, rollouts):
    policy = policy_of()
    train(policy, rollouts, steps=2)
    model = pretrained()
    model.load_state_dict(dict(policy.weights()), strict=False)
    want = policy.logps(rollouts).logps
    torch.testing.assert_close(token_logps(model, rollouts).logps, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize("rank", [4, None])
def test_a_saved_policy_loads_as_any_other(rank, policy_of, rollouts, tmp_path):
    policy = policy_of(rank)
    train(policy, rollouts, steps=2)
    policy.save(tmp_path)
    assert not list(tmp_path.glob("*.bin")) and list(tmp_path.glob("*.safetensors"))
    loader = AutoModelForCausalLM if rank is None else AutoPeftModelForCausalLM
    loaded = loader.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(token_logps(loaded, rollouts).logps, policy.logps(rollouts).logps, atol=1e-5, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == policy.tokenizer.get_vocab()


# --- bad input


def one_sentence(error) -> bool:
    text = str(error.value)
    return "\n" not in text and len(text) < 600


def test_targets_that_do_not_exist_are_a_user_error(policy_of):
    with pytest.raises(UserError, match=r"lora_targets names c_attn, which student .*does not have.*q_proj") as error:
        policy_of(lora_targets=("q_proj", "c_attn"))
    assert one_sentence(error)


def test_layers_that_do_not_exist_are_a_user_error(policy_of, make_cell):
    with pytest.raises(
        UserError, match=r"lora_layers names 2, 7, which .*does not have; its layers are 0 to 1"
    ) as error:
        policy_of(lora_layers=(0, 2, 7))
    assert one_sentence(error)
    with pytest.raises(UserError, match="lora_layers names 2"):  # from the configuration alone
        placement.check(make_cell(lora_layers=(2,)))
    placement.check(make_cell(rank=None, lora_layers=(2,)))  # no adapter


def places(where: str) -> list[str]:
    """What an adapter can sit on, by its last name."""
    model = AutoModelForCausalLM.from_pretrained(where)
    return sorted({name.rsplit(".", 1)[-1] for name in placement.linear_layers(model)})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "kind, outside",
    [
        ("qwen3", ("lm_head", "embed_tokens", "norm")),  # a tied head
        ("llama", ("lm_head", "embed_tokens")),  # an untied one
        ("gpt2", ("lm_head", "wte", "wpe", "ln_1")),
        ("neox", ("embed_out", "embed_in")),
        ("opt", ("lm_head", "project_in", "project_out", "embed_positions")),
    ],
)
def test_an_adapter_outside_of_the_layers_is_refused(kind, outside, dtype, checkpoint, make_cell):
    """Learner and rewards multiply by the head's own weight, so that an adapter on it would never move."""
    inside = places(checkpoint(kind))
    for targets in [(name,) for name in outside] + [(inside[0], outside[0])]:
        cell = make_cell(student=checkpoint(kind), lora_targets=targets, dtype=dtype)
        for refuses in (placement.check, lambda cell: Policy(cell, CPU)):
            with pytest.raises(UserError, match=rf"lora_targets names {targets[-1]}, which .*there are {inside[0]}"):
                refuses(cell)


def test_an_adapter_that_would_sit_on_more_is_refused(tokenizer, make_cell, tmp_path):
    """PEFT counts a layer of fused experts among those called `down_proj`."""
    config = DeepseekV3Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=48, moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, v_head_dim=8, qk_nope_head_dim=4,
        first_k_dense_replace=1, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    for target in ("down_proj", "gate_proj"):
        with pytest.raises(UserError, match=f"cannot place adapters on the linear layers {target} of student") as error:
            Policy(make_cell(student=str(tmp_path), lora_targets=(target,)), CPU)
        assert one_sentence(error)
    Policy(make_cell(student=str(tmp_path), lora_targets=("o_proj",)), CPU)


@pytest.mark.parametrize("dtype, close", [("float32", 1e-4), ("bfloat16", 0.2)])
@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "neox", "opt"])
def test_sampler_learner_and_plain_forward_agree_on_every_target(kind, dtype, close, checkpoint, make_cell, rollouts):
    """One target at a time, its adapter far from zero: all three see it, and its weights get a gradient."""
    prompts = [[5, 6, 7], [8]]
    for target in places(checkpoint(kind)):
        policy = Policy(make_cell(student=checkpoint(kind), lora_targets=(target,), dtype=dtype), CPU)
        for name, p in policy.trainable.items():
            p.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
        sampler = TorchSampler(policy.base, policy.tokenizer)
        sampler.sync(policy.weights())
        said = sampler.sample(prompts, max_tokens=8, temperature=1.0, seed=0)
        batch = collate(rollouts.problems[:2], prompts, said, 1, policy.tokenizer)
        learner, mask = policy.logps(batch).logps, batch.completion_mask
        for other in (batch.sampler_logps, token_logps(policy.model, batch).logps):
            torch.testing.assert_close(
                other[mask], learner[mask], atol=close, rtol=0, msg=lambda m, t=target: f"{t}: {m}"
            )
        assert (policy.reference_logps(batch) - learner)[mask].abs().max() > 2 * close, target
        gradients = torch.autograd.grad(learner.sum(), list(policy.trainable.values()))
        assert all(gradient.any() for gradient in gradients), target


@pytest.mark.parametrize(("rank", "testbed"), [(4, "tiny"), (None, "law-small")])
def test_a_missing_checkpoint_is_a_user_error(rank, testbed, policy_of, tmp_path):
    nothing = f"./models/{testbed}/no-such"
    said = rf"student '{nothing}' is not .*`lrd testbed {testbed}` makes the models of that preset"
    with pytest.raises(UserError, match=said) as error:
        policy_of(rank, student=nothing)
    assert one_sentence(error)
    with pytest.raises(UserError, match="student") as error:
        policy_of(rank, student=str(tmp_path))
    assert one_sentence(error)


def test_a_model_of_the_hub_without_a_network_is_a_user_error(policy_of):
    with pytest.raises(UserError, match=r"cannot load student 'no-such/model': .* HF_HUB_OFFLINE is set") as error:
        policy_of(student="no-such/model")
    assert one_sentence(error)


def test_a_checkpoint_without_weights_is_a_user_error(policy_of, checkpoint, tmp_path):
    for path in Path(checkpoint()).iterdir():
        if path.suffix != ".safetensors":
            copy(path, tmp_path)
    with pytest.raises(UserError, match="cannot load student"):
        policy_of(student=str(tmp_path))


def test_a_damaged_checkpoint_is_a_user_error(policy_of, checkpoint, tmp_path):
    for path in Path(checkpoint()).iterdir():
        copy(path, tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(UserError, match="cannot load student"):
        policy_of(student=str(tmp_path))


def test_the_adapters_scale_is_alpha_over_rank(policy_of):
    for rank, alpha in ((1, 32.0), (64, 32.0), (4, 8.0)):
        policy = policy_of(rank, lora_alpha=alpha)
        layers = [m for m in policy.base.modules() if isinstance(m, LoraLayer)]
        assert {m.scaling["default"] for m in layers} == {alpha / rank}
        assert all(math.isclose(m.r["default"], rank) for m in layers)


@pytest.mark.parametrize("is_decoder", [True, False])
def test_a_model_whose_cache_gives_other_logits_is_not_sampled_from(is_decoder, tmp_path, tokenizer, make_cell):
    """One that looks ahead: each token would be drawn from another distribution than the learner scores."""
    config = BertGenerationConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        is_decoder=is_decoder, initializer_range=0.15, bos_token_id=None, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = Policy(make_cell(student=str(tmp_path), rank=None), CPU)
    if is_decoder:
        TorchSampler(policy.base, tokenizer)
        return
    with pytest.raises(
        UserError, match="cannot sample from a bert-generation model: behind padding and from its cache"
    ):
        TorchSampler(policy.base, tokenizer)
