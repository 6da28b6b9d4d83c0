"""Engines that complete prompts. Each is one file and keeps to `Sampler`."""

import importlib.util
import warnings
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from lrd.cell import Cell
from lrd.models import CausalLM
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


def load(cell: Cell, model: CausalLM, tokenizer) -> Sampler:
    """The cell's engine for the student `model`; where vLLM is asked for and not installed, PyTorch's and a warning."""
    if cell.engine == "vllm":
        if importlib.util.find_spec("vllm"):
            from lrd.sampling.vllm import VLLMSampler

            return VLLMSampler(cell, model, tokenizer)
        warnings.warn(
            "engine 'vllm' is asked for and vLLM is not installed (pip install -e '.[gpu]'): sampling with PyTorch "
            "instead, which takes longer (the book's benchmark says how much); set engine=torch to choose that",
            stacklevel=2,
        )
    from lrd.sampling.torch import TorchSampler

    return TorchSampler(model, tokenizer)
