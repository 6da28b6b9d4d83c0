"""The testbed's PRM by Math-Shepherd's recipe: Monte-Carlo labels, hard estimate, read out at the step tag."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lrd.data.problems import Problem
from lrd.data.tokens import end_ids, texts
from lrd.models.loading import CausalLM
from lrd.models.policy import seed_of
from lrd.rewards.process import PRM, TAG, newline_ids, read, split_steps, step_ends
from lrd.rollouts import pad
from lrd.sampling.torch import TorchSampler
from lrd.testbed.pretrain import fit, schedule
from lrd.verifier import is_correct

Labelled = tuple[list[int], list[int]]  # token ids of a tagged solution; at each tag 1 or 0, elsewhere -1


def solve(sampler: TorchSampler, prompts: list[list[int]], seed: int, *, max_tokens: int, rows: int) -> list[list[int]]:
    """One completion a prompt at temperature 0.7, as token ids; `rows` prompts are decoded at a time."""
    done = []
    for start in range(0, len(prompts), rows):
        part = prompts[start : start + rows]
        done += sampler.sample(part, max_tokens=max_tokens, temperature=0.7, seed=seed + start)
    return [completion.ids for completion in done]


def label_steps(
    problems: list[Problem],
    prompts: list[list[int]],
    solutions: list[list[int]],
    complete: Callable[[list[list[int]]], list[list[int]]],
    tokenizer,
    k: int,
) -> list[list[bool]]:
    """For each step of each solution: does any of `k` completions from it reach the gold answer (the hard estimate)?"""
    newlines, done = newline_ids(tokenizer), end_ids(tokenizer)
    steps = [(i, ids[: end + 1]) for i, ids in enumerate(solutions) for end in step_ends(ids, newlines, *done)]
    # What ended is not completed further; its answer stands.
    begun = [(i, ids) for i, ids in steps if ids[-1] not in done for _ in range(k)]
    tails = texts(complete([prompts[i] + ids for i, ids in begun]), tokenizer)
    heads = texts([ids for _, ids in begun], tokenizer)
    written = iter([head + tail for head, tail in zip(heads, tails, strict=True)])
    labels: list[list[bool]] = [[] for _ in solutions]
    for i, ids in steps:
        answers = texts([ids], tokenizer) if ids[-1] in done else list(itertools.islice(written, k))
        labels[i].append(any(is_correct(answer, problems[i].answer or "") for answer in answers))
    return labels


def train_prm(
    completer: CausalLM, data: Sequence[Labelled], part: dict[str, Any], tokenizer, seed: int, shown: str = ""
) -> None:
    """Turns the completer into a PRM, in place: cross-entropy over {+, -} at each tag."""
    prm = PRM(completer, tokenizer, "testbed")

    def batch_loss(rows: Sequence[Labelled]) -> Tensor:
        ids, mask = pad([ids for ids, _ in rows], tokenizer.pad_token_id)
        labels, _ = pad([labels for _, labels in rows], -1)
        device = completer.device
        logits = completer(input_ids=ids.to(device), attention_mask=mask.long().to(device)).logits
        at = labels >= 0
        return F.cross_entropy(logits[at][:, [prm.bad, prm.good]], labels[at].to(device))

    at = seed_of("prm", seed)
    fit(completer, data, batch_loss, seed=at, size=lambda row: len(row[0]), shown=shown, **schedule(part))


def add_tag(model: CausalLM, tokenizer) -> None:
    """Gives the step tag a token of its own, in both, where the tokenizer spells it in several.

    Its embedding is the mean of all others.
    """
    if tokenizer.add_tokens([TAG]):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        rows = model.get_input_embeddings().weight.data
        rows[-1] = rows[:-1].mean(0)


def tagged(problems: list[Problem], solutions: list[list[int]], labels: list[list[bool]], prm: PRM) -> list[Labelled]:
    """Labelled solutions as the PRM reads them."""
    tokenizer = prm.tokenizer
    newlines, rows = newline_ids(tokenizer), []
    for problem, ids, marks in zip(problems, solutions, labels):
        text = read(problem.problem, split_steps(ids, newlines, tokenizer)[1], tokenizer)
        queue = iter(marks)
        rows.append((text, [int(next(queue)) if token == prm.tag else -1 for token in text]))
    return rows


def step_accuracy(prm: PRM, rows: Sequence[Labelled]) -> float:
    """Share of tags whose P(+) is on the label's side of 1/2."""
    ids, mask = pad([ids for ids, _ in rows], prm.tokenizer.pad_token_id)
    labels, _ = pad([labels for _, labels in rows], -1)
    with torch.no_grad():
        p = prm.probability(ids, mask)
    return ((p > 0.5) == (labels[labels >= 0] == 1)).float().mean().item()
