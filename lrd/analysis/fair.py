"""The fair comparison in numbers: each arm against full fine-tuning, over several trainings of the student.

A cell is read at the step that its validation split chose, at its last step, by the area under its curve, and at every
step on the way. All answers are those of the test split, on which nothing was chosen.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lrd.analysis import crossed
from lrd.analysis.crossed import Contrast
from lrd.analysis.stats import Verdict
from lrd.analysis.sweep import WORLD, Arm
from lrd.results import Results

MEASURES = ("chosen", "final", "area")
FULL = "full"
ADAPTERS = "adapters"  # the mean of all of them, as an arm

# regime → arm → [students, seeds, problems], or [seeds, problems] of a study with one student; each in [0, 1]
Answers = dict[str, dict[str, np.ndarray]]


def measures(results: Results) -> tuple[str, ...]:
    """Those of `MEASURES` that the study has: without a validation split no step is chosen."""
    return tuple(m for m in MEASURES if m != "chosen" or "chosen_step" in results.cells)


def samples(results: Results) -> dict[str, list[Any]]:
    """What cells of an arm are samples of, students where there are several and seeds, and which there are."""
    return {name: sorted(results.cells[name].unique()) for name in (WORLD, "seed") if name in results.cells}


def answers(results: Results, measure: str) -> Answers:
    """Answers of every arm whose cells are all finished, by `measure`: one of `MEASURES`, or a step's number."""
    levels = samples(results)
    every = pd.MultiIndex.from_product(levels.values()) if len(levels) > 1 else pd.Index(levels["seed"])
    by_regime: Answers = {regime: {} for regime in results.regimes}
    by_arm: Any = by_cell(results, measure).groupby(["regime", "arm"])
    for (regime, arm), table in by_arm:
        table = table.droplevel(["regime", "arm"]).dropna(axis=1, how="all").reindex(every)
        if table.notna().all(axis=None):
            by_regime[regime][arm] = table.to_numpy().reshape(*map(len, levels.values()), -1)
    return {regime: {arm: arms[arm] for arm in results.arms if arm in arms} for regime, arms in by_regime.items()}


def by_cell(results: Results, measure: str) -> pd.DataFrame:
    """A row a finished cell (regime, arm and `samples`), a column a problem; NaN where the measure is not known."""
    evals = results.of_finished(results.evals).astype({"correct": float})
    keys = ["regime", "arm", *samples(results), "problem"]
    if measure == "area":
        by_step = evals.pivot_table(index="step", columns=keys, values="correct")
        weights = _trapezoid(by_step.index.to_numpy(float))
        return (by_step * weights[:, None]).sum(min_count=len(weights)).unstack("problem")
    if measure == "chosen":
        steps = results.finished.set_index("cell").reindex(columns=["chosen_step"]).chosen_step
        evals = evals[evals.step == evals.cell.map(steps)]
    elif measure == "final":
        evals = evals[evals.step == evals.groupby("cell").step.transform("max")]
    else:
        evals = evals[evals.step == int(measure)]
    return evals.groupby(keys).correct.mean().unstack("problem")


def _trapezoid(x: np.ndarray) -> np.ndarray:
    """Weights that make a weighted sum over `x` the mean under the curve."""
    if len(x) < 2:
        return np.ones(len(x))
    gaps = np.diff(x)
    return (np.append(gaps, 0) + np.append(0, gaps)) / 2 / (x[-1] - x[0])


def pooled(by_regime: Answers) -> Answers:
    """All adapters as one arm, their mean, beside full fine-tuning; where there is more than that one arm."""
    return {
        regime: {ADAPTERS: np.mean(adapters, axis=0), FULL: arms[FULL]}
        for regime, arms in by_regime.items()
        if FULL in arms and (adapters := [table for arm, table in arms.items() if arm != FULL])
    }


def contrasts(by_regime: Answers) -> dict[Arm, Contrast]:
    """(regime, arm) → the arm minus full fine-tuning; without those that cannot be compared."""
    return {
        (regime, arm): contrast
        for regime, arms in by_regime.items()
        for arm, table in arms.items()
        if arm != FULL
        and FULL in arms
        and table.shape == arms[FULL].shape
        and (contrast := crossed.contrast(table - arms[FULL]))
    }


def comparisons(by_regime: Answers, off_rate: Collection[Arm] = ()) -> pd.DataFrame:
    """One row a regime and rank: its difference from full fine-tuning, interval, Holm's p over all rows, verdict.

    An arm of `off_rate` (`sweep.off_rate`) did not train at the rate that its sweep chose. A comparison that it is
    part of is not judged, and has no p; the others are corrected for as many comparisons as if it were. `half` is the
    interval's half-width, `least_margin` the smallest margin at which the equivalence test passes.
    """
    by_arm = contrasts(by_regime)
    judged = {key: c for key, c in by_arm.items() if key not in off_rate and (key[0], FULL) not in off_rate}
    p = crossed.holm(judged, len(by_arm))
    verdicts = {key: c.verdict(p=p[key]) for key, c in judged.items()}
    rows = [
        (
            *key,
            c.mean,
            *c.interval(),
            p.get(key, np.nan),
            verdicts.get(key, Verdict.UNJUDGED),
            c.half(),
            c.least_margin(),
        )
        for key, c in by_arm.items()
    ]
    columns = ["regime", "arm", "difference", "low", "high", "p", "verdict", "half", "least_margin"]
    return pd.DataFrame(rows, columns=columns)


def brought(plain: Results, changed: Results, measure: str) -> dict[Arm, Contrast]:
    """(regime, arm) → `changed` minus `plain`, of arms that both have with the same students, seeds and problems."""
    before, after = (answers(results, measure) for results in (plain, changed))
    return {
        (regime, arm): contrast
        for regime, arms in after.items()
        for arm, table in arms.items()
        if table.shape == np.shape(before.get(regime, {}).get(arm))
        and (contrast := crossed.contrast(table - before[regime][arm]))
    }


def slopes(by_regime: Answers) -> dict[str, Contrast]:
    """Regime → slope of pass@1 over log2 of the rank, where two ranks or more are there."""
    by_rank = {r: {int(arm[1:]): t for arm, t in arms.items() if arm != FULL} for r, arms in by_regime.items()}
    return {regime: slope for regime, tables in by_rank.items() if (slope := crossed.slope(tables))}


def curve(results: Results) -> pd.DataFrame:
    """One row a step, regime and rank, or `ADAPTERS`: the difference from full fine-tuning there, with its interval."""
    rows = []
    for step in sorted(results.evals.step.unique()):
        by_regime = answers(results, str(step))
        for (regime, arm), c in (contrasts(by_regime) | contrasts(pooled(by_regime))).items():
            rows.append((step, regime, arm, c.mean, *c.interval()))
    return pd.DataFrame(rows, columns=["step", "regime", "arm", "difference", "low", "high"])


@dataclass(frozen=True)
class Compared:
    """A study's comparisons and slopes, by measure, and its arms off their rate: (chosen by the sweep, in use)."""

    tables: dict[str, pd.DataFrame]
    slopes: dict[str, dict[str, Contrast]]
    off_rate: Mapping[Arm, tuple[float, float]]


def compared(results: Results, off_rate: Mapping[Arm, tuple[float, float]]) -> Compared:
    """By every measure that the study has."""
    found = {measure: answers(results, measure) for measure in measures(results)}
    tables = {measure: comparisons(by_regime, off_rate) for measure, by_regime in found.items()}
    return Compared(tables, {measure: slopes(by_regime) for measure, by_regime in found.items()}, off_rate)


def at_chosen(results: Results) -> pd.Series:
    """Finished cell → its test split's pass@1 at the step that its validation split chose; empty without one."""
    if "chosen_step" not in results.cells:
        return pd.Series(dtype=float)
    steps = results.finished.set_index("cell").chosen_step
    curves = results.of_finished(results.curves)
    return curves[curves.step == curves.cell.map(steps)].set_index("cell")["pass@1"].astype(float)


def gains(results: Results) -> dict[str, float]:
    """Regime → what full fine-tuning gains of pass@1 from its base to its last step, mean over its finished cells."""
    full = results.finished[results.finished.arm == FULL]
    return (full.final - full.base).groupby(full.regime, sort=False).mean().dropna().to_dict()
