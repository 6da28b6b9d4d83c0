"""What is known of a cell's models and problems before any weight is read, from configurations and tokenizers."""

import warnings

from lrd import UserError, rewards
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.data.tokens import prompt_texts
from lrd.models import placement
from lrd.models.limits import check_positions, check_tokens, check_weights
from lrd.names import codebook_name
from lrd.train import recall


def check(cell: Cell, tokenizer, pool: list[Problem], held_out: list[Problem]) -> None:
    """Raises `UserError` where the cell cannot learn from the problems of `pool` or be asked those `held_out`."""
    if cell.lora:
        placement.check(cell)
    for role in ("student", rewards.model_of(cell)):
        if role:
            check_weights(getattr(cell, role.lower()), role)
    starts, tests = (prompt_texts((p.problem for p in of), cell, tokenizer) for of in (pool, held_out))
    for source, of in ((cell.train_data, starts), (cell.eval_data, tests)):
        check_tokens(cell.student, "student", of, tokenizer, source)
    rewards.check(cell, tokenizer, pool)
    rewards.check_evaluation(cell, tokenizer, held_out)
    whole = [(text, "") for text in starts], cell.max_completion_tokens
    if rewards.demonstrates(cell):
        if cell.importance_cap:
            raise UserError(f"importance_cap weighs what a sampler draws, and regime {cell.regime!r} samples nothing")
        _check_solutions(cell, tokenizer, pool)
        whole = [(text, p.solution or "") for text, p in zip(starts, pool)], 1  # the end
    check_positions(cell.student, "student", *whole, tokenizer, cell.train_data)
    whole = [(text, "") for text in tests], cell.max_completion_tokens
    check_positions(cell.student, "student", *whole, tokenizer, cell.eval_data)
    if codebook_name(cell.eval_data):
        recall.check(cell.student, tokenizer)


def end_tokens(cell: Cell, tokenizer) -> dict[str, dict[str, list[str]]]:
    """What a run records of the student's end tokens; a warning where its tokenizer and its files are at odds."""
    ends = {"tokenizer": [tokenizer.eos_token_id]} | tokenizer.ends
    if odd := [file for file, ids in ends.items() if ids and tokenizer.eos_token_id not in ids]:
        warnings.warn(
            f"student {cell.student!r}: the end token of its tokenizer, {tokenizer.eos_token!r}, is none of those in "
            f"{' and '.join(odd)}; a completion ends at any of them, and a solution that is shown ends with the former",
            stacklevel=2,
        )
    return {"end_tokens": {file: tokenizer.convert_ids_to_tokens(ids) for file, ids in ends.items()}}


def _check_solutions(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    special = set(tokenizer.all_special_tokens) - {tokenizer.unk_token}
    for problem in pool:
        if problem.solution is None:
            raise UserError(
                f"regime {cell.regime!r} learns from solutions, and {cell.train_data!r} has problems without"
            )
        text = problem.solution.removesuffix(tokenizer.eos_token)
        if inside := [token for token in special if token in text]:
            raise UserError(
                f"the solution of problem {problem.id!r} in {cell.train_data!r} has {min(inside)!r} in it, a special "
                f"token of student {cell.student!r}; leave it out"
            )
