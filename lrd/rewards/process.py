"""Process: one deposit a step, the PRM's P(+) on the step's last token; the gold answer plays no part.

Math-Shepherd (Wang et al. 2024): the PRM reads `{question} {step1} ки\\n{step2} ки…` and says at each tag `ки`, by its
logits of `+` and `-`, whether the solution so far can still reach the answer.
"""

import itertools
from collections.abc import Set
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.data.tokens import beginnings, continuations, end_ids, prompts, solutions, texts, unended
from lrd.models.limits import check_positions, check_tokens
from lrd.models.loading import CausalLM, load_config, load_model, load_tokenizer
from lrd.rewards import Deposits, Reward
from lrd.rollouts import Completion, Rollouts, by_length, collate, pad

MODEL = "PRM"  # the cell's field `prm` names it
TAG, GOOD, BAD = "ки", "+", "-"
PROBE = 32  # problems that a PRM is asked; a coin gets 22 of them right in 2.5 % of tries


def load(cell: Cell, tokenizer, device) -> Reward:
    """Loads the PRM."""
    newlines = newline_ids(tokenizer)
    prm = PRM(load_model(cell.prm, "PRM", cell.dtype, device), _own_tokenizer(cell), cell.prm)

    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        mask = rollouts.completion_mask
        token_rewards, deposit_mask = torch.zeros(mask.shape), torch.zeros_like(mask)
        split = [split_steps(rollouts.ids_of(i), newlines, tokenizer) for i in range(len(mask))]
        if cell.prm_reads == "canonical":
            split = [canonical(*steps) for steps in split]
        scores = prm.score([p.problem for p in rollouts.problems], [steps for _, steps in split])
        for i, (ends, _) in enumerate(split):
            token_rewards[i, ends] = torch.tensor(scores[i])
            deposit_mask[i, ends] = True
        return Deposits(token_rewards, deposit_mask, dense=False)

    return reward


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` where the PRM's tokenizer cannot score steps, or a solution would be too long for it.

    At most every second token of a completion is taken to close a step, and so to get a tag.
    """
    its_own = _own_tokenizer(cell)
    check_tokens(cell.prm, "PRM", (with_tags(p.problem, ["1"]) for p in pool), its_own, cell.train_data)
    rows = [(with_tags(p.problem, []), "") for p in pool]
    check_positions(cell.prm, "PRM", rows, cell.max_completion_tokens * 3 // 2, its_own, cell.train_data)


def _own_tokenizer(cell: Cell) -> Any:
    """The PRM's tokenizer. Raises `UserError` where it has no step tag, cannot tell `+` from `-`, or has no weights."""
    its_own, width = load_tokenizer(cell.prm, "PRM"), load_config(cell.prm, "PRM").get_text_config().vocab_size
    if max(tags(its_own, cell.prm)) >= width:
        raise UserError(
            f"PRM {cell.prm!r} has no weights for {TAG!r}, {GOOD!r} or {BAD!r}: its head has {width} tokens"
        )
    return its_own


def probe(reward: Reward, cell: Cell, tokenizer, pool: list[Problem], device) -> dict[str, Any]:
    """In how many of how many problems the reward gives the right answer more than another problem's answer.

    No warning comes of it: a PRM that knows steps, as the testbeds' do, may know nothing of an answer without any.
    """
    gold = [(p, p.answer) for p in pool if p.answer is not None]
    pairs = [(p, (right, wrong)) for (p, right), (_, wrong) in itertools.pairwise(gold) if right != wrong][:PROBE]
    if not pairs:
        return {"prm_probe": {"right_above_wrong": 0, "problems": 0}}
    written = [_solution(p, answer, cell) for p, answers in pairs for answer in answers]
    completions = [Completion(ids, None, False) for ids in solutions(written, tokenizer)]
    asked = [p for p, _ in pairs]
    batch = collate(asked, prompts([p.problem for p in asked], cell, tokenizer), completions, 2, tokenizer)
    deposits = reward(batch, torch.zeros(batch.completion_mask.shape, device=device))
    right, wrong = deposits.trajectory_rewards.view(-1, 2).unbind(1)
    return {"prm_probe": {"right_above_wrong": int((right > wrong).sum()), "problems": len(asked)}}


def _solution(problem: Problem, answer: str, cell: Cell) -> str:
    """The problem's own solution where there is a short one, with this answer at its end; else a sentence."""
    right, box, text = f"\\boxed{{{problem.answer}}}", f"\\boxed{{{answer}}}", problem.solution or ""
    short = right in text and len(text.encode(errors="replace")) < cell.max_completion_tokens
    return text.replace(right, box) if short else f"The answer is {box}."


def newline_ids(tokenizer) -> frozenset[int]:
    """Every token whose text contains a newline: byte-level BPE fuses it with its neighbours (`.\\n`, `\\n\\n`)."""
    ids = range(len(tokenizer))
    return frozenset(i for i, text in zip(ids, tokenizer.batch_decode([[i] for i in ids])) if "\n" in text)


def step_ends(ids: list[int], newlines: Set[int], *ends: int) -> list[int]:
    """Index of each step's last token. A newline closes its step; what trails without one is the last step.

    A token that ends a completion, one of `ends`, is no text: it belongs to the last step, also behind a closing
    newline.
    """
    closed = [t for t, token in enumerate(unended(ids, ends)[:-1]) if token in newlines]
    return [*closed, len(ids) - 1] if ids else []


def split_steps(ids: list[int], newlines: Set[int], tokenizer) -> tuple[list[int], list[str]]:
    """Index of each step's last token, and each step's text."""
    ends = step_ends(ids, newlines, *end_ids(tokenizer))
    starts = [0, *(end + 1 for end in ends[:-1])]
    spans = [ids[start : end + 1] for start, end in zip(starts, ends)]
    return ends, texts(spans, tokenizer)


def canonical(ends: list[int], steps: list[str]) -> tuple[list[int], list[str]]:
    """Without the steps that are blank or repeat an earlier one; where none is left, the last step alone."""
    texts = [step.strip() for step in steps]
    kept = [i for i, text in enumerate(texts) if text and text not in texts[:i]] or list(range(len(steps)))[-1:]
    return [ends[i] for i in kept], [steps[i] for i in kept]


def read(question: str, steps: list[str], tokenizer) -> list[int]:
    """Token ids of a solution with a tag behind each step: exactly one tag a step, whatever the steps contain."""
    return beginnings([with_tags(question, steps)], tokenizer)[0]


def with_tags(question: str, steps: list[str]) -> str:
    """A solution with a tag behind each step, as text.

    One space stands before a tag: sentencepiece reads two as a token of their own and the tag as another one than it is
    trained to be. So white space at a step's end is dropped.
    """
    text = question.replace(TAG, " ").rstrip()
    for i, step in enumerate(steps):
        between, body = "\n" if i else " ", step.replace(TAG, " ").rstrip()
        text += f"{between}{body}".rstrip(" ") + f" {TAG}"
    return text.lstrip()


def tags(tokenizer, name: str) -> tuple[int, int, int]:
    """Tokens of the step tag, `+` and `-`. Raises `UserError` where a PRM with this tokenizer cannot score steps."""

    def single(word: str) -> int:
        ids = continuations([word], tokenizer)[0]
        spelled = [text.strip() for text in tokenizer.batch_decode([[i] for i in ids])]
        if [text for text in spelled if text] != [word]:  # sentencepiece may put a word-start marker before it
            raise UserError(f"PRM {name!r} has no token of its own for {word!r}; choose one in Math-Shepherd's format")
        return ids[spelled.index(word)]

    tag, good, bad = map(single, (TAG, GOOD, BAD))
    if read("1 + 1?", ["1 + 1", "2"], tokenizer).count(tag) != 2:  # a byte-level BPE may fuse the tag with its space
        raise UserError(f"PRM {name!r} does not read {TAG!r} behind a step as the token that it is by itself")
    return tag, good, bad


class PRM:
    """A process reward model in Math-Shepherd's format."""

    def __init__(self, model: CausalLM, tokenizer, name: str):
        self.model, self.tokenizer = model, tokenizer
        self.tag, self.good, self.bad = tags(tokenizer, name)

    @torch.no_grad()
    def score(self, questions: list[str], answers: list[list[str]]) -> list[list[float]]:
        """P(+) in [0, 1] of every step of every solution."""
        tagged = [with_tags(question, steps) for question, steps in zip(questions, answers, strict=True)]
        encoded = beginnings(tagged, self.tokenizer)
        if any(ids.count(self.tag) != len(steps) for ids, steps in zip(encoded, answers)):
            raise ValueError("the PRM's tokenizer reads more or fewer tags than there are steps")
        scores: list[list[float]] = [[] for _ in encoded]
        for rows in by_length([len(ids) for ids in encoded]):
            ids, mask = pad([encoded[i] for i in rows], self.tokenizer.pad_token_id)
            at_tags = iter(self.probability(ids, mask).tolist())
            for i in rows:
                scores[i] = [next(at_tags) for _ in answers[i]]
        return scores

    def probability(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, " tags"]:
        """P(+) at each tag, row after row: softmax over the two logits, the only ones of the vocabulary computed."""
        head = self.model.get_output_embeddings()
        # Padding stands behind the text, where causal attention does not look: no mask, and the fastest kernels.
        decoded = self.model.base_model(input_ids=ids.to(self.model.device), use_cache=False).last_hidden_state
        hidden = decoded[(ids == self.tag) & mask]
        two = [self.good, self.bad]
        bias = None if head.bias is None else head.bias[two].float()
        logits = torch.nn.functional.linear(hidden.float(), head.weight[two].float(), bias)
        return torch.softmax(logits, -1)[:, 0].cpu()
