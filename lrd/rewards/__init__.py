"""Rewards deposit raw values on completion tokens; what becomes of them is `grpo.py`'s business (book: Method).

A reward is a function of a batch of rollouts, which lie on the CPU as its deposits have to, and of the learner's own
log-probabilities of it, which lie where the learner does. Its module gives `load(cell, tokenizer, device)`, which
returns the function, and may give `check(cell, tokenizer, pool)`, which refuses a cell before any weights are read, and
`probe(reward, cell, tokenizer, pool, device)`, which tries it on the problems and returns what the run records of that.
It says whether the reward reads gold answers (`GOLD`), deposits for each token alone (`DENSE`) or takes solutions for
rollouts (`DEMONSTRATES`), and the role of the model that it scores with (`MODEL`). A function of one's own with TRL's
signature, `module:function`, becomes a reward by `lrd/rewards/imported.py`; `lrd/rewards/summed.py` sums several.
"""

import importlib
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell, reward_module
from lrd.data.problems import Problem
from lrd.names import reward_terms
from lrd.rollouts import Deposits, Rollouts
from lrd.verifier import is_correct

Reward = Callable[[Rollouts, Float[Tensor, "N T"]], Deposits]


def verified(rollouts: Rollouts, cell: Cell) -> list[bool]:
    """Whether each trajectory's answer verifies against its problem's gold answer."""
    return [bool(correct(text, problem, cell)) for text, problem in zip(rollouts.texts, rollouts.problems)]


def correct(text: str, problem: Problem, cell: Cell) -> bool | None:
    """Whether a completion verifies against the problem's gold answer; None where it has none."""
    return None if problem.answer is None else is_correct(text, problem.answer, cell.grading)


def parts(cell: Cell) -> list[tuple[float, Cell]]:
    """Weight and cell of each reward that the cell's regime sums: the cell under that reward alone."""
    return [(weight, replace(cell, regime=name)) for weight, name in reward_terms(cell.regime)]


def load(cell: Cell, tokenizer, device) -> Reward:
    """The reward of the cell's regime, its models loaded. Raises `UserError` where it cannot serve the cell."""
    check(cell, tokenizer, [])
    return module_of(cell).load(cell, tokenizer, device)


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` for what can be refused before any weights are read: the regime's module's `check`, if any."""
    getattr(module_of(cell), "check", lambda *_: None)(cell, tokenizer, pool)
    if needs_gold(cell) and (lacking := next((p for p in pool if p.answer is None), None)):
        raise UserError(
            f"regime {cell.regime!r} needs gold answers, and {cell.train_data!r} has problems without (for one, "
            f"{lacking.id!r}); give them an 'answer', or a 'solution' that ends in \\boxed{{}}"
        )


def probe(reward: Reward, cell: Cell, tokenizer, pool: list[Problem], device) -> dict[str, Any]:
    """What the run records of the reward before the first step: the regime's module's `probe`, if any."""
    return getattr(module_of(cell), "probe", lambda *_: {})(reward, cell, tokenizer, pool, device)


def scoring(cell: Cell) -> Cell:
    """The cell under the reward of its evaluations, with their problems."""
    return replace(cell, regime=cell.eval_reward, train_data=cell.eval_data, outcome_weight=0.0)


def check_evaluation(cell: Cell, tokenizer, held_out: list[Problem]) -> None:
    """Raises `UserError` where neither the verifier nor `eval_reward` can score the cell's evaluations."""
    if not cell.eval_reward:
        if lacking := next((p for p in held_out if p.answer is None), None):
            raise UserError(
                f"the verifier needs gold answers, and {cell.eval_data!r} has problems without (for one, "
                f"{lacking.id!r}); give them, or eval_reward a reward that needs none"
            )
        return
    if any(getattr(module_of(part), "DENSE", False) for _, part in parts(scoring(cell))):
        raise UserError(f"eval_reward {cell.eval_reward!r} scores tokens; give one that scores completions")
    if (role := model_of(scoring(cell))) and cell.eval_reward != cell.regime:
        raise UserError(f"eval_reward {cell.eval_reward!r} scores with a {role}, which only its own regime loads")
    check(scoring(cell), tokenizer, held_out)


def load_evaluation(cell: Cell, reward: Reward, tokenizer, device) -> Reward | None:
    """The reward that scores the cell's evaluations, which may be its own; None without `eval_reward`."""
    if not cell.eval_reward:
        return None
    return reward if cell.eval_reward == cell.regime else load(scoring(cell), tokenizer, device)


def needs_gold(cell: Cell) -> bool:
    """Whether the cell's deposits depend on gold answers."""
    return cell.outcome_weight > 0 or any(getattr(module_of(part), "GOLD", False) for _, part in parts(cell))


def demonstrates(cell: Cell) -> bool:
    """Whether the cell's regime takes the problems' own solutions for rollouts, its module's `DEMONSTRATES`."""
    return getattr(module_of(cell), "DEMONSTRATES", False)


def model_of(cell: Cell) -> str | None:
    """Role of the model that scores for the cell's regime, its module's `MODEL`; None where it needs none."""
    roles = (getattr(module_of(part), "MODEL", None) for _, part in parts(cell))
    return next(filter(None, roles), None)


def module_of(cell: Cell) -> Any:
    """The regime's module. Raises `UserError` where it cannot be imported."""
    name = reward_module(cell.regime)
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever a file that somebody has just written raises
        where = traceback.extract_tb(error.__traceback__)[-1]
        line = f"{type(error).__name__}: {error}, at line {where.lineno} of {where.filename}"
        raise UserError(f"the reward of regime {cell.regime!r}, {name}, cannot be imported ({line})") from error
