"""Two arms over the same seeds and problems, and the same students where there are several: intervals, tests, verdicts.

Students (trainings of the model that all runs begin from), seeds and problems are samples: others would have given
other gaps, and an interval has to speak of all of them. The variance of a mean gap is the sum of parts, each known as
well as there are levels to know it from. Each half-width is taken with its own quantile of Student's t, and they are
added in squares, as in Zou and Donner's MOVER (2008) and Graybill and Wang's modified large-sample intervals (1980).
tests/analysis/test_crossed.py and test_equivalence.py measure what the intervals cover.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.stats import t

from lrd.analysis.stats import Verdict

MARGIN = 0.05  # of pass@1: a difference that small is called no difference that matters
LEVEL = 0.95
ALPHA = 0.05  # of each one-sided test, as TOST has it


@dataclass(frozen=True)
class Contrast:
    """A mean gap, and the parts of its variance with the degrees of freedom that each is known with."""

    mean: float
    parts: tuple[tuple[float, int], ...]

    def half(self, level: float = LEVEL) -> float:
        """Half the width of the two-sided interval at that level."""
        return float(half_width(self.parts, (1 + level) / 2))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided interval over all that was sampled."""
        half = self.half(level)
        return self.mean - half, self.mean + half

    @property
    def differs(self) -> bool:
        """Whether the 95 % interval leaves zero out."""
        return abs(self.mean) > self.half()

    @property
    def p(self) -> float:
        """Two-sided p of no gap: one minus the level at which the interval just reaches zero."""
        return 2 * self._tail(abs(self.mean))

    def least_margin(self, alpha: float = ALPHA) -> float:
        """The smallest margin at which the equivalence test passes at level `alpha`."""
        return abs(self.mean) + self.half(1 - 2 * alpha)

    def tost(self, margin: float = MARGIN) -> float:
        """p of two one-sided tests of |difference| ≥ `margin` (Schuirmann 1987): small means close, not equal."""
        slack = margin - abs(self.mean)
        tail = self._tail(abs(slack))
        return tail if slack > 0 else 1 - tail

    def equivalent(self, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
        """Whether the test passes: the 1 − 2·alpha interval lies within ± `margin`."""
        return self.least_margin(alpha) < margin

    def suffices(self, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
        """Whether the arm is shown to end less than `margin` below: non-inferiority, one-sided."""
        return self.mean - self.half(1 - 2 * alpha) > -margin

    def falls_short(self, margin: float = MARGIN, alpha: float = ALPHA) -> bool:
        """Whether the arm is shown to end more than `margin` below."""
        return self.mean + self.half(1 - 2 * alpha) < -margin

    def verdict(self, margin: float = MARGIN, p: float | None = None) -> Verdict:
        """By two one-sided tests, then by the 95 % interval, or by `p` as corrected by who compares many arms.

        Equivalent is an arm whose 90 % interval lies within the margin, also where it is ahead or behind by less than
        the margin.
        """
        if self.equivalent(margin):
            return Verdict.EQUIVALENT
        if self.differs if p is None else p < 1 - LEVEL:
            return Verdict.AHEAD if self.mean > 0 else Verdict.BEHIND
        return Verdict.UNDECIDED

    def _tail(self, distance: float) -> float:
        """The upper tail 1 − q at whose quantile `q` the half-width is `distance`, in [1e-9, 1/2]."""
        highest = 1 - 1e-9

        def excess(q: float) -> float:
            return float(half_width(self.parts, q)) - distance

        if excess(highest) < 0:
            return 1 - highest
        if excess(0.5) >= 0:
            return 0.5
        crossing: Any = brentq(excess, 0.5, highest)
        return float(1 - crossing)


def half_width(parts: Sequence[tuple[Any, int]], q: float) -> Any:
    """Half-width at quantile `q` from parts of a variance, numbers or arrays, each with its degrees of freedom."""
    return np.sqrt(sum(t.ppf(q, freedom) ** 2 * variance for variance, freedom in parts))


def contrast(gaps: np.ndarray, bound: float = 1.0) -> Contrast | None:
    """From gaps in ± `bound`, `[seeds, problems]` or `[students, seeds, problems]`; None below two of each."""
    if not comparable(gaps):
        return None
    square, shape = mean_squares(gaps, bound), (*gaps.shape[:-1], gaps.shape[-1] + 2)
    size, problems = math.prod(shape), gaps.shape[-1]
    if gaps.ndim == 2:
        parts = [(square[0,], shape[0] - 1), (square[1,] - square[0, 1], problems - 1)]
    else:
        noise = square[0, 1]  # of single cells
        parts = [
            (square[0,] - noise, shape[0] - 1),
            (square[1,] - noise, shape[1] - 1),
            (noise, (shape[0] - 1) * (shape[1] - 1)),
            (square[2,] - square[0, 2] - square[1, 2] + square[0, 1, 2], problems - 1),
        ]
    return Contrast(float(gaps.mean()), tuple((max(0.0, part) / size, freedom) for part, freedom in parts))


def comparable(gaps: np.ndarray) -> bool:
    """Whether there are two seeds, two problems and, where there is an axis of students, two students."""
    return gaps.ndim in (2, 3) and min(gaps.shape) >= 2


def mean_squares(gaps: np.ndarray, bound: float = 1.0) -> dict[tuple[int, ...], float]:
    """Mean squares of a crossed layout without replication, by the axes that each is the effect of.

    The last axis, of problems, gets two imagined ones, with either extreme gap ± `bound` in every cell: they keep a
    table without a single gap from passing for certainty (Bonett and Price 2012).
    """
    ends = np.full((*gaps.shape[:-1], 1), bound)
    y = np.concatenate([gaps, ends, -ends], axis=-1)
    axes = range(y.ndim)
    squares: dict[tuple[int, ...], float] = {}
    effects: dict[tuple[int, ...], np.ndarray] = {(): np.full_like(y, y.mean())}
    for factors in itertools.chain.from_iterable(itertools.combinations(axes, n) for n in range(1, y.ndim + 1)):
        others = tuple(axis for axis in axes if axis not in factors)
        effect = y.mean(others, keepdims=True) if others else y
        effect = effect - sum(e for within, e in effects.items() if set(within) < set(factors))
        effects[factors] = np.broadcast_to(effect, y.shape)
        freedom = math.prod(y.shape[axis] - 1 for axis in factors)
        squares[factors] = float((effects[factors] ** 2).sum() / freedom)
    return squares


def holm(contrasts: Mapping[Any, Contrast], family: int = 0) -> dict[Any, float]:
    """p of each comparison, corrected for how many there are (Holm 1979), or for a `family` that is larger than these.

    Comparisons of the family that are not here count as the ones with the largest p.
    """
    many = max(family, len(contrasts))
    order = sorted(contrasts, key=lambda name: contrasts[name].p)
    corrected, worst = {}, 0.0
    for place, name in enumerate(order):
        worst = max(worst, min(1.0, contrasts[name].p * (many - place)))
        corrected[name] = worst
    return {name: corrected[name] for name in contrasts}


def slope(answers: Mapping[int, np.ndarray]) -> Contrast | None:
    """Slope over log2 of the rank, from each rank's answers `[students, seeds, problems]`; None below two ranks."""
    x = np.log2(sorted(answers))
    if len(x) < 2:
        return None
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    table = sum(weight * answers[rank] for weight, rank in zip(weights, sorted(answers)))
    return contrast(np.asarray(table), bound=float(weights[weights > 0].sum()))
