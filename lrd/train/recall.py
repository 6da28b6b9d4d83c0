"""Bits of a codebook that a model has learned: the entropy of the values less what it still takes to tell them.

An entry of b bits counts b + log2 p(value): b where the model is certain, 0 where it is uniform over the values, less
than 0 where it is surer of others. One temperature for all entries, fitted to tell them best among the values that
there are, takes out how sure the model is on the whole: a reward of right and wrong sharpens beyond what is known.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrd import UserError
from lrd.data.codebook import DIGIT_BITS, DIGITS
from lrd.data.problems import Problem
from lrd.data.tokens import continuations
from lrd.models.loading import CausalLM

TEMPERATURES = 2.0 ** torch.linspace(-4, 10, 113)  # 9 % from one to the next; at the last, uniform
ROWS = 1024  # entries that are read at a time


class Bits(NamedTuple):
    """What each entry holds, in bits."""

    raw: Float[Tensor, " K"]
    calibrated: Float[Tensor, " K"]  # at the temperature
    temperature: float


def learned(logits: Float[Tensor, "K D V"], digits: Int[Tensor, "K D"], values: Int[Tensor, " 4"]) -> Bits:
    """Bits that logits over V tokens tell of K values with D digits, each predicted behind the right ones before it.

    `values` are the tokens that a digit can be. Raw bits are of all V tokens; calibrated ones of these, at the one of
    `TEMPERATURES` with most bits in all, or 1.
    """
    among, which = logits[..., values], (digits[..., None] == values).long().argmax(-1)

    def at(temperature: float) -> Float[Tensor, " K"]:
        return _told(among / temperature, which)

    best = max([1.0, *TEMPERATURES.tolist()], key=lambda temperature: at(temperature).sum().item())
    return Bits(_told(logits, digits), at(best), best)


def _told(logits: Float[Tensor, "K D V"], right: Int[Tensor, "K D"]) -> Float[Tensor, " K"]:
    """Σ over digits of 2 + log2 p(the right one)."""
    logps = torch.log_softmax(logits.double(), -1).gather(-1, right[..., None])[..., 0]
    return (logps / math.log(2) + DIGIT_BITS).sum(1).float()


def check(name: str, tokenizer) -> None:
    """Raises `UserError` where a digit of a codebook's values is not one token of the student, each another."""
    ids = continuations(DIGITS, tokenizer)
    if {len(of) for of in ids} != {1} or len(set(map(tuple, ids))) < len(DIGITS):
        raise UserError(
            f"student {name!r} cannot be asked for a codebook: {', '.join(DIGITS)} are no tokens of its own"
        )


@torch.no_grad()
def of_model(model: CausalLM, prompts: list[list[int]], entries: list[Problem], tokenizer) -> Bits:
    """Bits of a codebook's entries, whose prompts are all of one length, that a model has learned."""
    right = continuations([entry.solution or "" for entry in entries], tokenizer)
    ids = torch.tensor([prompt + solution for prompt, solution in zip(prompts, right)])
    values = torch.tensor(tokenizer.convert_tokens_to_ids(DIGITS))
    at = torch.isin(ids[0], values).nonzero()[:, 0]  # the same in all
    rows = ids.to(model.device).split(ROWS)
    logits = torch.cat([model(input_ids=part, use_cache=False).logits[:, at - 1].float() for part in rows])
    return learned(logits.cpu(), ids[:, at], values)
