"""The updates of one step: the cell's loss on a batch, its gradient, and the learning rate of the moment."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError, grpo
from lrd.cell import Cell
from lrd.models.logps import TokenLogps
from lrd.models.policy import Policy
from lrd.rollouts import Rollouts


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    step: int,
    batch: Rollouts,
    learner: TokenLogps,
    ref_logps: Float[Tensor, "N T"],
    advantages: Float[Tensor, "N T"],
) -> dict[str, float]:
    """`epochs` gradient steps on one batch; one without a finite loss or gradient is skipped and counted.

    `learner` is the policy's forward pass over the batch, made before any of these steps.
    """
    cell = policy.cell
    old_logps = learner.logps.detach()
    mask = grpo.learned(batch, cell.truncated_completions)
    advantages, mask = advantages.to(old_logps.device), mask.to(old_logps.device)
    weights, metrics = _weights(batch, old_logps, cell), {}
    if weights is not None:
        metrics["sampling/importance_sampling_ratio/mean"] = grpo.aggregate(weights, mask).item()
    metrics |= {"learning_rate": rate(step, cell), "skipped_updates": 0}
    for group in optimizer.param_groups:
        group["lr"] = metrics["learning_rate"]
    for epoch in range(cell.epochs):
        loss, terms = grpo.loss(
            learner.logps if epoch == 0 else policy.logps(batch).logps,
            old_logps,
            ref_logps,
            advantages,
            mask,
            weights=weights,
            clip_epsilon=cell.clip_epsilon,
            clip_epsilon_high=cell.clip_epsilon_high,
            ratio_level=cell.ratio_level,
            kl_coef=cell.kl_coef,
            kl_estimator=cell.kl_estimator,
            aggregation=cell.loss_aggregation,
            max_tokens=cell.max_completion_tokens,
        )
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(policy.trainable.values(), cell.max_grad_norm)
        value, size = torch.stack([loss.detach(), norm]).tolist()
        if math.isfinite(value) and math.isfinite(size):
            optimizer.step()
        else:
            metrics["skipped_updates"] += 1
        optimizer.zero_grad()
        metrics |= terms | {"loss": value, "grad_norm": size}
    return metrics if cell.kl_coef else metrics | {"kl": math.nan}  # nobody asks for it; the reference was not read


def rate(step: int, cell: Cell) -> float:
    """The learning rate of a step, from 1 on, as transformers' schedules have it: that of the first to warm up is 0."""
    done, warmup = step - 1, cell.warmup_steps
    if done < warmup:
        return cell.learning_rate * done / warmup
    part = (done - warmup) / max(1, cell.steps - warmup)  # of the way down
    left = {"constant": 1.0, "linear": 1 - part, "cosine": (1 + math.cos(math.pi * part)) / 2}
    return cell.learning_rate * left[cell.lr_schedule]


def _weights(batch: Rollouts, logps: Float[Tensor, "N T"], cell: Cell) -> Float[Tensor, "N T"] | None:
    """What makes up for a sampler that is not the learner; None where the cell does without."""
    if not cell.importance_cap:
        return None
    if batch.sampler_logps is None:
        raise UserError(
            "importance_cap compares the sampler's log-probabilities with the learner's; these completions have none"
        )
    return grpo.sampler_weights(logps, batch.sampler_logps.to(logps.device), cell.importance_cap)
