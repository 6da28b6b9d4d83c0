"""Bits of a codebook that a model has learned: the entropy of the values less what it still takes to tell them.

An entry of b bits counts b + log2 p(value): b where the model is certain, 0 where it is uniform over the values, less
than 0 where it is surer of others. One temperature for all entries, fitted to tell them best, takes out how sure the
model is on the whole: a reward of right and wrong sharpens a policy beyond what it knows.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrd.codebook import DIGIT_BITS, DIGITS
from lrd.models import CausalLM
from lrd.problems import Problem

TEMPERATURES = 2.0 ** torch.linspace(
    -4, 4, 65
)  # a step changes them by 9 %, and the bits of a value by next to nothing
ROWS = 1024  # entries that are read at a time


class Bits(NamedTuple):
    """Of each entry, in bits."""

    raw: Float[Tensor, " K"]
    calibrated: Float[Tensor, " K"]  # at the temperature
    temperature: float


def learned(logits: Float[Tensor, "K D V"], digits: Int[Tensor, "K D"]) -> Bits:
    """Bits that logits over V tokens tell of K values with D digits, each predicted behind the right ones before it.

    The temperature is the one of `TEMPERATURES` with most bits in all, or 1.
    """

    def at(temperature: float) -> Float[Tensor, " K"]:
        logps = torch.log_softmax(logits.double() / temperature, -1)
        told = logps.gather(-1, digits[..., None])[..., 0].sum(1) / torch.log(torch.tensor(2.0)).item()
        return (told + DIGIT_BITS * digits.shape[1]).float()

    best = max([1.0, *TEMPERATURES.tolist()], key=lambda temperature: at(temperature).sum().item())
    return Bits(at(1.0), at(best), best)


@torch.no_grad()
def of_model(model: CausalLM, prompts: list[list[int]], entries: list[Problem], tokenizer) -> Bits:
    """Bits of a codebook's entries, whose prompts are all of one length, that a model has learned."""
    right = tokenizer([entry.solution for entry in entries]).input_ids
    ids = torch.tensor([prompt + solution for prompt, solution in zip(prompts, right)])
    values = torch.isin(ids, torch.tensor(tokenizer.convert_tokens_to_ids(DIGITS)))
    at = values[0].nonzero()[:, 0]  # the same in all
    rows = ids.to(model.device).split(ROWS)
    logits = torch.cat([model(input_ids=part, use_cache=False).logits[:, at - 1].float() for part in rows])
    return learned(logits, ids[:, at].to(logits.device))
