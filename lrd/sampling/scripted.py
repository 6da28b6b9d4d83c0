"""A sampler that reads its completions from a list: for tests of everything around a model, without one."""

import itertools
from collections.abc import Iterable

from torch import Tensor

from lrd.rollouts import Completion


class ScriptedSampler:
    """Gives the scripted completions in turn, over and over; those longer than the cap are cut and say so."""

    def __init__(self, script: list[list[int]]):
        self._script = itertools.cycle(script)

    def sync(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        for _ in weights:
            pass

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
        lines = [next(self._script) for _ in prompts]
        return [Completion(ids[:max_tokens], None, len(ids) > max_tokens) for ids in lines]
