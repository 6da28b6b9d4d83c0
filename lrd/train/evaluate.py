"""Scoring a policy on held-out problems: greedy pass@1 and sampled pass@k by the verifier, and a reward's own score."""

from collections.abc import Callable
from typing import Any

import torch

from lrd.cell import Cell
from lrd.data.problems import Asked, Problem
from lrd.data.tokens import prompts, texts
from lrd.models.loading import CausalLM
from lrd.models.policy import Policy
from lrd.names import codebook_name
from lrd.rewards import Reward, correct
from lrd.rollouts import Completion, collate
from lrd.sampling import Sampler
from lrd.train import recall
from lrd.verifier import last_boxed

Tell = Callable[[int, int], object]
"""What is told how many problems have been answered, of how many: before the first batch, and after each."""


def silent(done: int, of: int) -> None:
    """Tells nobody."""


def encode(problem: Problem, cell: Cell, tokenizer) -> list[int]:
    """The prompt's token ids."""
    return prompts([problem.problem], cell, tokenizer)[0]


def greedy(
    sampler: Sampler, problems: list[Problem], cell: Cell, tokenizer, tell: Tell = silent, score: Reward | None = None
) -> list[dict[str, Any]]:
    """One greedy completion a problem, judged; one row each (the fields of `evals.jsonl`, without `step`).

    With a reward, its `score` of each is what it deposits in all; not a number where it deposits nothing.
    """
    rows = _answers(sampler, problems, cell, tokenizer, 1, lambda start: {"temperature": 0}, tell, score)
    return [row for (row,) in rows]


def records(
    sampler: Sampler, asked: list[Asked], policy: Policy, tell: Tell = silent, score: Reward | None = None
) -> list[tuple[str, list[dict[str, Any]]]]:
    """Log and rows of what is asked, in reverse: where the first set's rows are on record, so are the others'."""
    cell, tokenizer = policy.cell, policy.tokenizer
    every = [problem for each in asked for problem in each.problems]
    answers = iter(greedy(sampler, every, cell, tokenizer, tell, score))
    found = []
    for log, name, problems in asked:
        rows = [({"set": name} if name else {}) | next(answers) for _ in problems]
        found.append((log, rows))
    if codebook_name(cell.eval_data):
        found[0] = "evals", with_bits(found[0][1], policy.model, asked[0].problems, cell, tokenizer)
    return found[::-1]


def sampled(
    sampler: Sampler, problems: list[Problem], cell: Cell, tokenizer, *, samples: int, seed: int, tell: Tell = silent
) -> list[list[dict[str, Any]]]:
    """`samples` completions a problem at the cell's temperature and top-p, judged: one list of rows a problem."""
    drawn = {"temperature": cell.temperature, "top_p": cell.top_p}
    return _answers(sampler, problems, cell, tokenizer, samples, lambda start: drawn | {"seed": seed + start}, tell)


def _answers(
    sampler: Sampler,
    problems: list[Problem],
    cell: Cell,
    tokenizer,
    samples: int,
    options: Callable,
    tell: Tell,
    score: Reward | None = None,
) -> list[list[dict[str, Any]]]:
    """Answers in batches of at most `eval_batch` completions; `options(start)` are the sampler's for a batch."""
    rows = []
    tell(0, len(problems))
    per_batch = max(1, cell.eval_batch // samples)
    for start in range(0, len(problems), per_batch):
        asked = [p for p in problems[start : start + per_batch] for _ in range(samples)]
        prompts = [encode(p, cell, tokenizer) for p in asked]
        completions = sampler.sample(prompts, max_tokens=cell.max_completion_tokens, **options(start))
        judged = [judge(p, c, cell, tokenizer) for p, c in zip(asked, completions, strict=True)]
        if score:
            batch = collate(asked, prompts, completions, 1, tokenizer)
            deposits = score(batch, torch.zeros(batch.completion_mask.shape))
            scores = deposits.trajectory_rewards.where(deposits.deposit_mask.any(1), torch.nan).tolist()
            judged = [row | {"score": value} for row, value in zip(judged, scores)]
        rows += [judged[i : i + samples] for i in range(0, len(judged), samples)]
        tell(len(rows), len(problems))
    return rows


def judge(problem: Problem, completion: Completion, cell: Cell, tokenizer) -> dict[str, Any]:
    """Whether a completion is right, whether it gives an answer at all, its length in tokens, whether it was cut.

    Without a gold answer there is no right (None).
    """
    (text,) = texts([completion.ids], tokenizer)
    return {
        "problem": problem.id,
        "correct": correct(text, problem, cell),
        "answered": bool((last_boxed(text) or "").strip()),
        "length": len(completion.ids),
        "truncated": completion.truncated,
    }


def with_bits(
    rows: list[dict[str, Any]], model: CausalLM, entries: list[Problem], cell: Cell, tokenizer
) -> list[dict[str, Any]]:
    """The rows of a codebook's entries with the bits that the policy has learned of each: `bits`, and `bits_raw`."""
    prompts = [encode(entry, cell, tokenizer) for entry in entries]
    learned = recall.of_model(model, prompts, entries, tokenizer)
    both = zip(rows, learned.calibrated.tolist(), learned.raw.tolist())
    return [row | {"bits": bits, "bits_raw": raw} for row, bits, raw in both]
