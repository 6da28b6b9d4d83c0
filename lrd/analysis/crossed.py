"""What a table of gaps over students, seeds and problems says of their mean: intervals, tests, verdicts.

Two arms are compared on the same students, seeds and problems. All three are samples: other trainings of the student,
other seeds and other problems would have given other gaps, and an interval has to speak of all of them. The variance
of the mean is the sum of four parts, each known as well as there are levels to know it from: what students move beyond
the noise of single cells, what seeds move beyond it, that noise, and what problems add. Each half-width is taken with
its own quantile of Student's t, and they are added in squares, as `equivalence.py` does for seeds and problems (MOVER;
Zou and Donner 2008). tests/analysis/test_crossed.py measures what the intervals cover.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

from lrd.analysis.equivalence import MARGIN

LEVEL = 0.95


class Verdict(Enum):
    """What a comparison says of an arm."""

    AHEAD = "ahead"
    BEHIND = "behind"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Mean:
    """A mean gap, and the parts of its variance with the degrees of freedom that each is known with."""

    value: float
    parts: tuple[tuple[float, int], ...]

    def half(self, level: float = LEVEL) -> float:
        """Half the width of the two-sided interval at that level."""
        q = (1 + level) / 2
        return math.sqrt(sum(t.ppf(q, freedom) ** 2 * variance for variance, freedom in self.parts))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided interval over students, seeds and problems."""
        return self.value - self.half(level), self.value + self.half(level)

    @property
    def p(self) -> float:
        """Two-sided p of no gap: one minus the level at which the interval just reaches zero."""
        least = 1e-9
        if abs(self.value) >= self.half(1 - least):
            return least
        if self.value == 0:
            return 1.0
        level = brentq(lambda level: self.half(level) - abs(self.value), 0, 1 - least)
        return float(1 - level)  # pyright: ignore[reportOperatorIssue] (with no full output it is a number)

    def verdict(self, p: float | None = None, margin: float = MARGIN) -> Verdict:
        """By the two-sided `p`, corrected by who compares many arms, and by two one-sided tests at half of 1 − `LEVEL`.

        Equivalent is an arm whose 90 % interval lies within the margin, also where it is ahead or behind by less than
        the margin (Schuirmann 1987).
        """
        if abs(self.value) + self.half(2 * LEVEL - 1) < margin:
            return Verdict.EQUIVALENT
        if (self.p if p is None else p) < 1 - LEVEL:
            return Verdict.AHEAD if self.value > 0 else Verdict.BEHIND
        return Verdict.UNDECIDED


def of_gaps(gaps: np.ndarray, bound: float = 1.0) -> Mean | None:
    """From gaps `[students, seeds, problems]` in ± `bound`; None below two of each, where nothing is known.

    Two imagined problems, one with each extreme gap in every cell, keep a table without a single gap from passing for
    certainty (Bonett and Price 2012).
    """
    gaps = np.asarray(gaps, float)
    if gaps.ndim != 3 or min(gaps.shape) < 2:
        return None
    ends = np.full(gaps.shape[:2], bound)[..., None]
    y = np.concatenate([gaps, ends, -ends], axis=2)
    students, seeds, problems = y.shape
    square = _mean_squares(y)
    noise, size = square["student seed"], y.size
    beyond = square["problem"] - square["student problem"] - square["seed problem"] + square["rest"]
    parts = (
        (square["student"] - noise, students - 1),
        (square["seed"] - noise, seeds - 1),
        (noise, (students - 1) * (seeds - 1)),
        (beyond, problems - 3),
    )
    return Mean(float(gaps.mean()), tuple((max(0.0, part) / size, freedom) for part, freedom in parts))


def _mean_squares(y: np.ndarray) -> dict[str, float]:
    """Mean squares of a three-way layout without replication, by the factors that each is the effect of."""
    names = ("student", "seed", "problem")
    found: dict[str, float] = {}
    effects: dict[tuple[int, ...], np.ndarray] = {(): np.full_like(y, y.mean())}
    for factors in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)):
        others = tuple(axis for axis in range(3) if axis not in factors)
        effect = y.mean(others, keepdims=True) if others else y
        effect = effect - sum(e for within, e in effects.items() if set(within) < set(factors))
        effects[factors] = np.broadcast_to(effect, y.shape)
        freedom = math.prod(y.shape[axis] - 1 for axis in factors)
        found[" ".join(names[axis] for axis in factors)] = float((effects[factors] ** 2).sum() / freedom)
    found["rest"] = found.pop("student seed problem")
    return found


def holm(means: Mapping[str, Mean]) -> dict[str, float]:
    """p of each comparison, corrected for how many there are (Holm 1979)."""
    order = sorted(means, key=lambda name: means[name].p)
    found, worst = {}, 0.0
    for place, name in enumerate(order):
        worst = max(worst, min(1.0, means[name].p * (len(order) - place)))
        found[name] = worst
    return {name: found[name] for name in means}


def slope(answers: Mapping[int, np.ndarray]) -> Mean | None:
    """Slope over log2 of the rank, from each rank's answers `[students, seeds, problems]`; None below two ranks."""
    x = np.log2(sorted(answers))
    if len(x) < 2:
        return None
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    table = sum(weight * answers[rank] for weight, rank in zip(weights, sorted(answers)))
    return of_gaps(np.asarray(table), bound=float(weights[weights > 0].sum()))
