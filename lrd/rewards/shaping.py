"""What may be done to deposits before they become advantages. Pure functions; none knows which reward it serves."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrd.cell import Cell
from lrd.rewards import verified
from lrd.rollouts import Deposits, Rollouts

RAMP = 0.2  # of the longest length: where DAPO's penalty rises (4,096 of 20,480 tokens)


def shaped(deposits: Deposits, rollouts: Rollouts, cell: Cell) -> Deposits:
    """Deposits as the cell's options have them; with their defaults as they are."""
    if cell.deposit_rule == "difference":
        deposits = differences(deposits)
    elif cell.deposit_rule != "each":
        deposits = pooled(deposits, cell.deposit_rule)
    if cell.overlong_penalty:
        excess = overlong(rollouts.lengths, cell.max_completion_tokens)
        deposits = added_at_end(deposits, -cell.overlong_penalty * excess)
    if cell.outcome_weight:
        right = torch.tensor(verified(rollouts, cell)).to(deposits.token_rewards)
        deposits = added_at_end(deposits, cell.outcome_weight * right)
    return deposits


def differences(deposits: Deposits) -> Deposits:
    """Each deposit less the one before it, the first as it is: they sum to the last.

    Potential-based shaping (Ng, Harada and Russell 1999) with the deposits for potentials: a step pays what it adds.
    """
    rewards = torch.zeros_like(deposits.token_rewards)
    for row, (values, mask) in enumerate(zip(deposits.token_rewards, deposits.deposit_mask)):
        rewards[row, mask] = values[mask].diff(prepend=values.new_zeros(1))
    return Deposits(rewards, deposits.deposit_mask, deposits.dense)


def pooled(deposits: Deposits, how: str) -> Deposits:
    """A trajectory's `minimum` or `mean` deposit as its only one, where its last was."""
    rewards, mask = torch.zeros_like(deposits.token_rewards), last(deposits)
    for row, at in mask.nonzero().tolist():
        values = deposits.token_rewards[row, deposits.deposit_mask[row]]
        rewards[row, at] = values.min() if how == "minimum" else values.mean()
    return Deposits(rewards, mask, deposits.dense)


def overlong(lengths: Int[Tensor, " N"], longest: int) -> Float[Tensor, " N"]:
    """From 0 up to four fifths of the longest length in tokens, in a line to 1 at it (Yu et al. 2025, eq. 13)."""
    return ((lengths / longest - (1 - RAMP)) / RAMP).clamp(0, 1)


def added_at_end(deposits: Deposits, values: Float[Tensor, " N"]) -> Deposits:
    """With a value added to each trajectory's last deposit; one without deposits gets none."""
    rewards = deposits.token_rewards + torch.where(last(deposits), values[:, None], 0.0)
    return Deposits(rewards, deposits.deposit_mask, deposits.dense)


def last(deposits: Deposits) -> Bool[Tensor, "N T"]:
    """Where each trajectory's last deposit lies."""
    return deposits.deposit_mask & (deposits.remaining == 1)
