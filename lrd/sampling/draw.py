"""One token from each row's logits."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
