"""The nucleus of every row, in few operations on the whole batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lrd.sampling import graphs

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


class CapturedNucleus:
    """`nucleus`, on CUDA as a graph. The next call overwrites what it returned."""

    def __init__(self):
        self._graphs: dict[tuple[int, int], tuple[torch.cuda.CUDAGraph, Tensor, Tensor, Tensor]] = {}

    def __call__(self, logits: Float[Tensor, "B V"], top_p: Float[Tensor, " B"]) -> Float[Tensor, "B V"]:
        if logits.device.type != "cuda":
            return nucleus(logits, top_p)
        n, words = logits.shape
        rows = graphs.rows(n)
        if (rows, words) not in self._graphs:
            into, shares = logits.new_zeros(rows, words, dtype=torch.float32), top_p.new_ones(rows)
            self._graphs[rows, words] = (*graphs.capture(lambda: nucleus(into, shares)), into, shares)
        graph, result, into, shares = self._graphs[rows, words]
        into[:n].copy_(logits)
        shares[:n].copy_(top_p)
        graph.replay()
        return result[:n]
