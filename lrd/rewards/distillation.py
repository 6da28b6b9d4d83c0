"""Distillation: a deposit on every token, r_t = log π_T(o_t) − log π_θ(o_t), the negated reverse-KL estimate (nats).

On-policy distillation (Agarwal et al. 2024; Lu et al. 2025) with the student's own forward pass reused. The teacher
reads the student's token ids as they are, so both must share a vocabulary.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.data.problems import Problem
from lrd.data.tokens import prompt_texts
from lrd.models.limits import check_positions
from lrd.models.loading import load_model, load_tokenizer
from lrd.models.logps import token_logps
from lrd.rewards import Deposits, Reward
from lrd.rollouts import Rollouts

MODEL = "teacher"  # the cell's field names it
DENSE = True  # a deposit counts for its own token


def load(cell: Cell, tokenizer, device) -> Reward:
    """Loads the teacher."""
    teacher = load_model(cell.teacher, "teacher", cell.dtype, device)
    words = teacher.get_input_embeddings().num_embeddings

    @torch.no_grad()
    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        # Heads are padded beyond the tokenizer, and not to the same width in all sizes of a family: behind a token that
        # only the student's head has, the teacher cannot read on.
        strange = (rollouts.prompt_mask & (rollouts.prompt_ids >= words)).any(1, keepdim=True)
        known = (rollouts.completion_ids < words).cumprod(1).bool() & ~strange
        read = {name: getattr(rollouts, name).clamp(max=words - 1) for name in ("prompt_ids", "completion_ids")}
        theirs = token_logps(teacher, replace(rollouts, **read), cell.logp_temperature).logps
        gap = (theirs - logps.detach()).cpu()
        mask = rollouts.completion_mask & known
        return Deposits(torch.where(mask, gap, 0.0), mask, dense=True)

    return reward


def check(cell: Cell, tokenizer, pool: list[Problem]) -> None:
    """Raises `UserError` where the teacher has no or another id for a token, or a completion is too long for it."""
    ours, theirs = tokenizer.get_vocab(), load_tokenizer(cell.teacher, "teacher").get_vocab()
    differing = [token for token, i in ours.items() if theirs.get(token) != i]
    if differing:
        raise UserError(
            f"teacher {cell.teacher!r} cannot score {cell.student!r}'s tokens: {len(differing)} of {len(ours)} have no "
            f"or another id there (for one, {min(differing)!r}); choose a teacher that shares the student's tokenizer"
        )
    rows = [(text, "") for text in prompt_texts((p.problem for p in pool), cell, tokenizer)]
    check_positions(cell.teacher, "teacher", rows, cell.max_completion_tokens, tokenizer, cell.train_data)
