"""Process: one deposit a step, the PRM's P(+) on the step's last token; the gold answer plays no part.

Math-Shepherd (Wang et al. 2024): the PRM reads `{question} {step1} ки\\n{step2} ки…` and says at each tag `ки`, by its
logits of `+` and `-`, whether the solution so far can still reach the answer.
"""

from collections.abc import Set

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.models import CausalLM, load_model, load_tokenizer
from lrd.rewards import Deposits, Reward
from lrd.rollouts import Rollouts, pad

TAG, GOOD, BAD = "ки", "+", "-"


def load(cell: Cell, tokenizer, device) -> Reward:
    """Loads the PRM. Raises `UserError` where its tokenizer has no step tag or cannot tell `+` from `-`."""
    newlines = newline_ids(tokenizer)
    prm = PRM(load_model(cell.prm, "PRM", cell.dtype, device), load_tokenizer(cell.prm, "PRM"), cell.prm)

    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        mask = rollouts.completion_mask
        token_rewards = torch.zeros(mask.shape, device=mask.device)
        deposit_mask = torch.zeros_like(mask)
        split = [split_steps(rollouts.ids_of(i), newlines, tokenizer) for i in range(len(mask))]
        scores = prm.score([p.problem for p in rollouts.problems], [steps for _, steps in split])
        for i, (ends, _) in enumerate(split):
            token_rewards[i, ends] = torch.tensor(scores[i], device=mask.device)
            deposit_mask[i, ends] = True
        return Deposits(token_rewards, deposit_mask, dense=False)

    return reward


def newline_ids(tokenizer) -> frozenset[int]:
    """Every token whose text contains a newline: byte-level BPE fuses it with its neighbours (`.\\n`, `\\n\\n`)."""
    ids = range(len(tokenizer))
    return frozenset(i for i, text in zip(ids, tokenizer.batch_decode([[i] for i in ids])) if "\n" in text)


def step_ends(ids: list[int], newlines: Set[int], eos: int) -> list[int]:
    """Index of each step's last token. A newline closes its step; what trails without one is the last step.

    The end-of-sequence token is no text: it belongs to the last step, also behind a closing newline.
    """
    if not ids:
        return []
    ends = [t for t, token in enumerate(ids) if token in newlines]
    last = len(ids) - 1
    if ends and ids[last] == eos and ends[-1] == last - 1:
        ends.pop()
    return ends if ends and ends[-1] == last else [*ends, last]


def split_steps(ids: list[int], newlines: Set[int], tokenizer) -> tuple[list[int], list[str]]:
    """Index of each step's last token, and each step's text."""
    ends = step_ends(ids, newlines, tokenizer.eos_token_id)
    starts = [0, *(end + 1 for end in ends[:-1])]
    spans = [ids[start : end + 1] for start, end in zip(starts, ends)]
    return ends, [tokenizer.decode(span, skip_special_tokens=True) for span in spans]


class PRM:
    """A process reward model in Math-Shepherd's format."""

    def __init__(self, model: CausalLM, tokenizer, name: str):
        self.model, self.tokenizer = model, tokenizer
        self.tag, self.good, self.bad = (self._id(word, name) for word in (TAG, GOOD, BAD))
        if self.good == self.bad:
            raise UserError(f"PRM {name!r} reads {GOOD!r} and {BAD!r} as one token; it is no step-scoring model")
        if self.read("1 + 1?", ["1 + 1", "2"]).count(self.tag) != 2:  # a byte-level BPE may fuse the tag with its space
            raise UserError(f"PRM {name!r} does not read {TAG!r} behind a step as the token that it is by itself")

    def _id(self, word: str, name: str) -> int:
        ids = self.tokenizer(word, add_special_tokens=False).input_ids
        if not ids or ids[-1] == self.tokenizer.unk_token_id:
            raise UserError(f"PRM {name!r} has no token for {word!r}; it has to score steps as Math-Shepherd does")
        return ids[-1]  # a sentencepiece tokenizer may put a word-start marker before it

    @torch.no_grad()
    def score(self, questions: list[str], solutions: list[list[str]]) -> list[list[float]]:
        """P(+) in [0, 1] of every step of every solution."""
        ids, mask = pad([self.read(q, s) for q, s in zip(questions, solutions)], self.tokenizer.pad_token_id)
        p = self.probability(ids, mask)
        return [row[at].tolist() for row, at in zip(p, (ids == self.tag) & mask)]

    def probability(self, ids: Int[Tensor, "B L"], mask: Tensor) -> Float[Tensor, "B L"]:
        """P(+) at every position; it means something at tags."""
        device = self.model.device
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.long().to(device), use_cache=False).logits
        return torch.softmax(logits[..., [self.good, self.bad]].float(), -1)[..., 0].cpu()

    def read(self, question: str, steps: list[str]) -> list[int]:
        """Token ids of a solution with a tag behind each step: exactly one tag a step, whatever the steps contain."""
        texts = [step.replace(TAG, " ").removesuffix("\n") for step in steps]
        text = "\n".join(f"{step} {TAG}" for step in texts)
        return self.tokenizer(f"{question.replace(TAG, ' ')} {text}").input_ids
