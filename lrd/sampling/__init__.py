"""Engines that complete prompts. Each is one file and keeps to `Sampler`."""

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from torch import Tensor

from lrd.rollouts import Completion


@runtime_checkable
class Sampler(Protocol):
    """What training and evaluation ask of an engine."""

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Takes the policy's current weights, under the names of the checkpoint."""
        ...

    def sample(
        self, prompts: list[list[int]], *, max_tokens: int, temperature: float, top_p: float = 1.0, seed: int = 0
    ) -> list[Completion]:
        """One completion a prompt; `temperature` 0 is greedy. A function of weights, arguments and `seed` alone."""
        ...
