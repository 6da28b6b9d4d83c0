"""The fair comparison in numbers: each arm against full fine-tuning, over several trainings of the student.

A cell is read at the step that its validation split chose, at its last step, by the area under its curve, and at every
step on the way. All answers are those of the test split, on which nothing was chosen.
"""

import numpy as np
import pandas as pd

from lrd.analysis import crossed
from lrd.analysis.crossed import Contrast
from lrd.results import Results

MEASURES = ("chosen", "final", "area")
FULL = "full"
WORLD = "training"  # the axis whose values are the trainings of the student

Answers = dict[str, dict[str, np.ndarray]]  # regime → arm → [students, seeds, problems], each in [0, 1]


def answers(results: Results, measure: str) -> Answers:
    """Answers of every arm whose cells are all finished, by `measure`: one of `MEASURES`, or a step's number."""
    evals = results.of_finished(results.evals).astype({"correct": float})
    if measure == "chosen":
        steps = results.finished.set_index("cell").chosen_step
        evals = evals[evals.step == evals.cell.map(steps)]
    elif measure == "final":
        evals = evals[evals.step == evals.groupby("cell").step.transform("max")]
    elif measure != "area":
        evals = evals[evals.step == int(measure)]
    by_step = evals.pivot_table(index="step", columns=["regime", "arm", WORLD, "seed", "problem"], values="correct")
    weights = _trapezoid(by_step.index.to_numpy(float)) if measure == "area" else None
    by_cell = by_step.mean() if weights is None else (by_step * weights[:, None]).sum(min_count=len(weights))
    worlds, seeds = (sorted(results.cells[name].unique()) for name in (WORLD, "seed"))
    by_regime: Answers = {}
    for regime in results.regimes:
        by_regime[regime] = {}
        for arm in results.arms:
            if (regime, arm) in by_cell.index.droplevel([2, 3, 4]):
                table = by_cell[regime, arm].unstack("problem")
                table = table.reindex(pd.MultiIndex.from_product([worlds, seeds]))
                if table.notna().all(axis=None):
                    by_regime[regime][arm] = table.to_numpy().reshape(len(worlds), len(seeds), -1)
    return by_regime


def _trapezoid(x: np.ndarray) -> np.ndarray:
    """Weights that make a weighted sum over `x` the mean under the curve."""
    if len(x) < 2:
        return np.ones(len(x))
    gaps = np.diff(x)
    return (np.append(gaps, 0) + np.append(0, gaps)) / 2 / (x[-1] - x[0])


def contrasts(by_regime: Answers) -> dict[tuple[str, str], Contrast]:
    """(regime, arm) → the arm minus full fine-tuning; without those that cannot be compared."""
    return {
        (regime, arm): contrast
        for regime, arms in by_regime.items()
        for arm, table in arms.items()
        if arm != FULL and FULL in arms and (contrast := crossed.contrast(table - arms[FULL]))
    }


def comparisons(by_regime: Answers) -> pd.DataFrame:
    """One row a regime and rank: its difference from full fine-tuning, interval, Holm's p over all rows, verdict."""
    by_arm = contrasts(by_regime)
    p = crossed.holm(by_arm)
    rows = [(*key, c.mean, *c.interval(), p[key], c.verdict(p=p[key])) for key, c in by_arm.items()]
    return pd.DataFrame(rows, columns=["regime", "arm", "difference", "low", "high", "p", "verdict"])


def slopes(by_regime: Answers) -> dict[str, Contrast]:
    """Regime → slope of pass@1 over log2 of the rank, where two ranks or more are there."""
    by_rank = {r: {int(arm[1:]): t for arm, t in arms.items() if arm != FULL} for r, arms in by_regime.items()}
    return {regime: slope for regime, tables in by_rank.items() if (slope := crossed.slope(tables))}


def curve(results: Results) -> pd.DataFrame:
    """One row a step, regime and rank: the difference from full fine-tuning at that step, with its interval."""
    rows = []
    for step in sorted(results.evals.step.unique()):
        for (regime, arm), c in contrasts(answers(results, str(step))).items():
            rows.append((step, regime, arm, c.mean, *c.interval()))
    return pd.DataFrame(rows, columns=["step", "regime", "arm", "difference", "low", "high"])
