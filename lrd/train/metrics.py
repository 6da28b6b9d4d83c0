"""What a step and a run put on record: metrics under TRL's names where TRL has one, completions token by token."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from lrd import grpo
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.models.logps import TokenLogps
from lrd.models.policy import Policy
from lrd.rewards import correct, shaping
from lrd.rollouts import Deposits, Rollouts
from lrd.sampling import Sampler


class Laps:
    """Seconds of each part of a step; waits for the device, which works on while Python goes ahead."""

    def __init__(self, device: torch.device):
        self._seconds: dict[str, float] = {}
        self._device, self._last = device, time.perf_counter()

    def lap(self, part: str) -> None:
        """Ends a part: its seconds are those since the last one ended."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._last, before = time.perf_counter(), self._last
        self._seconds[part] = self._last - before

    @property
    def metrics(self) -> dict[str, float]:
        """Seconds of the step and of each part; on a GPU the memory that was used at most since the last step, too."""
        metrics = {"step_time": sum(self._seconds.values())}
        metrics |= {f"time/{part}": seconds for part, seconds in self._seconds.items()}
        if self._device.type == "cuda":
            metrics["memory/peak_gib"] = torch.cuda.max_memory_allocated(self._device) / 2**30
            torch.cuda.reset_peak_memory_stats(self._device)
        return metrics


@torch.no_grad()
def describe(
    batch: Rollouts, deposits: Deposits, advantages: Tensor, learner: TokenLogps, cell: Cell
) -> dict[str, Any]:
    """What is logged of a batch before its update, under TRL's names where TRL has one."""
    mask, lengths = batch.completion_mask, batch.lengths.float()
    by_group = deposits.trajectory_rewards.view(-1, cell.samples_per_prompt)
    judged = [correct(text, p, cell) for text, p in zip(batch.texts, batch.problems)]
    known, wrong = [right for right in judged if right is not None], torch.tensor([right is False for right in judged])
    metrics = {
        "reward": by_group.mean().item(),
        "reward_std": by_group.std(1).mean().item() if cell.samples_per_prompt > 1 else 0.0,
        "frac_reward_zero_std": (by_group == by_group[:, :1]).all(1).float().mean().item(),
        "accuracy": sum(known) / len(known) if known else math.nan,
        "advantage_std": advantages[mask].std().item(),
        "deposits/last_if_wrong": _mean(deposits.token_rewards[shaping.last(deposits) & wrong[:, None]]),
        "deposits_per_episode": deposits.deposit_mask.sum(1).float().mean().item(),
        "entropy": grpo.aggregate(learner.entropy.cpu(), mask).item(),
        "completions/mean_length": lengths.mean().item(),
        "completions/max_length": lengths.max().item(),
        "completions/clipped_ratio": batch.truncated.float().mean().item(),
    }
    metrics |= {f"rewards/{name}/mean": mean for name, mean in deposits.means.items()}
    if batch.sampler_logps is not None and cell.logp_temperature == 1:  # the sampler's are at temperature 1
        gap = (batch.sampler_logps - learner.logps.cpu())[mask].abs()
        metrics["sampling/sampling_logp_difference/mean"] = gap.mean().item()
        metrics["sampling/sampling_logp_difference/max"] = gap.max().item()
    return metrics


def _mean(values: Tensor) -> float:
    """Without values not a number, and without a warning."""
    return values.mean().item() if len(values) else math.nan


def logged(
    step: int, batch: Rollouts, deposits: Deposits, advantages: Tensor, tokenizer, cell: Cell
) -> list[dict[str, Any]]:
    """The first trajectories of a batch, token by token, as `completions.jsonl` keeps them."""
    rows = []
    for i in range(min(cell.logged_completions, len(batch.problems))):
        n, problem = int(batch.lengths[i]), batch.problems[i]
        rows.append(
            {
                "step": step,
                "problem": problem.problem,
                "answer": problem.answer,
                "correct": correct(batch.texts[i], problem, cell),
                "truncated": bool(batch.truncated[i]),
                "tokens": tokenizer.batch_decode([[token] for token in batch.ids_of(i)]),
                "token_rewards": deposits.token_rewards[i, :n].tolist(),
                "deposit_mask": deposits.deposit_mask[i, :n].tolist(),
                "advantages": advantages[i, :n].tolist(),
            }
        )
    return rows


@torch.no_grad()
def moved(policy: Policy) -> float:
    """Share of a fully trained student's weights that differ from the base's, both as the forward pass reads them."""
    pairs = list(zip(policy.model.parameters(), policy.reference.parameters(), strict=True))
    different = sum((now.to(before.dtype) != before).sum() for now, before in pairs)
    return float(different) / sum(before.numel() for _, before in pairs)


def about(policy: Policy, sampler: Sampler, pool: list[Problem], dropped: int) -> dict[str, Any]:
    """What only the training side knows of a run: its device, engine and sizes, the data that it saw."""
    device = policy.device
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "engine": type(sampler).__module__.rpartition(".")[2],  # the one that samples, whatever was asked for
        "trainable_parameters": sum(p.numel() for p in policy.trainable.values()),
        "parameters": sum(p.numel() for p in policy.base.parameters() if p.requires_grad or policy.cell.rank),
        "train_problems": len(set(pool)),  # some of a mixture are there more than once
        "train_problems_dropped": dropped,
    }
