"""Our loss against TRL's own: a real `GRPOTrainer` on a tiny model, and nothing of its arithmetic copied.

Both get the same batch, advantages, log π_old and log π_ref, and the log π_θ that TRL's own forward pass makes.
"""

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from lrd import grpo
from lrd.data.problems import Problem
from lrd.models.logps import token_logps
from lrd.rollouts import Completion, Deposits, collate

SAME = {"token": "bnpo", "sequence": "grpo", "constant": "dr_grpo"}  # our aggregation → TRL's loss type
BETA, EPSILON, MAX_TOKENS = 0.07, 0.2, 24


@pytest.fixture(scope="module")
def trainer(pretrained, tokenizer, tmp_path_factory):
    arguments = GRPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=MAX_TOKENS,
        temperature=1.0,
        beta=BETA,
        epsilon=EPSILON,
        use_bias_correction_kl=False,
        use_vllm=False,
    )
    return GRPOTrainer(
        model=pretrained(),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": ["Last digit:1a+2\n"]}),
        processing_class=tokenizer,
    )


@pytest.fixture
def batch(rollouts):
    return make_batch(rollouts, 0)


def make_batch(rollouts, seed: int) -> dict[str, torch.Tensor]:
    """What TRL's loss takes: off-policy by up to e^±0.5, so that clipping acts on both sides; advantages a token."""
    generator = torch.Generator().manual_seed(seed)
    shape = rollouts.completion_ids.shape
    return dict(
        prompt_ids=rollouts.prompt_ids,
        prompt_mask=rollouts.prompt_mask.long(),
        completion_ids=rollouts.completion_ids,
        completion_mask=rollouts.completion_mask.long(),
        advantages=torch.randn(shape, generator=generator),
        drift=torch.rand(shape, generator=generator) - 0.5,
        distance=torch.rand(shape, generator=generator) - 0.5,
    )


def theirs_and_ours(trainer, batch, aggregation, kl_estimator="k3", **ours):
    """Losses and parameter gradients of both, on one set of log-probabilities; `ours` are further options of ours."""
    trainer.loss_type = SAME[aggregation]
    model = trainer.model.eval()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    width = batch["completion_ids"].shape[1]
    logps = trainer._get_per_token_logps_and_entropies(model, ids, mask, width, compute_entropy=True)[0]
    old, ref = logps.detach() + batch["drift"], logps.detach() + batch["distance"]
    inputs = {k: v for k, v in batch.items() if k not in ("drift", "distance")}
    theirs = trainer._compute_loss(model, inputs | dict(old_per_token_logps=old, ref_per_token_logps=ref))
    advantages = batch["advantages"]
    ours, metrics = grpo.loss(
        logps,
        old,
        ref,
        advantages if advantages.dim() == 2 else advantages[:, None].expand(old.shape),
        batch["completion_mask"].bool(),
        **{"clip_epsilon": EPSILON} | ours,
        kl_coef=BETA,
        kl_estimator=kl_estimator,
        aggregation=aggregation,
        max_tokens=MAX_TOKENS,
    )
    gradients = []
    for value in (theirs, ours):
        model.zero_grad()
        value.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    return theirs.item(), ours.item(), *gradients, metrics


@pytest.mark.parametrize("shape", ["[N]", "[N,T]"])
@pytest.mark.parametrize("aggregation", SAME)
def test_the_loss_is_trls(trainer, rollouts, aggregation, shape):
    for seed in range(20):  # k3 summed in another order would differ in the last bit for one batch in ten
        batch = make_batch(rollouts, seed)
        if shape == "[N]":
            batch["advantages"] = batch["advantages"][:, 0]
        theirs, ours, their_gradient, our_gradient, metrics = theirs_and_ours(trainer, batch, aggregation)
        assert theirs != 0 and metrics["clip_ratio/region_mean"] > 0.05  # the case is not an empty one
        assert ours == theirs  # Δ = 0, not nearly 0
        for name, want in their_gradient.items():
            assert want.any() and torch.equal(our_gradient[name], want), name


@pytest.mark.parametrize("shape", ["[N]", "[N,T]"])
@pytest.mark.parametrize("aggregation", SAME)
@pytest.mark.parametrize(
    "theirs, ours",
    [
        ({"epsilon_high": 0.28}, {"clip_epsilon_high": 0.28}),
        ({"importance_sampling_level": "sequence"}, {"ratio_level": "sequence"}),
        ({"use_vllm": True, "vllm_importance_sampling_correction": True}, {"weights": ...}),
        (
            {"importance_sampling_level": "sequence", "epsilon_low": 3e-4, "epsilon_high": 4e-4},  # GSPO's own
            {"ratio_level": "sequence", "clip_epsilon": 3e-4, "clip_epsilon_high": 4e-4},
        ),
    ],
    ids=["clip-higher", "sequence ratio", "sampler", "GSPO"],
)
def test_losses_of_the_field_are_trls(trainer, rollouts, aggregation, shape, theirs, ours, monkeypatch):
    for key, value in theirs.items():
        assert hasattr(trainer, key)
        monkeypatch.setattr(trainer, key, value)
    changed = 0
    for seed in range(5):
        batch = make_batch(rollouts, seed)
        if shape == "[N]":
            batch["advantages"] = batch["advantages"][:, 0]
        if "weights" in ours:
            gap = torch.randn(batch["drift"].shape, generator=torch.Generator().manual_seed(seed))
            weights = grpo.sampler_weights(gap, torch.zeros_like(gap), 3.0)
            assert weights.max() == 3 and weights.min() < 0.5
            batch["importance_sampling_ratio"], ours = weights, {"weights": weights}
        loss, value, want, got, _ = theirs_and_ours(trainer, batch, aggregation, **ours)
        # TRL multiplies a sequence's ratio by a sequence's advantage before it knows of tokens: another rounding.
        exact = shape == "[N,T]" or "ratio_level" not in ours
        assert loss != 0 and abs(value - loss) <= (0 if exact else 1e-7)
        close = 0 if exact else 1e-6 * max(w.abs().max().item() for w in want.values())
        for name, w in want.items():
            assert w.any() and (got[name] - w).abs().max() <= close, name
        changed += value != theirs_and_ours(trainer, batch, aggregation)[1]
    assert changed >= 4  # the option makes another loss of it


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_what_trl_makes_of_a_rollout_is_what_we_make(trainer, tokenizer, monkeypatch, masked, scale):
    """Advantages, the mask of truncated completions and the sampler's weights, all as TRL itself reads samples."""
    eos, generator = tokenizer.eos_token_id, torch.Generator().manual_seed(3)
    ids = [[5, 6, 7, eos], [9, 8, 7, 6, 5, 4], [11, eos], [4, 5, 6, 7, 8, 9]]  # the second and fourth are cut
    said = [(-6 + 2 * torch.randn(len(row), generator=generator)).tolist() for row in ids]
    problem = Problem("0", "1a+2", "3")
    prompt = tokenizer("Last digit:1a+2\n").input_ids
    values = torch.tensor([1.0, 0.25, 0.0, 0.5])
    monkeypatch.setattr(trainer, "_generate", lambda p: ([prompt] * 4, ids, None, ["x"] * 4, said, {}, None, None))
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *_: values[:, None].clone())
    for key, value in (
        ("use_vllm", True), ("vllm_importance_sampling_correction", True), ("scale_rewards", scale),
        ("vllm_importance_sampling_mode", "token_truncate"), ("vllm_importance_sampling_clip_max", 3.0),
        ("vllm_importance_sampling_clip_min", None), ("mask_truncated_completions", masked),
    ):  # fmt: skip
        assert hasattr(trainer, key)
        monkeypatch.setattr(trainer, key, value)
    theirs = trainer._generate_and_score_completions([{"prompt": "Last digit:1a+2\n"}] * 4)

    completions = [Completion(row, logps, eos not in row) for row, logps in zip(ids, said)]
    batch = collate([problem], [prompt], completions, 4, tokenizer)
    last = torch.zeros(batch.completion_mask.shape, dtype=torch.bool)
    last[range(4), [len(row) - 1 for row in ids]] = True
    norm = {"group": "group", "none": "mean"}[scale]
    deposits = Deposits(torch.where(last, values[:, None], 0.0), last, dense=False)
    ours = grpo.advantages(deposits, batch.group, eps=1e-4, norm=norm)  # TRL's ε
    torch.testing.assert_close(ours[:, 0], theirs["advantages"], atol=1e-6, rtol=1e-6)
    mask = grpo.learned(batch, "masked" if masked else "kept")
    assert torch.equal(mask, theirs["completion_mask"].bool()) and mask[1].any() == (not masked)
    old = theirs["old_per_token_logps"]
    weights = grpo.sampler_weights(old, batch.sampler_logps, 3.0)
    valid = theirs["completion_mask"].bool()
    assert torch.equal(weights[valid], theirs["importance_sampling_ratio"][valid])
    assert (weights[valid] == 3).any()


def test_the_reports_kl_is_another(trainer, batch):
    """The comparison can tell: with the report's estimator in place of k3 the losses differ."""
    theirs, ours, *_ = theirs_and_ours(trainer, batch, "token", "paper")
    assert abs(ours - theirs) > 1e-4


def test_on_policy_gradients_are_trls(trainer, batch):
    """Without log π_old in its batch TRL takes the learner's own; so do we."""
    batch["drift"] = torch.zeros_like(batch["drift"])
    theirs, ours, their_gradient, our_gradient, metrics = theirs_and_ours(trainer, batch, "token")
    assert ours == theirs and metrics["clip_ratio/region_mean"] == 0
    assert all(torch.equal(our_gradient[name], want) for name, want in their_gradient.items())


def test_log_probabilities_are_trls(trainer, rollouts):
    """Our forward pass over a left-padded batch; TRL leaves positions to the model, which changes only the rounding."""
    assert not rollouts.prompt_mask.all() and not rollouts.completion_mask.all()
    model, valid = trainer.model.eval(), rollouts.completion_mask
    ids = torch.cat([rollouts.prompt_ids, rollouts.completion_ids], 1)
    mask = torch.cat([rollouts.prompt_mask, valid], 1).long()
    logps, entropy, _ = trainer._get_per_token_logps_and_entropies(
        model, ids, mask, rollouts.completion_ids.shape[1], compute_entropy=True
    )
    ours = token_logps(model, rollouts)
    torch.testing.assert_close(ours.logps[valid], logps[valid], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.entropy[valid], entropy[valid], atol=1e-5, rtol=0)
    assert not ours.logps[~valid].any() and not ours.entropy[~valid].any()
    assert ours.logps[valid].std() > 0.5  # a flat model would agree with anything
