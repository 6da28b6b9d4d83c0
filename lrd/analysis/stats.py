"""Comparisons that several pages make: means over seeds, their differences and ratios, with intervals."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import pandas as pd

from lrd.results import Results


class Verdict(Enum):
    """What a comparison with another arm says of an arm."""

    AHEAD = "ahead"
    BEHIND = "behind"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    UNJUDGED = "not judged"  # one of the two did not train at the learning rate that its sweep chose


@dataclass(frozen=True)
class Difference:
    """A mean difference over paired seeds with its confidence interval; NaN bounds where one seed gives none."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def includes_zero(self) -> bool:
        """Whether the interval leaves the sign open; without an interval it always does."""
        return not (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> Verdict:
        """Ahead or behind where the interval leaves zero out, else undecided: it never shows equivalence."""
        if self.includes_zero:
            return Verdict.UNDECIDED
        return Verdict.AHEAD if self.mean > 0 else Verdict.BEHIND


def paired(
    cells: pd.DataFrame,
    regime: str,
    arm: str,
    against: str,
    value: str = "final",
    level: float = 0.95,
    column: str = "arm",
) -> Difference | None:
    """`arm` minus `against` over the seeds that both have, with Student's t interval; None without a common seed.

    The seeds of two arms saw the same prompts in the same order, hence the pairing. The interval speaks of other seeds
    on the same held-out problems, not of other problems. `column` is what tells the two apart, if not their arm.
    """
    table = cells[cells.regime == regime].pivot(index="seed", columns=column, values=value)
    return mean_difference(table[arm] - table[against], level) if {arm, against} <= set(table) else None


def mean_difference(gaps: pd.Series, level: float = 0.95) -> Difference | None:
    """Mean of differences, one a seed and NaN for none, with Student's t interval over seeds; None without any."""
    from scipy.stats import t  # here, so that a cell's own notebook does not need it

    gaps = gaps.dropna()
    if not len(gaps):
        return None
    half = np.nan
    if len(gaps) > 1:
        half = t.ppf((1 + level) / 2, len(gaps) - 1) * gaps.std() / np.sqrt(len(gaps))
    return Difference(gaps.mean(), gaps.mean() - half, gaps.mean() + half, len(gaps))


def ratio_of_means(over: pd.Series, under: pd.Series, level: float = 0.95) -> Difference | None:
    """Mean of `over` by mean of `under`, values of the same seeds, with Fieller's interval (1954); None without a seed.

    The interval holds every ratio q for which Student's over the seeds' own over − q·under includes zero, so that what
    a seed moves in both cancels. Bounded, it excludes zero where Student's of `over` does; if Student's of `under`
    includes zero, no ratio can be bounded: infinite ends. NaN ends from one seed, NaN without a positive mean below.
    """
    from scipy.stats import t  # here, so that a cell's own notebook does not need it

    table = np.array([over, under], float)
    table = table[:, np.isfinite(table).all(0)]
    n = table.shape[1]
    if not n:
        return None
    x, y = table.mean(1)
    if not y > 0 or n < 2:
        return Difference(x / y if y > 0 else np.nan, np.nan, np.nan, n)
    (xx, xy), (_, yy) = np.cov(table) * t.ppf((1 + level) / 2, n - 1) ** 2 / n
    a, b, c = y**2 - yy, x * y - xy, x**2 - xx  # ratios q with a·q² − 2b·q + c ≤ 0
    if a <= 0:
        return Difference(x / y, -np.inf, np.inf, n)
    root = max(b**2 - a * c, 0.0) ** 0.5
    return Difference(x / y, (b - root) / a, (b + root) / a, n)


def below_base(results: Results) -> dict[str, tuple[int, int]]:
    """Regime → how many of its finished cells end below their own base, and how many there are."""
    known = results.finished[results.finished.base.notna()]
    by_regime = {regime: known[known.regime == regime] for regime in results.regimes}
    return {r: (int((cells.final < cells.base).sum()), len(cells)) for r, cells in by_regime.items() if len(cells)}


def deposits_at_start(results: Results) -> dict[str, float]:
    """Regime → mean deposits an episode at the first step, before training changes how completions look."""
    steps = results.of_finished(results.steps)
    if "deposits_per_episode" not in steps or not len(steps):
        return {}
    return steps[steps.step == steps.step.min()].groupby("regime").deposits_per_episode.mean().dropna().to_dict()
