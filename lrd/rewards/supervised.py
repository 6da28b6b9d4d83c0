"""Supervised: the right solution in place of a sample, a deposit of 1 on each of its tokens.

With the advantage equal to the deposit, the clipped surrogate's gradient at ratio 1 is that of cross-entropy: what the
same adapters learn when nothing has to be found out.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.rewards import Deposits, Reward
from lrd.rollouts import Rollouts

DEMONSTRATES = True  # rollouts are the problems' own solutions
DENSE = True  # a deposit counts for its own token


def load(cell: Cell, tokenizer, device) -> Reward:
    """A reward that is the same for every token."""

    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        mask = rollouts.completion_mask
        return Deposits(torch.where(mask, 1.0, 0.0), mask, dense=True)

    return reward


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` where deposits, all equal, would be normalized away."""
    if cell.advantage_norm != "none":
        raise UserError(
            f"regime {cell.regime!r} deposits 1 on every token, which advantage_norm = {cell.advantage_norm!r} turns "
            f"into 0; set advantage_norm=none"
        )
