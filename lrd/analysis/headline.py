"""The start page in numbers: each reward's accuracy by rank, its distance from full fine-tuning, its slope over rank.

A cell is read at the step that its validation split chose, or at its last where there is no such split.
"""

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from lrd.analysis import fair, sweep
from lrd.analysis.crossed import Contrast
from lrd.analysis.fair import FULL, Answers, Arm
from lrd.analysis.stats import Verdict, deposits_at_start
from lrd.results import Results


@dataclass(frozen=True)
class Line:
    """What a reward's cells say; None or NaN where too few of them are finished."""

    regime: str
    deposits: float  # an episode, at the first step
    base: float
    full: float
    ranks: dict[str, float]  # arm → pass@1
    lowest: Contrast | None  # the smallest rank, minus full fine-tuning; None where one of the two is off its rate
    pooled: Contrast | None  # the mean of all ranks, minus full fine-tuning
    slope: Contrast | None  # over log2 of the rank
    doublings: float  # from the smallest of those ranks to the largest
    verdicts: Counter[Verdict]  # of its ranks against full fine-tuning
    suffices: bool  # whether each rank is judged, and shown to lie less than the margin below full fine-tuning
    off_rate: tuple[float, float] | None  # of full fine-tuning: the rate that the sweep chose, and the one in use

    @property
    def rise(self) -> Contrast | None:
        """From the smallest rank to the largest, along the slope."""
        return self.slope and scaled(self.slope, self.doublings)


def measure(results: Results) -> str:
    """How a cell is read."""
    return fair.measures(results)[0]


def pooled(by_regime: Answers) -> dict[str, Contrast]:
    """Regime → the mean of all ranks minus full fine-tuning."""
    return {regime: contrast for (regime, _), contrast in fair.contrasts(fair.pooled(by_regime)).items()}


def scaled(contrast: Contrast, by: float) -> Contrast:
    """A multiple of a gap."""
    return Contrast(contrast.mean * by, tuple((part * by**2, freedom) for part, freedom in contrast.parts))


def lines(results: Results) -> list[Line]:
    """One a reward, in the order of their density."""
    found, off = fair.answers(results, measure(results)), sweep.off_rate(results.preset)
    compared, slopes, together = fair.comparisons(found, off), fair.slopes(found), pooled(found)
    smallest = {regime: c for (regime, arm), c in fair.contrasts(found).items() if arm == results.arms[0]}
    deposits, bases = deposits_at_start(results), results.finished.groupby("regime").base.mean()
    made = []
    for regime in results.regimes:
        arms = {arm: float(table.mean()) for arm, table in found.get(regime, {}).items()}
        ranks = {arm: mean for arm, mean in arms.items() if arm != FULL}
        numbers = [int(arm[1:]) for arm in ranks]
        line = Line(
            regime,
            deposits.get(regime, math.nan),
            float(bases.get(regime, math.nan)),
            arms.get(FULL, math.nan),
            ranks,
            None if off.keys() & {(regime, FULL), (regime, results.arms[0])} else smallest.get(regime),
            together.get(regime),
            slopes.get(regime),
            math.log2(max(numbers) / min(numbers)) if numbers else math.nan,
            Counter(compared[compared.regime == regime].verdict),
            _suffices(found, off, regime, len(results.arms) - 1),
            off.get((regime, FULL)),
        )
        made.append(line)
    return made


def _suffices(found: Answers, off: Collection[Arm], regime: str, ranks: int) -> bool:
    """No correction is due: all of the tests have to pass."""
    each = [key not in off and c.suffices() for key, c in fair.contrasts(found).items() if key[0] == regime]
    return (regime, FULL) not in off and len(each) == ranks > 0 and all(each)


def with_reading(results: Results) -> Results:
    """The same with a column `read` of `cells`: pass@1 of each as it is read."""
    if measure(results) == "final" or not len(results.finished):
        return replace(results, cells=results.cells.assign(read=results.cells.final))
    by_step = results.curves.set_index(["cell", "step"])["pass@1"]
    at = zip(results.cells.cell, results.cells.chosen_step)
    return replace(results, cells=results.cells.assign(read=[by_step.get(key, np.nan) for key in at]))
