"""Outcome: one deposit an episode, 1.0 on the last token if the answer verifies against the gold answer, else 0.0."""

import torch
from jaxtyping import Float
from torch import Tensor

from lrd.cell import Cell
from lrd.rewards import Deposits, Reward, verified
from lrd.rollouts import Rollouts

GOLD = True  # it reads the problems' answers


def load(cell: Cell, tokenizer, device) -> Reward:
    """The verifier, grading as the cell says."""

    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        return on_last_token(verified(rollouts, cell), rollouts)

    return reward


def on_last_token(values: list[bool] | list[float], rollouts: Rollouts) -> Deposits:
    """One value a trajectory, deposited on its last valid token; a trajectory without tokens gets no deposit.

    Raises `ValueError` where there are more or fewer values than trajectories.
    """
    mask, lengths = rollouts.completion_mask, rollouts.lengths
    if len(values) != len(lengths):
        raise ValueError(f"{len(values)} values for {len(lengths)} trajectories: want one each")
    has_tokens = (lengths > 0).nonzero()[:, 0]
    at = has_tokens, lengths[has_tokens] - 1
    token_rewards, deposit_mask = torch.zeros(mask.shape), torch.zeros_like(mask)
    token_rewards[at] = torch.tensor(values, dtype=torch.float32)[has_tokens]
    deposit_mask[at] = True
    return Deposits(token_rewards, deposit_mask, dense=False)
