"""A reward of one's own, `module:function`: TRL's signature, one value a completion, deposited on its last token.

The function is called by keywords, as TRL calls it: `prompts` and `completions` as texts, `completion_ids`, and each
field of the problems as a column (`answer`, `solution`, `level`, …). None for a completion deposits nothing.
"""

import dataclasses
import importlib
import sys
import traceback
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.data.tokens import prompt_texts, prompts, solutions
from lrd.names import import_path
from lrd.rewards import Deposits, Reward
from lrd.rewards.outcome import on_last_token
from lrd.rollouts import Completion, Rollouts, collate
from lrd.runs.sources import folders

LARGEST = torch.finfo(torch.float32).max
TRIED = 2  # problems


def load(cell: Cell, tokenizer, device) -> Reward:
    """The function as a reward, which raises `ValueError` where it returns anything but a number or None for each."""
    function = find(cell.regime)

    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        problems = rollouts.problems
        columns: dict[str, Any] = {f.name: [getattr(p, f.name) for p in problems] for f in dataclasses.fields(Problem)}
        asked = prompt_texts((p.problem for p in problems), cell, tokenizer)
        columns |= {"prompts": asked, "completions": list(rollouts.texts)}
        columns["completion_ids"] = [rollouts.ids_of(i) for i in range(len(problems))]
        values = checked(function(**columns), len(problems))
        deposits = on_last_token([value or 0.0 for value in values], rollouts)
        applies = torch.tensor([value is not None for value in values])
        return Deposits(deposits.token_rewards, deposits.deposit_mask & applies[:, None], dense=False)

    return reward


def find(regime: str) -> Callable[..., Any]:
    """The function of an import path; its module is looked for beside the preset and where `lrd` was called first."""
    module, name = import_path(regime) or ("", "")
    sys.path[:0] = [folder for folder in folders() if folder not in sys.path]
    try:
        found = importlib.import_module(module)
    except Exception as error:  # whatever a file that somebody has just written raises
        missing = getattr(error, "name", None) if isinstance(error, ModuleNotFoundError) else None
        nowhere = missing and f"{module}.".startswith(f"{missing}.")
        here = " or ".join(folders())
        why = f"there is no module {missing!r} in {here}, nor is one installed" if nowhere else _line(error)
        raise UserError(f"the reward {regime!r} cannot be imported: {why}") from error
    if not callable(function := getattr(found, name, None)):
        where = getattr(found, "__file__", None) or module
        what = f"{name} in {where} is no function" if hasattr(found, name) else f"{where} has no function {name!r}"
        raise UserError(f"the reward {regime!r} cannot be imported: {what}")
    return function


def checked(returned: Any, n: int) -> list[float | None]:
    """What a reward returned for `n` completions, as numbers. Raises `ValueError` where it is something else."""
    wanted = f"it has to return {n} finite numbers, one a completion, or None where it does not apply"
    try:
        values = [value.item() if hasattr(value, "item") else value for value in returned]  # of NumPy's or of torch's
    except TypeError:
        raise ValueError(f"the reward returned a {type(returned).__name__}; {wanted}") from None
    if len(values) != n:
        raise ValueError(f"the reward returned {len(values)} values; {wanted}")
    for value in values:
        if value is not None and not (isinstance(value, float | int) and abs(value) <= LARGEST):  # nor is NaN
            raise ValueError(f"the reward returned {value!r}; {wanted}")
    return [None if value is None else float(value) for value in values]


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` where there is no such function, or it fails on an answer or on an empty completion."""
    reward, problems = load(cell, tokenizer, torch.device("cpu")), pool[:TRIED]
    if not problems:
        return
    written = [text for p in problems for text in (p.solution or f"The answer is \\boxed{{{p.answer or ''}}}.", "")]
    completions = [Completion(ids, None, False) for ids in solutions(written, tokenizer)]
    batch = collate(problems, prompts([p.problem for p in problems], cell, tokenizer), completions, 2, tokenizer)
    try:
        reward(batch, torch.zeros(batch.completion_mask.shape))
    except Exception as error:
        tried = f"tried with prompts, completions and **columns of {len(written)} made-up completions"
        raise UserError(f"the reward {cell.regime!r} fails, {tried}: {_line(error)}") from error


def _line(error: Exception) -> str:
    """An error, and the line of one's own that raised it."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    if where.filename == __file__:
        return str(error)
    at = "" if isinstance(error, SyntaxError) else f", at line {where.lineno} of {where.filename}"  # it says so itself
    return f"{type(error).__name__}: {error}{at}"
