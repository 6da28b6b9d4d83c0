"""Engines that complete prompts. Each is one file and keeps to `Sampler`."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from lrd.cell import Cell
from lrd.models.loading import CausalLM
from lrd.rollouts import Completion


@runtime_checkable
class Sampler(Protocol):
    """What training and evaluation ask of an engine."""

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes the policy's current weights, under the names of the checkpoint."""
        ...

    def sample(
        self,
        prompts: list[list[int]],
        *,
        max_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seed: int = 0,
        logps: bool = False,
    ) -> list[Completion]:
        """One completion a prompt; `temperature` 0 is greedy. A function of weights, arguments and `seed` alone.

        `logps` asks for the sampler's own log-probabilities; an engine that they cost nothing may give them always.
        """
        ...


def check(cell: Cell) -> None:
    """Raises `UserError` where the cell's engine is not installed here."""
    if cell.engine == "vllm":
        from lrd.sampling import vllm

        vllm.installed()


def load(cell: Cell, model: CausalLM, tokenizer) -> Sampler:
    """The cell's engine for the student `model`. Raises `UserError` where this host cannot run it."""
    if cell.engine == "vllm":
        from lrd.sampling.vllm import VLLMSampler

        return VLLMSampler(cell, model, tokenizer)
    from lrd.sampling.torch import TorchSampler

    return TorchSampler(model, tokenizer)
