"""One token from each row's logits, and what was drawn of a batch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Drawn(NamedTuple):
    """Completions of a batch as tensors."""

    tokens: Int[Tensor, "N T"]
    logps: Float[Tensor, "N T"]  # at temperature 1, in nats
    length: Int[Tensor, " N"]  # tokens that count; what stands behind them is of no meaning
    ended: Bool[Tensor, " N"]  # with an end token, before the cap

    @classmethod
    def empty(cls, uniform: Float[Tensor, "T N"]) -> "Drawn":
        """Room for as many rows and tokens as there are uniform numbers; every row runs to the cap."""
        max_tokens, n = uniform.shape
        tokens, logps = (uniform.new_zeros(n, max_tokens, dtype=dtype) for dtype in (torch.long, torch.float32))
        length = tokens.new_full((n,), max_tokens)
        return cls(tokens, logps, length, torch.zeros_like(length, dtype=torch.bool))


def draw(
    logits: Float[Tensor, "B V"], uniform: Float[Tensor, " B"], temperature: float, top_p: float
) -> Int[Tensor, " B"]:
    """One token a row: the most likely at temperature 0, else from the nucleus of mass `top_p` by inverse transform.

    The nucleus is the smallest set of most likely tokens with at least mass `top_p` (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(-1)
    probs, order = torch.softmax(logits / temperature, -1).sort(stable=True, dim=-1, descending=True)
    total = probs.cumsum(-1)
    last = ((total - probs < top_p).sum(-1, keepdim=True) - 1).clamp(min=0)  # of the nucleus; NaN logits have none
    mass = total.gather(1, last)
    index = (total <= uniform[:, None] * mass).sum(-1, keepdim=True)
    return order.gather(1, torch.minimum(index, last))[:, 0]  # rounding may point one past the nucleus
