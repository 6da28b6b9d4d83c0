"""Distillation: a deposit on every token, r_t = log π_T(o_t) − log π_θ(o_t), the negated reverse-KL estimate (nats).

On-policy distillation (Agarwal et al. 2024; Lu et al. 2025) with the student's own forward pass reused. The teacher
reads the student's token ids as they are, so both must share a vocabulary.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lrd import UserError
from lrd.cell import Cell
from lrd.models import load_model, load_tokenizer, token_logps
from lrd.rewards import Deposits, Reward
from lrd.rollouts import Rollouts

MODEL = "teacher"  # the cell's field names it


def load(cell: Cell, tokenizer, device) -> Reward:
    """Loads the teacher. Raises `UserError` where its vocabulary differs from the student's."""
    check_same_vocabulary(cell, tokenizer, load_tokenizer(cell.teacher, "teacher"))
    teacher = load_model(cell.teacher, "teacher", cell.dtype, device)

    @torch.no_grad()
    def reward(rollouts: Rollouts, logps: Float[Tensor, "N T"]) -> Deposits:
        gap = (token_logps(teacher, rollouts, cell.logp_temperature).logps - logps.detach()).cpu()
        mask = rollouts.completion_mask
        return Deposits(torch.where(mask, gap, 0.0), mask, dense=True)

    return reward


def check_same_vocabulary(cell: Cell, student, teacher) -> None:
    """Every token of the student has to have the same id in the teacher's vocabulary."""
    theirs = teacher.get_vocab()
    differing = [token for token, i in student.get_vocab().items() if theirs.get(token) != i]
    if differing:
        raise UserError(
            f"teacher {cell.teacher!r} cannot score {cell.student!r}'s tokens: {len(differing)} of "
            f"{len(student.get_vocab())} have no or another id there (for one, {min(differing)!r}); "
            f"choose a teacher that shares the student's tokenizer"
        )
