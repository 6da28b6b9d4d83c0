"""The one algorithm of the study: advantages and loss, as pure functions on tensors (book: Method).

What is left out of GRPO as first published: the third forward pass (with one update a rollout, log π_old is the
learner's own detached log π_θ) and any knowledge of where a reward came from (`Deposits` says all that is needed).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrd.rollouts import Deposits, Rollouts


def advantages(
    deposits: Deposits, group: Int[Tensor, " N"], eps: float = 1e-8, norm: str = "group", to_go: str = "sum"
) -> Float[Tensor, "N T"]:
    """Per-token advantages from raw deposits: normalized within each prompt's group; of sparse ones the return.

    DeepSeekMath §4.1.2–4.1.3. A group of equal deposits, or of a single one, carries no signal: exactly zero. With
    `norm` "mean" deposits are centred and not divided by their std (Dr. GRPO, Liu et al. 2025), with "none" they stay
    as they are; with `to_go` "mean" the return from a token on is divided by the number of deposits that it sums.
    """
    unit = deposits.token_rewards if norm == "none" else _group_normalize(deposits, group, eps, norm == "group")
    # A dense reward deposits on every token, so a return would grow like the square root of the length.
    if deposits.dense:
        return unit
    return _returns(unit) if to_go == "sum" else _returns(unit) / deposits.remaining.clamp(min=1)


def _group_normalize(
    deposits: Deposits, group: Int[Tensor, " N"], eps: float, scaled: bool = True
) -> Float[Tensor, "N T"]:
    """(r − μ_p) / (σ_p + ε) on deposits, 0 elsewhere; μ and the unbiased σ over all deposits of a prompt's samples.

    Not `scaled`: r − μ_p.
    """
    row, column = deposits.deposit_mask.nonzero(as_tuple=True)
    order = group[row].argsort(stable=True)  # a group's deposits side by side: searching for them is quadratic
    row, column = row[order], column[order]
    values = deposits.token_rewards[row, column].double()  # in fp32, rounding over ε would turn equal ones into noise
    for r in values.split(group[row].unique(return_counts=True)[1].tolist()):  # views of one group each
        centred = torch.zeros_like(r) if (r == r[0]).all() else r - r.mean()
        r.copy_(centred / (r.std() + eps) if scaled and centred.any() else centred)
    unit = torch.zeros_like(deposits.token_rewards)
    unit[row, column] = values.to(unit.dtype)
    return unit


def _returns(x: Float[Tensor, "N T"]) -> Float[Tensor, "N T"]:
    """Σ_{t' ≥ t} x_{t'}."""
    return x.double().flip(1).cumsum(1).flip(1).to(x.dtype)


def bounded(advantages: Float[Tensor, "N T"], cap: float) -> Float[Tensor, "N T"]:
    """Advantages of magnitude `cap` at most; of any where it is 0."""
    return advantages.clamp(-cap, cap) if cap else advantages


def whitened(advantages: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], eps: float = 1e-8) -> Float[Tensor, "N T"]:
    """Mean 0 and std 1 over the valid tokens of a batch; 0 where they are all equal."""
    valid = advantages[mask].double()
    if valid.numel() < 2 or (valid == valid[0]).all():
        return torch.zeros_like(advantages)
    scaled = (advantages.double() - valid.mean()) / (valid.std() + eps)
    return torch.where(mask, scaled, 0.0).to(advantages.dtype)


def kl_estimate(
    logps: Float[Tensor, "N T"], ref_logps: Float[Tensor, "N T"], estimator: str = "paper"
) -> Float[Tensor, "N T"]:
    """Per-token estimate of KL(π_θ ‖ π_ref), nats. `paper` is the report's; k1, k2, k3 are Schulman's (2020).

    The report's has a gradient even where both agree, π_θ ∇log π_θ: without a reward it makes sampled tokens rarer.
    """
    ratio = logps - ref_logps
    if estimator == "paper":
        return torch.clamp(logps.exp() * ratio, min=0)
    if estimator == "k1":
        return ratio
    if estimator == "k2":
        return ratio.square() / 2
    if estimator == "k3":
        return torch.exp(-ratio) + ratio - 1
    raise ValueError(f"unknown KL estimator {estimator!r}: paper, k1, k2 or k3")


def ratios(
    logps: Float[Tensor, "N T"], old_logps: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], level: str = "token"
) -> Float[Tensor, "N T"]:
    """π_θ / π_old of each token; or of its sequence, the geometric mean over valid tokens (GSPO, Zheng et al. 2025).

    `level` is "token" or "sequence".
    """
    log_ratio = logps - old_logps
    if level == "token":
        return torch.exp(log_ratio)
    mean = torch.where(mask, log_ratio, 0.0).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
    return torch.exp(mean).expand_as(logps)


def learned(batch: Rollouts, truncated: str = "kept") -> Bool[Tensor, "N T"]:
    """The tokens that the loss is over: valid ones; where `truncated` is "masked", of completions that ended (DAPO)."""
    return batch.completion_mask if truncated == "kept" else batch.completion_mask & ~batch.truncated[:, None]


def sampler_weights(
    logps: Float[Tensor, "N T"], sampler_logps: Float[Tensor, "N T"], cap: float
) -> Float[Tensor, "N T"]:
    """min(π_old / π_sampler, cap), both at one temperature: truncated importance sampling (Yao et al. 2025).

    It makes up for a sampler that computes otherwise than the learner, in another precision or by other kernels.
    """
    return torch.exp(logps - sampler_logps).clamp(max=cap)


def aggregate(
    x: Float[Tensor, "N T"], mask: Bool[Tensor, "N T"], how: str = "token", max_tokens: int | None = None
) -> Float[Tensor, ""]:
    """Mean over valid tokens; mean over sequences of their token means; or the sum over a constant N·`max_tokens`.

    The last is Dr. GRPO's (Liu et al. 2025): no length enters the scale. `max_tokens` defaults to T.
    """
    x = torch.where(mask, x, 0.0)
    if how == "token":
        return x.sum() / mask.sum().clamp(min=1)
    if how == "sequence":
        return (x.sum(1) / mask.sum(1).clamp(min=1)).mean()
    if how == "constant":
        return x.sum() / (x.shape[0] * (max_tokens or x.shape[1]))
    raise ValueError(f"unknown aggregation {how!r}: token, sequence or constant")


def loss(
    logps: Float[Tensor, "N T"],
    old_logps: Float[Tensor, "N T"],
    ref_logps: Float[Tensor, "N T"],
    advantages: Float[Tensor, "N T"],
    mask: Bool[Tensor, "N T"],
    *,
    weights: Float[Tensor, "N T"] | None = None,
    clip_epsilon: float = 0.2,
    clip_epsilon_high: float = 0.0,
    ratio_level: str = "token",
    kl_coef: float = 0.05,
    kl_estimator: str = "paper",
    aggregation: str = "token",
    max_tokens: int | None = None,
) -> tuple[Float[Tensor, ""], dict[str, float]]:
    """The clipped surrogate with a KL penalty (PPO eq. 7, DeepSeekMath eq. 3), and what to log of it.

    Log-probabilities in nats; only `logps` takes a gradient. The ratio is clipped at 1 + `clip_epsilon_high` above
    (DAPO, Yu et al. 2025, eq. 8), at 1 + `clip_epsilon` where that is 0; `weights` are `sampler_weights`. Metrics: `kl`
    (mean over valid tokens, nats) and `clip_ratio/region_mean` (share of valid tokens whose ratio is clipped against
    its advantage).
    """
    ratio = ratios(logps, old_logps, mask, ratio_level)
    low, high = 1 - clip_epsilon, 1 + (clip_epsilon_high or clip_epsilon)
    gain = torch.min(ratio * advantages, torch.clamp(ratio, low, high) * advantages)
    gain = gain if weights is None else gain * weights
    kl = kl_estimate(logps, ref_logps, kl_estimator)
    value = -aggregate(gain - kl_coef * kl, mask, aggregation, max_tokens)
    with torch.no_grad():
        is_clipped = ((ratio < low) & (advantages < 0)) | ((ratio > high) & (advantages > 0))
        logged = torch.stack([aggregate(kl, mask), aggregate(is_clipped.to(logps.dtype), mask)]).tolist()
    return value, dict(zip(("kl", "clip_ratio/region_mean"), logged))
