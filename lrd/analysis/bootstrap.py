"""Estimates with intervals that come from resampling replicates, and where such an interval lies. Torch-free."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np

LEAST = 5  # replicates of an interval: of four, the rarest resamples are likelier than its tails, and it covers 87 %


class Side(Enum):
    """Where an interval lies against a value, or against a range."""

    BELOW = auto()
    WITHIN = auto()
    ABOVE = auto()
    UNDECIDED = auto()  # some of the interval lies elsewhere than the rest
    UNKNOWN = auto()  # there is no interval


@dataclass(frozen=True)
class Estimate:
    """A statistic with its 95 % interval, of `n` replicates; NaN bounds where they are too few for one."""

    value: float
    low: float
    high: float
    n: int

    def against(self, low: float, high: float | None = None) -> Side:
        """Where the interval lies against the range from `low` to `high`, or against `low` alone."""
        high = low if high is None else high
        if math.isnan(self.low):
            return Side.UNKNOWN
        if self.high < low or self.low > high:
            return Side.BELOW if self.high < low else Side.ABOVE
        return Side.WITHIN if low <= self.low and self.high <= high else Side.UNDECIDED

    def overlaps(self, other: "Estimate") -> bool:
        """Whether the intervals have a value in common."""
        return self.low <= other.high and other.low <= self.high


def bootstrap(statistic: Callable[[np.ndarray | None], float], n: int, draws: int) -> Estimate:
    """A statistic of how often each of n replicates counts (None: once), with the interval of the resamples.

    Of n replicates, a resample varies by (n − 1)/n too little, and a normal quantile stands where Student's should:
    percentiles are taken further out by as much (Hesterberg 2015, §5.3).
    """
    value = float(statistic(None))
    if n < LEAST:
        return Estimate(value, math.nan, math.nan, n)
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws)
    distinct, which = np.unique(counts, axis=0, return_inverse=True)  # of five replicates there are but 126
    return Estimate(value, *expanded(np.array([statistic(weights) for weights in distinct], float)[which], n), n)


def expanded(values: np.ndarray, n: int, level: float = 0.95) -> tuple[float, float]:
    """Expanded percentiles of bootstrap values of n observations; NaN where some could not be had."""
    from scipy.stats import norm, t  # here, so that a cell's own notebook does not need it

    if not np.isfinite(values).all():
        return math.nan, math.nan
    tail = norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + level) / 2, n - 1))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
