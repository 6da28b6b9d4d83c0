"""Rewards deposit raw values on completion tokens; what becomes of them is `grpo.py`'s business (book: Method).

A reward is a function of a batch of rollouts, which lie on the CPU as its deposits have to, and of the learner's own
log-probabilities of it, which lie where the learner does. Its module gives
`load(cell, tokenizer, device)`, which checks that the reward can serve this cell and returns the function, and may give
`check(cell, tokenizer, pool)`, which says before anything starts that it cannot, and
`probe(reward, cell, tokenizer, pool, device)`, which tries it on the problems and returns what the run records of that.
"""

import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor, bool as torch_bool

from lrd import UserError
from lrd.cell import REGIMES, Cell
from lrd.data.problems import Problem
from lrd.rollouts import Rollouts


@dataclass(frozen=True)
class Deposits:
    """Raw rewards on tokens: zero off-deposit, and a deposit may itself be 0.0.

    `dense` says how deposits become advantages: each on its own token (dense), or summed to go (sparse).
    Raises `ValueError` where the tensors do not fit each other, or lie elsewhere than rollouts do, on the CPU.
    """

    token_rewards: Float[Tensor, "N T"]
    deposit_mask: Bool[Tensor, "N T"]
    dense: bool

    def __post_init__(self):
        rewards, mask = self.token_rewards, self.deposit_mask
        if rewards.dim() != 2 or rewards.shape != mask.shape:
            raise ValueError(f"token_rewards {tuple(rewards.shape)} and deposit_mask {tuple(mask.shape)}: want [N, T]")
        if mask.dtype != torch_bool or not rewards.is_floating_point():
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


Reward = Callable[[Rollouts, Float[Tensor, "N T"]], Deposits]


def load(cell: Cell, tokenizer, device) -> Reward:
    """The reward of the cell's regime, its models loaded and checked against the student's tokenizer."""
    return _module(cell).load(cell, tokenizer, device)


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` for what can be refused before any weights are read: the regime's module's `check`, if any."""
    getattr(_module(cell), "check", lambda *_: None)(cell, tokenizer, pool)


def probe(reward: Reward, cell: Cell, tokenizer, pool: list[Problem], device) -> dict[str, Any]:
    """What the regime's module's `probe`, if any, finds of its reward before the first step."""
    return getattr(_module(cell), "probe", lambda *_: {})(reward, cell, tokenizer, pool, device)


def demonstrates(cell: Cell) -> bool:
    """Whether the cell's regime takes the problems' own solutions for rollouts, its module's `DEMONSTRATES`."""
    return getattr(_module(cell), "DEMONSTRATES", False)


def model_of(cell: Cell) -> str | None:
    """Role of the model that scores for the cell's regime, its module's `MODEL`; None where it needs none."""
    return getattr(_module(cell), "MODEL", None)


def _module(cell: Cell) -> Any:
    """The regime's module. Raises `UserError` where it cannot be imported."""
    name = REGIMES[cell.regime]
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a file that somebody has just written raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error}, at line {where.lineno} of {where.filename}"
        raise UserError(f"the reward of regime {cell.regime!r}, {name}, cannot be imported ({line})") from error
