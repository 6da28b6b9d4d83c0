"""What a review objected to, in numbers: the sign over measures and steps, students, late peaks, rates, capacity."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lrd.analysis import codebooks, fair, headline, law, onset, sweep
from lrd.analysis.bootstrap import Side
from lrd.analysis.codebooks import Rewards
from lrd.analysis.crossed import Contrast
from lrd.analysis.fair import ADAPTERS, FULL, WORLD
from lrd.results import Results, load

CAPACITY = {"law": "step", "law-ranks": "step", "law-long": "exposures", "law-small": "step"}  # and what their axis is


def by_measure(results: Results) -> dict[str, dict[str, Contrast]]:
    """Regime → measure → all ranks together minus full fine-tuning, where every measure has it."""
    found = {measure: headline.pooled(fair.answers(results, measure)) for measure in fair.measures(results)}
    return _by_regime(results, found)


def slopes(results: Results) -> dict[str, dict[str, Contrast]]:
    """Regime → measure → slope of pass@1 over log2 of the rank, where every measure has it."""
    found = {measure: fair.slopes(fair.answers(results, measure)) for measure in fair.measures(results)}
    return _by_regime(results, found)


def _by_regime(results: Results, found: dict[str, dict[str, Contrast]]) -> dict[str, dict[str, Contrast]]:
    return {
        regime: {measure: by_regime[regime] for measure, by_regime in found.items()}
        for regime in results.regimes
        if all(regime in by_regime for by_regime in found.values())
    }


def turned(results: Results) -> dict[str, list[int]]:
    """Regime → steps at which all ranks together lie on the other side of full fine-tuning than at the last."""
    curve = fair.curve(results)
    together = curve[curve.arm == ADAPTERS].pivot(index="step", columns="regime", values="difference")
    return {
        regime: [int(step) for step, gap in gaps.dropna().items() if gap * gaps.dropna().iloc[-1] < 0]
        for regime, gaps in ((regime, together[regime]) for regime in results.regimes if regime in together)
    }


@dataclass(frozen=True)
class Peaks:
    """Cells that collapse, and in how many of them the advantages' largest std comes after half of pass@1 is lost."""

    cells: int
    collapsed: int
    late: int
    median: float  # of the largest std, over the cells that collapse


def peaks(results: Results) -> Peaks:
    """Over the finished cells."""
    onsets = onset.onsets(results)
    fallen = onsets[onsets.collapse.notna()]
    steps = results.of_finished(results.steps)
    if not len(fallen):
        return Peaks(len(onsets), 0, 0, np.nan)
    largest = steps.loc[steps.groupby("cell").advantage_std.idxmax().dropna()].set_index("cell")
    by = np.array([collapse.by for collapse in fallen.collapse])
    late = int((fallen.cell.map(largest.step).to_numpy(float) > by).sum())
    return Peaks(len(onsets), len(fallen), late, float(fallen.cell.map(largest.advantage_std).median()))


def excluding_zero(results: Results) -> tuple[int, int, int]:
    """How many comparisons are judged; of how many the interval leaves zero out, alone and after Holm."""
    table = fair.comparisons(fair.answers(results, headline.measure(results)), sweep.off_rate(results.preset))
    table = table[table.p.notna()]
    single = (table.low > 0) | (table.high < 0)
    return len(table), int(single.sum()), int((table.p < 0.05).sum())


def by_student(results: Results) -> dict[str, np.ndarray]:
    """Regime → all ranks together minus full fine-tuning, one value a training of the student."""
    if WORLD not in results.axes:
        return {}
    together = fair.pooled(fair.answers(results, headline.measure(results)))
    return {regime: (arms[ADAPTERS] - arms[FULL]).mean((1, 2)) for regime, arms in together.items()}


def bases(results: Results) -> pd.Series:
    """pass@1 before training of each training of the student."""
    column = WORLD if WORLD in results.axes else "regime"
    return results.finished.groupby(column).base.mean()


Experiments = list[tuple[Rewards, str]]  # the capacity experiments' curves, and what their axis is


def experiments() -> Experiments:
    """The curves of each experiment in `CAPACITY`, in its order."""
    return [(codebooks.rewards(load(preset), at), at) for preset, at in CAPACITY.items()]


def capacity_sides(made: Experiments, at_equal_exposures: bool) -> tuple[int, int, int]:
    """Slopes of matching size over information in the capacity experiments: all, above zero, and below it."""
    sides = []
    for rewards, at in made:
        if at == "step" or at_equal_exposures:
            slope = law.growth_at_equal_exposures if at_equal_exposures and at == "step" else law.growth
            sides += [law.estimate(m, slope).against(0) for m in rewards.values()]
    return len(sides), sides.count(Side.ABOVE), sides.count(Side.BELOW)


def density_sides(made: Experiments) -> tuple[int, int, int]:
    """Ratios of the matching size, denser over sparser reward at equal bits: all, above one, and below it."""
    sides = [pair.at_bits.against(1) for rewards, _ in made for pair in law.pairs(rewards)]
    return len(sides), sides.count(Side.ABOVE), sides.count(Side.BELOW)
