"""A weighted sum of rewards, `outcome+0.5*module:function`: each deposits where it does alone, times its weight.

On one token the deposits add up. A reward that deposits nothing on a completion adds nothing to it.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError, rewards
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.rewards import Deposits, Reward
from lrd.rollouts import Rollouts


@dataclass(frozen=True)
class Sum:
    """Each reward with its weight and the cell under it alone."""

    terms: list[tuple[float, Cell, Reward]]

    def __call__(self, rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        each = [(weight, part.regime, reward(rollouts, logps)) for weight, part, reward in self.terms]
        return Deposits(
            torch.stack([weight * deposits.token_rewards for weight, _, deposits in each]).sum(0),
            torch.stack([deposits.deposit_mask for _, _, deposits in each]).any(0),
            dense=False,
            means={name: _mean(deposits) for _, name, deposits in each},
        )


def _mean(deposits: Deposits) -> float:
    """Over the completions that have a deposit; not a number where none has."""
    values = deposits.trajectory_rewards[deposits.deposit_mask.any(1)]
    return values.mean().item() if len(values) else math.nan


def load(cell: Cell, tokenizer, device) -> Reward:
    """The rewards of the sum, loaded."""
    return Sum([(weight, part, rewards.load(part, tokenizer, device)) for weight, part in rewards.parts(cell)])


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` where a reward cannot serve the cell, or does not deposit returns."""
    for _, part in rewards.parts(cell):
        if getattr(rewards.module_of(part), "DENSE", False):
            raise UserError(
                f"regime {cell.regime!r} sums {part.regime!r}, which deposits for each token alone; a sum takes "
                f"outcome, process and functions of your own"
            )
        rewards.check(part, tokenizer, pool)


def probe(reward: Sum, cell: Cell, tokenizer, pool: list[Problem], device) -> dict[str, Any]:
    """What the run records of each reward."""
    found = {}
    for _, part, one in reward.terms:
        found |= rewards.probe(one, part, tokenizer, pool, device)
    return found
