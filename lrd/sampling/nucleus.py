"""The nucleus of every row, in few operations on the whole batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BLOCK = 128  # probabilities that are added up first; one running sum over a vocabulary takes longer than sorting it


def nucleus(logits: Float[Tensor, "B V"], top_p: float | Float[Tensor, " B"]) -> Float[Tensor, "B V"]:
    """The logits with -inf outside the nucleus: the fewest most likely tokens that have at least mass `top_p` together
    (Holtzman et al. 2020), and those exactly as likely as the last of them.
    """
    likely = (logits.float() - logits.amax(-1, keepdim=True)).exp()
    ordered = F.pad(likely.sort(-1, descending=True).values, (0, -logits.shape[1] % BLOCK))
    blocks = ordered.unflatten(1, (-1, BLOCK))
    upto = blocks.sum(-1).cumsum(-1)
    wanted = upto[:, -1:] * torch.as_tensor(top_p, device=logits.device).view(-1, 1)
    block = torch.searchsorted(upto, wanted).clamp(max=upto.shape[1] - 1)  # where it is reached; NaN points behind all
    before = F.pad(upto, (1, 0)).gather(1, block)
    inside = blocks.take_along_dim(block[..., None], 1)[:, 0]
    last = torch.searchsorted(before + inside.cumsum(-1), wanted).clamp(max=BLOCK - 1)
    return logits.masked_fill(likely < inside.gather(1, last), -torch.inf)
