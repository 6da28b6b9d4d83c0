"""The batch that samplers make and rewards read, N = P·G trajectories, G of them a prompt; and what they deposit on it.

Both lie on the CPU, as advantages do: they are small, and each read of a tensor on a GPU waits for the GPU.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrd.data.problems import Problem
from lrd.data.tokens import texts

TOKENS_PER_PASS = 2**15  # through a model, padding included: of one with 7B parameters, about 4 GB of activations
PASS_COSTS = 2**12  # tokens that a GPU could have read in the time that Python takes to launch a pass


class Completion(NamedTuple):
    """What a sampler returns for one prompt."""

    ids: list[int]  # up to and with the end-of-sequence token, where it came before the cap
    logps: list[float] | None  # the sampler's log π(o_t) at temperature 1, nats
    truncated: bool  # cut at the cap, without an end-of-sequence token


@dataclass(frozen=True)
class Rollouts:
    """Prompts padded on the left, completions on the right, so that the first completed token has one column."""

    prompt_ids: Int[Tensor, "N S"]
    prompt_mask: Bool[Tensor, "N S"]
    completion_ids: Int[Tensor, "N T"]
    completion_mask: Bool[Tensor, "N T"]
    group: Int[Tensor, " N"]  # index of the prompt that a trajectory answers
    problems: list[Problem]  # one a trajectory
    texts: list[str]  # completions decoded, special tokens left out
    truncated: Bool[Tensor, " N"]
    sampler_logps: Float[Tensor, "N T"] | None = None

    @property
    def lengths(self) -> Int[Tensor, " N"]:
        """Completion tokens, the end-of-sequence token included."""
        return self.completion_mask.sum(1)

    def ids_of(self, i: int) -> list[int]:
        """The valid completion tokens of trajectory `i`."""
        return self.completion_ids[i, self.completion_mask[i]].tolist()


@dataclass(frozen=True)
class Deposits:
    """Raw rewards on tokens: zero off-deposit, and a deposit may itself be 0.0.

    `dense` says how deposits become advantages: each on its own token (dense), or as the return, their sum from a
    token on (sparse).
    Raises `ValueError` where the tensors do not fit each other, or lie elsewhere than rollouts do, on the CPU.
    """

    token_rewards: Float[Tensor, "N T"]
    deposit_mask: Bool[Tensor, "N T"]
    dense: bool
    means: dict[str, float] = field(default_factory=dict)  # of each reward of a sum, before its weight; to be logged

    def __post_init__(self):
        rewards, mask = self.token_rewards, self.deposit_mask
        if rewards.dim() != 2 or rewards.shape != mask.shape:
            raise ValueError(f"token_rewards {tuple(rewards.shape)} and deposit_mask {tuple(mask.shape)}: want [N, T]")
        if mask.dtype != torch.bool or not rewards.is_floating_point():
            raise ValueError(f"token_rewards is {rewards.dtype}, deposit_mask {mask.dtype}: want floating point, bool")
        if rewards.device.type != "cpu" or mask.device.type != "cpu":
            raise ValueError(
                f"deposits lie on {rewards.device} and {mask.device}: want them on the CPU, as rollouts are"
            )
        if (rewards[~mask] != 0).any():
            raise ValueError("token_rewards has values where deposit_mask says that nothing was deposited")

    def check(self, rollouts: Rollouts) -> None:
        """Raises `ValueError` where the deposits are not on the tokens of these rollouts."""
        mask = rollouts.completion_mask
        if self.deposit_mask.shape != mask.shape:
            raise ValueError(
                f"deposits are {list(self.deposit_mask.shape)}: want {list(mask.shape)}, as the rollouts are"
            )
        if (self.deposit_mask & ~mask).any():
            raise ValueError("something was deposited behind the end of a completion")

    @property
    def trajectory_rewards(self) -> Float[Tensor, " N"]:
        """Sum over a trajectory's deposits, for logging."""
        return self.token_rewards.sum(1)

    @property
    def remaining(self) -> Int[Tensor, "N T"]:
        """Deposits from a token on, its own included."""
        return self.deposit_mask.flip(1).long().cumsum(1).flip(1)


def collate(
    problems: list[Problem], prompts: list[list[int]], completions: list[Completion], samples: int, tokenizer
) -> Rollouts:
    """Pads P prompts and their P·`samples` completions (all of a prompt's side by side) into one batch.

    Raises `ValueError` where there are more or fewer of either.
    """
    if len(prompts) != len(problems) or len(completions) != len(prompts) * samples:
        raise ValueError(
            f"{len(completions)} completions of {len(prompts)} prompts to {len(problems)} problems: want a prompt to "
            f"each, and {samples} completions of it"
        )
    repeated = [ids for ids in prompts for _ in range(samples)]
    prompt_ids, prompt_mask = pad(repeated, tokenizer.pad_token_id, left=True)
    completion_ids, completion_mask = pad([c.ids for c in completions], tokenizer.pad_token_id)
    logps = None
    if all(c.logps is not None for c in completions):
        logps = pad([c.logps for c in completions], 0.0)[0]
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        completion_ids=completion_ids,
        completion_mask=completion_mask,
        group=torch.arange(len(prompts)).repeat_interleave(samples),
        problems=[p for p in problems for _ in range(samples)],
        texts=texts([c.ids for c in completions], tokenizer),
        truncated=torch.tensor([c.truncated for c in completions]),
        sampler_logps=logps,
    )


def pad(rows: list, value: float, *, left: bool = False) -> tuple[Tensor, Bool[Tensor, "N T"]]:
    """Rows of unequal length as one tensor, and the mask of what is not padding. At least one column."""
    width = max(1, *(len(row) for row in rows))
    side = (lambda row, fill: fill + row) if left else (lambda row, fill: row + fill)
    values = [side(list(row), [value] * (width - len(row))) for row in rows]
    mask = [side([True] * len(row), [False] * (width - len(row))) for row in rows]
    return torch.tensor(values), torch.tensor(mask)


def by_length(lengths: list[int]) -> list[list[int]]:
    """Indices of rows in passes of at most `TOKENS_PER_PASS` tokens, padding included: those that cost least in all.

    Rows of like length share a pass, and each pass costs `PASS_COSTS` beside its tokens. A longer row is one by itself.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    if order and len(order) * max(lengths) <= min(TOKENS_PER_PASS, sum(lengths) + PASS_COSTS):
        return [order]  # a second pass would cost more than all of the padding
    cheapest: list[tuple[int, int]] = [(0, 0)]  # of the first n rows: cost, and where their last pass begins
    for n, last in enumerate(order, 1):
        options = (
            (cheapest[first][0] + PASS_COSTS + (n - first) * lengths[last], first)
            for first in range(n)
            if n - first == 1 or (n - first) * lengths[last] <= TOKENS_PER_PASS
        )
        cheapest.append(min(options))
    passes, n = [], len(order)
    while n:
        first = cheapest[n][1]
        passes.append(order[first:n])
        n = first
    return passes
