"""Rewards deposit raw values on completion tokens; what becomes of them is `grpo.py`'s business (book: Method).

A reward is a function of a batch of rollouts, which lie on the CPU as its deposits have to, and of the learner's own
log-probabilities of it, which lie where the learner does. Its module gives `load(cell, tokenizer, device)`, which
returns the function, and may give `check(cell, tokenizer, pool)`, which refuses a cell before any weights are read, and
`probe(reward, cell, tokenizer, pool, device)`, which tries it on the problems and returns what the run records of that.
A function of one's own with TRL's signature, given as `module:function`, becomes one by `lrd/rewards/imported.py`.
"""

import importlib
import traceback
from collections.abc import Callable
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell, reward_module
from lrd.data.problems import Problem
from lrd.rollouts import Deposits, Rollouts
from lrd.verifier import is_correct

Reward = Callable[[Rollouts, Float[Tensor, "N T"]], Deposits]


def verified(rollouts: Rollouts, cell: Cell) -> list[bool]:
    """Whether each trajectory's answer verifies against its problem's gold answer."""
    return [is_correct(text, p.answer, cell.grading) for text, p in zip(rollouts.texts, rollouts.problems)]


def load(cell: Cell, tokenizer, device) -> Reward:
    """The reward of the cell's regime, its models loaded. Raises `UserError` where it cannot serve the cell."""
    check(cell, tokenizer, [])
    return _module(cell).load(cell, tokenizer, device)


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` for what can be refused before any weights are read: the regime's module's `check`, if any."""
    getattr(_module(cell), "check", lambda *_: None)(cell, tokenizer, pool)


def probe(reward: Reward, cell: Cell, tokenizer, pool: list[Problem], device) -> dict[str, Any]:
    """What the run records of the reward before the first step: the regime's module's `probe`, if any."""
    return getattr(_module(cell), "probe", lambda *_: {})(reward, cell, tokenizer, pool, device)


def demonstrates(cell: Cell) -> bool:
    """Whether the cell's regime takes the problems' own solutions for rollouts, its module's `DEMONSTRATES`."""
    return getattr(_module(cell), "DEMONSTRATES", False)


def model_of(cell: Cell) -> str | None:
    """Role of the model that scores for the cell's regime, its module's `MODEL`; None where it needs none."""
    return getattr(_module(cell), "MODEL", None)


def _module(cell: Cell) -> Any:
    """The regime's module. Raises `UserError` where it cannot be imported."""
    name = reward_module(cell.regime)
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a file that somebody has just written raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error}, at line {where.lineno} of {where.filename}"
        raise UserError(f"the reward of regime {cell.regime!r}, {name}, cannot be imported ({line})") from error
